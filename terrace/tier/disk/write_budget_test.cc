#include <gtest/gtest.h>

#include <algorithm>
#include <deque>

#include "terrace/base/rng.h"
#include "terrace/testing/property.h"
#include "terrace/tier/disk/write_budget_internal.h"

namespace terrace::tier::disk {
namespace {

constexpr std::uint64_t kDay = 24 * 960'000;  // Bytes: 920'000 an hour come, 960'000 fit.
constexpr std::uint64_t kBlock = 1000;
constexpr std::int64_t kWall = 1'800'000'000;

Nanoseconds hours(std::int64_t n) { return seconds(3600 * n); }

// One process: saves when it is due, takes while it may.
class Owner {
 public:
  Owner(std::optional<WriteAccount> saved, std::int64_t wall)
      : budget_({kDay, kBlock}, saved, Nanoseconds(0), wall), saved_(saved), started_(wall) {
    save();
  }
  std::uint64_t take_all(Nanoseconds now) {
    std::uint64_t taken = 0;
    for (save(now); budget_.may_take(kBlock, now); save(now)) {
      budget_.take(kBlock, now);
      taken += kBlock;
    }
    return taken;
  }
  void save(Nanoseconds now = Nanoseconds(0)) {
    if (const auto account = budget_.due(now, wall(now))) {
      saved_ = account;
      budget_.saved(true, now);
    }
  }
  WriteBudget& budget() { return budget_; }
  // What the next process finds after a kill, or after an orderly end.
  [[nodiscard]] std::optional<WriteAccount> killed() const { return saved_; }
  std::optional<WriteAccount> closed(Nanoseconds now) { return budget_.last(now, wall(now)); }
  [[nodiscard]] std::int64_t wall(Nanoseconds now) const {
    return started_ + now.value() / 1'000'000'000;
  }

