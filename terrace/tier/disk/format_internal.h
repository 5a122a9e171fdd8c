// The fixed-size records of an owner directory, byte by byte as docs/formats/disk.md describes
// them. Threading: pure functions on values.  Waits: never. Every record carries a CRC-32C over the
// rest of itself; one that does not match is as good as absent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "terrace/base/status.h"
#include "terrace/block/sequence_hash.h"

namespace terrace::tier::disk {

inline constexpr std::uint32_t kFormatVersion = 1;
inline constexpr std::size_t kPageBytes = 4096;

// Extents are powers of two in this range; a header that says otherwise is not ours.
inline constexpr std::uint64_t kLeastExtentBytes = 64ULL << 10U;
inline constexpr std::uint64_t kMostExtentBytes = 64ULL << 20U;

// First page of extents.meta.
struct VolumeHeader {
  std::uint64_t extent_bytes = 0;
  std::int64_t created_seconds = 0;
};
void encode(const VolumeHeader& header, std::span<std::byte, kPageBytes> page);
// Errors: kCorrupt = not ours or damaged, and the field that says so; kRefused = written by a newer
// Terrace.
[[nodiscard]] Result<VolumeHeader> decode_volume(std::span<const std::byte, kPageBytes> page);

// One extent's owner. Extents of one run carry the same first, count and stamp.
struct ExtentRecord {
  std::uint32_t name_space = 0;  // The namespace's number in this volume; 0 = free.
  std::uint32_t first = 0;       // First extent of the run.
  std::uint32_t count = 0;       // Extents of the run.
  std::uint64_t stamp = 0;       // Of the claim; slot records made under another one are void.
  friend bool operator==(const ExtentRecord&, const ExtentRecord&) = default;
};
inline constexpr std::size_t kExtentRecordBytes = 32;
void encode(const ExtentRecord& record, std::uint32_t extent,
            std::span<std::byte, kExtentRecordBytes> target);
// Nothing when the bytes are damaged, never written, or those of another extent.
[[nodiscard]] std::optional<ExtentRecord> decode_extent(
    std::span<const std::byte, kExtentRecordBytes> source, std::uint32_t extent);

// First and second page of slots.meta; the valid one with the higher epoch counts.
struct MetaHeader {
  std::uint32_t epoch = 0;  // Records of another epoch are void.
  std::uint32_t groups = 0;
  std::uint32_t run_slots = 0;
  std::uint32_t run_extents = 0;
  // The last reset of the namespace, over all its directories: where another one has a newer one,
  // no record here counts. 0 = none; so in what earlier versions wrote.
  std::uint64_t generation = 0;
  // In every frame that records of this epoch name. Random, drawn with each epoch: frames of
  // another one differ from these even where an epoch's number comes again. 0 = none yet, so in
  // what earlier versions wrote.
  std::uint64_t era = 0;
  // A sync of records or claims failed: the system may show what the medium has not, and no later
  // sync makes up for it. In either copy; who opens the file writes it all anew.
  bool is_in_doubt = false;
  friend bool operator==(const MetaHeader&, const MetaHeader&) = default;
};
inline constexpr std::size_t kMetaHeaderCopies = 2;
inline constexpr std::size_t kRecordsOffset = kMetaHeaderCopies * kPageBytes;
void encode(const MetaHeader& header, std::span<std::byte, kPageBytes> page);
[[nodiscard]] std::optional<MetaHeader> decode_meta(std::span<const std::byte, kPageBytes> page);

enum class RecordState : std::uint16_t { kSealed = 1, kVoid = 2 };
// Added to a key's tag: sealed, and encrypted with such a key.
inline constexpr std::uint16_t kEncryptedState = 0x8000;

// One slot of one group. 64 bytes: eight to a sector, so none is ever torn by a sector write.
struct SlotRecord {
  SequenceHash hash;
  std::uint64_t alias = 0;
  std::uint64_t sequence = 0;  // Order of writing, for the eviction order after a restart.
  std::uint64_t stamp = 0;
  std::uint32_t generation = 0;
  std::uint32_t epoch = 0;
  std::uint32_t name_space = 0;
  std::uint16_t group = 0;
  RecordState state = RecordState::kVoid;
  std::optional<std::uint16_t> key_tag;  // kSealed only; none = not encrypted.
  friend bool operator==(const SlotRecord&, const SlotRecord&) = default;
};
inline constexpr std::size_t kSlotRecordBytes = 64;
void encode(const SlotRecord& record, std::uint32_t slot,
            std::span<std::byte, kSlotRecordBytes> target);
enum class RecordCheck : std::uint8_t { kGood, kAbsent, kDamaged };
struct DecodedSlot {
  RecordCheck check = RecordCheck::kAbsent;  // kAbsent: all zeros, never written.
  SlotRecord record;
};
[[nodiscard]] DecodedSlot decode_slot(std::span<const std::byte, kSlotRecordBytes> source,
                                      std::uint32_t slot);

// used.txt: when the namespace was opened last, in seconds since 1970.
[[nodiscard]] std::string used_text(std::int64_t seconds);
// 0 = `text` is not what used_text() makes of a number above 0.
[[nodiscard]] std::int64_t used_seconds_of(std::string_view text);

// The one page of writes.meta: what disk.write_budget and disk.dwpd left at some moment. Each of an
// owner's directories has a copy; those that are kept together name the same set.
struct WriteAccount {
  std::int64_t wall_seconds = 0;  // Since 1970.
  std::int64_t level = 0;         // Bytes; below 0 = debt.
  std::uint64_t set = 0;          // 0 = of an earlier version, in the first directory alone.
  std::uint32_t copies = 1;       // Of the set.
  friend bool operator==(const WriteAccount&, const WriteAccount&) = default;
};
void encode(const WriteAccount& account, std::span<std::byte, kPageBytes> page);
[[nodiscard]] std::optional<WriteAccount> decode_account(
    std::span<const std::byte, kPageBytes> page);

// First page of each half of learned.meta; of the whole halves the higher number counts.
struct LearnedHeader {
  std::uint64_t number = 0;   // From 1 on.
  std::uint32_t bytes = 0;    // What follows the page,
  std::uint32_t payload = 0;  // and its CRC-32C.
  friend bool operator==(const LearnedHeader&, const LearnedHeader&) = default;
};
inline constexpr std::size_t kLearnedHalves = 2;
inline constexpr std::size_t kLearnedHalfBytes = 256U << 10U;
inline constexpr std::size_t kLearnedRoom = kLearnedHalfBytes - kPageBytes;
void encode(const LearnedHeader& header, std::span<std::byte, kPageBytes> page);
[[nodiscard]] std::optional<LearnedHeader> decode_learned(
    std::span<const std::byte, kPageBytes> page);

// CRC-32C (RFC 3720, Castagnoli), by the CPU's instruction.
[[nodiscard]] std::uint32_t crc32c(std::span<const std::byte> bytes);

}  // namespace terrace::tier::disk
