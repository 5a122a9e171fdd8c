// What every eviction policy must do. A policy's test instantiates it with its factory:
//   INSTANTIATE_TEST_SUITE_P(Lru, EvictionContract, ::testing::Values(EvictionMaker{make_lru}));
// Threading: tests only.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <set>

#include "terrace/base/rng.h"
#include "terrace/policy/eviction/eviction.h"
#include "terrace/testing/property.h"

namespace terrace::policy {

using EvictionMaker = std::function<std::unique_ptr<EvictionPolicy>(std::uint32_t slots)>;

class EvictionContract : public ::testing::TestWithParam<EvictionMaker> {
 protected:
  static std::unique_ptr<EvictionPolicy> make(std::uint32_t slots) { return GetParam()(slots); }
};

TEST_P(EvictionContract, ANewPolicyHasNoVictim) { EXPECT_FALSE(make(8)->victim()); }

TEST_P(EvictionContract, TheVictimStaysUntilItIsRemoved) {
  const auto policy = make(8);
  policy->touch(SlotIndex(3));
  EXPECT_EQ(policy->victim(), SlotIndex(3));
  EXPECT_EQ(policy->victim(), SlotIndex(3));
  policy->remove(SlotIndex(3));
  EXPECT_FALSE(policy->victim());
}

TEST_P(EvictionContract, RemovingWhatIsNotEvictableChangesNothing) {
  const auto policy = make(8);
  policy->remove(SlotIndex(0));
  policy->touch(SlotIndex(1));
  policy->remove(SlotIndex(0));
  policy->remove(SlotIndex(7));
  EXPECT_EQ(policy->victim(), SlotIndex(1));
}

TEST_P(EvictionContract, ASlotTouchedOftenIsEvictableOnce) {
  const auto policy = make(2);
  for (int i = 0; i < 5; ++i) policy->touch(SlotIndex(1));
  policy->remove(SlotIndex(1));
  EXPECT_FALSE(policy->victim());
}

TEST_P(EvictionContract, DrainingGivesEverySlotOnce) {
  constexpr std::uint32_t kSlots = 1000;
  const auto policy = make(kSlots);
  Rng rng(1);
  for (int i = 0; i < 5000; ++i)
    policy->touch(SlotIndex(static_cast<std::uint32_t>(rng.below(kSlots))));
  for (std::uint32_t i = 0; i < kSlots; ++i) policy->touch(SlotIndex(i));
  std::set<std::uint32_t> given;
  while (const auto victim = policy->victim()) {
    ASSERT_TRUE(given.insert(victim->value()).second);
    policy->remove(*victim);
  }
  EXPECT_EQ(given.size(), kSlots);
}

TEST_P(EvictionContract, EqualHistoriesGiveEqualVictims) {
  const auto first = make(64);
  const auto second = make(64);
  Rng rng(2);
  for (int i = 0; i < 10'000; ++i) {
    const SlotIndex slot(static_cast<std::uint32_t>(rng.below(64)));
    const bool is_touch = rng.chance(60);
    for (auto* policy : {first.get(), second.get()}) {
      if (is_touch) {
        policy->touch(slot);
      } else {
        policy->remove(slot);
      }
    }
    ASSERT_EQ(first->victim(), second->victim());
  }
}

// Index, slot states and policy together stay within 64 bytes per block.
TEST_P(EvictionContract, TakesAtMostSixteenBytesPerSlot) {
  EXPECT_LE(make(1'000'000)->memory(), Bytes(16'000'000) + 64_KiB);
}

TEST_P(EvictionContract, TheVictimIsAlwaysAnEvictableSlot) {
  const auto [seed, steps] = testing::property(3, 300'000);
  Rng rng(seed);
  for (const std::uint32_t slots : {1U, 2U, 50U}) {
    const auto policy = make(slots);
    std::set<std::uint32_t> evictable;
    for (std::uint64_t i = 0; i < steps / 3; ++i) {
      const auto slot = static_cast<std::uint32_t>(rng.below(slots));
      if (rng.chance(55)) {
        policy->touch(SlotIndex(slot));
        evictable.insert(slot);
      } else {
        policy->remove(SlotIndex(slot));
        evictable.erase(slot);
      }
      const auto victim = policy->victim();
      ASSERT_EQ(victim.has_value(), !evictable.empty());
      if (victim) {
        ASSERT_TRUE(evictable.contains(victim->value()));
      }
    }
  }
}

}  // namespace terrace::policy
