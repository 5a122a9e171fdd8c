#include "terrace/catalog/pool_load.h"

#include <algorithm>

#include "terrace/base/check.h"

namespace terrace::catalog {

Result<PoolLoad> PoolLoad::create(Pool& pool, NamespaceId name_space, GroupId group,
                                  std::size_t parts) {
  TERRACE_ASSIGN_OR_RETURN(auto sequences, index::ZeroedArray<std::uint64_t>::create(pool.slots()));
  return PoolLoad(pool, index::IndexFiller(pool.index_, name_space, group, parts),
                  std::move(sequences));
}

std::optional<PoolLoad::Entry> PoolLoad::take(const Found& block) {
  if (block.slot.value() >= pool_.slots_ || block.sequence == 0) return std::nullopt;
  Pool::Slot& slot = pool_.table_[block.slot.value()];
  if (Pool::state_of(slot) != SlotState::kFree) return std::nullopt;
  if (slot.generation.value() != 0 && block.generation <= slot.generation) return std::nullopt;
  const index::Home home = filler_.home_of(block.hash);
  slot.home = home;
  slot.generation = block.generation;
  slot.state = static_cast<std::uint32_t>(SlotState::kSealed);
  sequences_[block.slot.value()] = block.sequence;
  return Entry{block.hash, home, block.slot};
}

void PoolLoad::enter(std::size_t part, std::span<const Entry> entries) {
  std::vector<SlotIndex> losers;
  filler_.enter(part, entries, sequences_.all(), losers);
  give_back(losers);
}

// They keep their generation, so that the slot's next block has a later one.
void PoolLoad::give_back(std::span<const SlotIndex> slots) {
  for (const SlotIndex slot : slots) {
    pool_.table_[slot.value()].state = static_cast<std::uint32_t>(SlotState::kFree);
    sequences_[slot.value()] = 0;
  }
}

std::span<const std::uint64_t> PoolLoad::sequences() {
  std::vector<SlotIndex> losers;
  filler_.finish(sequences_.all(), losers);
  give_back(losers);
  return sequences_.all();
}

std::uint32_t PoolLoad::finish(std::span<const SlotIndex> oldest_first) {
  std::uint32_t loaded = 0;
  for (std::uint32_t base = 0; base < pool_.slots_; base += 64) {
    const std::uint32_t count = std::min(pool_.slots_ - base, 64U);
    std::uint64_t taken = 0;
    for (std::uint32_t i = 0; i < count; ++i) {
      const bool is_loaded = sequences_[base + i] != 0;
      taken |= std::uint64_t{is_loaded} << i;
      loaded += is_loaded ? 1U : 0U;
    }
    if (taken != 0) pool_.free_.take_many(SlotIndex(base), taken);
  }
  TERRACE_CHECK(oldest_first.size() == loaded);
  pool_.counts_[static_cast<std::size_t>(SlotState::kFree)] -= loaded;
  pool_.counts_[static_cast<std::size_t>(SlotState::kSealed)] += loaded;
  pool_.policy_->touch_all(oldest_first);
  return loaded;
}

}  // namespace terrace::catalog
