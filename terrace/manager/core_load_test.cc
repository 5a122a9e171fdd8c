// The core's rules of loads: what a failed one means for everything around it.
// One claim a test, with virtual time and a made-up engine (core_rig_internal.h).
#include <gtest/gtest.h>

#include "terrace/manager/core_rig_internal.h"

namespace terrace::manager {
namespace {

using rig::Rig;

// Loads block 0 of `tokens` into device block 40 with its host bytes broken; returns the orders.
wire::Orders order_bad_load(Rig& rig, RequestId id) {
  EXPECT_EQ(rig.look_up(id), 1U);
  EXPECT_TRUE(rig.accept(id, 0, 1, Rig::make_table(8, 40)).is_ok());
  auto orders = rig.build();
  EXPECT_TRUE(orders.has_value());
  rig.shard(orders->loads[0].slot.index, 0)[3] ^= std::byte{1};
  return std::move(*orders);
}

TEST(CoreLoadTest, ACorruptHostBlockIsReportedCountedRemovedAndNeverOfferedAgain) {
  Rig rig;
  const auto tokens = Rig::make_tokens(1, 1);
  rig.run_cold(tokens);
  const RequestId id = rig.begin(tokens);
  const wire::Orders orders = order_bad_load(rig, id);
  const wire::Report report = rig.obey(0, orders);
  ASSERT_EQ(report.failures.size(), 1U);
  ASSERT_TRUE(rig.core.take_report(report, rig.clock.now()).is_ok());
  EXPECT_EQ(rig.look_up(rig.begin(tokens)), 0U);  // Questioned: not offered meanwhile.
  rig.settle();
  EXPECT_FALSE(rig.in_host(rig.hashes(id)[0]));
  EXPECT_EQ(rig.counters.corrupt_blocks[static_cast<std::size_t>(Tier::kHost)].value(), 1U);
  const Ledger ledger = rig.end(id);
  EXPECT_EQ(ledger.first_miss, MissReason::kCorrupt);
  EXPECT_EQ(ledger.failed, Tokens(4));
  EXPECT_EQ(ledger.hit[static_cast<std::size_t>(Tier::kHost)], Tokens(0));
  const RequestId after = rig.begin(tokens);
  EXPECT_EQ(rig.look_up(after), 0U);
  EXPECT_EQ(rig.end(after).first_miss, MissReason::kCorrupt);
}

TEST(CoreLoadTest, WhatARequestRecomputesAfterACorruptLoadItStoresOnceTheBadCopyIsGone) {
  Rig rig;
  const auto tokens = Rig::make_tokens(1, 1);
  rig.run_cold(tokens);
  const RequestId id = rig.begin(tokens);
  const wire::Orders orders = order_bad_load(rig, id);
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, orders), rig.clock.now()).is_ok());
  const auto table = Rig::make_table(1, 50);
  rig.compute(id, 0, 50);
  rig.advance(id, 1, table);
  EXPECT_FALSE(rig.step().has_value());  // The copy in doubt still has the key.
  rig.settle();
  rig.advance(id, 1, table);
  EXPECT_EQ(rig.step()->saves.size(), 1U);
  EXPECT_EQ(rig.look_up(rig.begin(tokens)), 1U);
}

TEST(CoreLoadTest, ALoadThatFailedOnTheWayLeavesAGoodHostBlockInPlace) {
  Rig rig;
  const auto tokens = Rig::make_tokens(1, 1);
  rig.run_cold(tokens);
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), 1U);
  ASSERT_TRUE(rig.accept(id, 0, 1, Rig::make_table(1, 40)).is_ok());
  const auto orders = rig.build();
  auto report = rig.obey(0, *orders);
  report.failures.push_back({orders->loads[0].slot, orders->loads[0].group, 40});
  ASSERT_TRUE(rig.core.take_report(report, rig.clock.now()).is_ok());
  rig.settle();
  EXPECT_EQ(rig.look_up(id), 0U);  // This request never again.
  EXPECT_EQ(rig.look_up(rig.begin(tokens)), 1U);
  EXPECT_EQ(rig.counters.corrupt_blocks[static_cast<std::size_t>(Tier::kHost)].value(), 0U);
}

