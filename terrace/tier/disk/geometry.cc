#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <numeric>

#include "terrace/base/check.h"
#include "terrace/tier/disk/format_internal.h"
#include "terrace/tier/disk/geometry_internal.h"
#include "terrace/wire/frame.h"

namespace terrace::tier::disk {

namespace {
constexpr std::uint64_t kMostRunExtents = 1024;
constexpr std::uint64_t kLeastReserve = 1ULL << 30U;
constexpr std::uint64_t kMostReserve = 64ULL << 30U;

std::uint64_t frame_bytes_of(Bytes payload) {
  return wire::kFrameHeaderBytes + round_up(payload, Bytes(kPageBytes)).value();
}
}  // namespace

std::uint64_t RunGeometry::block_bytes() const {
  return ranks * std::accumulate(frame_bytes.begin(), frame_bytes.end(), std::uint64_t{0});
}

std::uint64_t block_bytes_of(const Layout& layout) {
  std::uint64_t sum = 0;
  for (const GroupLayout& group : layout.groups) {
    sum += layout.ranks * frame_bytes_of(group.shard_bytes());
  }
  return sum;
}

std::uint64_t choose_extent_bytes(std::uint64_t bytes) {
  return std::clamp(std::bit_floor(bytes / 64), kLeastExtentBytes, kMostExtentBytes);
}

Result<RunGeometry> plan_runs(const Layout& layout, std::uint64_t extent_bytes,
                              std::uint64_t extents, std::uint32_t run_extents) {
  RunGeometry geometry;
  geometry.extent_bytes = extent_bytes;
  geometry.ranks = layout.ranks;
  for (const GroupLayout& group : layout.groups) {
    geometry.payload_bytes.push_back(group.shard_bytes().value());
    geometry.frame_bytes.push_back(frame_bytes_of(group.shard_bytes()));
  }
  const std::uint64_t block = geometry.block_bytes();
  const std::uint64_t least = (block + extent_bytes - 1) / extent_bytes;
  if (least > extents) {
    return fail(Code::kInvalid,
                fmt::format("disk.size: one block takes {} bytes on disk, more than "
                            "the {} bytes that there are",
                            block, extents * extent_bytes));
  }
  std::uint64_t length = run_extents;
  if (length < least || length > extents) {
    const auto waste = [&](std::uint64_t n) {
      return static_cast<double>(n * extent_bytes % block) / static_cast<double>(n * extent_bytes);
    };
    length = least;
    for (std::uint64_t n = least; n <= std::min(extents, std::max(kMostRunExtents, least)); ++n) {
      if (waste(n) < waste(length)) length = n;
      if (waste(length) <= 1.0 / 16) break;
    }
  }
  geometry.run_extents = static_cast<std::uint32_t>(length);
  geometry.run_slots = static_cast<std::uint32_t>(length * extent_bytes / block);
  std::uint64_t offset = 0;
  for (std::size_t group = 0; group < geometry.frame_bytes.size(); ++group) {
    geometry.group_offset.push_back(offset);
    offset += geometry.slot_bytes(group) * geometry.run_slots;
  }
  return geometry;
}

std::uint64_t reserve_of(std::uint64_t total) {
  return std::min({std::max(total / 20, kLeastReserve), kMostReserve, total / 4});
}

std::vector<std::uint64_t> divide(std::uint64_t total, const std::vector<VolumeShare>& volumes) {
  const std::uint64_t share = total / std::max<std::size_t>(volumes.size(), 1);
  std::vector<std::uint64_t> given;
  std::uint64_t left = total;
  for (const VolumeShare& volume : volumes) {
    given.push_back(std::min({volume.held, share, volume.most}));
    left -= given.back();
  }
  // Second, what volumes hold beyond their share; third, growth up to the share; last, whoever can.
  const auto grow = [&](const auto& wanted) {
    for (std::size_t i = 0; i < volumes.size(); ++i) {
      const std::uint64_t goal = std::min(wanted(volumes[i]), volumes[i].most);
      const std::uint64_t more = std::min(left, goal > given[i] ? goal - given[i] : 0);
      given[i] += more;
      left -= more;
    }
  };
  grow([](const VolumeShare& volume) { return volume.held; });
  grow([share](const VolumeShare&) { return share; });
  grow([](const VolumeShare& volume) { return volume.most; });
  return given;
}

SlotMap::SlotMap(const std::vector<std::uint32_t>& slots) {
  std::vector<std::uint32_t> levels = slots;
  std::sort(levels.begin(), levels.end());
  std::uint32_t first = 0;
  for (const std::uint32_t level : levels) {
    if (level == first) continue;
    Stripe stripe{size_, first, level - first, {}};
    for (std::uint32_t v = 0; v < slots.size(); ++v) {
      if (slots[v] >= level) stripe.volumes.push_back(v);
    }
    size_ += stripe.depth * static_cast<std::uint32_t>(stripe.volumes.size());
    stripes_.push_back(std::move(stripe));
    first = level;
  }
}

SlotMap::Place SlotMap::place(std::uint32_t index) const {
  TERRACE_CHECK(index < size_);
  std::size_t i = stripes_.size() - 1;
  while (stripes_[i].start > index) --i;
  const Stripe& stripe = stripes_[i];
  const auto width = static_cast<std::uint32_t>(stripe.volumes.size());
  const std::uint32_t inside = index - stripe.start;
  return {stripe.volumes[inside % width], stripe.first + inside / width};
}

std::uint32_t SlotMap::index(Place place) const {
  for (const Stripe& stripe : stripes_) {
    if (place.slot >= stripe.first + stripe.depth) continue;
    const auto found = std::find(stripe.volumes.begin(), stripe.volumes.end(), place.volume);
    TERRACE_CHECK(found != stripe.volumes.end());
    return stripe.start +
           (place.slot - stripe.first) * static_cast<std::uint32_t>(stripe.volumes.size()) +
           static_cast<std::uint32_t>(found - stripe.volumes.begin());
  }
  TERRACE_CHECK(false);
  return 0;
}

}  // namespace terrace::tier::disk
