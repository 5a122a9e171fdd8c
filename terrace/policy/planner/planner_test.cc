#include "terrace/policy/planner/planner.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/testing/property.h"

namespace terrace::policy {
namespace {

constexpr std::array<Bytes, kTierCount> kIdle{};

Planner::Options blocks_of_1_mib() { return {.block_bytes = 1_MiB, .block_tokens = Tokens(100)}; }
// A tier that takes `per_mib` for each MiB and no latency.
void measure(Planner& planner, Tier tier, Nanoseconds per_mib, int times = 20) {
  for (int i = 0; i < times; ++i) planner.observe_load(tier, 1_MiB, per_mib);
}
std::uint64_t planned(Planner& planner, std::vector<SourceRun> runs) {
  return planner.plan(runs, kIdle).blocks;
}

TEST(PlannerTest, UntilMeasuredAllThatIsFoundIsLoaded) {
  Planner planner(blocks_of_1_mib());
  EXPECT_EQ(planned(planner, {{Tier::kHost, 3}, {Tier::kDisk, 5}}), 8U);
  planner.observe_prefill(Tokens(1000), milliseconds(1));
  EXPECT_EQ(planned(planner, {{Tier::kDisk, 5}}), 5U) << "the tier is not measured";
  Planner other(blocks_of_1_mib());
  measure(other, Tier::kDisk, seconds(10));
  EXPECT_EQ(planned(other, {{Tier::kDisk, 5}}), 5U) << "the prefill is not measured";
}

TEST(PlannerTest, NothingIsLoadedWhenComputingIsFaster) {
  Planner planner(blocks_of_1_mib());
  planner.observe_prefill(Tokens(100), milliseconds(1));
  measure(planner, Tier::kDisk, milliseconds(2));
  const std::vector<SourceRun> runs{{Tier::kDisk, 50}};
  const LoadPlan plan = planner.plan(runs, kIdle);
  EXPECT_EQ(plan.blocks, 0U);
  EXPECT_FALSE(plan.is_probe);
}

TEST(PlannerTest, AllIsLoadedWhenLoadingIsFaster) {
  Planner planner(blocks_of_1_mib());
  planner.observe_prefill(Tokens(100), milliseconds(2));
  measure(planner, Tier::kDisk, milliseconds(1));
  const std::vector<SourceRun> runs{{Tier::kDisk, 50}};
  const LoadPlan plan = planner.plan(runs, kIdle);
  EXPECT_EQ(plan.blocks, 50U);
  EXPECT_NEAR(static_cast<double>(plan.predicted_load.value()), 50e6, 1e6);
  EXPECT_NEAR(static_cast<double>(plan.predicted_recompute.value()), 100e6, 1e6);
}

TEST(PlannerTest, LoadingStopsBeforeATierThatIsTooSlow) {
  Planner planner(blocks_of_1_mib());
  planner.observe_prefill(Tokens(100), milliseconds(2));
  measure(planner, Tier::kHost, milliseconds(1));
  measure(planner, Tier::kObject, milliseconds(3));
  EXPECT_EQ(planned(planner, {{Tier::kHost, 10}, {Tier::kObject, 10}}), 10U);
}

TEST(PlannerTest, ASlowRunIsCrossedWhenWhatLiesBehindItPays) {
  Planner planner(blocks_of_1_mib());
  planner.observe_prefill(Tokens(100), milliseconds(2));
  measure(planner, Tier::kHost, milliseconds(1));
  measure(planner, Tier::kDisk, milliseconds(3));
  EXPECT_EQ(planned(planner, {{Tier::kDisk, 2}, {Tier::kHost, 10}}), 12U);
  EXPECT_EQ(planned(planner, {{Tier::kDisk, 10}, {Tier::kHost, 2}}), 0U);
}

TEST(PlannerTest, WhatWaitsInTheQueueDelaysALoad) {
  Planner planner(blocks_of_1_mib());
  planner.observe_prefill(Tokens(100), milliseconds(2));
  measure(planner, Tier::kDisk, milliseconds(1));
  std::array<Bytes, kTierCount> queued{};
  queued[static_cast<std::size_t>(Tier::kDisk)] = 100_MiB;
  const std::vector<SourceRun> runs{{Tier::kDisk, 10}};
  EXPECT_EQ(planner.plan(runs, queued).blocks, 0U);
  EXPECT_EQ(planner.plan(runs, kIdle).blocks, 10U);
}

TEST(PlannerTest, LatencyAndRateAreToldApart) {
  Planner planner(blocks_of_1_mib());
  Rng rng(1);
  for (int i = 0; i < 50; ++i) {
    const std::uint64_t mib = 1 + rng.below(64);
    planner.observe_load(Tier::kObject, 1_MiB * mib,
                         milliseconds(30 + static_cast<std::int64_t>(mib)));
  }
  EXPECT_NEAR(static_cast<double>(planner.load_latency(Tier::kObject).value()), 30e6, 1e6);
  EXPECT_NEAR(planner.load_rate(Tier::kObject), 1048576 * 1000.0, 5e7);
  planner.observe_prefill(Tokens(100), milliseconds(3));
  EXPECT_EQ(planned(planner, {{Tier::kObject, 5}}), 0U) << "35 ms against 15";
  EXPECT_EQ(planned(planner, {{Tier::kObject, 40}}), 40U) << "70 ms against 120";
}

TEST(PlannerTest, OneStallMovesTheAverageByLessThanAThird) {
  Planner planner(blocks_of_1_mib());
  measure(planner, Tier::kDisk, milliseconds(1));
  const double before = planner.load_rate(Tier::kDisk);
  planner.observe_load(Tier::kDisk, 1_MiB, seconds(30));
  EXPECT_GT(planner.load_rate(Tier::kDisk), before / 1.35);
}

TEST(PlannerTest, ALastingSlowdownIsBelieved) {
  Planner planner(blocks_of_1_mib());
  planner.observe_prefill(Tokens(100), milliseconds(5));
  measure(planner, Tier::kDisk, milliseconds(1));
  measure(planner, Tier::kDisk, milliseconds(20), 15);
  EXPECT_EQ(planned(planner, {{Tier::kDisk, 10}}), 0U);
}

// A tier that stalls at its first loads is refused; probes alone must bring it back.
TEST(PlannerTest, ARefusedTierComesBackThroughFewProbes) {
  Planner planner(blocks_of_1_mib());
  planner.observe_prefill(Tokens(100), milliseconds(5));
  measure(planner, Tier::kDisk, seconds(10), 3);
  std::uint64_t probes = 0;
  int requests = 0;
  for (; requests < 1000; ++requests) {
    const std::vector<SourceRun> runs{{Tier::kDisk, 100}};
    const LoadPlan plan = planner.plan(runs, kIdle);
    if (plan.blocks == 100) break;
    ASSERT_LE(plan.blocks, 4U);
    if (plan.blocks == 0) continue;
    ASSERT_TRUE(plan.is_probe);
    ++probes;
    planner.observe_load(Tier::kDisk, 1_MiB * plan.blocks,
                         milliseconds(static_cast<std::int64_t>(plan.blocks)));
  }
  EXPECT_LT(requests, 200);
  EXPECT_GT(probes, 0U);
}

TEST(PlannerTest, ATierThatStaysSlowIsProbedEverMoreRarely) {
  Planner planner(blocks_of_1_mib());
  planner.observe_prefill(Tokens(100), milliseconds(1));
  measure(planner, Tier::kDisk, milliseconds(50));
  std::uint64_t loaded = 0;
  for (int request = 0; request < 10'000; ++request) {
    const std::vector<SourceRun> runs{{Tier::kDisk, 100}};
    const LoadPlan plan = planner.plan(runs, kIdle);
    loaded += plan.blocks;
    if (plan.blocks > 0) {
      planner.observe_load(Tier::kDisk, 1_MiB * plan.blocks,
                           milliseconds(50 * static_cast<std::int64_t>(plan.blocks)));
    }
  }
  EXPECT_GT(loaded, 0U);
  EXPECT_LE(loaded, 4 * (6 + 10'000 / 256)) << "four blocks per probe, then one probe in 256";
}

TEST(PlannerTest, WhenDisabledAllThatIsFoundIsLoaded) {
  Planner::Options options = blocks_of_1_mib();
  options.is_enabled = false;
  Planner planner(options);
  planner.observe_prefill(Tokens(100), milliseconds(1));
  measure(planner, Tier::kDisk, seconds(1));
  EXPECT_EQ(planned(planner, {{Tier::kDisk, 10}}), 10U);
}

TEST(PlannerTest, EmptyObservationsAndPlansAreHarmless) {
  Planner planner(blocks_of_1_mib());
  planner.observe_load(Tier::kHost, Bytes(0), milliseconds(1));
  planner.observe_load(Tier::kHost, 1_MiB, Nanoseconds(0));
  planner.observe_load(Tier::kHost, 1_MiB, Nanoseconds(-5));
  planner.observe_prefill(Tokens(0), milliseconds(1));
  EXPECT_EQ(planner.load_rate(Tier::kHost), 0);
  EXPECT_EQ(planner.prefill_rate(), 0);
  EXPECT_EQ(planned(planner, {}), 0U);
  EXPECT_EQ(planned(planner, {{Tier::kHost, 0}}), 0U);
}

// No number of leading blocks would have taken less by the planner's own predictions.
TEST(PlannerProperty, ThePlanIsTheCheapestByItsOwnPredictions) {
  const auto [seed, steps] = testing::property(5, 100'000);
  Rng rng(seed);
  for (std::uint64_t i = 0; i < steps; ++i) {
    Planner planner(blocks_of_1_mib());
    planner.observe_prefill(Tokens(100),
                            Nanoseconds(1 + static_cast<std::int64_t>(rng.below(4'000'000))));
    std::vector<SourceRun> runs;
    for (std::uint64_t r = rng.below(4); r > 0; --r) {
      const Tier tier = static_cast<Tier>(1 + rng.below(4));
      runs.push_back({tier, rng.below(50)});
      planner.observe_load(tier, 1_MiB,
                           Nanoseconds(1 + static_cast<std::int64_t>(rng.below(4'000'000))));
    }
    const auto cost = [&](std::uint64_t blocks) {
      double total = 0;
      for (const SourceRun& run : runs) {
        const std::uint64_t loaded = std::min(blocks, run.blocks);
        blocks -= loaded;
        total += static_cast<double>(loaded) * 1048576 / planner.load_rate(run.source);
        total += static_cast<double>(run.blocks - loaded) * 100 / planner.prefill_rate();
      }
      return total;
    };
    const LoadPlan plan = planner.plan(runs, kIdle);
    std::uint64_t found = 0;
    for (const SourceRun& run : runs) found += run.blocks;
    const double chosen = cost(plan.blocks);
    for (std::uint64_t blocks = 0; blocks <= found; ++blocks) {
      ASSERT_LE(chosen, cost(blocks) * (1 + 1e-9) + 1e-12);
    }
  }
}

}  // namespace
}  // namespace terrace::policy
