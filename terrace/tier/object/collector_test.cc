#include "terrace/tier/object/collector.h"

#include <gmock/gmock.h>

#include <utility>

#include "terrace/base/rng.h"
#include "terrace/tier/object/collector_rig.h"

namespace terrace::tier {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;
using CollectorTest = CollectorRig;

TEST_F(CollectorTest, WhatIsTooOldGoesAndTheRestStays) {
  for (std::uint64_t i = 0; i < 10; ++i) add(name_of(i), static_cast<std::int64_t>(i) * kDay);
  options_.bounds.max_age = seconds(5 * kDay + 100);
  const CollectReport report = run();
  EXPECT_TRUE(report.status.is_ok());
  EXPECT_EQ(report.found.packs, 10U);
  EXPECT_EQ(report.found.blocks, 160U);
  EXPECT_EQ(report.too_old.packs, 4U);
  EXPECT_EQ(report.gone, 4U);
  std::set<std::string> kept;
  for (std::uint64_t i = 0; i < 6; ++i) kept.insert(name_of(i));
  EXPECT_EQ(left(), kept);
}

TEST_F(CollectorTest, TheOldestGoUntilTheRestFits) {
  for (std::uint64_t i = 0; i < 100; ++i) add(name_of(i), 1000 * static_cast<std::int64_t>(i));
  options_.bounds.bytes = 60 * kPackBytes;
  const CollectReport report = run();
  EXPECT_EQ(report.too_many.packs, 40U);
  EXPECT_EQ(report.gone, 40U);
  std::set<std::string> kept;
  for (std::uint64_t i = 0; i < 60; ++i) kept.insert(name_of(i));
  EXPECT_EQ(left(), kept);
  clock_.advance(options_.every);
  const CollectReport second = run();
  EXPECT_EQ(second.found.packs, 60U);
  EXPECT_EQ(second.gone, 0U) << "a second round leaves all of it";
}

TEST_F(CollectorTest, ABoundOfBlocksCountsThoseOfEachPack) {
  for (std::uint64_t i = 0; i < 10; ++i) {
    add(name_of(i, i < 5 ? 16 : 64), 1000 * static_cast<std::int64_t>(i));
  }
  options_.bounds.blocks = 5 * 16 + 2 * 64;
  EXPECT_EQ(run().gone, 3U);
  EXPECT_TRUE(left().contains(name_of(6, 64)));
  EXPECT_FALSE(left().contains(name_of(7, 64)));
}

TEST_F(CollectorTest, WithoutABoundNothingGoes) {
  for (std::uint64_t i = 0; i < 10; ++i) add(name_of(i), 1000 * kDay);
  const CollectReport report = run();
  EXPECT_EQ(report.gone, 0U);
  EXPECT_EQ(report.found.packs, 10U);
  EXPECT_THAT(left(), SizeIs(10));
}

TEST_F(CollectorTest, WhatIsNoPackIsLeftAlone) {
  const std::vector<std::string> others = {
      "v1/00000000000000000000000000000000/resets/00000000000000000017", "v1/notes.txt",
      "v1/00000000000000000000000000000000/g0/n16/00/x.pack", "other/file", "v2/x.pack"};
  for (const std::string& name : others) add(name, 1000 * kDay);
  add(name_of(1), 1000 * kDay);
  options_.bounds.max_age = seconds(kDay);
  const CollectReport report = run();
  EXPECT_EQ(report.gone, 1U);
  EXPECT_EQ(report.foreign, 3U);
  EXPECT_EQ(left(), std::set(others.begin(), others.end()));
  clock_.advance(options_.every);
  options_.bounds.bytes = 1;
  add(name_of(1), 10);
  EXPECT_EQ(run().foreign, 3U) << "counted once, though the store is listed twice";
  EXPECT_EQ(left(), std::set(others.begin(), others.end()));
}

TEST_F(CollectorTest, AStoreOfManyPagesIsWalkedPageByPage) {
  for (std::uint64_t i = 0; i < 3'500; ++i) add(name_of(i), static_cast<std::int64_t>(i % 100));
  options_.bounds.bytes = 1'000 * kPackBytes;
  const CollectReport report = run();
  EXPECT_EQ(report.found.packs, 3'500U);
  EXPECT_EQ(report.gone, 2'500U);
  EXPECT_THAT(left(), SizeIs(1'000));
}

// Its node's clock is ahead of the store's, or the store's own went back.
TEST_F(CollectorTest, APackOfTheFutureIsYoung) {
  add(name_of(1), -10 * kDay);
  add(name_of(2), 1);
  options_.bounds.max_age = seconds(kDay);
  options_.bounds.bytes = kPackBytes;
  const CollectReport report = run();
  EXPECT_EQ(report.too_old.packs, 0U);
  EXPECT_EQ(left(), std::set<std::string>{name_of(1)});
}

// By its own clock all of it would be too old.
TEST_F(CollectorTest, ANodeWhoseClockIsAheadRemovesNothingThatIsYoungByTheStores) {
  const testing::FakeClock ahead(seconds(1000), clock_.wall_seconds() + 1000 * kDay);
  add(name_of(1), kDay / 2);
  add(name_of(2), 2 * kDay);
  options_.bounds.max_age = seconds(kDay);
  testing::MemoryObjectStore store(place_, 8);
  Collector collector(options_, ahead);
  for (int i = 0; i < 100; ++i) turn(collector, store);
  EXPECT_TRUE(collector.is_over());
  EXPECT_EQ(left(), std::set<std::string>{name_of(1)});
}

TEST_F(CollectorTest, ADryRunSaysTheSameAndWritesNothing) {
  for (std::uint64_t i = 0; i < 2'000; ++i) add(name_of(i), 100 * static_cast<std::int64_t>(i));
  options_.bounds.max_age = seconds(150'000);
  options_.bounds.bytes = 700 * kPackBytes;
  options_.is_dry_run = true;
  const CollectReport told = run();
  EXPECT_EQ(told.gone, 0U);
  EXPECT_EQ(asked("put") + asked("remove") + asked("touch"), 0U);
  EXPECT_THAT(left(), SizeIs(2'000));
  options_.is_dry_run = false;
  const CollectReport done = run();
  EXPECT_EQ(done.found, told.found);
  EXPECT_EQ(done.too_old, told.too_old);
  EXPECT_EQ(done.too_many, told.too_many);
  EXPECT_EQ(done.gone, told.too_old.packs + told.too_many.packs);
  EXPECT_THAT(left(), SizeIs(700));
}

TEST_F(CollectorTest, APackThatIsTouchedMeanwhileStays) {
  for (std::uint64_t i = 0; i < 10; ++i) add(name_of(i), 1000 + static_cast<std::int64_t>(i) * 100);
  options_.bounds.bytes = 5 * kPackBytes;
  testing::MemoryObjectStore store(place_, 8);
  Collector collector(options_, clock_);
  while (collector.report().phase != CollectReport::Phase::kRemove) turn(collector, store);
  ASSERT_THAT(left(), SizeIs(10));
  place_->modified[name_of(9)] = clock_.wall_seconds();
  const CollectReport report = run(collector);
  EXPECT_TRUE(left().contains(name_of(9)));
  EXPECT_EQ(report.gone, 4U);
}

TEST_F(CollectorTest, WhoMayNotRemoveSaysSoAndStops) {
  for (std::uint64_t i = 0; i < 100; ++i) add(name_of(i), 10 * kDay);
  options_.bounds.max_age = seconds(kDay);
  place_->fault = [](const auto& request) {
    return request.op == transfer::ObjectOp::kRemove ? Status(Code::kRefused, "403 AccessDenied")
                                                     : Status();
  };
  const CollectReport report = run();
  EXPECT_EQ(report.status.code(), Code::kRefused);
  EXPECT_LE(report.failed, 4U);
  EXPECT_THAT(left(), SizeIs(100));
}

TEST_F(CollectorTest, ARemovalThatFailsCostsThatPackAlone) {
  for (std::uint64_t i = 0; i < 100; ++i) add(name_of(i), 10 * kDay);
  options_.bounds.max_age = seconds(kDay);
  place_->fault = [](const transfer::ObjectRequest& request) {
    const bool is_it = request.op == transfer::ObjectOp::kRemove && request.name == name_of(7);
    return is_it ? Status(Code::kIo, "EIO") : Status();
  };
  const CollectReport report = run();
  EXPECT_TRUE(report.status.is_ok());
  EXPECT_EQ(report.failed, 1U);
  EXPECT_EQ(left(), std::set<std::string>{name_of(7)});
}

TEST_F(CollectorTest, RemovalsThatFailNowAndThenDoNotEndTheRoundAndSixteenInARowDo) {
  for (const bool is_all : {false, true}) {
    SCOPED_TRACE(is_all);
    place_->objects.clear();
    for (std::uint64_t i = 0; i < 100; ++i) add(name_of(i), 10 * kDay);
    options_.bounds.max_age = seconds(kDay);
    int removals = 0;
    place_->fault = [&](const transfer::ObjectRequest& request) {
      const bool is_it =
          request.op == transfer::ObjectOp::kRemove && (is_all || ++removals % 3 == 0);
      return is_it ? Status(Code::kIo, "EIO") : Status();
    };
    const CollectReport report = run();
    EXPECT_EQ(report.status.code(), is_all ? Code::kIo : Code::kOk);
    EXPECT_EQ(report.failed, is_all ? 16U : 33U);
    EXPECT_EQ(report.gone, is_all ? 0U : 67U);
    clock_.advance(options_.every);
  }
}

TEST_F(CollectorTest, AStoreThatFailsEndsTheRoundAtWhateverStep) {
  for (std::uint64_t i = 0; i < 1'500; ++i) add(name_of(i), 10 * kDay);
  options_.bounds.max_age = seconds(kDay);
  for (int last = 0; last < 40; ++last) {
    int step = 0;
    place_->fault = [&](const auto&) {
      return step++ < last ? Status() : Status(Code::kUnavailable, "away");
    };
    const CollectReport report = run();
    EXPECT_EQ(report.status.code(), Code::kUnavailable) << last;
    clock_.advance(options_.every);
  }
}

// A server whose word for the next page is one that it had before.
TEST_F(CollectorTest, AListingThatGoesRoundInACircleEndsTheRound) {
  options_.bounds.bytes = 1;
  for (const bool is_second : {false, true}) {
    SCOPED_TRACE(is_second);
    add(name_of(1), 10 * kDay);
    Collector collector(options_, clock_);
    place_->twist = [&](const auto& request, transfer::ObjectAnswer& answer) {
      const bool is_it =
          request.name == wire::kAllPacks && collector.report().is_counted == is_second;
      if (is_it) answer.next = std::string(request.after == "a" ? "b" : "a");
    };
    const CollectReport report = run(collector);
    EXPECT_EQ(report.status.code(), Code::kCorrupt);
    EXPECT_THAT(report.status.message(), ::testing::HasSubstr("list v1/: after page"));
    EXPECT_EQ(report.is_counted, is_second);
    clock_.advance(options_.every);
  }
}

TEST_F(CollectorTest, NoMoreRemovalsAreUnderWayThanMayBe) {
  for (std::uint64_t i = 0; i < 100; ++i) add(name_of(i), 10 * kDay);
  options_.bounds.max_age = seconds(kDay);
  testing::MemoryObjectStore store(place_, 8);
  Collector collector(options_, clock_);
  while (asked("remove") == 0) turn(collector, store);
  place_->is_held = true;
  for (int i = 0; i < 20; ++i) turn(collector, store);
  const std::size_t before = asked("remove");
  EXPECT_LE(before, 8U) << "four that were answered, and four that were not";
  place_->is_held = false;
  turn(collector, store);
  turn(collector, store);
  EXPECT_EQ(asked("remove"), before + 4);
}

// So that who may not remove lists no further.
TEST_F(CollectorTest, TheNextPageIsAskedForOnceTheRemovalsOfThisOneAreThrough) {
  for (std::uint64_t i = 0; i < 2'500; ++i) add(name_of(i), 10 * kDay);
  options_.bounds.max_age = seconds(kDay);
  testing::MemoryObjectStore store(place_, 8);
  Collector collector(options_, clock_);
  while (!collector.is_over()) {
    bool is_idle = collector.is_idle();
    while (auto request = collector.next()) {
      EXPECT_TRUE(is_idle || request->op != transfer::ObjectOp::kList);
      ASSERT_TRUE(store.submit(*std::move(request)).is_ok());
      is_idle = collector.is_idle();
    }
    turn(collector, store);
  }
  EXPECT_EQ(asked("list"), 4U) << "of turns, and three pages";
}

TEST_F(CollectorTest, ItAsksNoFasterThanItMay) {
  for (std::uint64_t i = 0; i < 100; ++i) add(name_of(i), 10 * kDay);
  options_.bounds.max_age = seconds(kDay);
  options_.requests_per_second = 50;
  options_.most_removals = 1'000;
  testing::MemoryObjectStore store(place_, 1'000);
  Collector collector(options_, clock_);
  const Nanoseconds begun = clock_.now();
  while (!collector.is_over()) {
    while (auto request = collector.next()) {
      ASSERT_TRUE(store.submit(*std::move(request)).is_ok());
    }
    const std::int64_t allowed = 6 + (clock_.now() - begun) / milliseconds(20);
    ASSERT_LE(static_cast<std::int64_t>(place_->asked.size()), allowed)
        << "five at once, then 50/s";
    std::vector<transfer::ObjectAnswer> answers;
    store.poll(answers);
    for (const auto& answer : answers) collector.take(answer);
    if (collector.due() > clock_.now()) clock_.advance(collector.due() - clock_.now());
  }
  EXPECT_THAT(left(), IsEmpty());
  EXPECT_GE(clock_.now() - begun, milliseconds(1900)) << "103 requests, of which five at once";
  EXPECT_LE(clock_.now() - begun, seconds(3));
}

TEST_F(CollectorTest, StoppedItBeginsNothingMore) {
  for (std::uint64_t i = 0; i < 100; ++i) add(name_of(i), 10 * kDay);
  options_.bounds.max_age = seconds(kDay);
  testing::MemoryObjectStore store(place_, 8);
  Collector collector(options_, clock_);
  while (collector.report().gone == 0) turn(collector, store);
  const auto request = collector.next();
  ASSERT_TRUE(request.has_value());
  collector.stop({Code::kClosed, "closing"});
  EXPECT_FALSE(collector.next().has_value());
  EXPECT_FALSE(collector.is_over()) << "one is under way";
  transfer::ObjectAnswer answer;
  answer.token = request->token;
  collector.take(answer);
  EXPECT_TRUE(collector.is_over());
  EXPECT_EQ(collector.report().status.code(), Code::kClosed);
}

TEST_F(CollectorTest, WhyItWasStoppedFirstIsWhatItSays) {
  Collector collector(options_, clock_);
  const auto request = collector.next();
  ASSERT_TRUE(request.has_value());
  collector.stop({Code::kUnavailable, "away"});
  collector.stop({Code::kClosed, "closing"});
  transfer::ObjectAnswer answer;
  answer.token = request->token;
  collector.take(answer);
  EXPECT_EQ(collector.report().status.code(), Code::kUnavailable);
}

// Against a model that sorts all of it.
TEST_F(CollectorTest, WhatGoesIsOlderThanWhatStaysWhateverTheAges) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    place_->objects.clear();
    std::vector<std::pair<std::int64_t, std::string>> by_age;
    std::uint64_t total = 0;
    for (std::uint64_t i = 0; i < 300; ++i) {
      const auto age = static_cast<std::int64_t>(rng.below(std::uint64_t{1} << rng.below(28)));
      add(name_of(i), age, 500 + rng.below(1000));
      by_age.emplace_back(age, name_of(i));
      total += place_->objects[name_of(i)].size();
    }
    options_.bounds.bytes = total * (20 + rng.below(70)) / 100;
    (void)run();
    clock_.advance(options_.every);
    std::uint64_t kept = 0;
    std::int64_t youngest_gone = INT64_MAX;
    std::int64_t oldest_kept = 0;
    for (const auto& [age, name] : by_age) {
      const auto found = place_->objects.find(name);
      if (found != place_->objects.end()) kept += found->second.size();
      if (found != place_->objects.end()) oldest_kept = std::max(oldest_kept, age);
      if (found == place_->objects.end()) youngest_gone = std::min(youngest_gone, age);
    }
    EXPECT_LE(kept, options_.bounds.bytes);
    EXPECT_GE(kept + 1500, options_.bounds.bytes);
    // Within one cell of ages, which is a sixty-fourth of an age wide.
    EXPECT_LE(oldest_kept, youngest_gone + youngest_gone / 64 + 1);
  }
}

}  // namespace
}  // namespace terrace::tier
