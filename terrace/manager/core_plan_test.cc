// The planner within the core: what is brought, waited for and given up, and what the ledger says.
// One claim a test, with virtual time and a made-up engine (core_rig_internal.h).
#include <gtest/gtest.h>

#include "terrace/manager/core_rig_internal.h"

namespace terrace::manager {
namespace {

using rig::Rig;

constexpr std::uint64_t kBlocks = 8;
constexpr auto kDisk = static_cast<std::size_t>(Tier::kDisk);

// A prompt of kBlocks blocks that lies on disk alone, where the disk takes `per_block` by what the
// planner knows, and computing 10 ms.
struct Stage {
  explicit Stage(Nanoseconds per_block) : rig({.host_blocks = 32, .has_disk = true}) {
    rig.run_cold(tokens);
    rig.run_cold(Rig::make_tokens(32, 2));  // Pushes it out of host.
    const Bytes bytes = rig.core.context().groups.most_bytes();
    for (int i = 0; i < 40; ++i) {
      planner.observe_load(Tier::kDisk, bytes, per_block);
      planner.observe_prefill(Tokens(rig::kBlockTokens), milliseconds(10));
    }
    reads_before = rig.disk.begun_reads;
  }
  [[nodiscard]] std::uint64_t begun() const { return rig.disk.begun_reads - reads_before; }
  // Polls each millisecond until the answer is there; returns how long that took.
  Nanoseconds answer_time(RequestId id) {
    const Nanoseconds start = rig.clock.now();
    while (!rig.poll(id).is_ready) {
      rig.settle();
      rig.clock.advance(milliseconds(1));
    }
    return rig.clock.now() - start;
  }
  void end_with(RequestId id, std::uint64_t blocks) {
    const auto table = Rig::make_table(kBlocks, 40);
    ASSERT_TRUE(rig.accept(id, 0, blocks, table).is_ok());
    const auto orders = rig.build();
    if (!orders) return;
    ASSERT_TRUE(rig.core.take_report(rig.obey(0, *orders), rig.clock.now()).is_ok());
  }

