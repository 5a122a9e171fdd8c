// The pool against a naive model that predicts every answer, the victim included.
#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <map>
#include <set>
#include <variant>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/catalog/pool.h"
#include "terrace/testing/keys.h"
#include "terrace/testing/property.h"

namespace terrace::catalog {
namespace {

class ModelSlot {
 public:
  SlotState state = SlotState::kFree;
  BlockKey key{};
  std::uint32_t generation = 0;
  int pins = 0;          // Without the evictor's hold.
  bool is_held = false;  // By an evictor.
};

class PoolModel {
 public:
  PoolModel(std::uint32_t slots, std::uint64_t seed)
      : pool_(Pool::create({.slots = slots}).value()), rng_(seed), slots_(slots) {
    for (std::uint32_t i = 0; i < slots; ++i) free_.insert(i);
  }

  // Mostly everything at random, which fills the pool; now and then a while that empties it.
  void step() {
    constexpr std::array<std::uint64_t, 8> kEmptying{5, 7, 8, 11, 12, 14, 15, 16};
    const std::uint64_t period = 4000 + 80 * slots_.size();
    const bool is_emptying = ++steps_ % period < period / 3;
    switch (is_emptying ? kEmptying[rng_.below(kEmptying.size())] : rng_.below(18)) {
      case 0:
      case 1:
      case 2:
        reserve();
        break;
      case 3:
      case 4:
        begin_fill();
        break;
      case 5:
      case 6:
        seal();
        break;
      case 7:
        abandon();
        break;
      case 8:
        quarantine_or_release();
        break;
      case 9:
        pin_key();
        break;
      case 10:
        pin_ref();
        break;
      case 11:
      case 12:
        unpin();
        break;
      case 13:
        touch();
        break;
      case 14:
        remove();
        break;
      case 15:
        adopt();
        break;
      case 16:
        evict();
        break;
      default:
        runs();
        break;
    }
    compare();
  }

  // What happened, so that the test can tell that it went everywhere.
  struct Events {
    std::uint64_t evicted = 0;
    std::uint64_t exhausted = 0;
    std::uint64_t second_writers = 0;
    std::uint64_t stale = 0;
    std::uint64_t rescued = 0;
    std::uint64_t adopted = 0;
    std::uint64_t quarantined = 0;
  };
  [[nodiscard]] const Events& events() const { return events_; }

  void sweep() {
    std::array<std::uint32_t, kSlotStateCount> counts{};
    for (std::uint32_t i = 0; i < slots_.size(); ++i) {
      const ModelSlot& slot = slots_[i];
      ++counts[static_cast<std::size_t>(slot.state)];
      ASSERT_EQ(pool_->state(SlotIndex(i)), slot.state);
      ASSERT_EQ(pool_->ref_of(SlotIndex(i)), ref(i));
      const bool has_key = slot.state != SlotState::kFree && slot.state != SlotState::kQuarantined;
      const auto key = pool_->key_of(ref(i));
      ASSERT_EQ(key.has_value(), has_key);
      if (has_key) {
        ASSERT_EQ(*key, slot.key);
      }
      ASSERT_FALSE(pool_->key_of({SlotIndex(i), Generation(slot.generation - 1)}));
    }
    for (int state = 0; state < kSlotStateCount; ++state) {
      ASSERT_EQ(pool_->count(static_cast<SlotState>(state)),
                counts[static_cast<std::size_t>(state)]);
    }
    for (std::uint64_t n = 0; n < key_count(); ++n) {
      ASSERT_EQ(pool_->contains(numbered(n)), visible_.contains(numbered(n)));
      ASSERT_EQ(pool_->is_filling(numbered(n)), filling_[numbered(n)] > 0);
    }
  }

