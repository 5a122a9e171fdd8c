#include "terrace/policy/planner/planner.h"

#include <gtest/gtest.h>

#include <algorithm>
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
  Planner other(blocks_of_1_mib());
  measure(other, Tier::kDisk, seconds(10));
  EXPECT_EQ(planned(other, {{Tier::kDisk, 5}}), 5U) << "the prefill is not measured";
}

TEST(PlannerTest, ATierThatIsNotMeasuredIsTakenForASlowOneAndProbedAtOnce) {
  Planner planner(blocks_of_1_mib());
  planner.observe_prefill(Tokens(100), milliseconds(1));
  const std::vector<SourceRun> runs{{Tier::kDisk, 50}};
  const LoadPlan plan = planner.plan(runs, kIdle);
  EXPECT_EQ(plan.blocks, 0U);
  EXPECT_EQ(plan.probe_blocks, 4U);
  Planner slow_engine(blocks_of_1_mib());
  slow_engine.observe_prefill(Tokens(100), milliseconds(100));
  const LoadPlan first = slow_engine.plan(runs, kIdle);
  EXPECT_EQ(first.blocks, 50U);
  EXPECT_EQ(first.patience, milliseconds(5005)) << "as long as computing takes, and some grace";
}

TEST(PlannerTest, NothingIsLoadedWhenComputingIsFaster) {
  Planner planner(blocks_of_1_mib());
  planner.observe_prefill(Tokens(100), milliseconds(1));
  measure(planner, Tier::kDisk, milliseconds(2));
  const std::vector<SourceRun> runs{{Tier::kDisk, 50}};
  const LoadPlan plan = planner.plan(runs, kIdle);
  EXPECT_EQ(plan.blocks, 0U);
  EXPECT_EQ(plan.probe_blocks, 0U);
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

// Of 40 requests for 50 blocks each that find a disk so many times slower than it was, where
// computing takes 1.5 times as long as loading: how many loaded all.
int loads_after_slowdown(double times) {
  const auto in_time = [&](double blocks) {
    return Nanoseconds(static_cast<std::int64_t>(1e6 * times * blocks));
  };
  Planner planner(blocks_of_1_mib());
  planner.observe_prefill(Tokens(100), in_time(1.5));
  for (int i = 0; i < 20; ++i) planner.observe_load(Tier::kDisk, 5_MiB, milliseconds(5));
  int loads = 0;
  for (int request = 0; request < 40; ++request) {
    const LoadPlan plan = planner.plan(std::vector<SourceRun>{{Tier::kDisk, 50}}, kIdle);
    const Nanoseconds taken = in_time(static_cast<double>(plan.blocks));
    if (plan.blocks > 0 && taken <= plan.patience) {
      for (std::uint64_t i = 0; i < plan.blocks; i += 5) {  // As they come.
        planner.observe_load(Tier::kDisk, 5_MiB, in_time(5));
      }
      planner.settle(Tier::kDisk, plan.predicted_load, taken);
      loads += plan.blocks == 50 ? 1 : 0;
    } else if (plan.blocks > 0) {
      const double came = static_cast<double>(plan.patience.value()) / (1e6 * times);
      planner.observe_abandoned(
          {.slowest = Tier::kDisk,
           .awaited = plan.awaited,
           .missing = 1_MiB * (plan.blocks - static_cast<std::uint64_t>(came)),
           .predicted = plan.predicted_load,
           .elapsed = plan.patience});
    } else if (plan.probe_blocks > 0) {
      planner.observe_load(Tier::kDisk, 1_MiB * plan.probe_blocks,
                           in_time(static_cast<double>(plan.probe_blocks)));
    }
  }
  return loads;
}

// Loads that took longer than was thought say by how much the tier has changed, not how far its
// loads scatter.
TEST(PlannerTest, ATierThatBecameSlowerAndStillPaysIsLoadedFrom) {
  for (const double times : {1.5, 2.0, 2.5, 3.0})
    EXPECT_EQ(loads_after_slowdown(times), 40) << times;
  // Here the first load is given up, and the next ones have to wait for probes.
  for (const double times : {5.0, 10.0}) EXPECT_GE(loads_after_slowdown(times), 20) << times;
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
    ASSERT_EQ(plan.blocks, 0U) << "nobody waits for a probe";
    ASSERT_LE(plan.probe_blocks, 4U);
    if (plan.probe_blocks == 0) continue;
    ++probes;
    planner.observe_load(Tier::kDisk, 1_MiB * plan.probe_blocks,
                         milliseconds(static_cast<std::int64_t>(plan.probe_blocks)));
  }
  EXPECT_LT(requests, 200);
  EXPECT_GT(probes, 0U);
}