  const std::vector<std::uint32_t> tokens = Rig::make_tokens(kBlocks, 1);
  Rig rig;
  policy::Planner& planner = rig.core.context().planner;
  std::uint64_t reads_before = 0;
};

TEST(CorePlanTest, ALoadThatHangsIsGivenUpLongBeforeTheLookUpsDeadlineAndOnlyOnce) {
  Stage stage(milliseconds(1));
  stage.rig.disk.is_stuck = true;
  const RequestId id = stage.rig.begin(stage.tokens);
  const Nanoseconds waited = stage.answer_time(id);
  EXPECT_GE(waited, milliseconds(8));
  EXPECT_LE(waited, milliseconds(3 * 8 + 5 + 1)) << "three times the plan and some grace";
  EXPECT_EQ(*stage.rig.offered(id), 0U);
  EXPECT_EQ(stage.rig.counters.abandoned_loads.value(), 1U);
  stage.end_with(id, 0);
  stage.rig.disk.is_stuck = false;
  // Looked up again, as after a preemption: what is in host by now, but no second wait.
  stage.rig.disk.latency = seconds(1);
  EXPECT_TRUE(stage.rig.poll(id).is_ready);
  const Ledger ledger = stage.rig.end(id);
  ASSERT_TRUE(ledger.decision.has_value());
  EXPECT_TRUE(ledger.decision->is_abandoned);
  EXPECT_EQ(ledger.decision->load, waited);
  EXPECT_EQ(ledger.first_miss, MissReason::kLate);
}

TEST(CorePlanTest, WhatCameBeforeALoadWasGivenUpIsUsed) {
  Stage stage(milliseconds(1));
  stage.rig.disk.depth = 3;
  const RequestId id = stage.rig.begin(stage.tokens);
  stage.rig.settle();
  stage.rig.disk.latency = seconds(1);  // Three are there; the next three hang.
  stage.rig.clock.advance(milliseconds(1));
  (void)stage.answer_time(id);
  const std::uint64_t offered = *stage.rig.offered(id);
  stage.end_with(id, offered);
  const Ledger ledger = stage.rig.end(id);
  EXPECT_EQ(ledger.hit[kDisk], Tokens(offered * rig::kBlockTokens));
}

TEST(CorePlanTest, ReadsThatHaveNotBegunAreDroppedWithTheLoadAndLateOnesLeaveNothingBehind) {
  Stage stage(milliseconds(1));
  stage.rig.disk.is_stuck = true;
  stage.rig.disk.depth = 2;
  const RequestId id = stage.rig.begin(stage.tokens);
  (void)stage.answer_time(id);
  EXPECT_EQ(stage.begun(), 2U);
  EXPECT_EQ(stage.rig.core.reads(), 2U) << "the other six have given their slots back";
  EXPECT_EQ(stage.rig.count(catalog::SlotState::kFilling), 2U);
  (void)stage.rig.end(id);
  stage.rig.disk.is_stuck = false;
  stage.rig.settle();  // They come late, for whomever.
  EXPECT_EQ(stage.rig.core.reads(), 0U);
  EXPECT_EQ(stage.rig.count(catalog::SlotState::kFilling), 0U);
  EXPECT_EQ(stage.rig.core.context().pool().pinned(), 0U);
  const RequestId next = stage.rig.begin(stage.tokens);
  EXPECT_TRUE(stage.rig.in_host(stage.rig.hashes(next)[0]));
}

TEST(CorePlanTest, AReadThatAnotherRequestWaitsForGoesOn) {
  Stage stage(milliseconds(1));
  stage.rig.disk.is_stuck = true;
  stage.rig.disk.depth = 2;
  const RequestId first = stage.rig.begin(stage.tokens);
  EXPECT_FALSE(stage.rig.poll(first).is_ready);
  stage.rig.clock.advance(milliseconds(10));
  const RequestId second = stage.rig.begin(stage.tokens);
  EXPECT_FALSE(stage.rig.poll(second).is_ready);
  while (!stage.rig.poll(first).is_ready) stage.rig.clock.advance(milliseconds(1));
  EXPECT_EQ(stage.rig.core.reads(), kBlocks);
  stage.rig.disk.is_stuck = false;
  EXPECT_EQ(stage.rig.look_up(second), kBlocks);
}

TEST(CorePlanTest, WhatWillBeRefusedIsNotBroughtExceptAProbeThatNobodyWaitsFor) {
  Stage stage(milliseconds(100));
  stage.rig.disk.latency = milliseconds(100);
  int requests = 0;
  for (; requests < 32 && stage.begun() == 0; ++requests) {
    const RequestId id = stage.rig.begin(stage.tokens);
    stage.rig.settle();
    EXPECT_EQ(stage.begun(), 0U);
    EXPECT_EQ(stage.rig.offered(id), 0U) << "at once";
    stage.end_with(id, 0);
    EXPECT_EQ(stage.rig.end(id).first_miss, MissReason::kNotWorthIt);
    stage.rig.settle();
  }
  EXPECT_GE(requests, 4);
  EXPECT_EQ(stage.begun(), 4U);
}

TEST(CorePlanTest, WhatWasComputedAlthoughTheDiskHasItIsInHostTheNextTime) {
  Stage stage(milliseconds(100));
  stage.rig.run_cold(stage.tokens, 40);
  EXPECT_EQ(stage.begun(), 0U) << "refused";
  EXPECT_EQ(stage.rig.look_up(stage.rig.begin(stage.tokens)), kBlocks);
}

// Else each turn of a conversation would copy all before it.
TEST(CorePlanTest, WhatTheEngineItselfHadIsNotCopiedToHostWhileTheDiskHasIt) {
  Stage stage(milliseconds(100));
  const RequestId id = stage.rig.begin(stage.tokens);
  const auto table = Rig::make_table(kBlocks, 40);
  ASSERT_TRUE(stage.rig.accept(id, kBlocks - 1, 0, table).is_ok());
  for (std::uint32_t block = 0; block < kBlocks; ++block) stage.rig.compute(id, block, 40 + block);
  stage.rig.advance(id, kBlocks, table);
  const auto orders = stage.rig.step();
  ASSERT_TRUE(orders.has_value());
  EXPECT_EQ(orders->saves.size(), 1U) << "the one that it computed";
}

TEST(CorePlanTest, TheLedgerTellsPredictedAndActualTimes) {
  Stage stage(milliseconds(1));
  stage.rig.disk.latency = milliseconds(6);
  const RequestId id = stage.rig.begin(stage.tokens);
  const Nanoseconds waited = stage.answer_time(id);
  stage.end_with(id, kBlocks);
  EXPECT_EQ(stage.rig.counters.slow_loads.value(), 0U);
  const Ledger ledger = stage.rig.end(id);
  ASSERT_TRUE(ledger.decision.has_value());
  const Decision& decision = *ledger.decision;
  EXPECT_EQ(decision.found, Tokens(kBlocks * rig::kBlockTokens));
  EXPECT_EQ(decision.planned, decision.found);
  EXPECT_EQ(decision.slowest, Tier::kDisk);
  EXPECT_FALSE(decision.is_abandoned);
  EXPECT_NEAR(static_cast<double>(decision.predicted_load.value()), 8e6, 1e5);
  EXPECT_NEAR(static_cast<double>(decision.predicted_recompute.value()), 80e6, 1e6);
  EXPECT_NEAR(static_cast<double>(decision.load.value()), static_cast<double>(waited.value()),
              1e6 + 1000 * kBlocks);
  EXPECT_NEAR(stage.planner.calibration(Tier::kDisk, 0.5), 6.0 / 8, 0.2);
}

TEST(CorePlanTest, TheStepsThatComputeTheRestAreInTheLedger) {
  Rig rig;
  rig.run_cold(Rig::make_tokens(2, 1));
  const auto tokens = Rig::make_tokens(6, 1);  // The first two are there.
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), 2U);
  const auto table = Rig::make_table(6, 40);
  ASSERT_TRUE(rig.accept(id, 0, 2, table).is_ok());
  rig.advance(id, 6, table);
  const auto orders = rig.build();
  ASSERT_TRUE(orders.has_value());
  const wire::Report report = rig.obey(0, *orders);
  rig.clock.advance(milliseconds(7));
  ASSERT_TRUE(rig.core.take_report(report, rig.clock.now()).is_ok());
  const Ledger ledger = rig.end(id);
  ASSERT_TRUE(ledger.decision.has_value());
  EXPECT_EQ(ledger.decision->recomputed, Tokens(4 * rig::kBlockTokens));
  EXPECT_EQ(ledger.decision->recompute,
            milliseconds(7) - Nanoseconds(static_cast<std::int64_t>(report.load_ns)));
}

