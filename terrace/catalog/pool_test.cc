#include "terrace/catalog/pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "terrace/base/check.h"
#include "terrace/testing/keys.h"

namespace terrace::catalog {
namespace {

using testing::chain;
using testing::key;

std::unique_ptr<Pool> make_pool(std::uint32_t slots) {
  return Pool::create({.slots = slots}).value();
}
Pin store(Pool& pool, const BlockKey& k) { return *pool.reserve(k).value().begin_fill().seal(); }

TEST(PoolTest, RefusesNoSlotsAndUnknownPolicies) {
  EXPECT_EQ(Pool::create({.slots = 0}).error().code(), Code::kInvalid);
  const auto unknown = Pool::create({.slots = 1, .eviction = "mru"});
  EXPECT_EQ(unknown.error().code(), Code::kInvalid);
  EXPECT_NE(unknown.error().message().find("\"mru\" is unknown; known: hazard, lru"),
            std::string::npos);
}

TEST(PoolTest, ABlockIsFoundOnlyOnceSealed) {
  auto pool = make_pool(4);
  ReservedSlot reserved = pool->reserve(key(1)).value();
  EXPECT_TRUE(pool->is_filling(key(1)));
  EXPECT_FALSE(pool->contains(key(1)));
  EXPECT_EQ(pool->count(SlotState::kReserved), 1U);
  FillingSlot filling = std::move(reserved).begin_fill();
  EXPECT_FALSE(pool->pin(key(1)));
  EXPECT_EQ(pool->count(SlotState::kFilling), 1U);
  const auto pin = std::move(filling).seal();
  ASSERT_TRUE(pin);
  EXPECT_TRUE(pool->contains(key(1)));
  EXPECT_FALSE(pool->is_filling(key(1)));
  EXPECT_EQ(pool->key_of(pin->slot()), key(1));
  EXPECT_EQ(pool->pinned(), 1U);
}

TEST(PoolTest, DroppedReservedAndFillingSlotsAreFree) {
  auto pool = make_pool(2);
  {
    const auto reserved = pool->reserve(key(1));
  }
  {
    const auto filling = pool->reserve(key(1)).value().begin_fill();
  }
  EXPECT_EQ(pool->count(SlotState::kFree), 2U);
  EXPECT_FALSE(pool->is_filling(key(1)));
}

// Blocks of one chain, from one pool into another in the order of `places`; then what goes first.
std::vector<SequenceHash> gone_after_moving(const std::vector<std::size_t>& places) {
  const auto source = Pool::create({.slots = 8, .eviction = "hazard"}).value();
  const auto target = Pool::create({.slots = 5, .eviction = "hazard"}).value();
  const auto hashes = chain(1, 4);
  const auto whole = [&](Pool& pool, std::span<const SequenceHash> run, std::int64_t second) {
    pool.touch_chain(NamespaceId(1), GroupId(0),
                     {.hashes = run, .use = policy::Use{.at = seconds(second)}});
  };
  for (const SequenceHash& hash : hashes) (void)store(*source, {NamespaceId(1), GroupId(0), hash});
  whole(*source, hashes, 100);
  const auto other = chain(9, 1);
  (void)store(*target, {NamespaceId(1), GroupId(0), other[0]});
  whole(*target, other, 200);
  for (const std::size_t place : places) {
    const BlockKey key{NamespaceId(1), GroupId(0), hashes[place]};
    const auto last = source->last_use(*source->find(key));
    EXPECT_TRUE(last && last->use.at == seconds(100));
    EXPECT_EQ(last->before.has_value(), place > 0);
    (void)store(*target, key);
    target->note_last_use(key, *last);
  }
  std::vector<SequenceHash> gone;
  while (const auto victim = target->next_victim()) {
    gone.push_back(victim->key.hash);
    (void)target->remove(victim->slot);
  }
  return gone;
}

TEST(PoolTest, WhatComesFromAnotherPoolKeepsItsPlaceInItsChainInWhateverOrderItComes) {
  auto wanted = chain(1, 4);
  std::ranges::reverse(wanted);
  wanted.push_back(chain(9, 1)[0]);  // Used later.
  EXPECT_EQ(gone_after_moving({0, 1, 2, 3}), wanted);
  EXPECT_EQ(gone_after_moving({3, 2, 1, 0}), wanted) << "as blocks are evicted";
  EXPECT_EQ(gone_after_moving({2, 0, 3, 1}), wanted);
}

TEST(PoolTest, OfALastUseNothingIsKnownByLru) {
  auto pool = make_pool(2);
  const auto slot = store(*pool, key(1)).slot();
  EXPECT_FALSE(pool->last_use(slot));
  pool->note_last_use(key(1), {.use = {.at = seconds(1)}, .before = key(2).hash});
  pool->note_last_use(key(3), {});
  EXPECT_TRUE(pool->remove(slot));
  EXPECT_FALSE(pool->last_use(slot));
}

// Finds an invariant broken at each touch, once told to.
class BreakingPolicy final : public policy::EvictionPolicy {
 public:
  BreakingPolicy(std::uint32_t slots, const bool& is_broken)
      : inner_(policy::make_lru(slots)), is_broken_(is_broken) {}
  void touch(SlotIndex slot) override {
    if (is_broken_) throw base::Breach("made up");
    inner_->touch(slot);
  }
  void remove(SlotIndex slot) override { inner_->remove(slot); }
  std::optional<SlotIndex> victim() const override { return inner_->victim(); }
  Bytes memory() const override { return inner_->memory(); }

