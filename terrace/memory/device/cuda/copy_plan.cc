#include <algorithm>

#include "terrace/memory/device/cuda/copy_plan_internal.h"

namespace terrace::memory::cuda {
namespace {

constexpr std::uint64_t kLeastBatch = std::uint64_t{1} << 20U;

constexpr std::uint64_t round_up_to(std::uint64_t value, std::uint64_t step) {
  return (value + step - 1) / step * step;
}

}  // namespace

PieceTable piece_table(const std::vector<GroupRegions>& groups) {
  PieceTable table;
  for (const GroupRegions& group : groups) {
    PieceTable::Group entry;
    entry.first_piece = static_cast<std::uint32_t>(table.pieces.size());
    entry.piece_count = static_cast<std::uint32_t>(group.regions.size());
    for (const DeviceRegion& region : group.regions) {
      entry.shard_bytes += region.piece_bytes;
      table.pieces.push_back({reinterpret_cast<std::uintptr_t>(region.address), region.block_stride,
                              entry.shard_bytes});
    }
    table.groups.push_back(entry);
  }
  return table;
}

std::uint64_t batch_bytes(std::uint64_t call_bytes, std::uint64_t half_bytes) {
  const std::uint64_t wanted = std::max(kLeastBatch, round_up_to(call_bytes / 4, kPageBytes));
  return std::min(wanted, half_bytes);
}

void plan_batch(const PieceTable& table, std::span<const ShardCopy> copies, std::uint64_t batch,
                Position& at, std::vector<Part>& parts) {
  parts.clear();
  std::uint64_t used = 0;
  std::uint32_t pages = 0;
  while (at.copy < copies.size() && parts.size() < kMaxParts) {
    const std::uint64_t shard = table.groups[copies[at.copy].group].shard_bytes;
    const std::uint64_t left = shard - at.offset;
    const std::uint64_t room = batch - used;
    // Whole, or the first part of what no batch holds whole; never less than a page.
    if (left > room && (shard <= batch || room < kPageBytes)) break;
    Part part;
    part.copy = at.copy;
    part.from = at.offset;
    part.to = at.offset + (left <= room ? left : room / kPageBytes * kPageBytes);
    part.staging = used;
    part.first_page = pages;
    pages += part.pages();
    used = std::min(batch, used + round_up_to(part.to - part.from, kPartAlignment));
    at.offset = part.to;
    if (at.offset == shard) at = {at.copy + 1, 0};
    parts.push_back(part);
  }
}

}  // namespace terrace::memory::cuda
