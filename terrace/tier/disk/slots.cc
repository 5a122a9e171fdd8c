#include <algorithm>
#include <functional>

#include "terrace/base/check.h"
#include "terrace/tier/disk/slots_internal.h"

namespace terrace::tier::disk {

namespace {
constexpr NamespaceId kForeign{UINT16_MAX};
constexpr std::uint16_t kLastNamespace = UINT16_MAX - 1;
// Blocks that can make no room that one reserve() passes over at most.
constexpr int kMostPassedOver = 256;

GroupId group_id(std::size_t group) { return GroupId(static_cast<std::uint16_t>(group)); }
}  // namespace

Result<std::unique_ptr<Slots>> Slots::create(const Options& options, SlotMap map,
                                             std::size_t volumes) {
  const std::uint32_t size = std::min(options.slots, map.size());
  std::unique_ptr<Slots> slots(new Slots(std::move(map), size, volumes));
  const MutexLock lock(slots->mutex_);
  for (std::size_t group = 0; group < options.groups; ++group) {
    TERRACE_ASSIGN_OR_RETURN(
        auto pool, catalog::Pool::create(
                       {.slots = size, .eviction = options.eviction, .returns = options.returns}));
    TERRACE_ASSIGN_OR_RETURN(auto aliases, index::ZeroedArray<std::uint64_t>::create(size));
    slots->pools_.push_back(std::move(pool));
    slots->aliases_.push_back(std::move(aliases));
    slots->spreads_.emplace_back(volumes);
  }
  return slots;
}

BlockKey Slots::key(std::size_t group, const SequenceHash& hash) const {
  return {current_, group_id(group), hash};
}

void Slots::adopt_foreign(std::uint32_t volume, std::uint32_t first_slot, std::uint32_t count) {
  const MutexLock lock(mutex_);
  for (std::size_t group = 0; group < pools_.size(); ++group) {
    for (std::uint32_t slot = first_slot; slot < first_slot + count; ++slot) {
      const std::uint32_t index = map_.index({volume, slot});
      if (index >= size_) continue;
      const BlockKey foreign{kForeign, group_id(group), {volume, slot}};
      if (pools_[group]->adopt(foreign, SlotIndex(index), Generation(1))) ++foreign_;
    }
  }
}

Result<Slots::Loading> Slots::begin_load(std::size_t group, std::size_t parts) {
  const MutexLock lock(mutex_);
  TERRACE_ASSIGN_OR_RETURN(
      auto load, catalog::PoolLoad::create(*pools_[group], current_, group_id(group), parts));
  return Loading{std::move(load), aliases_[group].all()};
}

std::size_t Slots::match(std::size_t group, std::span<const SequenceHash> hashes) const {
  const MutexLock lock(mutex_);
  if (hidden_ == 0) return pools_[group]->match(current_, group_id(group), hashes);
  std::size_t count = 0;
  while (count < hashes.size() && is_seen(group, hashes[count])) ++count;
  return count;
}

bool Slots::contains(std::size_t group, const SequenceHash& hash) const {
  const MutexLock lock(mutex_);
  return hidden_ == 0 ? pools_[group]->contains(key(group, hash)) : is_seen(group, hash);
}

bool Slots::is_seen(std::size_t group, const SequenceHash& hash) const {
  const auto slot = pools_[group]->find(key(group, hash));
  return slot && !is_hidden_[map_.place(slot->index.value()).volume];
}

void Slots::hide_volume(std::uint32_t volume, bool is_hidden) {
  const MutexLock lock(mutex_);
  if (is_hidden_[volume] == is_hidden) return;
  is_hidden_[volume] = is_hidden;
  hidden_ = static_cast<std::size_t>(std::ranges::count(is_hidden_, true));
}

void Slots::touch(std::size_t group, const SequenceHash& hash) {
  const MutexLock lock(mutex_);
  pools_[group]->touch(key(group, hash));
}

void Slots::touch_chain(std::size_t group, const catalog::UsedRun& run) {
  const MutexLock lock(mutex_);
  pools_[group]->touch_chain(current_, group_id(group), run);
}

void Slots::note_last_use(std::size_t group, const SequenceHash& hash,
                          const catalog::LastUse& last) {
  const MutexLock lock(mutex_);
  pools_[group]->note_last_use(key(group, hash), last);
}

void Slots::add_locked(std::uint64_t count) {
  const MutexLock lock(mutex_);
  locked_ += count;
}

bool Slots::is_locked(std::size_t group, std::uint32_t slot) const {
  return locked_ > 0 && aliases_[group][slot] == kLockedAlias;
}

bool Slots::unlock(std::size_t group, std::uint32_t slot) {
  if (!is_locked(group, slot)) return false;
  aliases_[group][slot] = 0;
  --locked_;
  return true;
}

void Slots::note_gone(std::size_t group, const catalog::Eviction& gone) {
  if (gone.key.name_space == kForeign) {
    --foreign_;
  } else if (unlock(group, gone.slot.index.value())) {
    // Nobody was told that it is there.
  } else if (gone.key.name_space == current_ && evicted_.size() < kMostEvicted) {
    evicted_.push_back(gone);
  }
}

Result<Slots::Reserved> Slots::reserve(std::size_t group, const SequenceHash& hash,
                                       const std::vector<bool>& is_blocked,
                                       std::optional<std::uint32_t> wanted_epoch) {
  const MutexLock lock(mutex_);
  if (wanted_epoch && *wanted_epoch != epoch_) {
    return fail(Code::kNotFound, "the cache was reset meanwhile");
  }
  catalog::Pool& pool = *pools_[group];
  const BlockKey wanted = key(group, hash);
  // One that nobody can read now gives way to a new copy.
  if (hidden_ > 0 && pool.contains(wanted) && !is_seen(group, hash)) {
    const auto unseen = pool.find(wanted);
    // Told as one that went: there may be no room for the new one.
    const bool is_gone = unseen && pool.remove(*unseen);
    if (is_gone && evicted_.size() < kMostEvicted) evicted_.push_back({wanted, *unseen});
  }
  if (pool.contains(wanted) || pool.is_filling(wanted)) {
    return fail(Code::kInvalid, "the block is on disk already");
  }
  auto slot = reserve_free(group, wanted, is_blocked);
  if (!slot) slot = reserve_victims(group, wanted, is_blocked);
  if (!slot) return fail(Code::kExhausted, "no disk path can take the block now");
  Reserved reserved;
  reserved.epoch = epoch_;
  reserved.place = map_.place(slot->slot().index.value());
  reserved.slot = std::move(*slot).begin_fill();
  return reserved;
}

SlotIndex Slots::end_of(std::uint32_t volume) const {
  const std::uint32_t first = map_.first(volume);
  return SlotIndex(first + std::min(limits_[volume], map_.end(volume) - first));
}

std::optional<catalog::ReservedSlot> Slots::reserve_free(std::size_t group, const BlockKey& wanted,
                                                         const std::vector<bool>& is_blocked) {
  catalog::Pool& pool = *pools_[group];
  if (pool.count(catalog::SlotState::kFree) == 0) return std::nullopt;
  std::vector<bool> can_take(map_.volumes());
  for (std::uint32_t v = 0; v < can_take.size(); ++v) {
    can_take[v] = !is_blocked[v] && pool.has_free_in(SlotIndex(map_.first(v)), end_of(v));
  }
  if (std::ranges::none_of(can_take, std::identity{})) return std::nullopt;
  const std::uint32_t v = spreads_[group].next(can_take);
  auto slot = pool.reserve_in(wanted, SlotIndex(map_.first(v)), end_of(v));
  if (!slot) return std::nullopt;
  return *std::move(slot);
}

std::optional<catalog::ReservedSlot> Slots::reserve_victims(std::size_t group,
                                                            const BlockKey& wanted,
                                                            const std::vector<bool>& is_blocked) {
  if (std::ranges::all_of(is_blocked, std::identity{})) return std::nullopt;
  catalog::Pool& pool = *pools_[group];
  for (int tries = 0; tries < kMostPassedOver; ++tries) {
    const auto victim = pool.next_victim();
    if (!victim) return std::nullopt;  // All are pinned or in use.
    const SlotIndex index = victim->slot.index;
    const std::uint32_t volume = map_.place(index.value()).volume;
    const bool can_take = !is_blocked[volume] && index < end_of(volume);
    // Never evict a readable block whose place could not take the new one: it is passed over, and
    // comes last again.
    if (!can_take && !is_hidden_[volume]) {
      pool.touch(victim->key);
      continue;
    }
    TERRACE_CHECK(pool.remove(victim->slot));
    note_gone(group, *victim);
    if (!can_take) continue;
    auto slot = pool.reserve_in(wanted, index, SlotIndex(index.value() + 1));
    TERRACE_CHECK(slot.has_value());
    return *std::move(slot);
  }
  return std::nullopt;
}

void Slots::set_speeds(std::span<const double> speeds) {
  const MutexLock lock(mutex_);
  for (Spread& spread : spreads_) spread.set_speeds(speeds);
}

void Slots::limit_volume(std::uint32_t volume, std::uint32_t slots) {
  const MutexLock lock(mutex_);
  limits_[volume] = slots;
}

void Slots::drop_foreign(std::uint32_t volume, std::uint32_t first_slot, std::uint32_t count) {
  const MutexLock lock(mutex_);
  for (const auto& pool : pools_) {
    for (std::uint32_t slot = first_slot; slot < first_slot + count; ++slot) {
      const std::uint32_t index = map_.index({volume, slot});
      if (index >= size_) continue;
      const SlotRef ref = pool->ref_of(SlotIndex(index));
      const auto held = pool->key_of(ref);
      if (held && held->name_space == kForeign && pool->remove(ref)) --foreign_;
    }
  }
}

bool Slots::seal(catalog::FillingSlot slot, std::size_t group, std::uint64_t alias,
                 std::uint32_t epoch) {
  const MutexLock lock(mutex_);
  const std::uint32_t index = slot.slot().index.value();
  if (epoch != epoch_) {
    const catalog::FillingSlot dropped = std::move(slot);
    return false;
  }
  (void)unlock(group, index);  // Of one that was loaded and given back.
  set_alias(aliases_[group][index], alias);
  const auto pin = std::move(slot).seal();
  return pin.has_value();
}

void Slots::abandon(catalog::FillingSlot slot) {
  const MutexLock lock(mutex_);
  const catalog::FillingSlot dropped = std::move(slot);
}

std::optional<Slots::Pinned> Slots::pin(std::size_t group, const SequenceHash& hash) {
  const MutexLock lock(mutex_);
  auto pin = pools_[group]->pin(key(group, hash));
  if (!pin) return std::nullopt;
  Pinned pinned;
  const SlotRef slot = pin->slot();
  pinned.pin = *std::move(pin);
  pinned.place = map_.place(slot.index.value());
  pinned.generation = slot.generation.value();
  pinned.alias = aliases_[group][slot.index.value()];
  pinned.epoch = epoch_;
  return pinned;
}

bool Slots::unpin(std::size_t group, Pinned pinned, bool is_removed) {
  const MutexLock lock(mutex_);
  const SlotRef slot = pinned.pin.slot();
  pinned.pin.reset();
  if (is_removed) (void)pools_[group]->remove(slot);
  return pinned.epoch == epoch_;
}

void Slots::forget_all() {
  const MutexLock lock(mutex_);
  ++epoch_;
  // Keys of an earlier round must be gone before its number comes again.
  if (current_.value() == kLastNamespace) {
    for (std::size_t group = 0; group < pools_.size(); ++group) {
      for (std::uint32_t slot = 0; slot < size_; ++slot) sweep_slot(group, slot);
    }
    current_ = NamespaceId(0);
  }
  current_ = NamespaceId(static_cast<std::uint16_t>(current_.value() + 1));
  sweep_at_ = 0;
}

std::uint32_t Slots::epoch() const {
  const MutexLock lock(mutex_);
  return epoch_;
}

void Slots::note_dropped(std::uint32_t volume, std::uint32_t epoch) {
  const MutexLock lock(mutex_);
  dropped_[volume] = epoch;
}

// Files that were deleted nobody finds again.
bool Slots::is_dropped(std::uint32_t volume) const {
  const MutexLock lock(mutex_);
  return dropped_[volume] == epoch_ || is_forgotten_[volume];
}

void Slots::forget_volume(std::uint32_t volume) {
  const MutexLock lock(mutex_);
  is_forgotten_[volume] = true;
  sweep_at_ = 0;
}

bool Slots::sweep_slot(std::size_t group, std::uint32_t slot) {
  catalog::Pool& pool = *pools_[group];
  if (pool.state(SlotIndex(slot)) != catalog::SlotState::kSealed) return true;
  const SlotRef ref = pool.ref_of(SlotIndex(slot));
  const auto held = pool.key_of(ref);
  if (!held) return true;
  const bool is_foreign = held->name_space == kForeign;
  const bool is_old = !is_foreign && held->name_space != current_;
  if (!is_old && !is_forgotten_[map_.place(slot).volume]) return true;
  if (!pool.remove(ref)) return false;
  note_gone(group, {*held, ref});
  return true;
}

bool Slots::sweep(std::uint32_t limit) {
  const MutexLock lock(mutex_);
  const std::uint64_t end = static_cast<std::uint64_t>(size_) * pools_.size();
  for (std::uint32_t i = 0; i < limit && sweep_at_ < end; ++i, ++sweep_at_) {
    // A pinned one is left to the read that holds it, which then finds the cache reset.
    (void)sweep_slot(sweep_at_ / size_, static_cast<std::uint32_t>(sweep_at_ % size_));
  }
  return sweep_at_ >= end;
}

bool Slots::is_free(std::size_t group, std::uint32_t slot) const {
  const MutexLock lock(mutex_);
  return pools_[group]->state(SlotIndex(slot)) == catalog::SlotState::kFree;
}

std::uint32_t Slots::count(catalog::SlotState state) const {
  const MutexLock lock(mutex_);
  std::uint64_t sum = 0;
  for (const auto& pool : pools_) sum += pool->count(state);
  if (state == catalog::SlotState::kSealed) sum -= foreign_ + locked_;
  return static_cast<std::uint32_t>(sum);
}

std::uint64_t Slots::foreign() const {
  const MutexLock lock(mutex_);
  return foreign_;
}

std::uint64_t Slots::locked() const {
  const MutexLock lock(mutex_);
  return locked_;
}

void Slots::tell() {
  const MutexLock lock(mutex_);
  for (std::size_t i = 0; i < told_.size(); ++i) {
    const auto state = static_cast<catalog::SlotState>(i);
    std::uint64_t sum = 0;
    for (const auto& pool : pools_) sum += pool->count(state);
    if (state == catalog::SlotState::kSealed) sum -= foreign_ + locked_;
    told_[i].set(static_cast<std::int64_t>(sum));
  }
  told_foreign_.set(static_cast<std::int64_t>(foreign_));
  told_locked_.set(static_cast<std::int64_t>(locked_));
  told_memory_.set(static_cast<std::int64_t>(memory_of_all().value()));
}

std::int64_t Slots::told(catalog::SlotState state) const {
  return told_[static_cast<std::size_t>(state)].value();
}

std::vector<catalog::Eviction> Slots::take_evicted() {
  std::vector<catalog::Eviction> taken;
  const MutexLock lock(mutex_);
  taken.swap(evicted_);
  return taken;
}

Bytes Slots::memory() const {
  const MutexLock lock(mutex_);
  return memory_of_all();
}

Bytes Slots::memory_of_all() const {
  Bytes sum(0);
  for (const auto& pool : pools_) sum += pool->memory();
  for (const auto& aliases : aliases_) sum += aliases.memory();
  return sum;
}

}  // namespace terrace::tier::disk