 private:
  std::unique_ptr<policy::EvictionPolicy> inner_;
  const bool& is_broken_;
};

TEST(PoolTest, WhatADropFindsBrokenIsThrownByTheNextCallAndOnce) {
  bool is_broken = false;
  auto pool = Pool::create({.slots = 4,
                            .make_policy =
                                [&](std::uint32_t slots) {
                                  return std::make_unique<BreakingPolicy>(slots, is_broken);
                                }})
                  .value();
  Pin first = store(*pool, key(1));
  {
    const Pin second = store(*pool, key(2));
  }
  EvictingSlot evicting = *pool->begin_evict();
  is_broken = true;
  first = Pin();  // In a function that must not throw, as in every destructor.
  is_broken = false;
  EXPECT_THROW((void)pool->match(NamespaceId(1), GroupId(0), {}), base::Breach);
  EXPECT_EQ(pool->match(NamespaceId(1), GroupId(0), {}), 0U);
  is_broken = true;
  std::move(evicting).keep();
  EXPECT_NO_THROW((void)pool->take_evicted());  // The first breach has told all.
}

TEST(PoolTest, FirstSealedWriterOfAKeyStays) {
  auto pool = make_pool(4);
  FillingSlot slow = pool->reserve(key(1)).value().begin_fill();
  FillingSlot fast = pool->reserve(key(1)).value().begin_fill();
  const SlotRef first = fast.slot();
  const auto pin = std::move(fast).seal();
  ASSERT_TRUE(pin);
  EXPECT_TRUE(pool->is_filling(key(1)));
  EXPECT_FALSE(std::move(slow).seal());
  EXPECT_FALSE(pool->is_filling(key(1)));
  EXPECT_EQ(pool->pin(key(1))->slot(), first);
  EXPECT_EQ(pool->count(SlotState::kFree), 3U);
}

TEST(PoolTest, EvictionTakesTheLeastRecentlyUsed) {
  auto pool = make_pool(3);
  for (std::uint64_t n = 0; n < 3; ++n) store(*pool, key(n)).reset();
  pool->touch(key(0));
  store(*pool, key(3)).reset();
  EXPECT_FALSE(pool->contains(key(1)));
  EXPECT_TRUE(pool->contains(key(0)));
  const auto evicted = pool->take_evicted();
  ASSERT_EQ(evicted.size(), 1U);
  EXPECT_EQ(evicted[0].key, key(1));
  EXPECT_TRUE(pool->take_evicted().empty());
}

TEST(PoolTest, EvictionSkipsPinnedBlocks) {
  auto pool = make_pool(2);
  const Pin old = store(*pool, key(0));
  store(*pool, key(1)).reset();
  store(*pool, key(2)).reset();
  EXPECT_TRUE(pool->contains(key(0)));
  EXPECT_FALSE(pool->contains(key(1)));
}

TEST(PoolTest, ReserveFailsWhenAllIsPinnedOrInUse) {
  auto pool = make_pool(2);
  const Pin pin = store(*pool, key(0));
  const ReservedSlot reserved = pool->reserve(key(1)).value();
  const auto refused = pool->reserve(key(2));
  EXPECT_EQ(refused.error().code(), Code::kExhausted);
  EXPECT_TRUE(refused.error().is_retryable());
  EXPECT_FALSE(pool->is_filling(key(2)));
}

TEST(PoolTest, AStaleReferenceIsNeverFollowed) {
  auto pool = make_pool(1);
  const SlotRef stale = store(*pool, key(0)).slot();
  const SlotRef present = store(*pool, key(1)).slot();
  ASSERT_EQ(stale.index, present.index);
  EXPECT_FALSE(pool->pin(stale));
  EXPECT_FALSE(pool->key_of(stale));
  EXPECT_FALSE(pool->remove(stale));
  EXPECT_TRUE(pool->pin(present));
}

TEST(PoolTest, AReferenceOutOfRangeIsStale) {
  auto pool = make_pool(1);
  const SlotRef wild{SlotIndex(7), Generation(1)};
  EXPECT_FALSE(pool->pin(wild));
  EXPECT_FALSE(pool->key_of(wild));
  EXPECT_FALSE(pool->remove(wild));
  EXPECT_FALSE(pool->release_quarantined(wild));
  EXPECT_FALSE(pool->adopt(key(1), SlotIndex(7), Generation(1)));
}

// Longer than what is looked up at once.
TEST(PoolTest, ALongRunIsPinnedUpToItsFirstGap) {
  constexpr std::uint32_t kBlocks = 10'000;
  const auto hashes = testing::chain(0, kBlocks);
  for (const std::uint32_t gap :
       {kBlocks, 9'999U, 8'193U, 8'192U, 8'191U, 4'096U, 4'095U, 1U, 0U}) {
    auto pool = make_pool(kBlocks);
    for (std::uint32_t n = 0; n < kBlocks; ++n) {
      if (n == gap) continue;
      ASSERT_TRUE(pool->adopt(key(n), SlotIndex(kBlocks - 1 - n), Generation(1)));
    }
    {
      const PinRun run = pool->pin_run(NamespaceId(1), GroupId(0), hashes);
      ASSERT_EQ(run.size(), gap);
      ASSERT_EQ(pool->pinned(), gap);
      for (std::uint32_t n = 0; n < gap; ++n) {
        ASSERT_EQ(run.slot(n).index, SlotIndex(kBlocks - 1 - n));
      }
    }
    EXPECT_EQ(pool->pinned(), 0U);
  }
}

TEST(PoolTest, AQuarantinedSlotStaysOutUntilReleased) {
  auto pool = make_pool(1);
  FillingSlot filling = pool->reserve(key(0)).value().begin_fill();
  const SlotRef slot = filling.slot();
  std::move(filling).quarantine();
  EXPECT_FALSE(pool->is_filling(key(0)));
  EXPECT_EQ(pool->reserve(key(1)).error().code(), Code::kExhausted);
  EXPECT_TRUE(pool->release_quarantined(slot));
  EXPECT_FALSE(pool->release_quarantined(slot));
  const ReservedSlot again = pool->reserve(key(1)).value();
  EXPECT_NE(again.slot(), slot);
}

TEST(PoolTest, RemoveRefusesPinnedBlocks) {
  auto pool = make_pool(2);
  Pin pin = store(*pool, key(0));
  const SlotRef slot = pin.slot();
  EXPECT_FALSE(pool->remove(slot));
  pin.reset();
  EXPECT_TRUE(pool->remove(slot));
  EXPECT_FALSE(pool->contains(key(0)));
  EXPECT_TRUE(pool->take_evicted().empty());
}

TEST(PoolTest, AdoptsAnySlotInAnyOrderAndReservesTheRest) {
  auto pool = make_pool(5);
  EXPECT_TRUE(pool->adopt(key(4), SlotIndex(4), Generation(9)));
  EXPECT_TRUE(pool->adopt(key(1), SlotIndex(1), Generation(3)));
  EXPECT_FALSE(pool->adopt(key(7), SlotIndex(1), Generation(5))) << "slot in use";
  EXPECT_FALSE(pool->adopt(key(4), SlotIndex(2), Generation(5))) << "key in use";
  EXPECT_EQ(pool->count(SlotState::kSealed), 2U);
  for (const std::uint32_t expected : {0U, 2U, 3U}) {
    EXPECT_EQ(store(*pool, key(10 + expected)).slot().index, SlotIndex(expected));
  }
  const SlotRef reused = store(*pool, key(20)).slot();
  EXPECT_EQ(reused.index, SlotIndex(4)) << "first adopted is least recently used";
  EXPECT_EQ(reused.generation, Generation(10)) << "generations go on where the medium's ended";
}

TEST(PoolTest, AdoptsABatchAndCountsWhatItTook) {
  auto pool = make_pool(100);
  std::vector<Adoption> found;
  for (std::uint32_t i = 0; i < 100; ++i)
    found.push_back({key(i % 90), SlotIndex(i), Generation(1)});
  EXPECT_EQ(pool->adopt(found), 90U);
  EXPECT_EQ(pool->count(SlotState::kFree), 10U);
  EXPECT_EQ(pool->next_victim()->key, key(0));
}

TEST(PoolTest, AnAgedSlotNeverRepeatsAGenerationOfTheMedium) {
  auto pool = make_pool(1);
  pool->age(SlotIndex(0), Generation(41));
  EXPECT_EQ(store(*pool, key(0)).slot().generation, Generation(42));
  pool->age(SlotIndex(0), Generation(99));
  EXPECT_EQ(store(*pool, key(1)).slot().generation, Generation(43)) << "in use: not aged";
}

TEST(PoolTest, AdoptionNeverRevivesAnOldReference) {
  auto pool = make_pool(1);
  const SlotRef old = store(*pool, key(0)).slot();
  ASSERT_TRUE(pool->remove(old));
  EXPECT_FALSE(pool->adopt(key(1), old.index, old.generation));
  EXPECT_FALSE(pool->pin(old));
}

TEST(PoolTest, DroppingAnEvictingSlotFreesIt) {
  auto pool = make_pool(2);
  store(*pool, key(0)).reset();
  store(*pool, key(1)).reset();
  auto evicting = pool->begin_evict();
  ASSERT_TRUE(evicting);
  EXPECT_EQ(pool->key_of(evicting->slot()), key(0));
  EXPECT_EQ(pool->count(SlotState::kEvicting), 1U);
  EXPECT_FALSE(pool->remove(evicting->slot()));
  evicting.reset();
  EXPECT_FALSE(pool->contains(key(0)));
  EXPECT_EQ(pool->count(SlotState::kFree), 1U);
}

TEST(PoolTest, ABlockUsedWhileEvictingIsTakenBack) {
  auto pool = make_pool(2);
  store(*pool, key(0)).reset();
  store(*pool, key(1)).reset();
  auto evicting = pool->begin_evict();
  auto pin = pool->pin(key(0));
  ASSERT_TRUE(pin);
  EXPECT_TRUE(evicting->is_rescued());
  pin.reset();
  store(*pool, key(2)).reset();
  EXPECT_TRUE(pool->contains(key(0))) << "the evictor still reads it";
  evicting.reset();
  EXPECT_TRUE(pool->contains(key(0)));
  EXPECT_EQ(pool->pinned(), 0U);
  EXPECT_EQ(pool->next_victim()->key, key(2)) << "taken back counts as used";
}

TEST(PoolTest, AKeptEvictingSlotIsSealedAgain) {
  auto pool = make_pool(2);
  store(*pool, key(0)).reset();
  store(*pool, key(1)).reset();
  std::move(*pool->begin_evict()).keep();
  EXPECT_TRUE(pool->contains(key(0)));
  EXPECT_EQ(pool->next_victim()->key, key(1));
}

TEST(PoolTest, APinRunDropsTheDeepestFirst) {
  auto pool = make_pool(4);
  const auto hashes = chain(0, 4);
  {
    PinRun run;
    for (std::uint64_t n = 0; n < 4; ++n) run.add(store(*pool, key(n)));
  }
  EXPECT_EQ(pool->next_victim()->key, key(3));
  EXPECT_EQ(pool->pin_run(NamespaceId(1), GroupId(0), hashes).size(), 4U);
  EXPECT_EQ(pool->next_victim()->key, key(3));
  store(*pool, key(9)).reset();
  EXPECT_EQ(pool->match(NamespaceId(1), GroupId(0), hashes), 3U);
}

TEST(PoolTest, AForgottenEvictionIsCounted) {
  auto pool = Pool::create({.slots = 1, .evicted_limit = 2}).value();
  for (std::uint64_t n = 0; n < 5; ++n) store(*pool, key(n)).reset();
  EXPECT_EQ(pool->evicted_forgotten(), 2U);
  const auto evicted = pool->take_evicted();
  ASSERT_EQ(evicted.size(), 2U);
  EXPECT_EQ(evicted[0].key, key(2));
  EXPECT_EQ(evicted[1].key, key(3));
}

// Writes down what it is told.
class ListeningPolicy final : public policy::EvictionPolicy {
 public:
  struct Told {
    std::vector<SlotIndex> touched;
    std::vector<std::pair<std::optional<SlotIndex>, std::optional<SlotIndex>>> links;
  };
  explicit ListeningPolicy(Told& told) : told_(told) {}
  void touch(SlotIndex slot) override { told_.touched.push_back(slot); }
  void note_use(std::span<const std::optional<SlotIndex>> chain, const policy::Use&) override {
    for (std::size_t i = 1; i < chain.size(); ++i) told_.links.emplace_back(chain[i - 1], chain[i]);
  }
  [[nodiscard]] bool wants_uses() const override { return true; }
  void remove(SlotIndex) override {}
  [[nodiscard]] std::optional<SlotIndex> victim() const override { return std::nullopt; }
  [[nodiscard]] Bytes memory() const override { return Bytes(0); }

