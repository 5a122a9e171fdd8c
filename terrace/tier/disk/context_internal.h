// What reader, writer and allocator of one disk tier share. Plain wiring, no logic of its own.
// Threading: the I/O thread's, except where a part says otherwise.
#pragma once

#include <array>
#include <cstdlib>
#include <memory>
#include <vector>

#include "terrace/base/check.h"
#include "terrace/base/log_limit.h"
#include "terrace/base/metric.h"
#include "terrace/tier/disk/disk_tier.h"
#include "terrace/tier/disk/health_internal.h"
#include "terrace/tier/disk/looker_internal.h"
#include "terrace/tier/disk/slots_internal.h"
#include "terrace/tier/disk/volume_internal.h"
#include "terrace/transfer/queue.h"
#include "terrace/wire/frame.h"

namespace terrace::tier::disk {

// What a transfer belongs to, packed into its token.
enum class Purpose : std::uint8_t {
  kReadFrame = 1,
  kWriteFrame,
  kDataSync,
  kMetaWrite,
  kMetaSync,
  kAllocate,
  kZeroFill,
  kLoad,
  kSealFrame,  // Not transfers: cipher work.
  kOpenFrame,
  kAccountWrite,
  kAccountSync,
  kLearnedWrite,
  kLearnedSync,
  kScrub,
  kCheck
};
inline constexpr std::size_t kPurposeCount = 17;  // With 0, which is none.
struct Ticket {
  Purpose purpose = Purpose::kReadFrame;
  std::uint16_t rank = 0;    // Frames.
  std::uint32_t number = 0;  // Of frames the operation, else the volume.
  [[nodiscard]] std::uint64_t token() const {
    return static_cast<std::uint64_t>(purpose) << 56U | static_cast<std::uint64_t>(rank) << 32U |
           number;
  }
  static Ticket of(std::uint64_t token) {
    return {static_cast<Purpose>(token >> 56U), static_cast<std::uint16_t>(token >> 32U),
            static_cast<std::uint32_t>(token)};
  }
};

struct Meters {
  Counter read_blocks, read_bytes, written_blocks, written_bytes;
  Counter corrupt_blocks;  // Frames that did not match at a read.
  Counter locked_blocks;   // Reads that found a frame of another key, or a plain one.
  Counter late_reads;
  Counter dropped_full_queue, dropped_no_slot, dropped_full_medium, dropped_unavailable;
  Counter dropped_budget;
  Counter batches;          // Group writes of records.
  Counter damaged_records;  // Of slots.meta and extents.meta, at start.
  Counter damaged_texts;    // fingerprint.txt of a namespace, at start.
  Counter adopted_blocks;
  Counter scrub_good, scrub_bad, scrub_skipped, scrub_bytes, scrub_passes;
};

void visit(const Meters& meters, const transfer::Backend::Counters& io, const Slots& slots,
           const FrameCrypt& crypt, MetricVisitor& visitor);

// 4 KiB aligned pages for frame headers in flight, all from the start.
class Pages {
 public:
  explicit Pages(std::size_t count)
      : memory_(static_cast<std::byte*>(std::aligned_alloc(kPageBytes, count * kPageBytes))) {
    TERRACE_CHECK(memory_ != nullptr);
    for (std::size_t i = 0; i < count; ++i) free_.push_back(memory_.get() + i * kPageBytes);
  }
  // Null when all are in use.
  [[nodiscard]] std::byte* take() {
    if (free_.empty()) return nullptr;
    std::byte* const page = free_.back();
    free_.pop_back();
    return page;
  }
  void give(std::byte* page) { free_.push_back(page); }

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  std::vector<std::byte*> free_;
};

struct Context {
  const DiskTier::Options& options;
  const Clock& clock;
  LogSink& log;
  LogLimit& corrupt_log;  // A disk that rots has many corrupt blocks.
  std::vector<std::unique_ptr<Volume>>& volumes;
  Slots& slots;
  Health& health;
  transfer::Queue& queue;
  Pages& pages;
  Meters& meters;
  FrameCrypt& crypt;
  Lookers& lookers;
  std::array<std::uint8_t, 32> content_digest{};
  std::array<std::uint8_t, 32> layout_digest{};
  // Stands for the content in frames from a reset on: of this process alone, and written nowhere
  // but there. So no other owner ever asks for what they hold.
  std::array<std::uint8_t, 32> session_digest{};
  std::vector<std::string> missing_keys{};  // Ids, as the frames that were looked at have them.
  std::uint64_t next_sequence = 1;          // Of records and claims, over all volumes.

  [[nodiscard]] std::size_t ranks() const { return options.layout.ranks; }
  // The queue is sized for everything that can be under way: a refusal is a broken invariant.
  void push(std::uint32_t volume, transfer::Transfer& transfer) {
    transfer.volume = volume;
    const Status status = queue.push(transfer);
    TERRACE_CHECK(status.is_ok());
  }
  // Ranks, sizes and alignment as the layout has them.
  [[nodiscard]] Status check(std::size_t group, std::span<const ShardMemory> shards) const;
  // `epoch`: of the block, as Slots count it.
  [[nodiscard]] wire::FrameHeader header(std::uint32_t volume, std::size_t group,
                                         const SequenceHash& hash, std::size_t rank,
                                         std::uint32_t generation, std::uint32_t epoch) const;
};

}  // namespace terrace::tier::disk