 private:
  std::uint64_t key_count() const { return 2 * slots_.size() + 4; }
  BlockKey numbered(std::uint64_t n) const {
    return testing::key(n / 2, static_cast<std::uint16_t>(1 + n % 2));
  }
  BlockKey random_key() { return numbered(rng_.below(key_count())); }
  std::uint32_t random_slot() { return static_cast<std::uint32_t>(rng_.below(slots_.size())); }
  SlotRef ref(std::uint32_t i) const { return {SlotIndex(i), Generation(slots_[i].generation)}; }
  SlotRef random_ref() {
    SlotRef some = ref(random_slot());
    if (rng_.chance(30) && some.generation.value() > 0) {
      some.generation = Generation(static_cast<std::uint32_t>(rng_.below(some.generation.value())));
    }
    return some;
  }
  bool is_present(SlotRef r) const { return ref(r.index.value()) == r; }
  template <typename Handle>
  std::optional<Handle> take(std::vector<Handle>& from) {
    if (from.empty()) return std::nullopt;
    const std::size_t i = rng_.below(from.size());
    std::optional<Handle> taken(std::move(from[i]));
    if (i + 1 != from.size()) from[i] = std::move(from.back());
    from.pop_back();
    return taken;
  }

  // What the model does.
  void model_free(std::uint32_t i) {
    ModelSlot& slot = slots_[i];
    switch (slot.state) {
      case SlotState::kReserved:
      case SlotState::kFilling:
        --filling_[slot.key];
        break;
      case SlotState::kSealed:
      case SlotState::kEvicting:
        visible_.erase(slot.key);
        order_.remove(i);
        break;
      case SlotState::kFree:
      case SlotState::kQuarantined:
        break;
    }
    slot.state = SlotState::kFree;
    free_.insert(i);
  }
  void model_use(std::uint32_t i) {
    ModelSlot& slot = slots_[i];
    if (slot.state == SlotState::kEvicting) slot.state = SlotState::kSealed;
    if (slot.state != SlotState::kSealed || slot.pins > 0 || slot.is_held) return;
    order_.remove(i);
    order_.push_back(i);
  }
  void model_pin(std::uint32_t i) {
    model_use(i);
    ++slots_[i].pins;
    order_.remove(i);
  }
  void model_unpin(std::uint32_t i) {
    --slots_[i].pins;
    model_use(i);
  }