 private:
  Told& told_;
};

TEST(PoolTest, ALongChainIsTouchedFromItsEndAndToldFromItsBeginning) {
  constexpr std::uint64_t kBlocks = 700;
  ListeningPolicy::Told told;
  const auto listen = [&](std::uint32_t) { return std::make_unique<ListeningPolicy>(told); };
  auto pool = Pool::create({.slots = kBlocks, .make_policy = listen}).value();
  std::vector<std::optional<SlotIndex>> places;
  for (std::uint64_t n = 0; n < kBlocks; ++n) {
    if (n % 3 == 0) store(*pool, key(n)).reset();
    const auto found = pool->find(key(n));
    places.push_back(found ? std::optional(found->index) : std::nullopt);
  }
  told.touched.clear();
  const auto hashes = chain(0, kBlocks);
  pool->touch_chain(NamespaceId(1), GroupId(0),
                    {.hashes = std::span(hashes).subspan(1),
                     .before = hashes[0],
                     .use = policy::Use{.at = seconds(1)}});
  std::vector<SlotIndex> from_end;
  for (std::size_t i = kBlocks; i-- > 1;) {
    if (places[i]) from_end.push_back(*places[i]);
  }
  EXPECT_EQ(told.touched, from_end);
  ASSERT_EQ(told.links.size(), kBlocks - 1);
  for (std::size_t i = 1; i < kBlocks; ++i) {
    EXPECT_EQ(told.links[i - 1], std::pair(places[i - 1], places[i])) << i;
  }
}

// A system prompt that the engine answers from its own cache is never pinned here, only looked up.
TEST(PoolTest, AHotPromptNeverAgesOutWhileOthersChurn) {
  auto pool = make_pool(64);
  const auto prompt = chain(0, 16);
  {
    PinRun run;
    for (std::uint64_t n = 0; n < 16; ++n) run.add(store(*pool, key(n)));
  }
  for (std::uint64_t request = 1; request <= 1000; ++request) {
    pool->touch_chain(NamespaceId(1), GroupId(0), {.hashes = prompt});
    PinRun run;
    for (std::uint64_t n = 0; n < 40; ++n) run.add(store(*pool, key(1000 * request + n)));
    ASSERT_EQ(pool->match(NamespaceId(1), GroupId(0), prompt), 16U) << "request " << request;
  }
}

TEST(PoolTest, WithoutTouchesAPromptDoesAgeOut) {
  auto pool = make_pool(64);
  for (std::uint64_t n = 0; n < 16; ++n) store(*pool, key(n)).reset();
  for (std::uint64_t n = 0; n < 64; ++n) store(*pool, key(1000 + n)).reset();
  EXPECT_EQ(pool->match(NamespaceId(1), GroupId(0), chain(0, 16)), 0U);
}

// Anonymous memory of this process, from the kernel.
std::uint64_t anonymous_bytes() {
  std::FILE* file = std::fopen("/proc/self/smaps_rollup", "r");
  if (file == nullptr) return 0;
  std::uint64_t kilobytes = 0;
  char line[256];
  while (std::fgets(line, sizeof line, file) != nullptr) {
    unsigned long long value = 0;
    if (std::sscanf(line, "Anonymous: %llu kB", &value) == 1) kilobytes += value;
  }
  std::fclose(file);
  return kilobytes << 10U;
}

TEST(PoolTest, AnEmptyPoolOfTenMillionTouchesNoMemory) {
  const std::uint64_t before = anonymous_bytes();
  ASSERT_GT(before, 0U);
  const auto pool = make_pool(10'000'000);
  EXPECT_LT(anonymous_bytes() - before, 16U << 20U);  // A huge page per array at most, and slack.
}

TEST(PoolTest, AFullPoolTakesAtMost64BytesPerBlockByTheKernelsCount) {
  constexpr std::uint32_t kSlots = 2'000'000;
  const std::uint64_t before = anonymous_bytes();
  const auto pool = make_pool(kSlots);
  for (std::uint32_t n = 0; n < kSlots; ++n) {
    ASSERT_TRUE(pool->adopt(key(n), SlotIndex(n), Generation(1)));
  }
  const std::uint64_t grown = anonymous_bytes() - before;
  RecordProperty("bytes_per_block", std::to_string(static_cast<double>(grown) / kSlots));
  std::printf("bytes per block: kernel %.2f, memory() %.2f\n", static_cast<double>(grown) / kSlots,
              static_cast<double>(pool->memory().value()) / kSlots);
  EXPECT_LE(pool->memory(), Bytes(53ULL * kSlots));
#ifndef TERRACE_SANITIZED  // Their shadows count, too.
  EXPECT_LE(grown, 64ULL * kSlots);
  // memory() tells the truth: what the kernel counted, give or take the last huge pages.
  EXPECT_LE(grown, pool->memory().value() + (8U << 20U));
#endif
  EXPECT_GE(grown + (8U << 20U), pool->memory().value());
}

}  // namespace
}  // namespace terrace::catalog
