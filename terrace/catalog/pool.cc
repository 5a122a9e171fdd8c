#include "terrace/catalog/pool.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "terrace/base/check.h"

namespace terrace::catalog {

std::string_view to_string(SlotState state) {
  switch (state) {
    case SlotState::kFree:
      return "free";
    case SlotState::kReserved:
      return "reserved";
    case SlotState::kFilling:
      return "filling";
    case SlotState::kSealed:
      return "sealed";
    case SlotState::kEvicting:
      return "evicting";
    case SlotState::kQuarantined:
      return "quarantined";
  }
  return "unknown";
}

Result<std::unique_ptr<Pool>> Pool::create(const Options& options) {
  if (options.slots == 0) return fail(Code::kInvalid, "a pool needs at least one slot");
  TERRACE_ASSIGN_OR_RETURN(auto index, index::BlockIndex::create(options.slots));
  TERRACE_ASSIGN_OR_RETURN(auto free, FreeSet::create(options.slots));
  TERRACE_ASSIGN_OR_RETURN(auto table, index::ZeroedArray<Slot>::create(options.slots));
  TERRACE_ASSIGN_OR_RETURN(auto policy,
                           policy::make_eviction(options.eviction, options.slots, options.returns));
  if (options.make_policy) policy = options.make_policy(options.slots);
  return std::unique_ptr<Pool>(
      new Pool(options, std::move(index), std::move(free), std::move(table), std::move(policy)));
}

Pool::Pool(const Options& options, index::BlockIndex index, FreeSet free,
           index::ZeroedArray<Slot> table, std::unique_ptr<policy::EvictionPolicy> policy)
    : slots_(options.slots),
      evicted_limit_(options.evicted_limit),
      index_(std::move(index)),
      free_(std::move(free)),
      table_(std::move(table)),
      policy_(std::move(policy)) {
  counts_[static_cast<std::size_t>(SlotState::kFree)] = slots_;
}

Pool::Slot* Pool::resolve(SlotRef ref, SlotState state) {
  if (ref.index.value() >= slots_) return nullptr;
  Slot& slot = table_[ref.index.value()];
  return slot.generation == ref.generation && state_of(slot) == state ? &slot : nullptr;
}

void Pool::set_state(Slot& slot, SlotState state) {
  --counts_[slot.state];
  slot.state = static_cast<std::uint32_t>(state) & 7U;
  ++counts_[slot.state];
}

void Pool::free_slot(SlotIndex index) {
  Slot& slot = table_[index.value()];
  index_.erase(slot.home, index);
  policy_->forget(index);
  slot.pins = 0;
  set_state(slot, SlotState::kFree);
  free_.put(index);
}

void Pool::evict(SlotIndex index) {
  Slot& slot = table_[index.value()];
  set_state(slot, SlotState::kEvicting);
  policy_->remove(index);
  if (evicted_.size() >= evicted_limit_) {
    ++evicted_forgotten_;
    if (!evicted_.empty()) evicted_.pop_front();
  }
  const auto key = evicted_limit_ > 0 ? index_.key_of(slot.home, index) : std::nullopt;
  if (key) evicted_.push_back({*key, {index, slot.generation}});
  free_slot(index);
}

Result<ReservedSlot> Pool::reserve(const BlockKey& key) {
  throw_kept_breach();
  auto index = free_.take_lowest();
  if (!index) {
    const auto victim = policy_->victim();
    if (!victim) {
      return fail(Code::kExhausted, "all " + std::to_string(slots_) +
                                        " slots are pinned or in use: the block is not kept");
    }
    evict(*victim);
    index = free_.take_lowest();
    TERRACE_CHECK(index.has_value());
  }
  return enter_reserved(key, *index);
}

Result<ReservedSlot> Pool::reserve_in(const BlockKey& key, SlotIndex first, SlotIndex end) {
  throw_kept_breach();
  const auto index = free_.lowest_in(first, end);
  if (!index) return fail(Code::kExhausted, "no slot there is free");
  TERRACE_CHECK(free_.take(*index));
  return enter_reserved(key, *index);
}

ReservedSlot Pool::enter_reserved(const BlockKey& key, SlotIndex index) {
  Slot& slot = table_[index.value()];
  const std::uint32_t generation = slot.generation.value() + 1;
  slot.generation = Generation(generation == 0 ? 1 : generation);
  slot.home = index_.insert_hidden(key, index);
  set_state(slot, SlotState::kReserved);
  return ReservedSlot(this, {index, slot.generation});
}

std::optional<EvictingSlot> Pool::begin_evict() {
  throw_kept_breach();
  const auto victim = policy_->victim();
  if (!victim) return std::nullopt;
  policy_->leave(*victim);
  Slot& slot = table_[victim->value()];
  slot.pins = 1;
  set_state(slot, SlotState::kEvicting);
  return EvictingSlot(this, {*victim, slot.generation});
}

bool Pool::enter(const BlockKey& key, SlotIndex index, Generation generation) {
  if (index.value() >= slots_ || !free_.is_free(index)) return false;
  Slot& slot = table_[index.value()];
  // A generation that this slot has had could make an old reference good again.
  if (slot.generation.value() != 0 && generation <= slot.generation) return false;
  if (!index_.insert(key, index)) return false;
  free_.take(index);
  slot.home = index_.home_of(key);
  slot.generation = generation;
  set_state(slot, SlotState::kSealed);
  return true;
}

bool Pool::adopt(const BlockKey& key, SlotIndex index, Generation generation) {
  if (!enter(key, index, generation)) return false;
  policy_->touch(index);
  return true;
}

void Pool::prefetch(const Adoption& block) const {
  index_.prefetch(index_.home_of(block.key));
  if (block.slot.value() < slots_) __builtin_prefetch(table_.data() + block.slot.value());
}

std::size_t Pool::adopt(std::span<const Adoption> blocks) {
  constexpr std::size_t kAhead = 16;
  std::size_t adopted = 0;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (i + kAhead < blocks.size()) prefetch(blocks[i + kAhead]);
    adopted += adopt(blocks[i].key, blocks[i].slot, blocks[i].generation) ? 1U : 0U;
  }
  return adopted;
}

