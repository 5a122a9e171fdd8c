#include "terrace/policy/curve/eviction_gain.h"

#include <gtest/gtest.h>

#include <cmath>

#include "terrace/base/rng.h"
#include "terrace/testing/keys.h"

namespace terrace::policy {
namespace {

EvictionGain gain_of(const EvictionGain::Options& options) {
  auto made = EvictionGain::create(options);
  EXPECT_TRUE(made.has_value());
  return std::move(*made);
}

void ask(EvictionGain& gain, std::span<const SequenceHash> chain, const Use& use = {}) {
  gain.begin({.at = use.at});
  gain.add(chain);
  gain.end(use);
}

// Twenty users who ask the same each five minutes, and between them those who come once: what they
// ask for pushes the users' blocks out of an `lru` pool.
class Traffic {
 public:
  std::shared_ptr<ReturnModel> returns = ReturnModel::create().value();

  void live(EvictionGain& gain, int rounds) {
    for (int round = 0; round < rounds; ++round) {
      for (std::uint64_t user = 0; user < 300; ++user) {
        const std::uint64_t first = user < 20 ? 100 * user : 1'000'000 + 100 * second_;
        const auto chain = testing::chain(first, 16);
        const Nanoseconds now = seconds(static_cast<std::int64_t>(++second_));
        const Visit visit = returns->arrive(chain, now);
        ask(gain, chain, {.at = now, .of = visit.of});
        const ReturnClass of =
            returns->leave(visit, chain, chain.size(), 100, Ending::kUnknown, now);
        gain.begin({.at = now, .is_asked = false});
        gain.add(chain);
        gain.end({.at = now, .of = of});
      }
    }
  }