  void reserve() {
    const BlockKey key = random_key();
    auto reserved = pool_->reserve(key);
    std::optional<Eviction> expected;
    if (free_.empty() && !order_.empty()) {
      const std::uint32_t victim = order_.front();
      expected = Eviction{slots_[victim].key, ref(victim)};
      model_free(victim);
    }
    ASSERT_EQ(reserved.has_value(), !free_.empty());
    const auto evicted = pool_->take_evicted();
    ASSERT_EQ(evicted.size(), expected ? 1U : 0U);
    if (expected) {
      ++events_.evicted;
      ASSERT_EQ(evicted[0].key, expected->key);
      ASSERT_EQ(evicted[0].slot, expected->slot);
    }
    if (!reserved) {
      ++events_.exhausted;
      ASSERT_EQ(reserved.error().code(), Code::kExhausted);
      return;
    }
    const std::uint32_t i = *free_.begin();
    free_.erase(free_.begin());
    slots_[i] = {SlotState::kReserved, key, slots_[i].generation + 1};
    ++filling_[key];
    ASSERT_EQ(reserved->slot(), ref(i));
    reserved_.push_back(std::move(*reserved));
  }
  void begin_fill() {
    auto handle = take(reserved_);
    if (!handle) return;
    slots_[handle->slot().index.value()].state = SlotState::kFilling;
    filling_slots_.push_back(std::move(*handle).begin_fill());
  }
  void seal() {
    auto handle = take(filling_slots_);
    if (!handle) return;
    const std::uint32_t i = handle->slot().index.value();
    const BlockKey key = slots_[i].key;
    auto pin = std::move(*handle).seal();
    ASSERT_EQ(pin.has_value(), !visible_.contains(key)) << "first writer stays";
    if (!pin) {
      ++events_.second_writers;
      return model_free(i);
    }
    --filling_[key];
    visible_[key] = i;
    slots_[i].state = SlotState::kSealed;
    slots_[i].pins = 1;
    ASSERT_EQ(pin->slot(), ref(i));
    pins_.push_back(std::move(*pin));
  }
  void abandon() {
    if (rng_.chance(50)) {
      if (auto handle = take(reserved_)) model_free(handle->slot().index.value());
    } else if (auto handle = take(filling_slots_)) {
      model_free(handle->slot().index.value());
    }
  }
  void quarantine_or_release() {
    if (rng_.chance(40)) {
      auto handle = take(filling_slots_);
      if (!handle) return;
      const std::uint32_t i = handle->slot().index.value();
      std::move(*handle).quarantine();
      --filling_[slots_[i].key];
      slots_[i].state = SlotState::kQuarantined;
      ++events_.quarantined;
      quarantined_.push_back(ref(i));
      return;
    }
    const SlotRef some = random_ref();
    const bool can =
        is_present(some) && slots_[some.index.value()].state == SlotState::kQuarantined;
    ASSERT_EQ(pool_->release_quarantined(some), can);
    if (can) model_free(some.index.value());
    if (auto old = take(quarantined_);
        old && is_present(*old) && slots_[old->index.value()].state == SlotState::kQuarantined) {
      ASSERT_TRUE(pool_->release_quarantined(*old));
      model_free(old->index.value());
    }
  }
  void pin_key() {
    const BlockKey key = random_key();
    auto pin = pool_->pin(key);
    const auto found = visible_.find(key);
    ASSERT_EQ(pin.has_value(), found != visible_.end());
    if (!pin) return;
    ASSERT_EQ(pin->slot(), ref(found->second));
    model_pin(found->second);
    pins_.push_back(std::move(*pin));
  }
  void pin_ref() {
    const SlotRef some = random_ref();
    const std::uint32_t i = some.index.value();
    auto pin = pool_->pin(some);
    const bool can = is_present(some) && (slots_[i].state == SlotState::kSealed ||
                                          slots_[i].state == SlotState::kEvicting);
    events_.stale += is_present(some) ? 0 : 1;
    ASSERT_EQ(pin.has_value(), can) << "a stale reference must not resolve";
    if (!pin) return;
    model_pin(i);
    pins_.push_back(std::move(*pin));
  }
  void unpin() {
    if (auto pin = take(pins_)) model_unpin(pin->slot().index.value());
  }
  void touch() {
    const BlockKey key = random_key();
    pool_->touch(key);
    if (const auto found = visible_.find(key); found != visible_.end()) model_use(found->second);
  }
  void remove() {
    const SlotRef some = random_ref();
    const ModelSlot& slot = slots_[some.index.value()];
    const bool can =
        is_present(some) && slot.state == SlotState::kSealed && slot.pins == 0 && !slot.is_held;
    ASSERT_EQ(pool_->remove(some), can);
    if (can) model_free(some.index.value());
  }
  void adopt() {
    const BlockKey key = random_key();
    const std::uint32_t i = random_slot();
    const auto generation =
        static_cast<std::uint32_t>(rng_.below(2) * slots_[i].generation + rng_.below(3));
    const bool can = slots_[i].state == SlotState::kFree && !visible_.contains(key) &&
                     (slots_[i].generation == 0 || generation > slots_[i].generation);
    ASSERT_EQ(pool_->adopt(key, SlotIndex(i), Generation(generation)), can);
    if (!can) return;
    ++events_.adopted;
    free_.erase(i);
    visible_[key] = i;
    slots_[i] = {SlotState::kSealed, key, generation};
    order_.push_back(i);
  }
  void evict() {
    if (rng_.chance(50)) {
      auto evicting = pool_->begin_evict();
      ASSERT_EQ(evicting.has_value(), !order_.empty());
      if (!evicting) return;
      const std::uint32_t i = order_.front();
      order_.pop_front();
      ASSERT_EQ(evicting->slot(), ref(i));
      slots_[i].state = SlotState::kEvicting;
      slots_[i].is_held = true;
      evicting_.push_back(std::move(*evicting));
      return;
    }
    auto handle = take(evicting_);
    if (!handle) return;
    const std::uint32_t i = handle->slot().index.value();
    ModelSlot& slot = slots_[i];
    slot.is_held = false;
    ASSERT_EQ(handle->is_rescued(), slot.state == SlotState::kSealed);
    events_.rescued += handle->is_rescued() ? 1 : 0;
    const bool keeps = rng_.chance(30);
    if (slot.state == SlotState::kSealed || keeps)
      model_use(i);
    else
      model_free(i);
    if (keeps) std::move(*handle).keep();
  }
  void runs() {
    const auto name_space = static_cast<std::uint16_t>(1 + rng_.below(2));
    const auto first = rng_.below(slots_.size() + 2);
    const auto hashes = testing::chain(first, rng_.below(24));
    std::vector<std::uint32_t> found;
    for (const SequenceHash& hash : hashes) {
      const auto slot = visible_.find({NamespaceId(name_space), GroupId(0), hash});
      if (slot == visible_.end()) break;
      found.push_back(slot->second);
    }
    ASSERT_EQ(pool_->match(NamespaceId(name_space), GroupId(0), hashes), found.size());
    if (rng_.chance(50)) {
      pool_->touch_chain(NamespaceId(name_space), GroupId(0), {.hashes = hashes});
      for (auto hash = hashes.rbegin(); hash != hashes.rend(); ++hash) {
        const auto slot = visible_.find({NamespaceId(name_space), GroupId(0), *hash});
        if (slot != visible_.end()) model_use(slot->second);
      }
      return;
    }
    PinRun run = pool_->pin_run(NamespaceId(name_space), GroupId(0), hashes);
    ASSERT_EQ(run.size(), found.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      ASSERT_EQ(run.slot(i), ref(found[i]));
      model_pin(found[i]);
    }
    for (std::size_t i = found.size(); i > 0; --i) model_unpin(found[i - 1]);
  }

