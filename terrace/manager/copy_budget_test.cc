#include <gtest/gtest.h>

#include "terrace/manager/copy_budget_internal.h"

namespace terrace::manager {
namespace {

// A step of `bytes` that takes `took`.
void run(CopyBudget& budget, Bytes bytes, Nanoseconds took) {
  const Nanoseconds charged = budget.order(bytes);
  budget.finish(bytes, took, charged);
}

TEST(CopyBudgetTest, NothingIsBoundUntilTheSpeedIsKnown) {
  CopyBudget budget(0.1, Nanoseconds(0));
  EXPECT_EQ(budget.room(), Bytes(UINT64_MAX));
  run(budget, 1_GiB, seconds(1));
  EXPECT_EQ(budget.room(), Bytes(0)) << "all of the burst, ten seconds' tenth, is gone";
}

TEST(CopyBudgetTest, OverALongTimeCopiesTakeTheirShareAndNoMore) {
  CopyBudget budget(0.1, Nanoseconds(0));
  constexpr double kBytesPerSecond = 1e9;
  Nanoseconds now(0);
  double copied = 0;
  run(budget, Bytes(1'000'000), milliseconds(1));
  for (int step = 0; step < 10'000; ++step) {  // 1,000 seconds.
    now = now + milliseconds(100);
    budget.pass(now);
    const Bytes bytes = std::min(budget.room(), Bytes(1'000'000'000));
    const double took = static_cast<double>(bytes.value()) / kBytesPerSecond;
    run(budget, bytes, Nanoseconds(static_cast<std::int64_t>(took * 1e9)));
    copied += took;
  }
  EXPECT_NEAR(copied, 0.1 * 1000, 1.1) << "and one burst";
}

TEST(CopyBudgetTest, CopiesThatTurnOutSlowerLeaveLessRoomAndFasterOnesMore) {
  CopyBudget budget(0.1, Nanoseconds(0));
  run(budget, Bytes(1'000'000), milliseconds(1));
  const Bytes before = budget.room();
  for (int i = 0; i < 20; ++i) run(budget, Bytes(1'000'000), milliseconds(4));
  budget.pass(seconds(100));
  EXPECT_LT(budget.room() * 3, before);
  for (int i = 0; i < 60; ++i) run(budget, Bytes(1'000'000), milliseconds(1));
  budget.pass(seconds(200));
  EXPECT_GT(budget.room() * 10, before * 9);
}

TEST(CopyBudgetTest, WhatIsOrderedIsChargedAtOnce) {
  CopyBudget budget(0.1, Nanoseconds(0));
  run(budget, Bytes(1'000'000), milliseconds(1));
  const Bytes before = budget.room();
  (void)budget.order(Bytes(500'000'000));
  EXPECT_NEAR(static_cast<double>(before.value()) - static_cast<double>(budget.room().value()), 5e8,
              1e6);
}

TEST(CopyBudgetTest, ACopyThatStalledForMinutesIsPaidOffSoon) {
  CopyBudget budget(0.1, Nanoseconds(0));
  run(budget, Bytes(1'000'000), milliseconds(1));
  run(budget, Bytes(1'000'000), seconds(600));
  for (int i = 0; i < 60; ++i) run(budget, Bytes(1'000'000), milliseconds(1));
  EXPECT_EQ(budget.room(), Bytes(0));
  budget.pass(seconds(15));
  EXPECT_GT(budget.room(), Bytes(0));
}

TEST(CopyBudgetTest, AWholeShareIsNoBound) {
  CopyBudget budget(1, Nanoseconds(0));
  run(budget, 1_GiB, seconds(100));
  EXPECT_EQ(budget.room(), Bytes(UINT64_MAX));
}

TEST(CopyBudgetTest, AClockThatGoesBackGivesNothing) {
  CopyBudget budget(0.1, seconds(50));
  run(budget, Bytes(1'000'000'000), seconds(1));
  budget.pass(seconds(20));
  EXPECT_EQ(budget.room(), Bytes(0));
  budget.pass(seconds(60));
  EXPECT_GT(budget.room(), Bytes(0));
}

}  // namespace
}  // namespace terrace::manager
