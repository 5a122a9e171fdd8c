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

SlotMap::SlotMap(const std::vector<std::uint32_t>& slots, std::uint32_t most) {
  // How many of each, so that they are as many as may be: the highest level that is not too many.
  const auto sum_at = [&](std::uint32_t level) {
    std::uint64_t sum = 0;
    for (const std::uint32_t count : slots) sum += std::min(count, level);
    return sum;
  };
  std::uint32_t low = 0;
  std::uint32_t high = slots.empty() ? 0 : *std::max_element(slots.begin(), slots.end());
  while (low < high) {
    const std::uint32_t middle = high - (high - low) / 2;
    if (sum_at(middle) <= most) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  std::uint64_t left = most - std::min<std::uint64_t>(most, sum_at(low));  // One more each.
  std::uint32_t end = 0;
  for (const std::uint32_t count : slots) {
    const bool takes_one = count > low && left > 0;
    left -= takes_one ? 1 : 0;
    end += std::min(count, low) + (takes_one ? 1 : 0);
    ends_.push_back(end);
  }
}

SlotMap::Place SlotMap::place(std::uint32_t index) const {
  TERRACE_CHECK(index < size());
  std::uint32_t volume = 0;
  while (ends_[volume] <= index) ++volume;
  return {volume, index - first(volume)};
}

std::uint32_t SlotMap::index(Place place) const {
  TERRACE_CHECK(place.volume < ends_.size());
  const std::uint32_t begin = first(place.volume);
  return place.slot < ends_[place.volume] - begin ? begin + place.slot : size();
}

}  // namespace terrace::tier::disk
