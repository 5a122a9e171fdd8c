#include <fmt/format.h>
#include <nmmintrin.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>
#include <system_error>

#include "terrace/tier/disk/format_internal.h"

namespace terrace::tier::disk {

namespace {
static_assert(std::endian::native == std::endian::little,
              "records are stored as they lie in memory");

constexpr char kVolumeMagic[8] = {'T', 'E', 'R', 'R', 'D', 'I', 'S', 'K'};
constexpr char kAccountMagic[8] = {'T', 'E', 'R', 'R', 'W', 'E', 'A', 'R'};
constexpr char kLearnedMagic[8] = {'T', 'E', 'R', 'R', 'L', 'R', 'N', 'D'};
constexpr char kMetaMagic[8] = {'T', 'E', 'R', 'R', 'M', 'E', 'T', 'A'};

struct VolumePage {
  char magic[8];
  std::uint32_t version;
  std::uint32_t crc;  // Of the page with this field 0.
  std::uint64_t extent_bytes;
  std::int64_t created_seconds;
};
struct MetaPage {
  char magic[8];
  std::uint32_t version;
  std::uint32_t crc;
  std::uint32_t epoch;
  std::uint32_t groups;
  std::uint32_t run_slots;
  std::uint32_t run_extents;
  std::uint64_t generation;
  std::uint64_t era;
  std::uint64_t doubt;
};
struct AccountPage {
  char magic[8];
  std::uint32_t version;
  std::uint32_t crc;
  std::int64_t wall_seconds;
  std::int64_t level;
  std::uint64_t set;
  std::uint32_t copies;  // 0 with set 0.
  std::uint32_t reserved;
};
struct LearnedPage {
  char magic[8];
  std::uint32_t version;
  std::uint32_t crc;
  std::uint64_t number;
  std::uint32_t bytes;
  std::uint32_t payload;
};
struct ExtentBytes {
  std::uint32_t name_space;
  std::uint32_t first;
  std::uint32_t count;
  std::uint32_t extent;
  std::uint64_t stamp;
  std::uint32_t reserved;
  std::uint32_t crc;
};
static_assert(sizeof(ExtentBytes) == kExtentRecordBytes);
struct SlotBytes {
  std::uint64_t hash_high;
  std::uint64_t hash_low;
  std::uint64_t alias;
  std::uint64_t sequence;
  std::uint64_t stamp;
  std::uint32_t generation;
  std::uint32_t epoch;
  std::uint32_t name_space;
  std::uint16_t group;
  std::uint16_t state;
  std::uint32_t slot;
  std::uint32_t crc;
};
static_assert(sizeof(SlotBytes) == kSlotRecordBytes);

template <typename T>
std::uint32_t crc_but_last(const T& value) {
  return crc32c(std::as_bytes(std::span(&value, 1)).first(sizeof(T) - sizeof(std::uint32_t)));
}

// `Page` has magic, version and crc; the crc covers the whole page with the crc field zero.
template <typename Page>
void put_page(Page header, const char (&magic)[8], std::span<std::byte, kPageBytes> page) {
  std::memset(page.data(), 0, page.size());
  std::memcpy(header.magic, magic, sizeof header.magic);
  header.version = kFormatVersion;
  header.crc = 0;
  std::memcpy(page.data(), &header, sizeof header);
  header.crc = crc32c(page);
  std::memcpy(page.data(), &header, sizeof header);
}

template <typename Page>
std::uint32_t page_crc(const Page& header, std::span<const std::byte, kPageBytes> page) {
  std::byte copy[kPageBytes];
  std::memcpy(copy, page.data(), sizeof copy);
  Page blank = header;
  blank.crc = 0;
  std::memcpy(copy, &blank, sizeof blank);
  return crc32c(copy);
}
}  // namespace

std::uint32_t crc32c(std::span<const std::byte> bytes) {
  std::uint64_t crc = 0xFFFFFFFFU;
  std::size_t at = 0;
  for (; at + 8 <= bytes.size(); at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data() + at, 8);
    crc = _mm_crc32_u64(crc, word);
  }
  auto tail = static_cast<std::uint32_t>(crc);
  if (at + 4 <= bytes.size()) {
    std::uint32_t word = 0;
    std::memcpy(&word, bytes.data() + at, 4);
    tail = _mm_crc32_u32(tail, word);
    at += 4;
  }
  for (; at < bytes.size(); ++at) tail = _mm_crc32_u8(tail, static_cast<unsigned char>(bytes[at]));
  return ~tail;
}

