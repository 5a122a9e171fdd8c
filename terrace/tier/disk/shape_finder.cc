#include <unistd.h>

#include <algorithm>

#include "terrace/tier/disk/shape_finder_internal.h"

namespace terrace::tier::disk {

std::optional<wire::FrameHeader> HeaderPages::read(std::uint64_t offset) const {
  if (page_ == nullptr || ::pread(file_, page_.get(), kPageBytes, static_cast<off_t>(offset)) !=
                              static_cast<ssize_t>(kPageBytes)) {
    return std::nullopt;
  }
  const auto frame =
      wire::decode_frame(std::span<const std::byte, kPageBytes>(page_.get(), kPageBytes));
  if (!frame) return std::nullopt;
  return *frame;
}

namespace {
constexpr std::uint16_t kMostRanks = 64;  // As in a layout.
// Blocks that are asked per group: where so many frames are damaged, the shape is the least loss.
constexpr int kMostAsked = 64;
// Runs that are asked for the number of ranks. The frame behind the last rank's is another block's.
constexpr int kRunsAsked = 8;

struct Seen {
  SlotRecord record;
  std::uint64_t era = 0;
  std::uint32_t slot = 0;
  std::uint64_t run_begin = 0;  // In the slot file.
};

bool is_of(const wire::FrameHeader& frame, const Seen& seen, std::uint16_t rank) {
  const SlotRecord& record = seen.record;
  return frame.hash == record.hash && frame.group == GroupId(record.group) &&
         frame.rank == RankId(rank) && frame.generation == Generation(record.generation) &&
         frame.era == seen.era && frame.payload_bytes > 0 && frame.payload_bytes <= (1ULL << 30U);
}

std::uint64_t frame_bytes_of(std::uint64_t payload) {
  return kPageBytes + round_up(Bytes(payload), Bytes(kPageBytes)).value();
}

class Finder {
 public:
  Finder(const MetaHeader& header, std::uint64_t extent_bytes, int data)
      : header_(header), pages_(data) {
    shape_.extent_bytes = extent_bytes;
    shape_.run_extents = header.run_extents;
    shape_.run_slots = header.run_slots;
    shape_.ranks = 0;
    shape_.payload_bytes.assign(header.groups, 0);
    shape_.frame_bytes.assign(header.groups, 0);
    shape_.group_offset.assign(header.groups, 0);
  }

  // False when `group` needs no further blocks.
  bool ask(const Seen& seen, std::uint16_t group) {
    if (asked_ >= kMostAsked) return false;
    if (group == 0) return ask_first(seen);
    ++asked_;
    return !find_payload(seen, group);
  }
  bool start(std::uint16_t group) {
    asked_ = 0;
    runs_asked_ = 0;
    if (group == 0) return true;
    const std::uint64_t before = shape_.frame_bytes[group - 1];
    if (before == 0) return false;  // Where this group begins cannot be known.
    shape_.group_offset[group] =
        shape_.group_offset[group - 1] + before * shape_.ranks * shape_.run_slots;
    return true;
  }
  [[nodiscard]] bool is_consistent() const {
    if (shape_.ranks == 0) return false;
    const std::uint64_t block = shape_.block_bytes();
    const bool is_whole =
        std::ranges::none_of(shape_.frame_bytes, [](std::uint64_t bytes) { return bytes == 0; });
    if (block == 0 || block * shape_.run_slots > shape_.run_bytes()) return false;
    return !is_whole || shape_.run_bytes() / block == shape_.run_slots;
  }
  [[nodiscard]] const RunGeometry& shape() const { return shape_; }

 private:
  // Group 0, rank 0 of a run's first slot stands at the run's first byte, the other ranks behind
  // it.
  bool ask_first(const Seen& seen) {
    if (seen.slot % header_.run_slots != 0) return true;
    ++asked_;
    const auto frame = pages_.read(seen.run_begin);
    if (!frame || !is_of(*frame, seen, 0)) return true;
    const std::uint64_t bytes = frame_bytes_of(frame->payload_bytes);
    if (shape_.payload_bytes[0] == 0) {
      shape_.payload_bytes[0] = frame->payload_bytes;
      shape_.frame_bytes[0] = bytes;
    }
    std::uint16_t ranks = 1;
    for (std::uint16_t rank = 1; rank < kMostRanks; ++rank) {
      if ((rank + 1) * bytes * header_.run_slots > shape_.run_bytes()) break;
      const auto next = pages_.read(seen.run_begin + rank * bytes);
      if (next && is_of(*next, seen, rank)) ranks = rank + 1;
    }
    shape_.ranks = std::max(shape_.ranks, ranks);
    return ++runs_asked_ < kRunsAsked;
  }

  // Where the slot's frame stands depends on the size that it tells: tries each.
  bool find_payload(const Seen& seen, std::uint16_t group) {
    const std::uint64_t begin = shape_.group_offset[group];
    const std::uint64_t inside = seen.slot % header_.run_slots;
    const std::uint64_t most = (shape_.run_bytes() - std::min(begin, shape_.run_bytes())) /
                               header_.run_slots / shape_.ranks;
    for (std::uint64_t bytes = 2 * kPageBytes; bytes <= most; bytes += kPageBytes) {
      const auto frame = pages_.read(seen.run_begin + begin + inside * shape_.ranks * bytes);
      const bool is_right = frame && is_of(*frame, seen, 0) &&
                            (inside == 0 || frame_bytes_of(frame->payload_bytes) == bytes);
      if (is_right) {
        shape_.payload_bytes[group] = frame->payload_bytes;
        shape_.frame_bytes[group] = frame_bytes_of(frame->payload_bytes);
        return true;
      }
      if (inside == 0) return false;  // It stands there whatever its size.
    }
    return false;
  }

  const MetaHeader header_;
  HeaderPages pages_;
  RunGeometry shape_;
  int asked_ = 0;
  int runs_asked_ = 0;
};
}  // namespace

std::optional<RunGeometry> find_shape(const std::string& directory, const std::string& name,
                                      std::uint32_t number, const ExtentTable& table, int data) {
  const auto header = read_meta_header(directory, name);
  if (!header || header->run_slots == 0 || header->groups > UINT16_MAX) return std::nullopt;
  Finder finder(*header, table.extent_bytes(), data);
  const auto groups = static_cast<std::uint16_t>(header->groups);
  for (std::uint16_t group = 0; group < groups; ++group) {
    if (!finder.start(group)) break;
    (void)scan_meta(directory, name, number, table, [&](const SealedSlot& sealed) {
      if (sealed.record.group != group) return true;
      return finder.ask(
          {sealed.record, sealed.era, sealed.slot, sealed.first_extent * table.extent_bytes()},
          group);
    });
    if (group == 0 && finder.shape().ranks == 0) return std::nullopt;
  }
  if (!finder.is_consistent()) return std::nullopt;
  return finder.shape();
}

}  // namespace terrace::tier::disk