 private:
  std::uint64_t second_ = 0;
};

TEST(EvictionGainTest, WhoComesBackIsHeldWhereTheOldestIsNot) {
  Traffic traffic;
  EvictionGain gain =
      gain_of({.least_blocks = 256, .most_blocks = 16'384, .returns = traffic.returns});
  EXPECT_EQ(gain.of(1024), 0);
  traffic.live(gain, 20);
  // 6.7 % of what is asked for, from when it is known who comes back.
  EXPECT_GT(gain.of(1024), 0.04);
  EXPECT_LT(gain.of(1024), 0.07);
  EXPECT_NEAR(gain.of(128), gain.of(256) / 2, 1e-9);
  EXPECT_EQ(gain.of(0), 0);
  EXPECT_NEAR(gain.of(16'384), 0, 0.005);  // There `lru` has them, too.
  EXPECT_EQ(gain.of(1'000'000), gain.of(16'384));
  const double between = gain.of(1448);  // Half an octave.
  EXPECT_NEAR(between, (gain.of(1024) + gain.of(2048)) / 2, 0.001);
}

TEST(EvictionGainTest, NoPoolHoldsWhatNobodyHasAskedForBefore) {
  Traffic traffic;
  EvictionGain gain = gain_of({.most_blocks = 16'384, .returns = traffic.returns});
  MissCurve curve = MissCurve::create({.most_blocks = 16'384}).value();
  traffic.live(gain, 20);
  // One in a hundred comes back, far from what the gain was of.
  for (std::uint64_t i = 0; i < 1000; ++i) curve.request(testing::chain(100 * (i % 990), 16));
  EXPECT_EQ(HitRatio(curve, nullptr)(1024), curve.hit_ratio(1024));
  EXPECT_EQ(HitRatio(curve, nullptr)(16'384), curve.hit_ratio(16'384));
  EXPECT_GT(gain.of(1024), 0.03);
  EXPECT_EQ(HitRatio(curve, &gain)(1024), curve.hit_ratio(16'384));
  EXPECT_LT(HitRatio(curve, &gain)(1024), 0.011);
}

TEST(EvictionGainTest, BesideItselfAPolicyGainsNothing) {
  Traffic traffic;
  EvictionGain gain = gain_of({.eviction = "lru", .least_blocks = 64, .most_blocks = 16'384});
  traffic.live(gain, 5);
  for (std::uint64_t blocks = 1; blocks < 20'000; blocks *= 2) EXPECT_EQ(gain.of(blocks), 0);
}

TEST(EvictionGainTest, SlicesOfAChainCountAsTheWhole) {
  EvictionGain whole = gain_of({.least_blocks = 64, .most_blocks = 1024});
  EvictionGain sliced = gain_of({.least_blocks = 64, .most_blocks = 1024});
  Rng rng(1);
  for (int i = 0; i < 3000; ++i) {
    const auto made = testing::chain(100 * rng.below(60), 1 + rng.below(30));
    const std::span<const SequenceHash> chain = made;
    ask(whole, chain, {.at = seconds(i)});
    const std::size_t cut = rng.below(chain.size() + 1);
    sliced.begin({.at = seconds(i)});
    sliced.add(chain.first(cut));
    sliced.add(chain.subspan(cut));
    sliced.end({.at = seconds(i)});
  }
  for (std::uint64_t blocks = 1; blocks <= 1024; blocks *= 2) {
    EXPECT_EQ(whole.of(blocks), sliced.of(blocks)) << blocks;
  }
}

TEST(EvictionGainTest, WhatMayBeChanceIsNoGain) {
  Traffic traffic;
  EvictionGain gain = gain_of({.most_blocks = 1'000'000'000, .returns = traffic.returns});
  traffic.live(gain, 20);
  EXPECT_EQ(gain.of(500'000'000), 0);  // Of which hardly a block is chosen.
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    EvictionGain few = gain_of({.least_blocks = 64, .most_blocks = 256});
    Rng rng(seed);
    for (int i = 0; i < 100; ++i) {
      ask(few, testing::chain(100 * rng.below(40), 4), {.at = seconds(i)});
    }
    EXPECT_LT(std::abs(few.of(128)), 0.05) << "seed " << seed;
  }
}

TEST(EvictionGainTest, WhatIsUsedAndNotAskedForIsNotCounted) {
  EvictionGain gain = gain_of({.least_blocks = 64, .most_blocks = 256});
  Rng rng(1);
  for (int i = 0; i < 3000; ++i) {
    gain.begin({.at = seconds(i), .is_asked = false});
    gain.add(testing::chain(100 * rng.below(60), 1 + rng.below(30)));
    gain.end({.at = seconds(i)});
  }
  for (std::uint64_t blocks = 1; blocks <= 256; blocks *= 2) EXPECT_EQ(gain.of(blocks), 0);
}

TEST(EvictionGainTest, WhatWasLongAgoWeighsLess) {
  Traffic traffic;
  EvictionGain gain = gain_of({.most_blocks = 16'384, .returns = traffic.returns});
  traffic.live(gain, 20);
  const double before = gain.of(1024);
  EXPECT_GT(before, 0.04);
  for (int i = 0; i < 4; ++i) gain.age();
  EXPECT_LE(gain.of(1024), before);  // Of fewer, less is believed.
  EXPECT_GT(gain.of(1024), before / 2);
  for (std::uint64_t i = 0; i < 20'000; ++i) ask(gain, testing::chain(9'000'000 + 100 * i, 16));
  EXPECT_LT(gain.of(1024), before / 8);
}

TEST(EvictionGainTest, MemoryIsBoundedWhateverIsAskedFor) {
  EvictionGain gain = gain_of({.least_blocks = 64, .most_blocks = 10'000'000});
  const Bytes before = gain.memory();
  EXPECT_LT(before.value(), 4ULL << 20U);
  ask(gain, testing::chain(0, 100'000));
  Traffic traffic;
  traffic.live(gain, 3);
  EXPECT_EQ(gain.memory(), before);
}

TEST(EvictionGainTest, WhatMakesNoSenseIsRefused) {
  EXPECT_EQ(EvictionGain::create({.most_blocks = 0}).error().code(), Code::kInvalid);
  EXPECT_EQ(EvictionGain::create({.most_blocks = 16, .slots = 0}).error().code(), Code::kInvalid);
  EXPECT_EQ(EvictionGain::create({.least_blocks = 0, .most_blocks = 16}).error().code(),
            Code::kInvalid);
  EXPECT_EQ(EvictionGain::create({.eviction = "best", .most_blocks = 16}).error().code(),
            Code::kInvalid);
}

}  // namespace
}  // namespace terrace::policy
