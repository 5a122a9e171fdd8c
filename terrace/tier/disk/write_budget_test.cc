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

WriteAccounts one(const std::optional<WriteAccount>& account) {
  return account ? WriteAccounts{{*account}} : WriteAccounts();
}

// One process: saves when it is due, takes while it may.
class Owner {
 public:
  Owner(std::optional<WriteAccount> saved, std::int64_t wall)
      : budget_({kDay, kBlock}, one(saved), Nanoseconds(0), wall), saved_(saved), started_(wall) {
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
  WriteBudget budget({0, kBlock}, {}, Nanoseconds(0), kWall);
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
  WriteBudget budget({kDay, kDay / 4}, {}, Nanoseconds(0), kWall);
  EXPECT_TRUE(budget.due(Nanoseconds(0), kWall).has_value());
  budget.saved(true, Nanoseconds(0));
  EXPECT_TRUE(budget.may_take(kDay / 4, hours(7)));
}

TEST(WriteBudgetTest, NothingIsTakenBeforeTheAccountIsDurable) {
  WriteBudget budget({kDay, kBlock}, one(WriteAccount{kWall, 500'000}), Nanoseconds(0), kWall);
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
  WriteBudget budget({kDay, kBlock}, one(WriteAccount{kWall, 500'000}), Nanoseconds(0), kWall);
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
  const WriteAccounts empty{{{kWall, 0}}};
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

std::int64_t level_with(const WriteAccounts& found) {
  return WriteBudget({kDay, kBlock}, found, Nanoseconds(0), kWall).level(Nanoseconds(0));
}

TEST(WriteBudgetTest, OfSeveralCopiesTheLeastCounts) {
  EXPECT_EQ(level_with({{{kWall, 500'000, 7, 2}, {kWall, 300'000, 7, 2}}}), 300'000);
  // Filled since: the older one says more.
  EXPECT_EQ(level_with({{{kWall - 1800, 100'000, 7, 2}, {kWall, 400'000, 7, 2}}}), 400'000);
}

TEST(WriteBudgetTest, WhereACopyIsMissingOrOfAnotherSetNothingIsLeftButDebt) {
  EXPECT_EQ(level_with({{{kWall, 500'000, 7, 2}}}), 0);
  EXPECT_EQ(level_with({{{kWall, -500'000, 7, 2}}}), -500'000);
  EXPECT_EQ(level_with({{{kWall, 500'000, 7, 2}, {kWall, 500'000, 8, 2}}}), 0);
  EXPECT_EQ(level_with({{{kWall, 500'000, 7, 1}, {kWall, 500'000, 8, 1}}}), 0);
  EXPECT_EQ(level_with({{{kWall, 500'000, 7, 1}}, true}), 0) << "one cannot be read";
  EXPECT_EQ(level_with({{{kWall, 500'000, 7, 1}}}), 500'000);
}

// Directories with a copy each, of which some fail for a while, are left out at a start, come back
// as they were, or are new.
class Directories {
 public:
  explicit Directories(Rng& rng) : rng_(rng), copies_(3) {}
  // Which of them this process has, and what of it.
  WriteAccounts open() {
    WriteAccounts found;
    set_copies_ = 0;
    for (Copy& copy : copies_) {
      if (rng_.chance(2)) copy.account.reset();
      copy.is_open = rng_.chance(60) || &copy == &copies_.back();
      if (!copy.is_open) continue;
      ++set_copies_;
      if (copy.account) found.copies.push_back(*copy.account);
    }
    if (!found.is_whole() || found.copies.size() != set_copies_) {
      set_ = ++last_set_;
    } else {
      set_ = found.copies.front().set;
    }
    return found;
  }
  // One has it at least.
  void save(WriteAccount account) {
    account.set = set_;
    account.copies = set_copies_;
    bool is_kept = false;
    while (!is_kept) {
      for (Copy& copy : copies_) {
        if (!copy.is_open || rng_.chance(30)) continue;
        copy.account = account;
        is_kept = true;
      }
    }
  }

 private:
  struct Copy {
    std::optional<WriteAccount> account;
    bool is_open = false;
  };
  Rng& rng_;
  std::vector<Copy> copies_;
  std::uint64_t set_ = 0;
  std::uint64_t last_set_ = 0;
  std::uint32_t set_copies_ = 0;
};

TEST(WriteBudgetProperty, NoLossOfDirectoriesGetsMoreThanTheDaysBytes) {
  const auto [seed, steps] = testing::property(4, 3000);
  Rng rng(seed);
  Directories directories(rng);
  std::int64_t now = 0;  // Seconds.
  std::deque<std::pair<std::int64_t, std::uint64_t>> taken;
  std::uint64_t sum = 0;
  std::uint64_t most = 0;
  for (std::uint64_t i = 0; i < steps; ++i) {
    WriteBudget budget({kDay, kBlock}, directories.open(), Nanoseconds(0), kWall + now);
    const std::int64_t life = rng.chance(10) ? 40'000 : static_cast<std::int64_t>(rng.below(400));
    std::int64_t ran = 0;
    for (; ran <= life; ran += 1 + static_cast<std::int64_t>(rng.below(300))) {
      const auto save = [&] {
        if (const auto account = budget.due(seconds(ran), kWall + now + ran)) {
          directories.save(*account);
          budget.saved(true, seconds(ran));
        }
      };
      std::uint64_t bytes = 0;
      for (save(); budget.may_take(kBlock, seconds(ran)); save()) {
        budget.take(kBlock, seconds(ran));
        bytes += kBlock;
      }
      taken.emplace_back(now + ran, bytes);
      sum += bytes;
      while (taken.front().first <= now + ran - 86'400) {
        sum -= taken.front().second;
        taken.pop_front();
      }
      most = std::max(most, sum);
      ASSERT_LE(sum, kDay) << "start " << i;
    }
    now += ran;
    if (rng.chance(30)) {
      if (const auto last = budget.last(seconds(ran), kWall + now)) directories.save(*last);
    }
  }
  EXPECT_GT(most, kDay / 4) << "and it is used";
}

}  // namespace
}  // namespace terrace::tier::disk