// Of requests whose 100 blocks take `block` each from disk, and 100 ms to compute: how many probes.
int probes_of_a_thousand(Nanoseconds block) {
  Planner planner(blocks_of_1_mib());
  planner.observe_prefill(Tokens(100), milliseconds(1));
  measure(planner, Tier::kDisk, block);
  int probes = 0;
  for (int request = 0; request < 1000; ++request) {
    const std::vector<SourceRun> runs{{Tier::kDisk, 100}};
    const LoadPlan plan = planner.plan(runs, kIdle);
    EXPECT_EQ(plan.blocks, 0U);
    if (plan.probe_blocks == 0) continue;
    EXPECT_EQ(plan.probe_blocks, 4U);
    planner.observe_load(Tier::kDisk, 1_MiB * plan.probe_blocks,
                         block * static_cast<std::int64_t>(plan.probe_blocks));
    ++probes;
  }
  return probes;
}

TEST(PlannerTest, ProbesOfATierThatStaysSlowTakeATenthOfWhatComputingTakes) {
  EXPECT_NEAR(probes_of_a_thousand(milliseconds(2)), 250, 1) << "each fourth, at most";
  EXPECT_NEAR(probes_of_a_thousand(milliseconds(40)), 1000 * 0.1 * 100 / 160, 5);
  EXPECT_NEAR(probes_of_a_thousand(seconds(2)), 1000 / 32, 1) << "and each 32nd at least";
}

TEST(PlannerTest, ANoisyTierIsPlannedOnWhatSevenOfTenLoadsTake) {
  Planner planner(blocks_of_1_mib());
  planner.observe_prefill(Tokens(100), milliseconds(10));
  Rng rng(3);
  double sum = 0;
  for (int i = 0; i < 200; ++i) {  // A third takes three times as long.
    const auto taken = milliseconds(rng.below(10) < 4 ? 30 : 10);
    sum += static_cast<double>(taken.value()) * 1e-6;
    planner.observe_load(Tier::kDisk, 10_MiB, taken);
  }
  const std::vector<SourceRun> runs{{Tier::kDisk, 10}};
  const LoadPlan plan = planner.plan(runs, kIdle);
  EXPECT_EQ(plan.blocks, 10U);
  EXPECT_NEAR(static_cast<double>(plan.predicted_load.value()) * 1e-6, 30, 9);
  EXPECT_GT(static_cast<double>(plan.predicted_load.value()) * 1e-6, sum / 200 * 1.15);
}