void Pool::age(SlotIndex index, Generation generation) {
  if (index.value() >= slots_ || !free_.is_free(index)) return;
  Slot& slot = table_[index.value()];
  slot.generation = std::max(slot.generation, generation);
}

bool Pool::remove(SlotRef ref) {
  const Slot* slot = resolve(ref, SlotState::kSealed);
  if (slot == nullptr || slot->pins > 0) return false;
  policy_->remove(ref.index);
  free_slot(ref.index);
  return true;
}

bool Pool::release_quarantined(SlotRef ref) {
  Slot* slot = resolve(ref, SlotState::kQuarantined);
  if (slot == nullptr) return false;
  set_state(*slot, SlotState::kFree);
  free_.put(ref.index);
  return true;
}

Pin Pool::add_pin(SlotIndex index) {
  Slot& slot = table_[index.value()];
  const bool was_evicting = state_of(slot) == SlotState::kEvicting;
  if (was_evicting) set_state(slot, SlotState::kSealed);
  if (was_evicting || slot.pins == 0) ++pinned_;
  if (slot.pins == 0) policy_->remove(index);
  slot.pins = (slot.pins + 1U) & kMaxPins;
  return Pin(this, {index, slot.generation});
}

std::optional<Pin> Pool::pin(const BlockKey& key) {
  throw_kept_breach();
  const auto index = index_.find(key);
  if (!index || table_[index->value()].pins == kMaxPins) return std::nullopt;
  return add_pin(*index);
}

std::optional<Pin> Pool::pin(SlotRef ref) {
  throw_kept_breach();
  const Slot* slot = resolve(ref, SlotState::kSealed);
  if (slot == nullptr) slot = resolve(ref, SlotState::kEvicting);
  if (slot == nullptr || slot->pins == kMaxPins) return std::nullopt;
  return add_pin(ref.index);
}

