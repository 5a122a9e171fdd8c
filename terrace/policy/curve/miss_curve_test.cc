#include "terrace/policy/curve/miss_curve.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "terrace/base/rng.h"
#include "terrace/testing/keys.h"
#include "terrace/testing/prefix_trace.h"

namespace terrace::policy {
namespace {

MissCurve curve_of(std::uint64_t most_blocks, std::uint32_t followed = 4096) {
  auto made = MissCurve::create({most_blocks, followed});
  EXPECT_TRUE(made.has_value());
  return std::move(*made);
}

// What was used last, newest first, and how far back each block was found: nothing clever.
class Naive {
 public:
  void request(const std::vector<SequenceHash>& chain) {
    for (const SequenceHash& hash : chain) {
      std::size_t at = 0;
      while (at < used_.size() && used_[at] != hash) ++at;
      if (at < used_.size()) distances_.push_back(at + 1);
      ++asked_;
    }
    for (auto hash = chain.rbegin(); hash != chain.rend(); ++hash) {
      std::erase(used_, *hash);
      used_.insert(used_.begin(), *hash);
    }
  }
  [[nodiscard]] double hit_ratio(std::uint64_t blocks) const {
    const auto hits = std::ranges::count_if(distances_, [&](auto one) { return one <= blocks; });
    return static_cast<double>(hits) / static_cast<double>(asked_);
  }

 private:
  std::vector<SequenceHash> used_;
  std::vector<std::size_t> distances_;
  std::size_t asked_ = 0;
};

TEST(MissCurveTest, WhereAllAreFollowedItIsExact) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Rng rng(seed);
    MissCurve curve = curve_of(64, 64);
    Naive naive;
    for (int i = 0; i < 200; ++i) {
      // Chains that share beginnings: 8 conversations of up to 7 blocks, 56 blocks in all.
      const auto chain = testing::chain(100 * rng.below(8), 1 + rng.below(7));
      curve.request(chain);
      naive.request(chain);
    }
    for (std::uint64_t blocks = 0; blocks <= 64; ++blocks) {
      EXPECT_NEAR(curve.hit_ratio(blocks), naive.hit_ratio(blocks), 1e-12)
          << "seed " << seed << ", " << blocks << " blocks";
    }
  }
}

TEST(MissCurveTest, AChainsOwnBlocksDoNotPushEachOtherOut) {
  MissCurve curve = curve_of(16, 16);
  const auto chain = testing::chain(1, 8);
  curve.request(chain);
  curve.request(chain);
  EXPECT_EQ(curve.hit_ratio(8), 0.5);
  EXPECT_EQ(curve.hit_ratio(4), 0.25);  // Its first four: the deepest went first.
  EXPECT_EQ(curve.hit_ratio(0), 0);
}

// A conversation whose next prompt is the one before, its answer and more.
TEST(MissCurveTest, WhatIsStoredIsHeldAndCountsOnceItIsAskedFor) {
  MissCurve curve = curve_of(64, 64);
  curve.request(testing::chain(1, 10));
  curve.use(testing::chain(1, 13));
  EXPECT_EQ(curve.weight(), 10);
  curve.request(testing::chain(1, 14));
  EXPECT_EQ(curve.weight(), 24);
  EXPECT_EQ(curve.hit_ratio(64), 13.0 / 24);
}

TEST(MissCurveTest, WhatIsNotStoredIsNotHeld) {
  MissCurve curve = curve_of(64, 64);
  curve.look_for(testing::chain(1, 4));
  curve.refresh(testing::chain(1, 4));
  curve.request(testing::chain(100, 1));
  curve.look_for(testing::chain(1, 4));
  EXPECT_EQ(curve.hit_ratio(64), 0);
  // But what is held was used.
  curve.use(testing::chain(1, 4));
  curve.request(testing::chain(200, 3));
  curve.refresh(testing::chain(1, 4));
  curve.look_for(testing::chain(1, 4));
  EXPECT_EQ(curve.hit_ratio(4), 4.0 / (4 + 1 + 4 + 3 + 4));
}