void encode(const VolumeHeader& header, std::span<std::byte, kPageBytes> page) {
  VolumePage bytes{};
  bytes.extent_bytes = header.extent_bytes;
  bytes.created_seconds = header.created_seconds;
  put_page(bytes, kVolumeMagic, page);
}

Result<VolumeHeader> decode_volume(std::span<const std::byte, kPageBytes> page) {
  VolumePage bytes;
  std::memcpy(&bytes, page.data(), sizeof bytes);
  if (std::memcmp(bytes.magic, kVolumeMagic, sizeof bytes.magic) != 0) {
    return fail(Code::kCorrupt, "field magic: not a Terrace disk header");
  }
  // The version stands before the check: a newer format may be summed differently.
  if (bytes.version > kFormatVersion) {
    return fail(Code::kRefused, fmt::format("written by a newer Terrace (disk format {}, this one "
                                            "reads up to {})",
                                            bytes.version, kFormatVersion));
  }
  if (bytes.crc != page_crc(bytes, page)) {
    return fail(Code::kCorrupt, "the header's checksum does not match");
  }
  if (bytes.version == 0) {
    return fail(Code::kCorrupt, "field version: 0, which no Terrace writes; damaged or foreign");
  }
  if (!std::has_single_bit(bytes.extent_bytes) || bytes.extent_bytes < kLeastExtentBytes ||
      bytes.extent_bytes > kMostExtentBytes) {
    return fail(Code::kCorrupt,
                fmt::format("field extent_bytes: {}, not a power of two from {} to {}; damaged or "
                            "foreign",
                            bytes.extent_bytes, kLeastExtentBytes, kMostExtentBytes));
  }
  return VolumeHeader{bytes.extent_bytes, bytes.created_seconds};
}

void encode(const ExtentRecord& record, std::uint32_t extent,
            std::span<std::byte, kExtentRecordBytes> target) {
  ExtentBytes bytes{record.name_space, record.first, record.count, extent, record.stamp, 0, 0};
  bytes.crc = crc_but_last(bytes);
  std::memcpy(target.data(), &bytes, sizeof bytes);
}

std::optional<ExtentRecord> decode_extent(std::span<const std::byte, kExtentRecordBytes> source,
                                          std::uint32_t extent) {
  ExtentBytes bytes;
  std::memcpy(&bytes, source.data(), sizeof bytes);
  if (bytes.crc != crc_but_last(bytes) || bytes.extent != extent) return std::nullopt;
  return ExtentRecord{bytes.name_space, bytes.first, bytes.count, bytes.stamp};
}

void encode(const MetaHeader& header, std::span<std::byte, kPageBytes> page) {
  MetaPage bytes{};
  bytes.epoch = header.epoch;
  bytes.groups = header.groups;
  bytes.run_slots = header.run_slots;
  bytes.run_extents = header.run_extents;
  bytes.generation = header.generation;
  bytes.era = header.era;
  bytes.doubt = header.is_in_doubt ? 1 : 0;
  put_page(bytes, kMetaMagic, page);
}

std::optional<MetaHeader> decode_meta(std::span<const std::byte, kPageBytes> page) {
  MetaPage bytes;
  std::memcpy(&bytes, page.data(), sizeof bytes);
  if (std::memcmp(bytes.magic, kMetaMagic, sizeof bytes.magic) != 0 ||
      bytes.version != kFormatVersion || bytes.crc != page_crc(bytes, page)) {
    return std::nullopt;
  }
  return MetaHeader{bytes.epoch,      bytes.groups, bytes.run_slots, bytes.run_extents,
                    bytes.generation, bytes.era,    bytes.doubt != 0};
}