PinRun Pool::pin_run(NamespaceId name_space, GroupId group, std::span<const SequenceHash> hashes) {
  throw_kept_breach();
  // In steps whose slots stay in the nearest cache between being found and being pinned.
  constexpr std::size_t kStep = 1024;
  std::array<SlotIndex, kStep> found;
  PinRun run;
  for (std::size_t done = 0; done < hashes.size(); done += kStep) {
    const auto part = hashes.subspan(done, std::min(kStep, hashes.size() - done));
    const std::size_t length = index_.match(name_space, group, part, found);
    // A run that fills a step may be as long as the chain: grown by doubling, the pins of a long
    // one would be moved through fresh pages again and again.
    run.reserve(done + length < hashes.size() && length == part.size() ? hashes.size()
                                                                       : done + length);
    for (std::size_t i = 0; i < length; ++i) __builtin_prefetch(table_.data() + found[i].value());
    for (std::size_t i = 0; i < length; ++i) {
      if (table_[found[i].value()].pins == kMaxPins) return run;
      run.add(add_pin(found[i]));
    }
    if (length < part.size()) break;
  }
  return run;
}

void Pool::touch_slot(SlotIndex index) {
  Slot& slot = table_[index.value()];
  if (state_of(slot) == SlotState::kEvicting) {
    set_state(slot, SlotState::kSealed);
    ++pinned_;  // By the evictor's hold; its drop will touch.
  } else if (slot.pins == 0) {
    policy_->touch(index);
  }
}

void Pool::touch(const BlockKey& key) {
  if (const auto index = index_.find(key)) touch_slot(*index);
}

// In slices, each with the block before it: that is what the policy makes its tree of. The slice
// that is touched last is the first that it is told of, so that most chains are looked up once.
void Pool::touch_chain(NamespaceId name_space, GroupId group, const UsedRun& run) {
  constexpr std::size_t kSlice = 256;
  std::array<std::optional<SlotIndex>, kSlice + 1> slots;
  const auto look_up = [&](std::size_t from) {
    const auto slice = run.hashes.subspan(from, std::min(kSlice, run.hashes.size() - from));
    const auto found = std::span(slots).subspan(1, slice.size());
    index_.find_each(name_space, group, slice, found);
    return found;
  };
  if (run.hashes.empty()) return;
  std::size_t from = (run.hashes.size() - 1) / kSlice * kSlice;
  auto found = look_up(from);
  touch_all(found);
  while (from > 0) {
    from -= kSlice;
    found = look_up(from);
    touch_all(found);
  }
  if (!run.use || !policy_->wants_uses()) return;
  if (run.before) slots[0] = index_.find({name_space, group, *run.before});
  for (;;) {
    policy_->note_use(std::span(slots).first(found.size() + 1), *run.use);
    from += found.size();
    if (from == run.hashes.size()) return;
    slots[0] = found.back();
    found = look_up(from);
  }
}

// Deepest first.
void Pool::touch_all(std::span<const std::optional<SlotIndex>> slots) {
  for (std::size_t i = slots.size(); i > 0; --i) {
    if (slots[i - 1]) touch_slot(*slots[i - 1]);
  }
}

std::optional<LastUse> Pool::last_use(SlotRef ref) const {
  const auto key = key_of(ref);
  const auto known = key ? policy_->last_use(ref.index) : std::nullopt;
  if (!known) return std::nullopt;
  LastUse last{.use = known->use, .before = {}};
  if (known->before) {
    const auto before = key_of(ref_of(*known->before));
    if (before && before->name_space == key->name_space && before->group == key->group) {
      last.before = before->hash;
    }
  }
  return last;
}

void Pool::note_last_use(const BlockKey& key, const LastUse& last) {
  const auto slot = index_.find(key);
  if (!slot || !policy_->wants_uses()) return;
  policy_->set_last_use(*slot, last.use);
  const auto cell = [&](const SequenceHash& hash) -> Orphan& {
    return orphans_[hash.low % kOrphans];
  };
  if (last.before) {
    const BlockKey before{key.name_space, key.group, *last.before};
    if (const auto found = index_.find(before)) {
      policy_->set_before(*slot, *found);
    } else {
      orphans_.resize(kOrphans);
      cell(before.hash) = {.before = before, .hash = key.hash};
    }
  }
  if (orphans_.empty() || cell(key.hash).before != key) return;
  const Orphan orphan = std::exchange(cell(key.hash), {});
  if (const auto child = index_.find({key.name_space, key.group, orphan.hash})) {
    policy_->set_before(*child, *slot);
  }
}

std::size_t Pool::match(NamespaceId name_space, GroupId group,
                        std::span<const SequenceHash> hashes) const {
  throw_kept_breach();
  return index_.match(name_space, group, hashes, {});
}

bool Pool::contains(const BlockKey& key) const { return index_.find(key).has_value(); }