TEST(CoreLoadTest, AFailedLoadTaintsSavesOfItsStepAndOfStepsOrderedBeforeItWasKnown) {
  Rig rig;
  const auto shared_tokens = Rig::make_tokens(1, 1);
  rig.run_cold(shared_tokens);
  const auto others = Rig::make_tokens(2, 9);
  const RequestId id = rig.begin(shared_tokens);
  const RequestId other = rig.begin(others);
  rig.compute(other, 0, 20);
  rig.compute(other, 1, 21);
  rig.advance(other, 1, Rig::make_table(2, 20));  // Saved in the step of the bad load,
  const wire::Orders first = order_bad_load(rig, id);
  rig.advance(other, 2, Rig::make_table(2, 20));  // and in the next one, ordered before the report.
  const auto second = rig.build();
  ASSERT_TRUE(second.has_value());
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, first), rig.clock.now()).is_ok());
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *second), rig.clock.now()).is_ok());
  EXPECT_EQ(rig.look_up(rig.begin(others)), 0U);
  EXPECT_EQ(rig.counters.drop_tainted.value(), 2U);
  rig.advance(other, 2, Rig::make_table(2, 20));  // Offered again while the request lives.
  rig.step();
  EXPECT_EQ(rig.look_up(rig.begin(others)), 2U);
}

TEST(CoreLoadTest, WhatLeadsUpToABadBlockIsAHit) {
  Rig rig;
  const auto tokens = Rig::make_tokens(4, 1);
  rig.run_cold(tokens);
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), 4U);
  ASSERT_TRUE(rig.accept(id, 0, 4, Rig::make_table(4, 40)).is_ok());
  const auto orders = rig.build();
  ASSERT_TRUE(orders.has_value());
  rig.shard(orders->loads[2].slot.index, 0)[3] ^= std::byte{1};
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *orders), rig.clock.now()).is_ok());
  rig.settle();
  const auto host = static_cast<std::size_t>(Tier::kHost);
  EXPECT_EQ(rig.counters.hit_blocks[host].value(), 2U);
  EXPECT_EQ(rig.counters.corrupt_blocks[host].value(), 1U);
  EXPECT_FALSE(rig.in_host(rig.hashes(id)[2]));
  EXPECT_TRUE(rig.in_host(rig.hashes(id)[3]));
  const Ledger ledger = rig.end(id);
  EXPECT_EQ(ledger.hit[host], Tokens(2 * rig::kBlockTokens));
  EXPECT_EQ(ledger.failed, Tokens(2 * rig::kBlockTokens));
}

TEST(CoreLoadTest, AFailedLoadDropsTheSavesThatAreNotOrderedYet) {
  Rig rig;
  const auto tokens = Rig::make_tokens(1, 1);
  rig.run_cold(tokens);
  const auto others = Rig::make_tokens(1, 9);
  const RequestId id = rig.begin(tokens);
  const RequestId other = rig.begin(others);
  const wire::Orders bad = order_bad_load(rig, id);
  rig.compute(other, 0, 20);
  rig.advance(other, 1, Rig::make_table(1, 20));  // May be computed on the bad blocks.
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, bad), rig.clock.now()).is_ok());
  EXPECT_FALSE(rig.build().has_value());
  EXPECT_EQ(rig.counters.drop_tainted.value(), 1U);
  rig.advance(other, 1, Rig::make_table(1, 20));  // Offered again while the request lives.
  rig.step();
  EXPECT_EQ(rig.look_up(rig.begin(others)), 1U);
}