void encode(const WriteAccount& account, std::span<std::byte, kPageBytes> page) {
  put_page(AccountPage{{},
                       0,
                       0,
                       account.wall_seconds,
                       account.level,
                       account.set,
                       account.set == 0 ? 0 : account.copies,
                       0},
           kAccountMagic, page);
}

std::optional<WriteAccount> decode_account(std::span<const std::byte, kPageBytes> page) {
  AccountPage bytes;
  std::memcpy(&bytes, page.data(), sizeof bytes);
  if (std::memcmp(bytes.magic, kAccountMagic, sizeof bytes.magic) != 0 ||
      bytes.version != kFormatVersion || bytes.crc != page_crc(bytes, page) ||
      (bytes.set == 0) != (bytes.copies == 0)) {
    return std::nullopt;
  }
  return WriteAccount{bytes.wall_seconds, bytes.level, bytes.set,
                      bytes.set == 0 ? 1 : bytes.copies};
}

void encode(const LearnedHeader& header, std::span<std::byte, kPageBytes> page) {
  put_page(LearnedPage{{}, 0, 0, header.number, header.bytes, header.payload}, kLearnedMagic, page);
}

std::optional<LearnedHeader> decode_learned(std::span<const std::byte, kPageBytes> page) {
  LearnedPage bytes;
  std::memcpy(&bytes, page.data(), sizeof bytes);
  if (std::memcmp(bytes.magic, kLearnedMagic, sizeof bytes.magic) != 0 ||
      bytes.version != kFormatVersion || bytes.crc != page_crc(bytes, page) || bytes.number == 0 ||
      bytes.bytes == 0 || bytes.bytes > kLearnedRoom) {
    return std::nullopt;
  }
  return LearnedHeader{bytes.number, bytes.bytes, bytes.payload};
}

std::string used_text(std::int64_t seconds) { return fmt::format("{}\n", seconds); }

std::int64_t used_seconds_of(std::string_view text) {
  std::int64_t seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc()) return 0;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return text == "\n" ? std::max<std::int64_t>(seconds, 0) : 0;
}

void encode(const SlotRecord& record, std::uint32_t slot,
            std::span<std::byte, kSlotRecordBytes> target) {
  SlotBytes bytes{record.hash.high,
                  record.hash.low,
                  record.alias,
                  record.sequence,
                  record.stamp,
                  record.generation,
                  record.epoch,
                  record.name_space,
                  record.group,
                  record.key_tag ? static_cast<std::uint16_t>(kEncryptedState | *record.key_tag)
                                 : static_cast<std::uint16_t>(record.state),
                  slot,
                  0};
  bytes.crc = crc_but_last(bytes);
  std::memcpy(target.data(), &bytes, sizeof bytes);
}

DecodedSlot decode_slot(std::span<const std::byte, kSlotRecordBytes> source, std::uint32_t slot) {
  SlotBytes bytes;
  std::memcpy(&bytes, source.data(), sizeof bytes);
  if (bytes.crc != crc_but_last(bytes) || bytes.slot != slot) {
    const bool is_blank =
        std::all_of(source.begin(), source.end(), [](std::byte b) { return b == std::byte{0}; });
    return {is_blank ? RecordCheck::kAbsent : RecordCheck::kDamaged, {}};
  }
  std::optional<std::uint16_t> key_tag;
  auto state = static_cast<RecordState>(bytes.state);
  if ((bytes.state & kEncryptedState) != 0) {
    key_tag = static_cast<std::uint16_t>(bytes.state & ~kEncryptedState);
    state = RecordState::kSealed;
  }
  if (state != RecordState::kSealed && state != RecordState::kVoid) {
    return {RecordCheck::kDamaged, {}};
  }
  return {RecordCheck::kGood,
          {{bytes.hash_high, bytes.hash_low},
           bytes.alias,
           bytes.sequence,
           bytes.stamp,
           bytes.generation,
           bytes.epoch,
           bytes.name_space,
           bytes.group,
           state,
           key_tag}};
}

}  // namespace terrace::tier::disk
