#include "terrace/tier/host/host_tier.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "terrace/base/check.h"
#include "terrace/memory/memory_room.h"

namespace terrace::tier {
namespace {

constexpr std::uint64_t kMaxSlots = std::numeric_limits<std::uint32_t>::max() - 1;

// Slots are for any group, so as large as the largest shard.
Bytes slot_bytes_of(const Layout& layout) {
  Bytes largest;
  for (const GroupLayout& group : layout.groups) largest = std::max(largest, group.shard_bytes());
  return round_up(largest, memory::kPageBytes);
}

Result<std::uint32_t> slots_of(const HostTier::Options& options, Bytes slot_bytes) {
  const Bytes block_bytes = slot_bytes * options.layout.ranks;
  std::uint64_t slots = options.blocks;
  const char* setting = "host.blocks";
  if (slots == 0 && options.size == Bytes(0)) {
    slots = std::max<std::uint64_t>(options.staging / block_bytes, HostTier::kStagingSlots);
    setting = "host.staging";
  } else if (slots == 0) {
    slots = options.size / block_bytes;
    setting = "host.size";
  }
  if (slots == 0) {
    return fail(
        Code::kInvalid,
        fmt::format("host.size: {} bytes hold no block: one takes {} bytes ({} ranks of {}); "
                    "set host.size to at least that, better to gigabytes",
                    options.size.value(), block_bytes.value(), options.layout.ranks,
                    slot_bytes.value()));
  }
  if (slots > kMaxSlots) {
    return fail(Code::kInvalid,
                fmt::format("{}: {} blocks are more than the {} that a host tier can count; "
                            "lower {}, or give the engine larger blocks",
                            setting, slots, kMaxSlots, setting));
  }
  return static_cast<std::uint32_t>(slots);
}

}  // namespace

Result<std::unique_ptr<HostTier>> HostTier::create(const Options& options) {
  TERRACE_RETURN_IF_ERROR(options.layout.validate());
  std::unique_ptr<HostTier> tier(new HostTier);
  memory::SegmentGeometry& geometry = tier->geometry_;
  geometry.slot_bytes = slot_bytes_of(options.layout);
  geometry.lanes = options.layout.ranks;
  TERRACE_ASSIGN_OR_RETURN(geometry.slots, slots_of(options, geometry.slot_bytes));
  TERRACE_RETURN_IF_ERROR(geometry.validate());
  std::uint32_t huge_lanes = 0;
  for (std::uint16_t rank = 0; rank < geometry.lanes; ++rank) {
    TERRACE_ASSIGN_OR_RETURN(
        memory::Lane lane,
        memory::Lane::create(geometry, options.huge_pages, fmt::format("terrace-lane-{}", rank)));
    huge_lanes += lane.uses_huge_pages() ? 1 : 0;
    tier->lanes_.push_back(std::move(lane));
  }
  // Huge pages are reserved by mapping; ordinary ones must still be free when they are touched.
  const Bytes ordinary = geometry.lane_bytes() * (geometry.lanes - huge_lanes);
  const memory::MemoryRoom room = memory::memory_room(options.system_root);
  if (ordinary > room.bytes) {
    return fail(
        Code::kExhausted,
        fmt::format("host.size: {} bytes do not fit, {} leaves {} bytes; lower host.size, or "
                    "raise that limit",
                    ordinary.value(), room.limit, room.bytes.value()),
        Scope::kNode);
  }
  TERRACE_ASSIGN_OR_RETURN(tier->pool_, catalog::Pool::create({.slots = geometry.slots,
                                                               .eviction = options.eviction,
                                                               .returns = options.returns}));
  tier->checksums_.resize(std::size_t{geometry.slots} * geometry.lanes);
  tier->aliases_.resize(geometry.slots);
  return tier;
}

bool HostTier::uses_huge_pages() const {
  return std::ranges::all_of(lanes_, &memory::Lane::uses_huge_pages);
}

std::span<std::byte> HostTier::shard(SlotIndex slot, RankId rank) const {
  TERRACE_CHECK(rank.value() < lanes_.size());
  return lanes_[rank.value()].slot(slot);
}

Status HostTier::populate(const std::function<bool()>& is_stopping) const {
  for (std::uint32_t extent = 0; extent < geometry_.extents(); ++extent) {
    for (const memory::Lane& lane : lanes_) {
      if (is_stopping()) return {};
      TERRACE_RETURN_IF_ERROR(lane.populate(extent));
    }
  }
  return {};
}

std::uint32_t HostTier::populated_slots() const {
  std::uint32_t extents = geometry_.extents();
  for (const memory::Lane& lane : lanes_) extents = std::min(extents, lane.populated_extents());
  const std::uint64_t slots = std::uint64_t{extents} * geometry_.slots_per_extent();
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(slots, geometry_.slots));
}

void HostTier::set_checksum(SlotIndex slot, RankId rank, Checksum checksum) {
  TERRACE_CHECK(slot.value() < geometry_.slots && rank.value() < geometry_.lanes);
  checksums_[std::size_t{slot.value()} * geometry_.lanes + rank.value()] = checksum;
}

Checksum HostTier::checksum(SlotIndex slot, RankId rank) const {
  TERRACE_CHECK(slot.value() < geometry_.slots && rank.value() < geometry_.lanes);
  return checksums_[std::size_t{slot.value()} * geometry_.lanes + rank.value()];
}

void HostTier::set_alias(SlotIndex slot, std::uint64_t alias) {
  TERRACE_CHECK(slot.value() < geometry_.slots);
  aliases_[slot.value()] = alias;
}

std::uint64_t HostTier::alias(SlotIndex slot) const {
  TERRACE_CHECK(slot.value() < geometry_.slots);
  return aliases_[slot.value()];
}

}  // namespace terrace::tier
