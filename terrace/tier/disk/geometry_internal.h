// Where a slot lies: the arithmetic of runs, slots and frames in a slot file, and how the slots of
// several volumes are numbered as one pool. Knows no files.
// Threading: immutable values.  Waits: never.  Source: docs/formats/disk.md.
#pragma once

#include <cstdint>
#include <vector>

#include "terrace/base/status.h"
#include "terrace/block/layout.h"

namespace terrace::tier::disk {

// A run is `run_extents` neighbouring extents that hold `run_slots` slots of every group, group
// after group. Slot i of every group lies in run i / run_slots.
struct RunGeometry {
  std::uint64_t extent_bytes = 0;
  std::uint32_t run_extents = 0;
  std::uint32_t run_slots = 0;
  std::uint16_t ranks = 1;
  std::vector<std::uint64_t> payload_bytes;  // [group] of one shard.
  std::vector<std::uint64_t> frame_bytes;    // [group] header page + payload, padded.
  std::vector<std::uint64_t> group_offset;   // [group] inside a run.

  [[nodiscard]] std::uint64_t slot_bytes(std::size_t group) const {
    return frame_bytes[group] * ranks;
  }
  [[nodiscard]] std::uint64_t block_bytes() const;  // Slots of one block, all groups.
  [[nodiscard]] std::uint64_t run_bytes() const { return extent_bytes * run_extents; }
  [[nodiscard]] std::uint64_t offset(std::size_t group, std::uint32_t slot,
                                     std::uint16_t rank) const {
    return static_cast<std::uint64_t>(slot / run_slots) * run_bytes() + group_offset[group] +
           static_cast<std::uint64_t>(slot % run_slots) * slot_bytes(group) +
           rank * frame_bytes[group];
  }
};

// Bytes of a block on disk: header pages and padding included.
[[nodiscard]] std::uint64_t block_bytes_of(const Layout& layout);

// The extent size for a new volume of `bytes`: a 64th of it, a power of two, 64 KiB to 64 MiB.
[[nodiscard]] std::uint64_t choose_extent_bytes(std::uint64_t bytes);

// Runs that waste at most a sixteenth, as short as possible; `run_extents` not 0 asks for that
// length (of an earlier start). Errors: kInvalid when `extents` cannot hold one block.
[[nodiscard]] Result<RunGeometry> plan_runs(const Layout& layout, std::uint64_t extent_bytes,
                                            std::uint64_t extents, std::uint32_t run_extents = 0);

// What stays free on a file system of `total` bytes, for others and its own tables: a twentieth, at
// least 1 GiB, at most 64 GiB; of a small one no more than a quarter.
[[nodiscard]] std::uint64_t reserve_of(std::uint64_t total);

// What one volume holds and may get, in bytes.
struct VolumeShare {
  std::uint64_t held = 0;  // In use by any namespace, up to the highest extent.
  std::uint64_t most = 0;  // What the file system could give, held bytes included.
};
// Splits `total` evenly, but takes nothing from a volume while the total allows it.
[[nodiscard]] std::vector<std::uint64_t> divide(std::uint64_t total,
                                                const std::vector<VolumeShare>& volumes);

// Numbers the slots of several volumes as one row, one volume's behind the other's.
class SlotMap {
 public:
  struct Place {
    std::uint32_t volume = 0;
    std::uint32_t slot = 0;  // In that volume.
    friend bool operator==(const Place&, const Place&) = default;
  };
  // Of each volume its slots; in all at most `most`, to which the largest give way.
  explicit SlotMap(const std::vector<std::uint32_t>& slots, std::uint32_t most = UINT32_MAX);
  [[nodiscard]] std::uint32_t size() const { return ends_.empty() ? 0 : ends_.back(); }
  [[nodiscard]] std::uint32_t volumes() const { return static_cast<std::uint32_t>(ends_.size()); }
  [[nodiscard]] Place place(std::uint32_t index) const;
  // size() of a slot that is in no row.
  [[nodiscard]] std::uint32_t index(Place place) const;
  // Where the volume's slots stand.
  [[nodiscard]] std::uint32_t first(std::uint32_t volume) const {
    return volume == 0 ? 0 : ends_[volume - 1];
  }
  [[nodiscard]] std::uint32_t end(std::uint32_t volume) const { return ends_[volume]; }

 private:
  std::vector<std::uint32_t> ends_;  // [volume]
};

}  // namespace terrace::tier::disk