TEST(CoreLoadTest, AStepOnBadBlocksOfAnotherConnectorStoresNothingWhicheverRanksHaveReported) {
  Rig rig({.ranks = 2});
  const auto before = Rig::make_tokens(1, 1);
  const auto tokens = Rig::make_tokens(3, 9);
  rig.run_cold(before);
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), 0U);
  ASSERT_TRUE(rig.accept(id, 1, 0, {}).is_ok());  // Another one loads its first block.
  const auto table = Rig::make_table(3, 20);
  rig.advance(id, 2, table);
  const auto orders = rig.build();
  ASSERT_TRUE(orders.has_value());
  ASSERT_TRUE(rig.core.take_report(rig.obey(1, *orders), rig.clock.now()).is_ok());
  rig.advance(id, 3, table);  // Of the next step, not ordered yet.
  rig.core.taint_steps();
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *orders), rig.clock.now()).is_ok());
  EXPECT_FALSE(rig.build().has_value());
  EXPECT_EQ(rig.look_up(rig.begin(tokens)), 0U);
  EXPECT_EQ(rig.counters.drop_tainted.value(), 3U);
  EXPECT_EQ(rig.look_up(rig.begin(before)), 1U);  // What was stored before stays,
  for (std::uint32_t block = 0; block < 3; ++block) rig.compute(id, block, table[block]);
  rig.advance(id, 3, table);  // and what is computed anew is stored.
  rig.step();
  EXPECT_EQ(rig.look_up(rig.begin(tokens)), 3U);
}

TEST(CoreLoadTest, ALostReportOfALoadTaintsTheStepWhoseReportShowsIt) {
  Rig rig;
  const auto tokens = Rig::make_tokens(1, 1);
  rig.run_cold(tokens);
  const auto others = Rig::make_tokens(1, 9);
  const RequestId id = rig.begin(tokens);
  const RequestId other = rig.begin(others);
  const wire::Orders lost = order_bad_load(rig, id);
  rig.compute(other, 0, 20);
  rig.advance(other, 1, Rig::make_table(1, 20));
  const auto second = rig.build();
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *second), rig.clock.now()).is_ok());
  EXPECT_EQ(rig.look_up(rig.begin(others)), 0U);
  EXPECT_EQ(rig.counters.steps_lost.value(), 1U);
  EXPECT_EQ(rig.core.steps().in_flight(), 0U);
  EXPECT_EQ(rig.counters.hit_tokens[static_cast<std::size_t>(Tier::kHost)].value(), 0U);
}

TEST(CoreLoadTest, StepsThatNobodyReportsStayBoundedAndTheNextReportMakesRoom) {
  Rig rig({.ranks = 2});
  const auto tokens = Rig::make_tokens(2, 1);
  rig.run_cold(tokens);
  wire::Orders last;
  const auto load = [&] {
    const RequestId id = rig.begin(tokens);
    EXPECT_EQ(rig.look_up(id), 2U);
    EXPECT_TRUE(rig.accept(id, 0, 2, Rig::make_table(2, 40)).is_ok());
    last = rig.build().value();
    return id;
  };
  for (int i = 0; i < 1000; ++i) {
    rig.end(load());
    ASSERT_LE(rig.core.steps().in_flight(), 256U);
  }
  for (const wire::LoadOrder& order : last.loads) EXPECT_TRUE(order.is_void);
  EXPECT_EQ(rig.counters.steps_lost.value(), 1000U - 256U);
  for (std::uint16_t rank = 0; rank < 2; ++rank) {
    ASSERT_TRUE(rig.core.take_report(rig.obey(rank, last), rig.clock.now()).is_ok());
  }
  EXPECT_EQ(rig.core.steps().in_flight(), 0U);
  EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
  EXPECT_FALSE(rig.core.take_report(rig.obey(0, last), rig.clock.now()).is_ok());
  const RequestId id = load();
  for (std::uint16_t rank = 0; rank < 2; ++rank) {
    ASSERT_TRUE(rig.core.take_report(rig.obey(rank, last), rig.clock.now()).is_ok());
  }
  EXPECT_EQ(rig.end(id).hit[static_cast<std::size_t>(Tier::kHost)], Tokens(8));
}

