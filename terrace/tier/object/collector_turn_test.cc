// Which node collects when: turns, and long rounds.
#include <gmock/gmock.h>

#include "terrace/testing/vectors.h"
#include "terrace/tier/object/collector_rig.h"

namespace terrace::tier {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;
class CollectorTurnTest : public CollectorRig {
 protected:
  // A round that is long enough for many turns to pass.
  CollectReport run_over_turns() {
    testing::MemoryObjectStore store(place_, 8);
    Collector collector(options_, clock_);
    for (int i = 0; i < 100'000 && !collector.is_over(); ++i) {
      turn(collector, store);
      if (i % 50 == 0) clock_.advance(options_.every);
    }
    return collector.report();
  }
};

TEST_F(CollectorTurnTest, OfTwoNodesOneHasTheTurnAndAnybodyTheNext) {
  add(name_of(1), 10 * kDay);
  options_.bounds.max_age = seconds(kDay);
  EXPECT_FALSE(run().is_others_turn);
  add(name_of(2), 10 * kDay);
  const CollectReport second = run();
  EXPECT_TRUE(second.is_others_turn);
  EXPECT_TRUE(second.status.is_ok());
  EXPECT_THAT(left(), SizeIs(1));
  EXPECT_EQ(asked("list"), 2U) << "turns and packs, by the first node alone";
  clock_.advance(options_.every);
  EXPECT_FALSE(run().is_others_turn);
  EXPECT_THAT(left(), IsEmpty());
}

TEST_F(CollectorTurnTest, WhoIsAskedByHandGoesOnWhoeverHasTheTurn) {
  add(name_of(1), 10 * kDay);
  options_.bounds.max_age = seconds(kDay);
  place_->objects[wire::turn_name(static_cast<std::uint64_t>(clock_.wall_seconds()))].resize(1);
  options_.gives_way = false;
  const CollectReport report = run();
  EXPECT_FALSE(report.is_others_turn);
  EXPECT_EQ(report.gone, 1U);
}

// Else the nodes would do without the round of that span.
TEST_F(CollectorTurnTest, WhoIsAskedByHandTakesNobodysTurn) {
  clock_.advance(seconds(100));
  options_.gives_way = false;
  EXPECT_TRUE(run().status.is_ok());
  options_.gives_way = true;
  EXPECT_FALSE(run().is_others_turn);
}

TEST_F(CollectorTurnTest, ALongRoundEndsWhenAnotherNodeHasTakenTheNextTurn) {
  for (std::uint64_t i = 0; i < 2'500; ++i) add(name_of(i), 10 * kDay);
  options_.bounds.max_age = seconds(kDay);
  options_.most_removals = 1;
  for (const bool is_taken : {false, true}) {
    SCOPED_TRACE(is_taken);
    testing::MemoryObjectStore store(place_, 8);
    Collector collector(options_, clock_);
    while (collector.report().gone < 10) turn(collector, store);
    clock_.advance(options_.every);
    if (is_taken) place_->objects[wire::turn_name(collector.present_turn())].resize(1);
    const std::size_t before = left().size();
    for (int i = 0; i < 20; ++i) turn(collector, store);
    EXPECT_EQ(collector.is_over(), is_taken);
    EXPECT_EQ(collector.report().is_others_turn, is_taken);
    EXPECT_EQ(left().size() + 5 < before, !is_taken);
    clock_.advance(options_.every);
  }
}

TEST_F(CollectorTurnTest, ALongRoundThatKeepsItsTurnGoesOnWhereItWas) {
  for (std::uint64_t i = 0; i < 2'500; ++i) add(name_of(i), 10 * kDay);
  options_.bounds.max_age = seconds(kDay);
  const CollectReport report = run_over_turns();
  EXPECT_EQ(report.found.packs, 2'500U) << "nothing was counted twice";
  EXPECT_EQ(report.gone, 2'500U);
  EXPECT_THAT(left(), IsEmpty());
}

TEST_F(CollectorTurnTest, ALongRoundThatRemovesWhatIsTooMuchGoesOnWhereItWas) {
  for (std::uint64_t i = 0; i < 2'500; ++i) add(name_of(i), 100 * static_cast<std::int64_t>(i));
  options_.bounds.bytes = 500 * kPackBytes;
  const CollectReport report = run_over_turns();
  EXPECT_EQ(report.found.packs, 2'500U) << "nothing was counted twice";
  EXPECT_EQ(report.gone, 2'000U);
  EXPECT_THAT(left(), SizeIs(500));
}

TEST_F(CollectorTurnTest, TurnsThatPassWhileRemovalsAreUnderWayEndNothing) {
  for (std::uint64_t i = 0; i < 100; ++i) add(name_of(i), 10 * kDay);
  options_.bounds.max_age = seconds(kDay);
  testing::MemoryObjectStore store(place_, 8);
  Collector collector(options_, clock_);
  while (collector.report().gone == 0) turn(collector, store);
  place_->is_held = true;
  for (int i = 0; i < 3; ++i) {
    turn(collector, store);
    clock_.advance(options_.every);
  }
  place_->is_held = false;
  for (int i = 0; i < 1'000 && !collector.is_over(); ++i) turn(collector, store);
  EXPECT_FALSE(collector.report().is_others_turn);
  EXPECT_EQ(collector.report().gone, 100U);
}

TEST_F(CollectorTurnTest, ADryRunTakesNoTurnHoweverLongItIs) {
  for (std::uint64_t i = 0; i < 2'500; ++i) add(name_of(i), 10 * kDay);
  options_.bounds.max_age = seconds(kDay);
  options_.is_dry_run = true;
  testing::MemoryObjectStore store(place_, 8);
  Collector collector(options_, clock_);
  for (int i = 0; i < 20; ++i) {
    turn(collector, store);
    clock_.advance(options_.every);
  }
  EXPECT_TRUE(collector.is_over());
  EXPECT_EQ(asked("put"), 0U);
}

TEST_F(CollectorTurnTest, OldTurnsGoAndThoseOfTheLastDayStay) {
  const auto now = static_cast<std::uint64_t>(clock_.wall_seconds());
  for (const std::uint64_t age : {3'600U, 80'000U, 100'000U, 900'000U}) {
    place_->objects[wire::turn_name(now - age)].resize(1);
  }
  options_.bounds.max_age = seconds(kDay);
  const CollectReport report = run();
  EXPECT_EQ(report.gone, 0U) << "they are no packs";
  EXPECT_TRUE(place_->objects.contains(wire::turn_name(now - 80'000)));
  EXPECT_FALSE(place_->objects.contains(wire::turn_name(now - 100'000)));
  EXPECT_FALSE(place_->objects.contains(wire::turn_name(now - 900'000)));
}

// Of a span that is longer, the turns of two spans: a node whose clock is behind is in the last
// one.
TEST_F(CollectorTurnTest, TurnsOfTheSpanBeforeStayHoweverLongASpanIs) {
  options_.every = seconds(10 * kDay);
  options_.bounds.max_age = seconds(kDay);
  const std::uint64_t turn = Collector(options_, clock_).present_turn();
  for (const std::uint64_t days : {10U, 19U, 30U}) {
    place_->objects[wire::turn_name(turn - days * kDay)].resize(1);
  }
  EXPECT_TRUE(run().status.is_ok());
  EXPECT_TRUE(place_->objects.contains(wire::turn_name(turn - 10 * kDay)));
  EXPECT_TRUE(place_->objects.contains(wire::turn_name(turn - 19 * kDay)));
  EXPECT_FALSE(place_->objects.contains(wire::turn_name(turn - 30 * kDay)));
}

// docs/formats/vectors/pack.tsv, which a second implementation made from the document alone.
TEST_F(CollectorTurnTest, TurnsAreThoseOfTheSecondImplementation) {
  int turns = 0;
  int kept = 0;
  int removed = 0;
  for (const auto& row : testing::read_vectors("pack.tsv")) {
    if (row[0] != "turn" && row[0] != "old-turn") continue;
    SCOPED_TRACE(row[1] + " " + row[2] + " " + row[3]);
    const testing::FakeClock clock(seconds(1000), std::stoll(row[1]));
    options_.every = seconds(std::stoll(row[2]));
    options_.bounds.max_age = seconds(kDay);
    Collector collector(options_, clock);
    if (row[0] == "turn") {
      ++turns;
      EXPECT_EQ(wire::turn_name(collector.present_turn()), row[3]);
      EXPECT_EQ(wire::turn_of(row[3]), collector.present_turn());
      continue;
    }
    place_->objects.clear();
    place_->objects[row[3]].resize(1);
    testing::MemoryObjectStore store(place_, 8);
    for (int i = 0; i < 100 && !collector.is_over(); ++i) {
      while (auto request = collector.next()) (void)store.submit(*std::move(request));
      std::vector<transfer::ObjectAnswer> answers;
      store.poll(answers);
      for (const auto& answer : answers) collector.take(answer);
    }
    EXPECT_EQ(place_->objects.contains(row[3]), row[4] == "no");
    ++(row[4] == "no" ? kept : removed);
  }
  EXPECT_TRUE(turns > 0 && kept > 0 && removed > 0);
}

TEST_F(CollectorTurnTest, StoppedWhileItAsksForTheTurnItSaysThatItWasStopped) {
  Collector collector(options_, clock_);
  const auto request = collector.next();
  ASSERT_TRUE(request.has_value());
  collector.stop({Code::kClosed, "closing"});
  transfer::ObjectAnswer answer;
  answer.token = request->token;
  answer.was_there = true;
  collector.take(answer);
  EXPECT_TRUE(collector.is_over());
  EXPECT_FALSE(collector.report().is_others_turn);
  EXPECT_EQ(collector.report().status.code(), Code::kClosed);
}

}  // namespace
}  // namespace terrace::tier
