// The small parts of the core by themselves: ghosts, the event queue, the gate.
#include <gtest/gtest.h>

#include "terrace/manager/event_queue_internal.h"
#include "terrace/manager/gate_internal.h"
#include "terrace/manager/ghosts_internal.h"

namespace terrace::manager {
namespace {

TEST(GhostsTest, RemembersWhyABlockWentUntilANewerOneTakesItsCell) {
  Ghosts ghosts(4);
  const SequenceHash a{.high = 0x1230, .low = 1};
  const SequenceHash b{.high = 0x4560, .low = 5};  // The same cell.
  EXPECT_FALSE(ghosts.recall(a).has_value());
  ghosts.remember(a, MissReason::kEvicted);
  EXPECT_EQ(ghosts.recall(a), MissReason::kEvicted);
  EXPECT_FALSE(ghosts.recall(b).has_value());
  ghosts.remember(b, MissReason::kNeverStored);
  EXPECT_EQ(ghosts.recall(b), MissReason::kNeverStored);
  EXPECT_FALSE(ghosts.recall(a).has_value());
  ghosts.clear();
  EXPECT_FALSE(ghosts.recall(b).has_value());
}

TEST(EventQueueTest, WhatNobodyTakesEndsInOneClearedFollowedByTheNewest) {
  EventQueue queue(3);
  for (std::uint64_t i = 0; i < 5; ++i) {
    Event event;
    event.alias = i;
    queue.push(std::move(event));
  }
  const auto taken = queue.take();
  ASSERT_EQ(taken.size(), 4U);
  EXPECT_EQ(taken[0].kind, Event::Kind::kCleared);
  EXPECT_EQ(taken[1].alias, 2U);
  EXPECT_EQ(queue.dropped(), 2U);
  EXPECT_TRUE(queue.take().empty());
}

TEST(EventQueueTest, ClearedMakesWhatCameBeforeItVoid) {
  EventQueue queue(3);
  queue.push({.alias = 1});
  queue.push({.kind = Event::Kind::kCleared});
  queue.push({.alias = 2});
  const auto taken = queue.take();
  ASSERT_EQ(taken.size(), 2U);
  EXPECT_EQ(taken[0].kind, Event::Kind::kCleared);
}

Gate open_gate() {
  Gate gate({.ranks = 2, .attach_timeout = seconds(10)}, Nanoseconds(0));
  gate.open_host();
  gate.on_attached(RankId(0), Epoch(1));
  gate.on_attached(RankId(1), Epoch(2));
  return gate;
}

TEST(GateTest, NamesTheProcessOfEachRank) {
  Gate gate({.ranks = 2, .attach_timeout = seconds(10)}, Nanoseconds(0));
  gate.on_attached(RankId(1), Epoch(1), 4711);
  EXPECT_EQ(gate.process_of(RankId(0)), 0);
  EXPECT_EQ(gate.process_of(RankId(1)), 4711);
  EXPECT_EQ(gate.process_of(RankId(2)), 0);
}

TEST(GateTest, ServesOnlyWithHostAllRanksAndTheirCanary) {
  Gate gate({.ranks = 2, .attach_timeout = seconds(10)}, Nanoseconds(0));
  EXPECT_EQ(gate.state(Nanoseconds(0)), Gate::State::kOpening);
  gate.on_attached(RankId(0), Epoch(1));
  gate.on_attached(RankId(0), Epoch(1));  // Told twice: still one.
  EXPECT_FALSE(gate.all_attached());
  gate.on_attached(RankId(1), Epoch(2));
  EXPECT_FALSE(gate.wants_canary(Nanoseconds(0)));  // No host tier to run it through.
  gate.open_host();
  EXPECT_TRUE(gate.wants_canary(Nanoseconds(0)));
  gate.on_canary_ordered();
  EXPECT_FALSE(gate.is_serving());
  EXPECT_TRUE(gate.on_canary({wire::CanaryResult::kPassed, wire::CanaryResult::kPassed}));
  EXPECT_EQ(gate.state(Nanoseconds(0)), Gate::State::kServing);
  EXPECT_EQ(gate.reason(Nanoseconds(0)), "");
}

TEST(GateTest, ACanaryOfRanksThatWentMeanwhileDoesNotOpenIt) {
  Gate gate = open_gate();
  gate.on_canary_ordered();
  gate.on_died(RankId(1), Epoch(2), Nanoseconds(0));
  gate.on_attached(RankId(1), Epoch(3));
  EXPECT_TRUE(gate.on_canary({wire::CanaryResult::kPassed, wire::CanaryResult::kPassed}));
  EXPECT_FALSE(gate.is_serving());
  EXPECT_TRUE(gate.wants_canary(Nanoseconds(0)));
}

TEST(GateTest, TheDeathOfAnEpochThatWasReplacedChangesNothing) {
  Gate gate = open_gate();
  gate.on_attached(RankId(1), Epoch(3));
  gate.on_died(RankId(1), Epoch(2), Nanoseconds(0));
  EXPECT_TRUE(gate.all_attached());
  EXPECT_EQ(gate.epoch_of(RankId(1)), Epoch(3));
}

TEST(GateTest, AWrongCanaryShutsItForGood) {
  Gate gate = open_gate();
  gate.on_canary_ordered();
  EXPECT_TRUE(gate.on_canary({wire::CanaryResult::kPassed, wire::CanaryResult::kFailed}));
  EXPECT_EQ(gate.state(Nanoseconds(0)), Gate::State::kShut);
  gate.on_attached(RankId(1), Epoch(9));
  EXPECT_FALSE(gate.wants_canary(Nanoseconds(0)));
  EXPECT_NE(gate.reason(Nanoseconds(0)).find("rank 1"), std::string::npos);
}

// A rank's process may stand still, or map its memory for long: nothing was wrong.
TEST(GateTest, ACanaryThatIsNeverReportedIsOrderedAgainEverMoreRarely) {
  Gate gate = open_gate();
  Nanoseconds now(0);
  for (int i = 1; i <= 64; ++i) {
    ASSERT_TRUE(gate.wants_canary(now)) << i;
    gate.on_canary_ordered();
    EXPECT_EQ(gate.on_canary_lost(now), i == 64);
  }
  EXPECT_EQ(gate.state(now), Gate::State::kLate);  // Nobody waits for it any more.
  EXPECT_NE(gate.reason(now).find("never reported"), std::string::npos);
  for (const std::int64_t rest : {60, 120, 240, 480, 600, 600}) {
    EXPECT_FALSE(gate.wants_canary(now + seconds(rest) - Nanoseconds(1)));
    now += seconds(rest);
    EXPECT_TRUE(gate.wants_canary(now));
    gate.on_canary_ordered();
    EXPECT_FALSE(gate.on_canary_lost(now));
  }
  now += seconds(600);
  gate.on_canary_ordered();
  EXPECT_TRUE(gate.on_canary({wire::CanaryResult::kPassed, wire::CanaryResult::kPassed}));
  EXPECT_EQ(gate.state(now), Gate::State::kServing);
}

TEST(GateTest, ALateAnswerOfTheSameProcessesCounts) {
  Gate gate = open_gate();
  gate.on_canary_ordered();
  (void)gate.on_canary_lost(Nanoseconds(0));
  EXPECT_TRUE(gate.on_canary({wire::CanaryResult::kPassed, wire::CanaryResult::kPassed}));
  EXPECT_TRUE(gate.is_serving());
  Gate wrong = open_gate();
  wrong.on_canary_ordered();
  (void)wrong.on_canary_lost(Nanoseconds(0));
  EXPECT_TRUE(wrong.on_canary({wire::CanaryResult::kPassed, wire::CanaryResult::kFailed}));
  EXPECT_EQ(wrong.state(Nanoseconds(0)), Gate::State::kShut);
}

TEST(GateTest, ANewProcessIsAskedAtOnce) {
  Gate gate = open_gate();
  for (int i = 0; i < 70; ++i) {
    gate.on_canary_ordered();
    (void)gate.on_canary_lost(Nanoseconds(0));
  }
  ASSERT_FALSE(gate.wants_canary(Nanoseconds(0)));
  gate.on_died(RankId(1), Epoch(2), Nanoseconds(0));
  gate.on_attached(RankId(1), Epoch(3));
  EXPECT_TRUE(gate.wants_canary(Nanoseconds(0)));
  EXPECT_EQ(gate.state(Nanoseconds(0)), Gate::State::kOpening);
}

TEST(GateTest, DoesNotServeWhereARankRanNoCanary) {
  Gate gate = open_gate();
  gate.on_canary_ordered();
  EXPECT_FALSE(gate.on_canary({wire::CanaryResult::kPassed, wire::CanaryResult::kNotRun}));
  EXPECT_FALSE(gate.is_serving());
}

TEST(GateTest, IsLateAfterTheTimeoutAndOpensForALateRank) {
  Gate gate({.ranks = 1, .attach_timeout = seconds(10)}, Nanoseconds(0));
  gate.open_host();
  EXPECT_EQ(gate.state(seconds(10)), Gate::State::kLate);
  gate.on_attached(RankId(0), Epoch(1));
  EXPECT_EQ(gate.state(seconds(11)), Gate::State::kOpening);
  gate.on_died(RankId(0), Epoch(1), seconds(20));
  EXPECT_EQ(gate.state(seconds(29)), Gate::State::kOpening);
  EXPECT_EQ(gate.state(seconds(30)), Gate::State::kLate);
}

}  // namespace
}  // namespace terrace::manager