TEST(CoreLoadTest, OfManyBlocksInDoubtAFewAreCheckedAtATime) {
  Rig rig({.tune = [](Options& options) { options.layout.groups[0].piece_bytes = {6_MiB}; }});
  const auto tokens = Rig::make_tokens(4, 1);
  rig.run_cold(tokens);
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), 4U);
  ASSERT_TRUE(rig.accept(id, 0, 4, Rig::make_table(4, 40)).is_ok());
  const auto orders = rig.build();
  auto report = rig.obey(0, *orders);
  for (const wire::LoadOrder& order : orders->loads) {
    report.failures.push_back({order.slot, order.group, order.device_block});
  }
  ASSERT_TRUE(rig.core.take_report(report, rig.clock.now()).is_ok());
  std::size_t checked = 0;
  for (const std::size_t wanted : {1U, 2U, 1U, 0U}) {  // Two such blocks are 12 MiB.
    EXPECT_EQ(rig.core.has_jobs(), wanted > 0);
    Jobs jobs;
    rig.core.take_jobs(checked == 0 ? 1 : 64, rig.clock.now(), jobs);
    EXPECT_EQ(jobs.checks.size(), wanted);
    for (const CheckJob& job : jobs.checks) rig.core.on_check(job.token, true);
    checked += jobs.checks.size();
  }
  EXPECT_EQ(rig.look_up(rig.begin(tokens)), 4U);
}

TEST(CoreLoadTest, ALoadAcceptedByARequestThatEndsBeforeItsStepFailsForWhoSharesTheBlocks) {
  Rig rig;
  const auto tokens = Rig::make_tokens(1, 1);
  rig.run_cold(tokens);
  const RequestId ended = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(ended), 1U);
  ASSERT_TRUE(rig.accept(ended, 0, 1, Rig::make_table(1, 40)).is_ok());
  const auto longer = Rig::make_tokens(2, 9);
  const RequestId other = rig.begin(longer);
  rig.advance(other, 2, std::vector<std::uint32_t>{40, 41});  // Computed on what is not filled.
  (void)rig.end(ended);
  const auto orders = rig.build();
  ASSERT_TRUE(orders.has_value());
  const wire::Report report = rig.obey(0, *orders);
  ASSERT_EQ(report.failures.size(), 1U);
  EXPECT_EQ(report.failures[0].device_block, 40U);
  ASSERT_TRUE(rig.core.take_report(report, rig.clock.now()).is_ok());
  EXPECT_EQ(rig.look_up(rig.begin(longer)), 0U);
  EXPECT_EQ(rig.look_up(rig.begin(tokens)), 1U);  // What it was to load is as good as before.
}

TEST(CoreLoadTest, TwoRequestsOfOneStepLoadASharedPrefixTwice) {
  Rig rig;
  const auto tokens = Rig::make_tokens(3, 1);
  rig.run_cold(tokens);
  const RequestId a = rig.begin(tokens);
  const RequestId b = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(a), 3U);
  ASSERT_EQ(rig.look_up(b), 3U);
  ASSERT_TRUE(rig.accept(a, 0, 3, Rig::make_table(3, 20)).is_ok());
  ASSERT_TRUE(rig.accept(b, 0, 3, Rig::make_table(3, 30)).is_ok());
  rig.step();
  EXPECT_TRUE(rig.is_right(a, 2, 22));
  EXPECT_TRUE(rig.is_right(b, 2, 32));
}

TEST(CoreLoadTest, APreemptedRequestLooksUpAndLoadsAgain) {
  Rig rig;
  const auto tokens = Rig::make_tokens(4, 1);
  const RequestId id = rig.begin(tokens);
  EXPECT_EQ(rig.look_up(id), 0U);
  ASSERT_TRUE(rig.accept(id, 0, 0, {}).is_ok());
  for (std::uint32_t i = 0; i < 4; ++i) rig.compute(id, i, i);
  rig.advance(id, 4, Rig::make_table(4));
  rig.step();
  // Preempted: its blocks go to somebody else; back with one local block in other places.
  EXPECT_EQ(rig.look_up(id, 1), 3U);
  const auto table = Rig::make_table(4, 20);
  ASSERT_TRUE(rig.accept(id, 1, 3, table).is_ok());
  rig.step();
  for (std::uint32_t i = 1; i < 4; ++i) EXPECT_TRUE(rig.is_right(id, i, table[i]));
}

}  // namespace
}  // namespace terrace::manager