 private:
  WriteBudget budget_;
  std::optional<WriteAccount> saved_;
  std::int64_t started_;
};

TEST(WriteBudgetTest, WithoutABoundEverythingMayBeTakenAndNothingIsKept) {
  WriteBudget budget({0, kBlock}, std::nullopt, Nanoseconds(0), kWall);
  EXPECT_TRUE(budget.may_take(UINT64_MAX / 2, Nanoseconds(0)));
  EXPECT_FALSE(budget.due(Nanoseconds(0), kWall).has_value());
}

TEST(WriteBudgetTest, ItStartsEmptyAndFillsEvenly) {
  Owner owner(std::nullopt, kWall);
  EXPECT_EQ(owner.take_all(Nanoseconds(0)), 0U);
  for (int minute = 6; minute <= 60; minute += 6) {
    EXPECT_NEAR(static_cast<double>(owner.take_all(seconds(60 * minute))), 92'000, kBlock);
  }
}

TEST(WriteBudgetTest, APauseSavesUpAnHourAndNoMore) {
  Owner owner(std::nullopt, kWall);
  EXPECT_EQ(owner.take_all(hours(100)), 960'000U);
  EXPECT_EQ(owner.take_all(hours(100)), 0U);
}

TEST(WriteBudgetTest, ABlockLargerThanAnHoursPartFits) {
  WriteBudget budget({kDay, kDay / 4}, std::nullopt, Nanoseconds(0), kWall);
  EXPECT_TRUE(budget.due(Nanoseconds(0), kWall).has_value());
  budget.saved(true, Nanoseconds(0));
  EXPECT_TRUE(budget.may_take(kDay / 4, hours(7)));
}

TEST(WriteBudgetTest, NothingIsTakenBeforeTheAccountIsDurable) {
  WriteBudget budget({kDay, kBlock}, WriteAccount{kWall, 500'000}, Nanoseconds(0), kWall);
  EXPECT_FALSE(budget.may_take(kBlock, Nanoseconds(0)));
  const auto account = budget.due(Nanoseconds(0), kWall);
  ASSERT_TRUE(account.has_value());
  EXPECT_EQ(account->level, 440'000) << "a sixteenth of the bucket is promised";
  EXPECT_FALSE(budget.due(Nanoseconds(0), kWall).has_value()) << "one at a time";
  EXPECT_FALSE(budget.may_take(kBlock, Nanoseconds(0)));
  budget.saved(true, Nanoseconds(0));
  EXPECT_TRUE(budget.may_take(60'000, Nanoseconds(0)));
  EXPECT_FALSE(budget.may_take(60'001, Nanoseconds(0)));
}

TEST(WriteBudgetTest, AnAccountThatCannotBeSavedStopsWritesAndIsTriedAgain) {
  WriteBudget budget({kDay, kBlock}, WriteAccount{kWall, 500'000}, Nanoseconds(0), kWall);
  ASSERT_TRUE(budget.due(Nanoseconds(0), kWall).has_value());
  budget.saved(false, Nanoseconds(0));
  EXPECT_FALSE(budget.may_take(kBlock, seconds(5)));
  EXPECT_FALSE(budget.due(seconds(5), kWall).has_value());
  ASSERT_TRUE(budget.due(seconds(10), kWall).has_value());
  budget.saved(true, seconds(10));
  EXPECT_TRUE(budget.may_take(kBlock, seconds(10)));
}

TEST(WriteBudgetTest, DebtIsPaidBeforeAnythingIsTaken) {
  Owner owner(std::nullopt, kWall);
  owner.budget().take(920'000, Nanoseconds(0));
  EXPECT_EQ(owner.take_all(seconds(3590)), 0U);
  EXPECT_GT(owner.take_all(seconds(3610)), 0U);
  owner.budget().take(100 * kDay, hours(2));
  EXPECT_EQ(owner.budget().level(hours(2)), -static_cast<std::int64_t>(kDay));
}

TEST(WriteBudgetTest, AnOrderlyEndLosesNothingAndAKillAPromiseAtMost) {
  Owner first(std::nullopt, kWall);
  (void)first.take_all(hours(3));
  const std::int64_t left = first.budget().level(hours(4));
  const auto closed = first.closed(hours(4));
  ASSERT_TRUE(closed.has_value());
  EXPECT_EQ(closed->level, left);
  EXPECT_FALSE(first.budget().may_take(kBlock, hours(4)));
  Owner second(closed, kWall + 4 * 3600);
  EXPECT_NEAR(static_cast<double>(second.take_all(Nanoseconds(0))), static_cast<double>(left),
              kBlock);
  Owner third(second.killed(), kWall + 4 * 3600);
  EXPECT_GE(third.budget().level(Nanoseconds(0)), -60'000 - 1000);
}

TEST(WriteBudgetTest, TimeThatNobodyRanFillsAndAClockSetBackDoesNot) {
  const WriteAccount empty{kWall, 0};
  EXPECT_EQ(WriteBudget({kDay, kBlock}, empty, Nanoseconds(0), kWall + 1800).level(Nanoseconds(0)),
            460'000);
  EXPECT_EQ(
      WriteBudget({kDay, kBlock}, empty, Nanoseconds(0), kWall + 86'400).level(Nanoseconds(0)),
      960'000);
  EXPECT_EQ(
      WriteBudget({kDay, kBlock}, empty, Nanoseconds(0), kWall - 86'400).level(Nanoseconds(0)), 0);
}

// Killed, closed and started anew at any moment, or with the account deleted: in no 24 hours is
// more taken than the day's bytes.
TEST(WriteBudgetProperty, NoLoopOfRestartsGetsMoreThanTheDaysBytes) {
  const auto [seed, steps] = testing::property(3, 3000);
  Rng rng(seed);
  std::optional<WriteAccount> account;
  std::int64_t now = 0;  // Seconds.
  std::deque<std::pair<std::int64_t, std::uint64_t>> taken;
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < steps; ++i) {
    Owner owner(account, kWall + now);
    const std::int64_t life = rng.chance(10) ? 40'000 : static_cast<std::int64_t>(rng.below(400));
    std::int64_t ran = 0;
    for (; ran <= life; ran += 1 + static_cast<std::int64_t>(rng.below(300))) {
      const std::uint64_t bytes = owner.take_all(seconds(ran));
      taken.emplace_back(now + ran, bytes);
      sum += bytes;
      while (taken.front().first <= now + ran - 86'400) {
        sum -= taken.front().second;
        taken.pop_front();
      }
      ASSERT_LE(sum, kDay) << "start " << i;
    }
    now += ran;
    account = owner.killed();
    if (rng.chance(30)) account = owner.closed(seconds(ran));
    if (rng.chance(5)) account.reset();
  }
  EXPECT_GT(sum, kDay / 4) << "and it is used";
}

}  // namespace
}  // namespace terrace::tier::disk
