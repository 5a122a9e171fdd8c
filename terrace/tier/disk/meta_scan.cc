#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <vector>

#include "terrace/base/file.h"
#include "terrace/tier/disk/meta_scan_internal.h"

namespace terrace::tier::disk {

namespace {

// A header that asks for more is damaged, whatever its checksum says.
constexpr std::uint32_t kMostRunSlots = 1U << 24U;
constexpr std::uint32_t kMostGroups = 1024;
constexpr std::uint64_t kPieceRecords = 32768;  // 2 MiB.

// Short at the end of the file.
std::size_t read_at(int file, std::span<std::byte> target, std::uint64_t offset) {
  std::size_t done = 0;
  while (done < target.size()) {
    const ssize_t got = ::pread(file, target.data() + done, target.size() - done,
                                static_cast<off_t>(offset + done));
    if (got <= 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

std::optional<MetaHeader> read_header(int file) {
  std::optional<MetaHeader> best;
  for (std::size_t copy = 0; copy < kMetaHeaderCopies; ++copy) {
    std::array<std::byte, kPageBytes> page{};
    (void)read_at(file, page, copy * kPageBytes);
    const auto header = decode_meta(page);
    if (header && (!best || header->epoch > best->epoch)) best = header;
  }
  return best;
}

struct Run {
  std::uint32_t number = 0;
  std::uint64_t stamp = 0;
  std::uint32_t name_space = 0;
};

bool is_possible(const MetaHeader& header) {
  return header.run_extents > 0 && header.run_slots <= kMostRunSlots && header.groups > 0 &&
         header.groups <= kMostGroups;
}

// A header may ask for far more records than there are bytes in the file: they are read in pieces.
bool scan_run(int file, const MetaHeader& header, const Run& run, MetaScan& scan,
              const std::function<bool(const SealedSlot&)>& visit,
              const std::function<void(std::uint64_t)>& visit_damaged) {
  const std::uint64_t count = static_cast<std::uint64_t>(header.run_slots) * header.groups;
  const std::uint64_t first = run.number * count;
  std::vector<std::byte> piece(std::min(count, kPieceRecords) * kSlotRecordBytes);
  std::uint64_t begin = 0;  // Of the piece, in records of the run; and its end.
  std::uint64_t ready = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    if (i == ready) {
      const std::size_t wanted = std::min(count - i, kPieceRecords) * kSlotRecordBytes;
      const std::size_t got = read_at(file, std::span(piece).first(wanted),
                                      kRecordsOffset + (first + i) * kSlotRecordBytes);
      begin = i;
      ready += got / kSlotRecordBytes;
      if (i == ready) break;
    }
    const std::size_t at = (i - begin) * kSlotRecordBytes;
    const auto slot = static_cast<std::uint32_t>((first + i) / header.groups);
    const auto decoded =
        decode_slot(std::span<const std::byte>(piece).subspan(at).first<kSlotRecordBytes>(), slot);
    if (decoded.check == RecordCheck::kDamaged) {
      ++scan.damaged;
      if (visit_damaged) visit_damaged(kRecordsOffset + (first + i) * kSlotRecordBytes);
    }
    const SlotRecord& record = decoded.record;
    const bool counts = decoded.check == RecordCheck::kGood &&
                        record.state == RecordState::kSealed && record.stamp == run.stamp &&
                        record.epoch == header.epoch && record.name_space == run.name_space;
    if (!counts) continue;
    if (!visit({record, slot, slot % header.run_slots == 0, run.number * header.run_extents,
                header.era})) {
      return false;
    }
  }
  scan.missing += count - ready;
  return true;
}

}  // namespace

std::optional<MetaHeader> read_meta_header(const std::string& directory, const std::string& name) {
  const auto file = open_regular_file(directory + "/" + name + "/slots.meta", O_RDONLY);
  if (!file) return std::nullopt;
  const auto header = read_header(file->get());
  return header && is_possible(*header) ? header : std::nullopt;
}

std::optional<MetaScan> scan_meta(const std::string& directory, const std::string& name,
                                  std::uint32_t number, const ExtentTable& table,
                                  const std::function<bool(const SealedSlot&)>& visit,
                                  const std::function<void(std::uint64_t)>& visit_damaged,
                                  const std::function<void(std::uint32_t)>& visit_run) {
  const auto file = open_regular_file(directory + "/" + name + "/slots.meta", O_RDONLY);
  if (!file) return std::nullopt;
  const auto header = read_header(file->get());
  if (!header || !is_possible(*header)) return std::nullopt;
  MetaScan scan{.epoch = header->epoch, .generation = header->generation, .era = header->era};
  for (std::uint32_t extent = 0; extent < table.size();) {
    const ExtentRecord& record = table[extent];
    if (record.name_space != number || record.count != header->run_extents ||
        extent % header->run_extents != 0) {
      ++extent;
      continue;
    }
    if (visit_run) visit_run(extent);
    scan.slots += static_cast<std::uint64_t>(header->run_slots) * header->groups;
    const Run run{extent / header->run_extents, record.stamp, number};
    if (!scan_run(file->get(), *header, run, scan, visit, visit_damaged)) return scan;
    extent += record.count;
  }
  return scan;
}

}  // namespace terrace::tier::disk
