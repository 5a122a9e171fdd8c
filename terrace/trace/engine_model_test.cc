#include "terrace/trace/engine_model.h"

#include <gtest/gtest.h>

namespace terrace::trace {
namespace {

constexpr std::uint32_t kBlockTokens = 500;
// A block is computed in 50 ms, copied in 1 ms and read in 10 ms.
constexpr CostModel kCost{.prefill_tokens_per_s = 10'000,
                          .token_bytes = 1000,
                          .host_bytes_per_s = 500e6,
                          .disk_bytes_per_s = 50e6,
                          .disk_latency = milliseconds(2)};

constexpr std::uint64_t tokens_of(std::uint64_t blocks) { return blocks * kBlockTokens; }

std::vector<policy::SourceRun> found(Tier source, std::uint64_t blocks) {
  return {{source, blocks}};
}

TEST(EngineModelTest, WhatIsNotFoundIsComputed) {
  EngineModel engine(kCost, kBlockTokens);
  engine.serve({.at = seconds(1), .tokens = tokens_of(10)});
  EXPECT_EQ(engine.times().first_token, std::vector{milliseconds(500)});
  EXPECT_EQ(engine.times().off, std::vector{milliseconds(500)});
  EXPECT_EQ(engine.times().saved_prefill, Nanoseconds(0));
}

TEST(EngineModelTest, WhatIsFoundInHostIsCopiedAndTheRestComputed) {
  EngineModel engine(kCost, kBlockTokens);
  const auto runs = found(Tier::kHost, 8);
  engine.serve({.runs = runs, .tokens = tokens_of(10)});
  EXPECT_EQ(engine.times().first_token, std::vector{milliseconds(8 + 100)});
  EXPECT_EQ(engine.times().off, std::vector{milliseconds(500)});
  EXPECT_EQ(engine.times().saved_prefill, milliseconds(400));
  EXPECT_EQ(engine.times().loaded_blocks, 8U);
}

TEST(EngineModelTest, WhatIsSavedIsNeverLessThanNothing) {
  CostModel slow = kCost;
  slow.prefill_tokens_per_s = 1;
  EngineModel engine(slow, 1U << 20U);
  const auto runs = found(Tier::kHost, 1000);
  Nanoseconds before{0};
  for (int i = 0; i < 20; ++i) {
    engine.serve({.runs = runs, .tokens = 1001ULL << 20U});
    EXPECT_GE(engine.times().saved_prefill, before);
    before = engine.times().saved_prefill;
  }
}

TEST(EngineModelTest, SomethingIsComputedOfAPromptThatIsFoundWhole) {
  EngineModel engine(kCost, kBlockTokens);
  const auto runs = found(Tier::kHost, 10);
  engine.serve({.runs = runs, .tokens = tokens_of(10)});
  EXPECT_EQ(engine.times().loaded_blocks, 9U);
  engine.serve({.runs = runs, .tokens = tokens_of(10) + 1});
  EXPECT_EQ(engine.times().loaded_blocks, 19U);
}

// One who knows computes all of the first and the rest of the second prompt; the planner, that
// knows nothing yet, loads whatever is there.
TEST(EngineModelTest, TheRegretIsBesideOneWhoKnows) {
  CostModel slow = kCost;
  slow.disk_bytes_per_s = 5e6;  // 100 ms a block.
  EngineModel engine(slow, kBlockTokens);
  EXPECT_EQ(engine.times().regret_percent(), 0);
  const auto disk = found(Tier::kDisk, 9);
  engine.serve({.runs = disk, .tokens = tokens_of(10)});
  EXPECT_EQ(engine.times().best, std::vector{milliseconds(500)});
  EXPECT_EQ(engine.times().first_token, std::vector{milliseconds(900 + 2 + 9 + 50)});
  EXPECT_NEAR(engine.times().regret_percent(), 100 * (961.0 / 500 - 1), 1e-9);
  const std::vector<policy::SourceRun> both{{Tier::kHost, 4}, {Tier::kDisk, 5}};
  engine.serve({.at = seconds(10), .runs = both, .tokens = tokens_of(10)});
  EXPECT_EQ(engine.times().best.back(), milliseconds(4 + 300));
}

TEST(EngineModelTest, LoadsWaitForEachOtherAtTheDisk) {
  EngineModel engine(kCost, kBlockTokens);
  const auto runs = found(Tier::kDisk, 9);
  for (int i = 0; i < 2; ++i) engine.serve({.runs = runs, .tokens = tokens_of(10)});
  // 90 ms of reading, 2 of latency, 9 of copying, 50 of computing.
  EXPECT_EQ(engine.times().first_token, (std::vector{milliseconds(151), milliseconds(151 + 90)}));
}

TEST(EngineModelTest, ASlowDiskIsLeftAlone) {
  CostModel cost = kCost;
  cost.token_bytes = 131'072;
  cost.host_bytes_per_s = 20e9;
  cost.disk_bytes_per_s = 1e6;
  EngineModel engine(cost, kBlockTokens);
  engine.serve({.tokens = tokens_of(10)});
  const auto runs = found(Tier::kDisk, 9);
  for (int i = 1; i <= 100; ++i) {
    engine.serve({.at = seconds(100 * i), .runs = runs, .tokens = tokens_of(10)});
  }
  EXPECT_EQ(engine.times().first_token, engine.times().off);
}

// Before it is measured it is taken for a slow one.
TEST(EngineModelTest, AFastDiskIsFoundOutAndUsed) {
  CostModel cost = kCost;
  cost.token_bytes = 131'072;  // 64 MB a block: a third of a second from a disk of 200 MB/s.
  cost.host_bytes_per_s = 20e9;
  cost.disk_bytes_per_s = 3e9;
  EngineModel engine(cost, kBlockTokens);
  engine.serve({.tokens = tokens_of(10)});
  const auto runs = found(Tier::kDisk, 9);
  for (int i = 1; i <= 20; ++i) {
    engine.serve({.at = seconds(100 * i), .runs = runs, .tokens = tokens_of(10)});
  }
  const auto& times = engine.times().first_token;
  EXPECT_EQ(times[1], engine.times().off[1]);
  EXPECT_LT(times.back(), engine.times().off.back());
}

TEST(EngineModelTest, ALoadThatBreaksItsPromiseIsAbandoned) {
  CostModel cost = kCost;
  cost.prefill_tokens_per_s = 100;  // Slow enough for an unknown disk to be tried.
  cost.token_bytes = 131'072;
  cost.disk_bytes_per_s = 1e6;  // 65 s a block, beside 5 s of computing it.
  EngineModel engine(cost, kBlockTokens);
  engine.serve({.tokens = tokens_of(10)});
  const auto runs = found(Tier::kDisk, 9);
  engine.serve({.at = seconds(1000), .runs = runs, .tokens = tokens_of(10)});
  EXPECT_EQ(engine.times().abandoned_loads, 1U);
  EXPECT_LT(engine.times().first_token[1], engine.times().off[1] * 2);
  for (int i = 2; i <= 20; ++i) {
    engine.serve({.at = seconds(1000 * i), .runs = runs, .tokens = tokens_of(10)});
  }
  EXPECT_EQ(engine.times().abandoned_loads, 1U) << "it is known by now";
}

TEST(EngineModelTest, OthersCountNotButTakeTheDisk) {
  EngineModel engine(kCost, kBlockTokens);
  const auto runs = found(Tier::kDisk, 9);
  engine.serve({.runs = runs, .tokens = tokens_of(10), .is_counted = false});
  EXPECT_TRUE(engine.times().first_token.empty());
  engine.serve({.runs = runs, .tokens = tokens_of(10)});
  EXPECT_EQ(engine.times().first_token, std::vector{milliseconds(151 + 90)});
}

TEST(EngineModelTest, QuantilesAreOfTheNearestRank) {
  std::vector<Nanoseconds> times;
  for (int i = 100; i > 0; --i) times.emplace_back(i);
  EXPECT_EQ(EngineTimes::quantile(times, 0.5), Nanoseconds(50));
  EXPECT_EQ(EngineTimes::quantile(times, 0.99), Nanoseconds(99));
  EXPECT_EQ(EngineTimes::quantile({Nanoseconds(7)}, 0.01), Nanoseconds(7));
  EXPECT_EQ(EngineTimes::quantile({}, 0.5), Nanoseconds(0));
}

}  // namespace
}  // namespace terrace::trace
