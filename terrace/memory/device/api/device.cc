#include "terrace/memory/device/api/device.h"

#include <fmt/format.h>

#include <limits>

namespace terrace::memory {
namespace {

struct Range {
  std::uintptr_t first = 0;
  std::uintptr_t end = 0;
};

Range range_of(const DeviceRegion& region, std::uint64_t block_count) {
  const auto first = reinterpret_cast<std::uintptr_t>(region.address);
  return {first, first + region.block_stride * (block_count - 1) + region.piece_bytes};
}

// Regions may interleave (all layers of a block side by side), but no byte may belong to two
// pieces.
bool may_overlap(const DeviceRegion& a, const DeviceRegion& b, std::uint64_t block_count) {
  const Range range_a = range_of(a, block_count);
  const Range range_b = range_of(b, block_count);
  if (range_a.end <= range_b.first || range_b.end <= range_a.first) return false;
  if (block_count == 1) return true;
  if (a.block_stride != b.block_stride) return true;  // Cannot be told apart simply: refuse.
  const bool is_a_first = range_a.first <= range_b.first;
  const DeviceRegion& low = is_a_first ? a : b;
  const DeviceRegion& high = is_a_first ? b : a;
  const std::uint64_t distance =
      (is_a_first ? range_b.first - range_a.first : range_a.first - range_b.first) %
      low.block_stride;
  return distance < low.piece_bytes || low.block_stride - distance < high.piece_bytes;
}

Status validate_region(const DeviceRegion& region, std::uint64_t block_count, Bytes piece,
                       const std::string& where) {
  if (region.address == nullptr) return {Code::kInvalid, where + ": address is null"};
  if (region.piece_bytes != piece.value()) {
    return {Code::kInvalid, fmt::format("{}: piece_bytes is {}, the layout says {}", where,
                                        region.piece_bytes, piece.value())};
  }
  if (region.block_stride < region.piece_bytes) {
    return {Code::kInvalid, fmt::format("{}: block_stride {} is less than piece_bytes {}", where,
                                        region.block_stride, region.piece_bytes)};
  }
  const std::uint64_t room =
      std::numeric_limits<std::uintptr_t>::max() - reinterpret_cast<std::uintptr_t>(region.address);
  if (region.block_stride > room / block_count) {
    return {Code::kInvalid, where + ": ends beyond the address space"};
  }
  return {};
}

Status validate_group(const GroupRegions& group, const GroupLayout& layout, std::size_t index) {
  const std::string where = fmt::format("groups[{}]", index);
  if (group.block_count == 0 || group.block_count > UINT32_MAX) {
    return {Code::kInvalid, fmt::format("{}: block_count is {}", where, group.block_count)};
  }
  if (group.regions.size() != layout.piece_bytes.size()) {
    return {Code::kInvalid, fmt::format("{}: {} regions, the layout has {}", where,
                                        group.regions.size(), layout.piece_bytes.size())};
  }
  if (group.has_null_block && group.null_block >= group.block_count) {
    return {Code::kInvalid, fmt::format("{}: null_block {} of {} blocks", where, group.null_block,
                                        group.block_count)};
  }
  for (std::size_t i = 0; i < group.regions.size(); ++i) {
    const std::string region = fmt::format("{}.regions[{}]", where, i);
    TERRACE_RETURN_IF_ERROR(
        validate_region(group.regions[i], group.block_count, layout.piece_bytes[i], region));
    for (std::size_t j = 0; j < i; ++j) {
      if (may_overlap(group.regions[i], group.regions[j], group.block_count)) {
        return {Code::kInvalid, fmt::format("{} overlaps {}.regions[{}]", region, where, j)};
      }
    }
  }
  return {};
}

}  // namespace

Status check_copies(std::span<const ShardCopy> copies, const std::vector<GroupRegions>& groups,
                    std::string_view device) {
  for (const ShardCopy& copy : copies) {
    if (copy.group >= groups.size() || copy.block >= groups[copy.group].block_count) {
      return {Code::kInvalid,
              fmt::format("{} copy: no block {} in group {}", device, copy.block, copy.group)};
    }
  }
  return {};
}

Status validate(const std::vector<GroupRegions>& groups, const Layout& layout) {
  TERRACE_RETURN_IF_ERROR(layout.validate());
  if (groups.size() != layout.groups.size()) {
    return {Code::kInvalid, fmt::format("groups: {} registered, the layout has {}", groups.size(),
                                        layout.groups.size())};
  }
  for (std::size_t i = 0; i < groups.size(); ++i) {
    TERRACE_RETURN_IF_ERROR(validate_group(groups[i], layout.groups[i], i));
  }
  return {};
}

}  // namespace terrace::memory