TEST(CorePlanTest, ASlowBucketIsRefusedSoonAndTakenAgainWhenItFlows) {
  Stage stage(milliseconds(1));
  const auto bytes = static_cast<double>(stage.rig.core.context().groups.most_bytes().value());
  stage.rig.disk.burst = 2 * bytes;
  std::uint32_t seed = 0;
  const auto run = [&](int requests) {
    int loaded = 0;
    for (int i = 0; i < requests; ++i) {
      // Out of host, without a trace in the planner.
      stage.rig.run_cold(Rig::make_tokens(32, 100 + ++seed));
      const RequestId id = stage.rig.begin(stage.tokens);
      (void)stage.answer_time(id);
      const std::uint64_t offered = *stage.rig.offered(id);
      loaded += offered == kBlocks ? 1 : 0;
      stage.end_with(id, offered);
      (void)stage.rig.end(id);
      for (int tick = 0; tick < 200; ++tick) {
        stage.rig.clock.advance(milliseconds(2));
        stage.rig.settle();
      }
    }
    return loaded;
  };
  stage.rig.disk.read_bytes_per_second = bytes / 0.2;  // 200 ms a block: 20 times computing.
  EXPECT_EQ(run(100), 0);
  EXPECT_LE(stage.rig.counters.abandoned_loads.value(), 4U);
  stage.rig.disk.read_bytes_per_second = bytes / 0.001;
  (void)run(200);
  EXPECT_EQ(run(10), 10) << "believed again";
}

}  // namespace
}  // namespace terrace::manager