  void compare() {
    std::uint32_t sum = 0;
    for (int state = 0; state < kSlotStateCount; ++state) {
      sum += pool_->count(static_cast<SlotState>(state));
    }
    ASSERT_EQ(sum, slots_.size());
    ASSERT_EQ(pool_->count(SlotState::kFree), free_.size());
    ASSERT_EQ(pool_->count(SlotState::kSealed) + pool_->count(SlotState::kEvicting),
              visible_.size());
    ASSERT_EQ(pool_->count(SlotState::kSealed) - pool_->pinned(), order_.size());
    const auto victim = pool_->next_victim();
    ASSERT_EQ(victim.has_value(), !order_.empty());
    if (victim) {
      ASSERT_EQ(victim->slot, ref(order_.front())) << "pinned or recent blocks must not go";
      ASSERT_EQ(victim->key, slots_[order_.front()].key);
    }
  }

  std::unique_ptr<Pool> pool_;
  Rng rng_;
  std::vector<ModelSlot> slots_;
  std::set<std::uint32_t> free_;
  std::map<BlockKey, std::uint32_t> visible_;
  std::map<BlockKey, int> filling_;
  std::list<std::uint32_t> order_;  // Evictable slots, least recently used first.
  std::vector<ReservedSlot> reserved_;
  std::vector<FillingSlot> filling_slots_;
  std::vector<Pin> pins_;
  std::vector<EvictingSlot> evicting_;
  std::vector<SlotRef> quarantined_;
  Events events_;
  std::uint64_t steps_ = 0;
};

TEST(PoolProperty, AgreesWithANaiveModelAfterEachStep) {
  const auto [seed, steps] = testing::property(20261122, 2'000'000);
  Rng seeds(seed);
  for (const std::uint32_t slots : {1U, 2U, 5U, 24U, 200U}) {
    PoolModel model(slots, seeds.next());
    for (std::uint64_t i = 0; i < steps / 5; ++i) {
      model.step();
      if (i % 5'000 == 0) model.sweep();
      if (::testing::Test::HasFatalFailure()) FAIL() << slots << " slots, step " << i;
    }
    model.sweep();
    if (steps < 1'000'000) continue;  // Too short to meet everything.
    const PoolModel::Events& events = model.events();
    EXPECT_GT(events.evicted, 0U) << slots;
    EXPECT_GT(events.exhausted, 0U) << slots;
    EXPECT_GT(events.stale, 0U) << slots;
    EXPECT_GT(events.rescued, 0U) << slots;
    EXPECT_GT(events.adopted, 0U) << slots;
    EXPECT_GT(events.quarantined, 0U) << slots;
    // Two writers of one key need two slots.
    EXPECT_EQ(events.second_writers > 0, slots > 1) << slots;
  }
}

}  // namespace
}  // namespace terrace::catalog