TEST(MissCurveTest, SlicesOfAChainCountAsTheWhole) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Rng rng(seed);
    MissCurve whole = curve_of(64, 64);
    MissCurve sliced = curve_of(64, 64);
    for (int i = 0; i < 200; ++i) {
      const auto made = testing::chain(100 * rng.below(8), 1 + rng.below(7));
      const std::span<const SequenceHash> chain = made;
      whole.request(chain);
      const std::size_t cut = rng.below(chain.size() + 1);
      sliced.look_for(chain.first(cut));
      sliced.look_for(chain.subspan(cut));
      sliced.use(chain.subspan(cut));
      sliced.use(chain.first(cut));
    }
    for (std::uint64_t blocks = 0; blocks <= 64; ++blocks) {
      EXPECT_EQ(whole.hit_ratio(blocks), sliced.hit_ratio(blocks)) << "seed " << seed;
    }
  }
}

TEST(MissCurveTest, BeforeAnyRequestNothingIsKnown) {
  EXPECT_EQ(curve_of(100).hit_ratio(100), 0);
  EXPECT_EQ(curve_of(100).weight(), 0);
}

TEST(MissCurveTest, NothingToFollowIsRefused) {
  EXPECT_EQ(MissCurve::create({0, 16}).error().code(), Code::kInvalid);
  EXPECT_EQ(MissCurve::create({16, 0}).error().code(), Code::kInvalid);
}

// Published hit ratios of `lru` (see catalog/trace_replay_test.cc), and the ideal one.
TEST(MissCurveTest, OfARealTraceItIsWithinAPointWhicheverBlocksAreFollowed) {
  const auto trace =
      testing::PrefixTrace::read(TERRACE_SOURCE_DIR "/tests/data/mooncake/conversation.tree");
  ASSERT_TRUE(trace.has_value());
  const std::pair<std::uint64_t, double> published[] = {
      {1, 5.25}, {2, 7.93}, {5, 19.58}, {10, 27.89}, {100, 36.64}};
  for (std::uint64_t keys = 0; keys < 4; ++keys) {
    MissCurve curve = curve_of(trace->unique_blocks());
    for (std::size_t request = 0; request < trace->requests(); ++request) {
      std::vector<SequenceHash> chain;
      for (const std::uint32_t block : trace->blocks(request)) {
        chain.push_back(testing::hash((keys << 32U) + block));
      }
      curve.request(chain);
    }
    for (const auto& [share, percent] : published) {
      EXPECT_NEAR(100 * curve.hit_ratio(trace->unique_blocks() * share / 100), percent, 1)
          << share << " % of the blocks, keys " << keys;
    }
  }
}

// All are asked for once and once more: half of them are hits, however many of them happen to be
// followed.
TEST(MissCurveTest, HowManyAreFollowedSaysNothingOfHowManyHit) {
  for (std::uint64_t keys = 0; keys < 8; ++keys) {
    MissCurve curve = curve_of(1'000'000, 64);
    for (int turn = 0; turn < 2; ++turn) {
      for (std::uint64_t n = 0; n < 300; ++n) {
        curve.request(testing::chain((keys << 32U) + 1000 * n, 100));
      }
    }
    EXPECT_NEAR(curve.hit_ratio(60'000), 0.5, 0.001) << "keys " << keys;
  }
}

TEST(MissCurveTest, MemoryIsBoundedWhateverIsAskedFor) {
  MissCurve curve = curve_of(10'000'000);
  const Bytes before = curve.memory();
  EXPECT_LT(before.value(), 2ULL << 20U);
  for (std::uint64_t n = 0; n < 2000; ++n) curve.request(testing::chain(n * 50, 100));
  EXPECT_EQ(curve.memory(), before);
}

TEST(MissCurveTest, WhatWasLongAgoIsForgotten) {
  MissCurve curve = curve_of(1000);
  const auto hot = testing::chain(1, 10);
  for (int i = 0; i < 20'000; ++i) curve.request(hot);
  EXPECT_GT(curve.hit_ratio(100), 0.99);
  for (std::uint64_t n = 1; n < 60'000; ++n) curve.request(testing::chain(n * 100, 10));
  EXPECT_LT(curve.hit_ratio(100), 0.05);
}

}  // namespace
}  // namespace terrace::policy
