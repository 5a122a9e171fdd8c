// What the scrubber asks of the slots.
#include <algorithm>

#include "terrace/tier/disk/slots_internal.h"

namespace terrace::tier::disk {

std::optional<Slots::Sight> Slots::next_sealed(std::size_t group, std::uint32_t& slot,
                                               std::uint32_t limit) const {
  const MutexLock lock(mutex_);
  const catalog::Pool& pool = *pools_[group];
  const std::uint32_t end = size_ - slot > limit ? slot + limit : size_;
  while (slot < end) {
    const SlotIndex index(slot++);
    if (pool.state(index) != catalog::SlotState::kSealed) continue;
    const SlotRef ref = pool.ref_of(index);
    const auto held = pool.key_of(ref);
    if (!held || held->name_space != current_) continue;
    // Its frame cannot be judged for want of its key.
    if (is_locked(group, index.value())) continue;
    return Sight{ref, held->hash, map_.place(index.value()), epoch_};
  }
  return std::nullopt;
}

bool Slots::is_same(std::size_t group, const Sight& sight) const {
  const MutexLock lock(mutex_);
  const catalog::Pool& pool = *pools_[group];
  if (sight.epoch != epoch_ || pool.state(sight.slot.index) != catalog::SlotState::kSealed) {
    return false;
  }
  const auto held = pool.key_of(sight.slot);
  return held && held->name_space == current_ && held->hash == sight.hash;
}

bool Slots::drop(std::size_t group, const Sight& sight) {
  const MutexLock lock(mutex_);
  const auto held = pools_[group]->key_of(sight.slot);
  if (!held || held->name_space != current_ || held->hash != sight.hash) return false;
  if (!pools_[group]->remove(sight.slot)) return false;
  if (evicted_.size() < kMostEvicted) evicted_.push_back({*held, sight.slot});
  return true;
}

}  // namespace terrace::tier::disk