TEST(PlannerTest, OnlyWhatComesWithinTheLongestWaitIsLoaded) {
  Planner planner(blocks_of_1_mib());
  planner.observe_prefill(Tokens(100), milliseconds(20));
  measure(planner, Tier::kHost, Nanoseconds(100'000));
  measure(planner, Tier::kDisk, milliseconds(10));
  const std::vector<SourceRun> runs{{Tier::kHost, 10}, {Tier::kDisk, 100}};
  const LoadPlan plan = planner.plan(runs, kIdle, {.most_wait = milliseconds(405)});
  EXPECT_EQ(plan.blocks, 10U + 40U);
  EXPECT_EQ(plan.slowest, Tier::kDisk);
}

TEST(PlannerTest, TiersBelowHostAreReadSideBySide) {
  Planner planner(blocks_of_1_mib());
  planner.observe_prefill(Tokens(100), milliseconds(3));
  measure(planner, Tier::kDisk, milliseconds(2));
  measure(planner, Tier::kObject, milliseconds(5));
  // What the store gives within the disk's 20 ms costs nothing; all of it would take 50.
  EXPECT_EQ(planned(planner, {{Tier::kDisk, 10}, {Tier::kObject, 10}}), 14U);
}

TEST(PlannerTest, ARefusedHostTierIsProbedByALoad) {
  Planner planner(blocks_of_1_mib());
  planner.observe_prefill(Tokens(100), milliseconds(1));
  measure(planner, Tier::kHost, milliseconds(3));
  for (int i = 1; i < 32; ++i) EXPECT_EQ(planned(planner, {{Tier::kHost, 50}}), 0U);
  EXPECT_EQ(planned(planner, {{Tier::kHost, 50}}), 4U);
}

TEST(PlannerTest, ALoadIsNotWaitedForMuchLongerThanItsPlanNorThanComputingTakes) {
  Planner planner(blocks_of_1_mib());
  planner.observe_prefill(Tokens(100), milliseconds(20));
  measure(planner, Tier::kDisk, milliseconds(1));
  const std::vector<SourceRun> runs{{Tier::kDisk, 100}};
  EXPECT_EQ(planner.plan(runs, kIdle).patience, milliseconds(3 * 100 + 5)) << "2 s to compute";
  measure(planner, Tier::kDisk, milliseconds(18), 150);
  const LoadPlan close = planner.plan(runs, kIdle);
  EXPECT_EQ(close.blocks, 100U);
  EXPECT_LE(close.patience, milliseconds(2006));
  EXPECT_GE(close.patience, close.predicted_load);
}

// What pays only now and then is not tried each time.
TEST(PlannerTest, ATierThatBreaksItsPromisesMustPayEverMore) {
  Planner planner(blocks_of_1_mib());
  planner.observe_prefill(Tokens(100), milliseconds(2));
  measure(planner, Tier::kDisk, milliseconds(1));
  int abandoned = 0;
  for (int request = 0; request < 1000; ++request) {
    const std::vector<SourceRun> runs{{Tier::kDisk, 20}};
    const LoadPlan plan = planner.plan(runs, kIdle);
    // A few blocks come at once, many never.
    if (plan.blocks > 0) {
      planner.observe_abandoned({.slowest = Tier::kDisk,
                                 .awaited = plan.awaited,
                                 .missing = plan.awaited,
                                 .predicted = plan.predicted_load,
                                 .elapsed = plan.patience});
      ++abandoned;
    } else if (plan.probe_blocks > 0) {
      planner.observe_load(Tier::kDisk, 1_MiB * plan.probe_blocks, milliseconds(4));
    }
  }
  EXPECT_GT(abandoned, 0);
  EXPECT_LE(abandoned, 20) << "2 % of the requests";
}

TEST(PlannerTest, ATierThatKeepsItsTimeAgainIsTrustedAgain) {
  Planner planner(blocks_of_1_mib());
  planner.observe_prefill(Tokens(100), milliseconds(2));
  measure(planner, Tier::kDisk, milliseconds(1));
  const AbandonedLoad load{.slowest = Tier::kDisk,
                           .awaited = 20_MiB,
                           .missing = 20_MiB,
                           .predicted = milliseconds(20),
                           .elapsed = milliseconds(60)};
  planner.observe_abandoned(load);
  planner.observe_abandoned(load);
  EXPECT_EQ(planned(planner, {{Tier::kDisk, 20}}), 0U);
  measure(planner, Tier::kDisk, milliseconds(1), 40);
  EXPECT_EQ(planned(planner, {{Tier::kDisk, 20}}), 20U);
}

// 1 ms a step, 10 us a token, 1 ns a pair, 0.2 ms a sequence that decodes beside it.
Nanoseconds engine_step(const PrefillStep& step) {
  return Nanoseconds(1'000'000 + static_cast<std::int64_t>(step.tokens.value()) * 10'000 +
                     static_cast<std::int64_t>(step.pairs) +
                     static_cast<std::int64_t>(step.beside) * 200'000);
}

TEST(PlannerTest, ComputingDeepInALongPromptIsKnownToBeDearer) {
  Planner planner(blocks_of_1_mib());
  Rng rng(4);
  for (int i = 0; i < 300; ++i) {
    const double tokens = 100 + static_cast<double>(rng.below(1900));
    const double before = static_cast<double>(rng.below(30'000));
    const PrefillStep step{.tokens = Tokens(static_cast<std::uint64_t>(tokens)),
                           .pairs = tokens * (before + tokens / 2),
                           .beside = static_cast<double>(rng.below(16))};
    planner.observe_prefill(step, engine_step(step));
  }
  const std::vector<SourceRun> runs{{Tier::kHost, 10}};
  const auto recompute_ms = [&](std::uint64_t before) {
    const LoadPlan plan =
        planner.plan(runs, kIdle, {.before = Tokens(before), .behind = Tokens(10)});
    return static_cast<double>(plan.predicted_recompute.value()) * 1e-6;
  };
  EXPECT_NEAR(recompute_ms(0), 10.5, 0.5);
  EXPECT_NEAR(recompute_ms(30'000), 10.5 + 30, 1.5);
}

// A long prompt is computed in several steps, and each of them drags what decodes beside it.
TEST(PlannerTest, StepsThatALoadSavesCountWithWhatIsComputedBesideThem) {
  const auto recompute_ms = [](double beside) {
    Planner planner(blocks_of_1_mib());
    Rng rng(5);
    for (int i = 0; i < 400; ++i) {
      PrefillStep step{.tokens = Tokens(100 + 100 * rng.below(10)),
                       .pairs = 0,
                       .beside = static_cast<double>(rng.below(33))};
      if (i >= 300) step.beside = beside + static_cast<double>(rng.below(2));
      planner.observe_prefill(step, engine_step(step));
    }
    const std::vector<SourceRun> runs{{Tier::kHost, 90}};
    const LoadPlan plan = planner.plan(runs, kIdle, {.behind = Tokens(1000)});
    return static_cast<double>(plan.predicted_recompute.value()) * 1e-6;
  };
  EXPECT_NEAR(recompute_ms(0), 90 + 1 * 9, 3) << "10 steps of 1000 tokens at most, or 1";
  EXPECT_NEAR(recompute_ms(32), 90 + 9 * (1 + 6.5), 6);
}

TEST(PlannerTest, CalibrationTellsHowFarPlansWereOff) {
  Planner planner(blocks_of_1_mib());
  EXPECT_EQ(planner.calibration(Tier::kDisk, 0.5), 0);
  for (int i = 0; i < 100; ++i) {
    planner.settle(Tier::kDisk, milliseconds(10), milliseconds(i % 5 == 0 ? 20 : 10));
  }
  EXPECT_NEAR(planner.calibration(Tier::kDisk, 0.5), 1.0, 0.05);
  EXPECT_NEAR(planner.calibration(Tier::kDisk, 0.9), 2.0, 0.1);
  EXPECT_EQ(planner.calibration(Tier::kHost, 0.5), 0);
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
  const auto [seed, steps] = testing::property(5, 20'000);
  Rng rng(seed);
  for (std::uint64_t i = 0; i < steps; ++i) {
    Planner planner(blocks_of_1_mib());
    planner.observe_prefill(Tokens(100),
                            Nanoseconds(1 + static_cast<std::int64_t>(rng.below(4'000'000))));
    std::vector<SourceRun> runs;
    for (std::uint64_t r = rng.below(4); r > 0; --r) {
      const Tier tier = static_cast<Tier>(1 + rng.below(4));
      runs.push_back({tier, rng.below(50)});
      if (planner.load_rate(tier) > 0) continue;
      const Nanoseconds taken(1 + static_cast<std::int64_t>(rng.below(4'000'000)));
      for (int times = 0; times < 60; ++times) planner.observe_load(tier, 1_MiB, taken);
    }
    const auto cost = [&](std::uint64_t blocks) {
      std::array<double, kTierCount> loads{};
      double rest = 0;
      double all = 0;
      for (const SourceRun& run : runs) {
        const std::uint64_t loaded = std::min(blocks, run.blocks);
        blocks -= loaded;
        all += static_cast<double>(loaded);
        loads[static_cast<std::size_t>(run.source)] +=
            static_cast<double>(loaded) * 1048576 / planner.load_rate(run.source);
        rest += static_cast<double>(run.blocks - loaded) * 100 / planner.prefill_rate();
      }
      // Tiers below host are read side by side; then all of it is copied.
      loads[static_cast<std::size_t>(Tier::kHost)] = 0;
      const double host = planner.load_rate(Tier::kHost);
      const double copy = host == 0 ? 0 : all * 1048576 / host;
      return rest + copy + *std::ranges::max_element(loads);
    };
    const LoadPlan plan = planner.plan(runs, kIdle);
    std::uint64_t found = 0;
    for (const SourceRun& run : runs) found += run.blocks;
    const double chosen = cost(plan.blocks);
    for (std::uint64_t blocks = 0; blocks <= found; ++blocks) {
      // What saves less than a twentieth is not loaded.
      ASSERT_LE(chosen, cost(blocks) + 0.05 * cost(0) + 1e-9);
    }
  }
}

}  // namespace
}  // namespace terrace::policy