std::optional<SlotRef> Pool::find(const BlockKey& key) const {
  const auto index = index_.find(key);
  if (!index) return std::nullopt;
  return ref_of(*index);
}

bool Pool::is_filling(const BlockKey& key) const { return index_.has_hidden(key); }

std::optional<Eviction> Pool::next_victim() const {
  throw_kept_breach();
  const auto victim = policy_->victim();
  if (!victim) return std::nullopt;
  const SlotRef ref = ref_of(*victim);
  const auto key = key_of(ref);
  TERRACE_CHECK(key.has_value());
  return Eviction{*key, ref};
}

std::vector<Eviction> Pool::take_evicted() {
  throw_kept_breach();
  std::vector<Eviction> taken(evicted_.begin(), evicted_.end());
  evicted_.clear();
  return taken;
}

SlotState Pool::state(SlotIndex slot) const {
  return slot.value() < slots_ ? state_of(table_[slot.value()]) : SlotState::kFree;
}

SlotRef Pool::ref_of(SlotIndex slot) const {
  return {slot, slot.value() < slots_ ? table_[slot.value()].generation : Generation(0)};
}

std::optional<BlockKey> Pool::key_of(SlotRef ref) const {
  if (ref.index.value() >= slots_) return std::nullopt;
  const Slot& slot = table_[ref.index.value()];
  const SlotState state = state_of(slot);
  if (slot.generation != ref.generation || state == SlotState::kFree ||
      state == SlotState::kQuarantined) {
    return std::nullopt;
  }
  return index_.key_of(slot.home, ref.index);
}

Bytes Pool::memory() const {
  return index_.memory() + free_.memory() + table_.memory() + policy_->memory() +
         Bytes(sizeof(Pool) + evicted_.size() * sizeof(Eviction) +
               orphans_.size() * sizeof(Orphan));
}

void Pool::start_filling(SlotRef ref) {
  if (Slot* slot = resolve(ref, SlotState::kReserved)) set_state(*slot, SlotState::kFilling);
}

template <typename Verb>
void Pool::keep_breach(Verb&& verb) noexcept {
  try {
    verb();
  } catch (const std::exception& error) {
    // The first one tells most; after it anything may follow.
    if (kept_breach_[0] != '\0') return;
    std::strncpy(kept_breach_.data(), error.what(), kept_breach_.size() - 1);
    has_kept_breach_ = true;
  }
}

void Pool::throw_breach() const {
  has_kept_breach_ = false;
  throw base::Breach(kept_breach_.data());
}

void Pool::abandon(SlotRef ref, SlotState state) noexcept {
  keep_breach([&] {
    if (resolve(ref, state) != nullptr) free_slot(ref.index);
  });
}

void Pool::quarantine(SlotRef ref) {
  Slot* slot = resolve(ref, SlotState::kFilling);
  if (slot == nullptr) return;
  index_.erase(slot->home, ref.index);
  set_state(*slot, SlotState::kQuarantined);
}

std::optional<Pin> Pool::seal(SlotRef ref) {
  Slot* slot = resolve(ref, SlotState::kFilling);
  if (slot == nullptr) return std::nullopt;
  if (!index_.publish(slot->home, ref.index)) {
    free_slot(ref.index);
    return std::nullopt;
  }
  set_state(*slot, SlotState::kSealed);
  slot->pins = 1;
  ++pinned_;
  return Pin(this, ref);
}

void Pool::unpin(SlotRef ref) noexcept {
  Slot* slot = resolve(ref, SlotState::kSealed);
  if (slot == nullptr || slot->pins == 0) return;
  slot->pins = (slot->pins - 1U) & kMaxPins;
  if (slot->pins > 0) return;
  --pinned_;
  keep_breach([&] { policy_->touch(ref.index); });
}

void Pool::end_evict(SlotRef ref, bool keeps) noexcept {
  Slot* slot = resolve(ref, SlotState::kEvicting);
  if (slot == nullptr) {
    unpin(ref);  // Taken back meanwhile: the hold has become a pin like any other.
  } else if (keeps) {
    slot->pins = 0;
    set_state(*slot, SlotState::kSealed);
    keep_breach([&] { policy_->touch(ref.index); });
  } else {
    keep_breach([&] { free_slot(ref.index); });
  }
}

}  // namespace terrace::catalog
