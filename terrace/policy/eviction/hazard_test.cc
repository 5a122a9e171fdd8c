#include <gtest/gtest.h>

#include <algorithm>

#include "contract/eviction_contract.h"
#include "terrace/base/rng.h"
#include "terrace/policy/eviction/eviction.h"
#include "terrace/testing/keys.h"

namespace terrace::policy {
namespace {

INSTANTIATE_TEST_SUITE_P(Hazard, EvictionContract,
                         ::testing::Values(EvictionMaker([](std::uint32_t slots) {
                           return make_hazard(slots, nullptr);
                         })));

using Slots = std::vector<std::optional<SlotIndex>>;

Slots slots(std::initializer_list<int> indices) {  // Below 0: the block is not here.
  Slots made;
  for (const int index : indices) {
    made.emplace_back();
    if (index >= 0) made.back() = SlotIndex(static_cast<std::uint32_t>(index));
  }
  return made;
}

class HazardTest : public ::testing::Test {
 protected:
  void use(const Slots& chain, std::int64_t second) {
    policy_->note_use(chain, {.at = seconds(second)});
    for (const auto& slot : chain) {
      if (slot) policy_->touch(*slot);
    }
  }
  std::vector<std::uint32_t> drain() {
    std::vector<std::uint32_t> order;
    while (const auto victim = policy_->victim()) {
      order.push_back(victim->value());
      policy_->forget(*victim);
    }
    return order;
  }
  std::unique_ptr<EvictionPolicy> policy_ = make_hazard(32, nullptr);
};

using Order = std::vector<std::uint32_t>;

TEST_F(HazardTest, ABlockGoesAfterAllThatHangBelowIt) {
  use(slots({0, 1, 2}), 1);
  use(slots({4, 5}), 50);
  use(slots({0, 1, 3}), 100);
  // The oldest leaf, then what it uncovers or the next: 0 and 1 are as young as 3.
  EXPECT_EQ(drain(), (Order{2, 5, 4, 3, 1, 0}));
}

TEST_F(HazardTest, OfUsesWithinASecondTheOldestGoesFirst) {
  const Order used{7, 3, 9, 0, 5, 1, 8, 2, 6, 4};
  for (std::size_t i = 0; i < used.size(); ++i) {
    policy_->note_use(slots({static_cast<int>(used[i])}),
                      {.at = milliseconds(20 * static_cast<std::int64_t>(i))});
    policy_->touch(SlotIndex(used[i]));
  }
  EXPECT_EQ(drain(), used);
}

TEST_F(HazardTest, MoreSlotsThanItCanTellApartAreRefusedInWords) {
  const auto made = make_eviction("hazard", kMostHazardSlots + 1);
  ASSERT_FALSE(made.has_value());
  EXPECT_EQ(made.error().code(), Code::kInvalid);
  EXPECT_NE(made.error().message().find("choose eviction lru"), std::string::npos);
}

TEST_F(HazardTest, WhatIsUsedAgainStays) {
  use(slots({0}), 1);
  use(slots({1}), 2);
  ASSERT_EQ(policy_->victim(), SlotIndex(0));
  use(slots({0}), 3);
  EXPECT_EQ(policy_->victim(), SlotIndex(1));
}

TEST_F(HazardTest, AGapInTheChainParts) {
  use(slots({0, -1, 1}), 1);
  use(slots({2}), 2);
  EXPECT_EQ(drain().back(), 2U);
}

TEST_F(HazardTest, InnerBlocksGoWhenWhatHangsBelowIsInUse) {
  use(slots({0, 1}), 1);
  policy_->remove(SlotIndex(1));
  EXPECT_EQ(policy_->victim(), SlotIndex(0));
  policy_->remove(SlotIndex(0));
  EXPECT_FALSE(policy_->victim());
}

TEST_F(HazardTest, ASlotThatTakesAnotherBlockHasNoPartInTheOldTree) {
  use(slots({0, 1}), 1);
  policy_->forget(SlotIndex(0));  // Its child stays.
  use(slots({0}), 2);             // Another block now.
  use(slots({2}), 3);
  EXPECT_EQ(policy_->victim(), SlotIndex(1));
  policy_->forget(SlotIndex(1));
  EXPECT_EQ(drain(), (Order{0, 2}));
}

// Several may be on their way out at once: none of them is an inner block.
TEST_F(HazardTest, WhileALeafIsOnItsWayOutTheBlockBeforeItIsTheNext) {
  use(slots({0, 1, 2}), 100);
  for (const std::uint32_t leaf : {2U, 1U, 0U}) {
    ASSERT_EQ(policy_->victim(), SlotIndex(leaf));
    policy_->leave(SlotIndex(leaf));
  }
  EXPECT_FALSE(policy_->victim().has_value());
  policy_->touch(SlotIndex(1));  // Taken back.
  EXPECT_EQ(policy_->victim(), SlotIndex(1));
}

TEST_F(HazardTest, WhatItKnowsOfAUseCanBeTold) {
  policy_->touch(SlotIndex(0));
  EXPECT_FALSE(policy_->last_use(SlotIndex(0)).has_value());
  policy_->note_use(slots({0, 1}),
                    {.at = seconds(100), .of = ReturnClass(7), .priority = Priority::kHigh});
  use(slots({2}), 160);
  const auto known = policy_->last_use(SlotIndex(1));
  ASSERT_TRUE(known.has_value());
  EXPECT_EQ(known->use.at, seconds(100));
  EXPECT_EQ(known->use.of, ReturnClass(7));
  EXPECT_EQ(known->use.priority, Priority::kHigh);
  EXPECT_EQ(known->before, SlotIndex(0));
  EXPECT_FALSE(policy_->last_use(SlotIndex(0))->before.has_value());
}

TEST_F(HazardTest, WhatComesFromAnotherPoolGoesByItsLastUseThereAndItsPlaceInItsChain) {
  for (const std::uint32_t slot : {3U, 4U}) policy_->touch(SlotIndex(slot));
  policy_->set_last_use(SlotIndex(3), {.at = seconds(50)});
  EXPECT_FALSE(policy_->last_use(SlotIndex(3)).has_value()) << "there is no clock to go by";
  use(slots({0, 1}), 100);
  // The deeper one is younger, and goes first all the same.
  policy_->set_last_use(SlotIndex(3), {.at = seconds(10)});
  policy_->set_last_use(SlotIndex(4), {.at = seconds(20)});
  policy_->set_before(SlotIndex(4), SlotIndex(3));
  EXPECT_EQ(policy_->last_use(SlotIndex(3))->use.at, seconds(10));
  policy_->touch(SlotIndex(5));
  policy_->set_last_use(SlotIndex(5), {.at = seconds(500)});
  EXPECT_EQ(policy_->last_use(SlotIndex(5))->use.at, seconds(100)) << "not in the future";
  EXPECT_EQ(drain(), (Order{4, 3, 1, 5, 0}));
}

TEST_F(HazardTest, AdoptedBlocksGoOldestFirstWhereTheyAreFarApart) {
  constexpr std::uint32_t kMany = 100'000;
  const auto policy = make_hazard(kMany, nullptr);
  std::vector<SlotIndex> oldest_first;
  for (std::uint32_t i = kMany; i-- > 0;) oldest_first.emplace_back(i);
  policy->touch_all(oldest_first);
  for (int i = 0; i < 100; ++i) {
    const auto victim = policy->victim();
    ASSERT_TRUE(victim);
    EXPECT_GT(victim->value(), kMany / 2);
    policy->forget(*victim);
  }
}

constexpr std::int64_t kDay = 86'400;

// Of a disk that turns over slowly: ages are kept in few bits.
TEST_F(HazardTest, WhatNobodyUsedForWeeksIsNotYoungAgain) {
  for (const std::int64_t step : {600L, kDay, 5 * kDay, 100 * kDay}) {
    policy_ = make_hazard(32, nullptr);
    use(slots({0}), 1000);
    std::int64_t now = 1000;
    for (int i = 0; now < 60 * kDay; ++i) {
      now += step;
      use(slots({1}), now - step / 2);
      use(slots({2}), now);
      ASSERT_EQ(policy_->victim(), SlotIndex(0)) << now / kDay << " days";
      const auto last = policy_->last_use(SlotIndex(0));
      ASSERT_GE(now - last->use.at.value() / 1'000'000'000,
                std::min(now - 1000, step <= 5 * kDay ? 12 * kDay : 3 * kDay));
    }
  }
}

TEST_F(HazardTest, AfterWeeksWithoutAnyUseALargePoolKnowsWhatIsOlder) {
  constexpr std::uint32_t kMany = 200'000;
  policy_ = make_hazard(kMany, nullptr);
  for (std::uint32_t i = 0; i < kMany; ++i) use({SlotIndex(i)}, i);
  for (std::int64_t later = 1; later < 12; ++later) {
    const std::int64_t now = kMany + later * 30 * kDay;
    use({SlotIndex(0)}, now);
    Nanoseconds before(0);
    for (std::uint32_t i = 1; i < kMany; i += 97) {
      const Nanoseconds last = policy_->last_use(SlotIndex(i))->use.at;
      ASSERT_GE(last, before) << i;
      ASSERT_LE(last, seconds(now - 3 * kDay)) << i;
      before = last;
    }
  }
}

TEST_F(HazardTest, AUseThatIsToldLateMakesTheOthersNoOlder) {
  use(slots({0}), 1000);
  use(slots({1}), 2000);
  use(slots({2}), 1990);
  EXPECT_EQ(policy_->victim(), SlotIndex(0));
}

TEST_F(HazardTest, WhatWasUsedLongAgoInAnotherPoolIsOld) {
  use(slots({0}), 40 * kDay);
  policy_->touch(SlotIndex(1));
  policy_->set_last_use(SlotIndex(1), {.at = seconds(20 * kDay)});
  EXPECT_EQ(drain(), (Order{1, 0}));
}

TEST_F(HazardTest, OfTwoClassesTheOneThatReturnsStays) {
  const auto returns = ReturnModel::create().value();
  const auto policy = make_hazard(8, returns);
  const auto serve = [&](std::uint64_t conversation, std::size_t blocks, Ending ending,
                         std::int64_t second) {
    std::vector<SequenceHash> chain;
    chain.reserve(blocks);
    for (std::size_t i = 0; i < blocks; ++i)
      chain.push_back(testing::hash(conversation << 20U | i));
    const Visit visit = returns->arrive(chain, seconds(second));
    return returns->leave(visit, chain, blocks, 100, ending, seconds(second));
  };
  for (std::uint64_t i = 0; i < 200; ++i) {
    const auto second = static_cast<std::int64_t>(100 * i);
    serve(2 * i, 4, Ending::kDone, second);
    serve(2 * i + 1, 4, Ending::kToolCall, second);
    serve(2 * i + 1, 6, Ending::kToolCall, second + 20);
  }
  const ReturnClass calls = serve(9000, 4, Ending::kToolCall, 30'000);
  const ReturnClass done = serve(9001, 4, Ending::kDone, 30'001);
  policy->note_use(slots({0}), {.at = seconds(30'000), .of = calls});
  policy->note_use(slots({1}), {.at = seconds(30'001), .of = done});
  policy->touch(SlotIndex(0));
  policy->touch(SlotIndex(1));
  EXPECT_EQ(policy->victim(), SlotIndex(1));  // Though used last.
}

TEST_F(HazardTest, PriorityWeighsAndAgeOutweighsIt) {
  const auto returns = ReturnModel::create().value();
  const auto first_of = [&](std::int64_t age, Priority older, Priority younger) {
    const auto policy = make_hazard(8, returns);
    policy->note_use(slots({0}), {.at = seconds(1000 - age), .priority = older});
    policy->touch(SlotIndex(0));
    policy->note_use(slots({1}), {.at = seconds(990), .priority = younger});
    policy->touch(SlotIndex(1));
    policy->note_use({}, {.at = seconds(1000)});
    return policy->victim();
  };
  EXPECT_EQ(first_of(20, Priority::kNormal, Priority::kNormal), SlotIndex(0));
  EXPECT_EQ(first_of(20, Priority::kHigh, Priority::kNormal), SlotIndex(1));
  EXPECT_EQ(first_of(20, Priority::kNormal, Priority::kLow), SlotIndex(1));
  EXPECT_EQ(first_of(20, Priority::kHigh, Priority::kHigh), SlotIndex(0));
  EXPECT_EQ(first_of(900, Priority::kHigh, Priority::kLow), SlotIndex(0));  // No hold for good.
}

// Every call in any order, against what a tree of sets says may go.
void expect_evictable_leaves(std::uint32_t pool_slots, std::uint64_t seed, std::uint64_t steps) {
  Rng rng(seed);
  const auto policy = make_hazard(pool_slots, nullptr);
  std::vector<std::optional<std::uint32_t>> parent(pool_slots);
  std::set<std::uint32_t> evictable;
  std::int64_t now = 0;
  for (std::uint64_t step = 0; step < steps; ++step) {
    const auto slot = static_cast<std::uint32_t>(rng.below(pool_slots));
    switch (rng.below(5)) {
      case 0: {
        Slots chain;
        for (std::uint64_t i = rng.below(5); i > 0; --i) {
          chain.emplace_back();
          if (rng.chance(90))
            chain.back() = SlotIndex(static_cast<std::uint32_t>(rng.below(pool_slots)));
        }
        policy->note_use(chain, {.at = seconds(++now)});
        for (std::size_t i = 1; i < chain.size(); ++i) {
          if (!chain[i]) continue;
          parent[chain[i]->value()].reset();
          if (chain[i - 1] && chain[i - 1] != chain[i])
            parent[chain[i]->value()] = chain[i - 1]->value();
        }
        break;
      }
      case 1:
        policy->remove(SlotIndex(slot));
        evictable.erase(slot);
        break;
      case 2:
        policy->forget(SlotIndex(slot));
        evictable.erase(slot);
        parent[slot].reset();
        break;
      default:
        policy->touch(SlotIndex(slot));
        evictable.insert(slot);
    }
    const auto is_leaf = [&](std::uint32_t one) {
      return std::ranges::none_of(parent, [&](const auto& of) { return of == one; });
    };
    const auto victim = policy->victim();
    ASSERT_EQ(victim.has_value(), !evictable.empty()) << "seed " << seed << " step " << step;
    if (!victim) continue;
    ASSERT_TRUE(evictable.contains(victim->value())) << "seed " << seed << " step " << step;
    if (std::ranges::any_of(evictable, is_leaf)) {
      ASSERT_TRUE(is_leaf(victim->value())) << "seed " << seed << " step " << step;
    }
  }
}

TEST_F(HazardTest, TheVictimIsAnEvictableLeafWheneverThereIsOne) {
  const auto [seed, steps] = testing::property(7, 200'000);
  expect_evictable_leaves(24, seed, steps);
  expect_evictable_leaves(400, seed, steps / 4);  // More leaves than are drawn.
}

// A draw of a large pool gives two victims.
TEST_F(HazardTest, TheSecondOfADrawStaysIfItIsUsedBeforeItsTurn) {
  constexpr std::uint32_t kMany = 10'000;
  const auto next_after = [](const std::optional<SlotIndex>& used) {
    const auto policy = make_hazard(kMany, nullptr);
    for (std::uint32_t i = 0; i < kMany; ++i) {
      const Slots alone = {SlotIndex(i)};
      policy->note_use(alone, {.at = seconds(i)});
      policy->touch(SlotIndex(i));
    }
    policy->forget(*policy->victim());
    if (used) policy->touch(*used);
    return policy->victim();
  };
  const auto second = next_after(std::nullopt);
  ASSERT_TRUE(second);
  EXPECT_LT(second->value(), kMany / 2) << "one of the older half";
  EXPECT_NE(next_after(second), second);
}

TEST_F(HazardTest, WhatAVictimUncoversGoesBeforeTheSecondOfItsDraw) {
  constexpr std::uint32_t kChains = 1'000;
  const auto policy = make_hazard(2 * kChains, nullptr);
  for (std::uint32_t i = 0; i < kChains; ++i) {
    const Slots chain = {SlotIndex(2 * i), SlotIndex(2 * i + 1)};
    policy->note_use(chain, {.at = seconds(i)});
    for (const auto& slot : chain) policy->touch(*slot);
  }
  for (std::uint32_t i = 0; i < kChains / 2; ++i) {
    const auto end = policy->victim();
    ASSERT_TRUE(end && end->value() % 2 == 1);
    policy->forget(*end);
    ASSERT_EQ(policy->victim(), SlotIndex(end->value() - 1)) << "the same chain's, as old";
    policy->forget(SlotIndex(end->value() - 1));
  }
}

}  // namespace
}  // namespace terrace::policy
