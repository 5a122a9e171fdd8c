// An owner directory full of blocks, made by hand for benchmarks of starts: real extents.meta and
// slots.meta, and real frames only where a read will look, in a slot file that is otherwise a hole.
// Threading: thread-compatible.  Waits: file I/O.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <vector>

#include "terrace/base/check.h"
#include "terrace/base/file.h"
#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/extent_table_internal.h"
#include "terrace/tier/disk/format_internal.h"
#include "terrace/tier/disk/geometry_internal.h"
#include "terrace/wire/frame.h"

namespace terrace::tier::disk {

class File {
 public:
  explicit File(const std::string& path) : path_(path) {
    auto file = open_file(path, O_RDWR | O_CREAT);
    TERRACE_CHECK(file.has_value());
    file_ = *std::move(file);
  }
  void write(std::span<const std::byte> bytes, std::uint64_t offset) {
    TERRACE_CHECK(::pwrite(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)) ==
                  static_cast<ssize_t>(bytes.size()));
  }
  void resize(std::uint64_t bytes) {
    TERRACE_CHECK(::ftruncate(file_.get(), static_cast<off_t>(bytes)) == 0);
  }
  // On the medium and out of the page cache.
  void settle() {
    TERRACE_CHECK(::fsync(file_.get()) == 0);
    TERRACE_CHECK(::posix_fadvise(file_.get(), 0, 0, POSIX_FADV_DONTNEED) == 0);
  }

 private:
  std::string path_;
  UniqueFd file_;
};

inline constexpr std::uint64_t kFullDiskEra = 1;

struct RealBlock {
  std::uint64_t slot = 0;
  SequenceHash hash;
};

inline void write_frame(const DiskTier::Options& options, File& slots, const RealBlock& real,
                        std::uint64_t offset) {
  wire::FrameHeader header;
  const auto parse = [](const std::string& hex) {
    std::array<std::uint8_t, 32> bytes{};
    for (std::size_t i = 0; i < 32; ++i) {
      bytes[i] = static_cast<std::uint8_t>(std::stoul(hex.substr(2 * i, 2), nullptr, 16));
    }
    return bytes;
  };
  header.content_digest = parse(options.fingerprint.content_digest());
  header.layout_digest = parse(options.fingerprint.layout_digest());
  header.hash = real.hash;
  header.generation = Generation(1);
  header.era = kFullDiskEra;
  const std::uint64_t payload = options.layout.groups[0].shard_bytes().value();
  header.payload_bytes = payload;
  BlockMemory block(1, payload);
  block.fill(real.slot);
  header.payload_checksum = block.checksums()[0];
  std::array<std::byte, wire::kFrameHeaderBytes> page{};
  wire::encode(header, page);
  slots.write(page, offset);
  slots.write({block.shards()[0].payload, payload}, offset + page.size());
}

// One rank, one group. `real`: ascending by slot; their frames hold what BlockMemory::fill(slot)
// makes. Every other block has a record under hash_of(slot), and a frame of zeros. Only an engine
// with events has aliases.
inline void make_full_directory(const DiskTier::Options& options, std::uint64_t blocks,
                                std::span<const RealBlock> real, bool has_events = false) {
  const std::string owner = options.paths[0] + "/terrace-00";
  TERRACE_CHECK(make_directories(owner + "/ns-0001").is_ok());
  const std::uint64_t extent_bytes = choose_extent_bytes(blocks * block_bytes_of(options.layout));
  const auto geometry = plan_runs(options.layout, extent_bytes, kMostExtents);
  const std::uint64_t runs = (blocks + geometry->run_slots - 1) / geometry->run_slots;
  std::array<std::byte, kPageBytes> page{};
  File extents(owner + "/extents.meta");
  encode(VolumeHeader{extent_bytes, 0}, page);
  extents.write(page, 0);
  std::array<std::byte, kExtentRecordBytes> bytes{};
  for (std::uint32_t extent = 0; extent < runs * geometry->run_extents; ++extent) {
    const std::uint32_t first = extent - extent % geometry->run_extents;
    encode(ExtentRecord{1, first, geometry->run_extents, 1}, extent, bytes);
    extents.write(bytes, ExtentTable::offset(extent));
  }
  extents.settle();
  const std::string fingerprint = options.fingerprint.text();
  File(owner + "/ns-0001/fingerprint.txt").write(std::as_bytes(std::span(fingerprint)), 0);
  File meta(owner + "/ns-0001/slots.meta");
  encode(MetaHeader{1, 1, geometry->run_slots, geometry->run_extents, 0, kFullDiskEra}, page);
  meta.write(page, 0);
  meta.write(page, kPageBytes);
  std::vector<std::byte> records(kSlotRecordBytes * 16384);
  auto next = real.begin();
  for (std::uint64_t slot = 0; slot < blocks;) {
    const std::uint64_t start = slot;
    for (std::size_t i = 0; i < 16384 && slot < blocks; ++i, ++slot) {
      SlotRecord record;
      record.hash = hash_of(slot);
      if (next != real.end() && next->slot == slot) record.hash = (next++)->hash;
      record.alias = has_events ? slot * 3 : 0;
      record.sequence =
          2 + (slot * 7919) % blocks;  // Not in the order of slots, as after long use.
      record.stamp = 1;
      record.generation = 1;
      record.epoch = 1;
      record.name_space = 1;
      record.state = RecordState::kSealed;
      encode(record, static_cast<std::uint32_t>(slot),
             std::span(records).subspan(i * kSlotRecordBytes).first<kSlotRecordBytes>());
    }
    meta.write(std::span(records).first((slot - start) * kSlotRecordBytes),
               kRecordsOffset + start * kSlotRecordBytes);
  }
  meta.settle();
  File slots(owner + "/0.slots");
  slots.resize(runs * geometry->run_bytes() * 9 / 8 + (64U << 20U));
  for (const RealBlock& block : real) {
    write_frame(options, slots, block,
                geometry->offset(0, static_cast<std::uint32_t>(block.slot), 0));
  }
  slots.settle();
}

}  // namespace terrace::tier::disk
