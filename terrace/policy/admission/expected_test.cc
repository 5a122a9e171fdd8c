// The filter by expectation, and its parts. What it does to traces: trace/admission_replay_test.cc.
#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <vector>

#include "terrace/policy/admission/admission.h"
#include "terrace/policy/admission/loss_budget_internal.h"
#include "terrace/policy/admission/return_chances_internal.h"
#include "terrace/policy/admission/survival_internal.h"
#include "terrace/policy/admission/tail_chances_internal.h"
#include "terrace/policy/admission/use_log_internal.h"
#include "terrace/testing/keys.h"
#include "terrace/testing/property.h"

namespace terrace::policy {
namespace {

using testing::key;

TEST(UseLogProperty, IsNearWhatAnLruTierWouldHold) {
  const auto [seed, steps] = testing::property(21, 60'000);
  Rng rng(seed);
  for (const auto& [entries, tier] : {std::pair(1U, 1U), {8U, 3U}, {40U, 40U}, {40U, 12U}}) {
    auto log = UseLog::create(entries, tier);
    ASSERT_TRUE(log);
    std::list<std::uint64_t> recent;  // The most recent first.
    std::uint64_t near = 0;           // Of the most recent ones.
    for (std::uint64_t i = 0; i < steps / 4; ++i) {
      const std::uint64_t n = rng.below(rng.chance(50) ? 6 : 60);
      const auto found = log->find(key(n));
      const auto known = std::ranges::find(recent, n);
      if (found && rng.chance(10)) {
        if (std::distance(recent.begin(), known) < static_cast<std::ptrdiff_t>(near)) --near;
        recent.erase(known);
        log->remove(*found);
        ASSERT_FALSE(log->find(key(n)));
        continue;
      }
      ASSERT_EQ(found.has_value(), known != recent.end());
      const auto place = std::distance(recent.begin(), known);
      const bool was_near = found && place < static_cast<std::ptrdiff_t>(near);
      if (known != recent.end()) recent.erase(known);
      if (!found && recent.size() == entries) {
        recent.pop_back();
        near = std::min<std::uint64_t>(near, recent.size());
      }
      const std::uint32_t number = found ? *found : log->add(key(n));
      ASSERT_EQ((*log)[number].is_near != 0, was_near);
      const auto left = log->use(number, static_cast<std::uint32_t>(i));
      recent.push_front(n);
      // Where entries are as many as the tier's blocks, what leaves is forgotten.
      const bool pushes = !was_near && near == tier;
      if (!was_near && !pushes) ++near;
      ASSERT_EQ(left.has_value(), pushes);
      if (pushes) {
        ASSERT_EQ(log->find(key(*std::next(recent.begin(), tier))), left);
      }
    }
  }
}

TEST(UseLogTest, KnowsForHowLongATierHoldsWhatIsNotUsed) {
  auto log = UseLog::create(100, 10);
  ASSERT_TRUE(log);
  for (std::uint32_t second = 0; second < 50; ++second) {
    if (second < 10) {
      EXPECT_FALSE(log->residence(second)) << "it has room";
    }
    (void)log->use(log->add(key(second)), second);
  }
  EXPECT_EQ(log->residence(49), 9U);
}

TEST(UseLogTest, ABlockIsSinceItsLastReturnFromFarAway) {
  auto log = UseLog::create(100, 2);
  ASSERT_TRUE(log);
  const std::uint32_t first = log->add(key(1));
  (void)log->use(first, 5);
  (void)log->use(first, 7);
  EXPECT_EQ((*log)[first].since, 5U);
  for (std::uint64_t n = 2; n < 5; ++n) (void)log->use(log->add(key(n)), 8);
  (void)log->use(first, 9);
  EXPECT_EQ((*log)[first].since, 9U);
}

constexpr double kMostLost = 0.0045;
constexpr std::uint8_t kUnlikely = 3;
constexpr std::uint8_t kLikely = 40;

// Of each step so many blocks leave and so many of those return, of so many asked for.
void live(LossBudget& budget, int unlikely_returns, int likely_returns) {
  budget.note_uses(2 * 100'000);
  for (const auto& [step, returns] :
       {std::pair(kUnlikely, unlikely_returns), {kLikely, likely_returns}}) {
    for (int i = 0; i < 10'000; ++i) {
      budget.note_leaving(step);
      budget.note_seen(step);
      if (i < returns) budget.note_returned(step, 1);
    }
  }
  budget.judge();
}

TEST(LossBudgetTest, RefusesNothingBeforeItHasSeenAnything) {
  const LossBudget budget(1'000'000, kMostLost);
  EXPECT_FALSE(budget.refuses(0, 0));
}

TEST(LossBudgetTest, RefusesWhatCostsLeastAndKeepsTheRest) {
  LossBudget budget(1'000'000, kMostLost);
  live(budget, 100, 9'000);
  EXPECT_TRUE(budget.refuses(kUnlikely, 0.99));
  EXPECT_FALSE(budget.refuses(kLikely, 0.5));
}

TEST(LossBudgetTest, GoesByWhatReturnedNotByWhatWasExpected) {
  LossBudget budget(1'000'000, kMostLost);
  live(budget, 9'000, 100);
  EXPECT_FALSE(budget.refuses(kUnlikely, 0.5));
  EXPECT_TRUE(budget.refuses(kUnlikely, 0.01)) << "as many as half a percent allows";
}

TEST(LossBudgetTest, RefusesAsMuchAsMayBeLost) {
  LossBudget nothing(1'000'000, 0);
  live(nothing, 100, 9'000);
  EXPECT_FALSE(nothing.refuses(kUnlikely, 0));
  LossBudget much(1'000'000, 0.05);
  live(much, 100, 9'000);
  EXPECT_TRUE(much.refuses(kUnlikely, 0.99));
  EXPECT_TRUE(much.refuses(kLikely, 0.5)) << "5,000 of 100,000, of 9,000 that come back";
  EXPECT_FALSE(much.refuses(kLikely, 0.6));
}

TEST(LossBudgetTest, WhatIsGainedMayBeLostAgain) {
  LossBudget budget(1'000'000, kMostLost);
  budget.note_gained(9'200);
  live(budget, 100, 9'000);
  EXPECT_TRUE(budget.refuses(kLikely, 0.9));
  budget.note_gained(-9'200);
  budget.judge();
  EXPECT_FALSE(budget.refuses(kLikely, 0.5));
}

// As many as it may, if it is right; but twice as many came back.
TEST(LossBudgetTest, WhatWasLostBeyondItIsMadeGood) {
  LossBudget budget(1'000'000, kMostLost);
  live(budget, 400, 9'000);
  EXPECT_TRUE(budget.refuses(kUnlikely, 0.9));
  budget.note_lost(1'000);
  budget.judge();
  EXPECT_FALSE(budget.refuses(kUnlikely, 0));
}

TEST(SurvivalTest, BeginsAsAnLruTierWithSomeDoubt) {
  const Survival survival(1'000);
  EXPECT_GT(survival.chance(900 * Survival::kOne), 0.99);
  EXPECT_LT(survival.chance(1'500 * Survival::kOne), 0.6);
  EXPECT_LT(survival.chance(16'000 * Survival::kOne), 0.01);
}

// Two tiers' worth was written since, again and again: an lru tier would have nothing of that.
TEST(SurvivalTest, LearnsForHowLongTheTierHoldsWhatComesBack) {
  Survival survival(1'000);
  const auto step = survival.step_of(2'500 * Survival::kOne);
  for (int i = 0; i < 20'000; ++i) survival.note_held(step);
  EXPECT_GT(survival.chance(2'500 * Survival::kOne), 0.9);
  EXPECT_GT(survival.chance(1'500 * Survival::kOne), 0.9) << "what is younger no less";
  EXPECT_LT(survival.chance(3'500 * Survival::kOne), 0.6);
}

TEST(SurvivalTest, WhatWasNotThereCountsAsGone) {
  Survival survival(1'000);
  const auto step = survival.step_of(500 * Survival::kOne);
  for (int i = 0; i < 20'000; ++i) {
    survival.note_held(step);
    if (i % 2 == 0) survival.note_gone(step);
  }
  survival.halve();
  EXPECT_NEAR(survival.chance(500 * Survival::kOne), 0.5, 0.05);
}

TEST(TailChancesTest, LearnsThatEndsReturnLessAndKeepsBeginningsAboveThem) {
  TailChances tails;
  const auto last = TailChances::mark_of(0);
  const auto first = TailChances::mark_of(100);
  const auto between = TailChances::mark_of(3);
  for (int i = 0; i < 10'000; ++i) {
    for (const auto mark : {last, between, first}) tails.note_seen(mark, 0.2);
    if (i % 5 == 0) tails.note_returned(first, 1);
    if (i % 2 == 0) tails.note_returned(between, 1);
  }
  tails.judge();
  EXPECT_LT(tails.factor(last), 0.1);
  EXPECT_NEAR(tails.factor(first), 1, 0.05);
  EXPECT_LE(tails.factor(between), tails.factor(first)) << "it is of no use without its beginning";
}

TEST(LossBudgetTest, ForgetsWhatWasLongAgo) {
  LossBudget budget(20'000, kMostLost);
  live(budget, 9'000, 100);
  for (int i = 0; i < 6; ++i) live(budget, 10, 9'000);
  EXPECT_TRUE(budget.refuses(kUnlikely, 0.99));
}

// The one at place 5 has been replaced.
constexpr ReturnClass kBefore{5};
constexpr ReturnClass kNow{512 + 5};

TEST(ReturnChancesTest, AClassInThePlaceOfAnotherBeginsAsAllAre) {
  ReturnChances chances;
  chances.begin(kBefore);
  const auto before = ReturnChances::cell_of(kBefore, 10);
  const auto others = ReturnChances::cell_of(ReturnClass(0), 10);
  for (int i = 0; i < 10'000; ++i) {
    chances.note_seen(before);
    chances.note_seen(others);
    chances.note_returned(others, 1);
  }
  EXPECT_LT(chances.chance(before), 0.1);
  chances.begin(kNow);
  EXPECT_NEAR(chances.chance(ReturnChances::cell_of(kNow, 10)), 0.5, 0.01);
  EXPECT_NEAR(chances.chance(before), 0.5, 0.01);
}

TEST(ReturnChancesTest, WhatComesOfAClassThatHasGoneCountsForNoneInItsPlace) {
  ReturnChances chances;
  chances.begin(kBefore);
  const auto before = ReturnChances::cell_of(kBefore, 10);
  chances.begin(kNow);
  const auto now = ReturnChances::cell_of(kNow, 10);
  for (int i = 0; i < 10'000; ++i) {
    chances.note_seen(now);
    chances.note_returned(now, 1);
    chances.note_seen(before);
  }
  EXPECT_GT(chances.chance(now), 0.9);
}

class ExpectedTest : public ::testing::Test {
 protected:
  void use(std::span<const std::uint64_t> numbers, std::int64_t at) {
    std::vector<SequenceHash> chain;
    for (const std::uint64_t n : numbers) chain.push_back(key(n).hash);
    filter_->note_use(key(1).name_space, key(1).group, chain, {.at = seconds(at)}, true);
  }
  std::unique_ptr<AdmissionFilter> filter_ = make_expected({.entries = 10'000, .tier_blocks = 100});
};

TEST_F(ExpectedTest, WhatIsStillAboveWaits) {
  use(std::vector<std::uint64_t>{1, 2}, 1);
  EXPECT_FALSE(filter_->admit(key(1), seconds(1)));
  filter_->on_hit(key(1), seconds(2));
  EXPECT_FALSE(filter_->is_wanted(key(1), seconds(2)));
  EXPECT_TRUE(filter_->admit_leaving(key(1), seconds(3)));
}

TEST_F(ExpectedTest, WhatIsNotKnownIsJudgedAsAnyOther) {
  EXPECT_TRUE(filter_->admit_leaving(key(1), seconds(3))) << "nothing says that it does not return";
  for (std::uint64_t second = 0; second < 2'000; ++second) {
    std::vector<std::uint64_t> chain;
    for (std::uint64_t i = 0; i < 10; ++i) chain.push_back(1000 + 10 * second + i);
    use(chain, static_cast<std::int64_t>(second));
    use(chain, static_cast<std::int64_t>(second));
    for (const std::uint64_t n : chain) {
      (void)filter_->admit_leaving(key(n), seconds(static_cast<std::int64_t>(second)));
    }
  }
  std::uint64_t admitted = 0;
  for (std::uint64_t n = 0; n < 1000; ++n) {
    const auto at = seconds(static_cast<std::int64_t>(2'000 + n));
    if (filter_->admit_leaving(key(1'000'000 + n), at)) ++admitted;
  }
  EXPECT_LT(admitted, 500U);
}

// As a host that is larger than the log: each block leaves when it has been forgotten.
TEST_F(ExpectedTest, WhatReturnsIsAdmittedThoughTheLogIsTooSmallForHost) {
  filter_ = make_expected({.entries = 1024, .tier_blocks = 100'000, .upper_blocks = 5'000});
  std::uint64_t admitted = 0;
  for (std::uint64_t second = 0; second < 3'000; ++second) {
    std::vector<std::uint64_t> chain;
    for (std::uint64_t i = 0; i < 10; ++i) chain.push_back(1000 + 10 * (second % 600) + i);
    const auto at = static_cast<std::int64_t>(second);
    use(chain, at);
    use(chain, at);
    for (std::uint64_t i = 0; i < 10; ++i) {
      const std::uint64_t n = 1000 + 10 * ((second + 100) % 600) + i;
      if (filter_->admit_leaving(key(n), seconds(at))) ++admitted;
    }
  }
  EXPECT_GT(admitted, 28'000U);
}

TEST(ExpectedOptionsTest, EntriesFollowThePoolsWithinBounds) {
  const auto entries = [](std::uint64_t host, std::uint64_t disk) {
    return ExpectedOptions{.tier_blocks = disk, .upper_blocks = host}.usual_entries();
  };
  EXPECT_EQ(entries(1'000, 10'000), 1'000'000U);
  EXPECT_EQ(entries(2'000'000, 1'500'000), 2'500'000U + 3'000'000U);
  EXPECT_EQ(entries(2'000'000, 1'000'000'000), 2'500'000U + 4'000'000U);
  EXPECT_EQ(entries(UINT64_MAX, UINT64_MAX), 2'000'000'000U);
  const auto filter = make_expected({.tier_blocks = 100'000'000, .upper_blocks = 100'000});
  EXPECT_LT(filter->memory(), 400_MiB);
}

TEST_F(ExpectedTest, WhatIsUsedForAnHourIsWantedBeforeItLeaves) {
  for (int minute = 0; minute < 60; ++minute) {
    use(std::vector<std::uint64_t>{1, 2}, 60 * minute);
    EXPECT_FALSE(filter_->is_wanted(key(1), seconds(60 * minute)));
  }
  use(std::vector<std::uint64_t>{1, 2}, 3600);
  EXPECT_TRUE(filter_->is_wanted(key(1), seconds(3600)));
}

// One-time prompts, 10 blocks a second: the tier holds each for 10 seconds.
TEST_F(ExpectedTest, RefusesWhatNeverReturned) {
  std::uint64_t admitted = 0;
  std::uint64_t left = 0;
  for (std::uint64_t second = 0; second < 2'000; ++second) {
    std::vector<std::uint64_t> chain;
    for (std::uint64_t i = 0; i < 10; ++i) chain.push_back(1000 + 10 * second + i);
    use(chain, static_cast<std::int64_t>(second));
    use(chain, static_cast<std::int64_t>(second));
    if (second < 1'000) continue;
    for (const std::uint64_t n : chain) {
      ++left;
      if (filter_->admit_leaving(key(n - 20), seconds(static_cast<std::int64_t>(second)))) {
        ++admitted;
      }
    }
  }
  EXPECT_LT(admitted, left / 4);
}

TEST_F(ExpectedTest, AdmitsWhatReturns) {
  std::uint64_t admitted = 0;
  std::uint64_t left = 0;
  for (std::uint64_t second = 0; second < 2'000; ++second) {
    // The prompt of five seconds ago again, every other second.
    const std::uint64_t prompt = second % 2 == 0 ? second : second - 5;
    std::vector<std::uint64_t> chain;
    for (std::uint64_t i = 0; i < 10; ++i) chain.push_back(100'000 + 10 * prompt + i);
    use(chain, static_cast<std::int64_t>(second));
    use(chain, static_cast<std::int64_t>(second));
    if (second % 2 != 0) continue;
    for (const std::uint64_t n : chain) {
      ++left;
      if (filter_->admit_leaving(key(n), seconds(static_cast<std::int64_t>(second) + 1))) {
        ++admitted;
      }
    }
  }
  EXPECT_GT(admitted, left * 9 / 10);
}

// The beginning of a prompt that is refused, which another prompt goes on from elsewhere.
TEST_F(ExpectedTest, WhatSeveralPromptsBeginWithIsAdmitted) {
  std::uint64_t admitted = 0;
  for (std::uint64_t second = 0; second < 2'000; ++second) {
    std::vector<std::uint64_t> chain{1, 2};
    for (std::uint64_t i = 0; i < 10; ++i) chain.push_back(1000 + 10 * second + i);
    use(chain, static_cast<std::int64_t>(3 * second));
    use(chain, static_cast<std::int64_t>(3 * second) + 1);
    for (const std::uint64_t n : chain) {
      const bool is_admitted =
          filter_->admit_leaving(key(n), seconds(static_cast<std::int64_t>(3 * second) + 1));
      if (n <= 2 && second > 0) {
        ASSERT_TRUE(is_admitted);
      } else if (second > 1'000) {
        admitted += is_admitted ? 1 : 0;
      }
    }
  }
  EXPECT_LT(admitted, 5'000U);
}

// Each prompt comes back with other tokens at its end.
TEST_F(ExpectedTest, EndsThatNobodyGoesOnFromAreRefused) {
  std::uint64_t ends = 0;
  std::uint64_t others = 0;
  for (std::uint64_t second = 0; second < 4'000; ++second) {
    const std::uint64_t prompt = second % 2 == 0 ? second : second - 5;
    std::vector<std::uint64_t> chain;
    for (std::uint64_t i = 0; i < 9; ++i) chain.push_back(100'000 + 10 * prompt + i);
    chain.push_back(200'000 + second);
    const auto at = static_cast<std::int64_t>(second);
    use(chain, at);
    use(chain, at);
    for (const std::uint64_t n : chain) {
      const bool is_admitted = filter_->admit_leaving(key(n), seconds(at + 1));
      if (second > 2'000) (n == chain.back() ? ends : others) += is_admitted ? 1 : 0;
    }
  }
  EXPECT_LT(ends, 1'000U);
  EXPECT_GT(others, 9 * 1'400U);
}

TEST_F(ExpectedTest, BlocksOfOneRequestAreJudgedTogether) {
  for (std::uint64_t second = 0; second < 2'000; ++second) {
    std::vector<std::uint64_t> chain;
    for (std::uint64_t i = 0; i < 10; ++i) chain.push_back(1000 + 10 * second + i);
    use(chain, static_cast<std::int64_t>(second));
    use(chain, static_cast<std::int64_t>(second));
    std::uint64_t admitted = 0;
    for (const std::uint64_t n : chain) {
      if (filter_->admit_leaving(key(n), seconds(static_cast<std::int64_t>(second)))) ++admitted;
    }
    ASSERT_EQ(admitted % 10, 0U);
  }
}

}  // namespace
}  // namespace terrace::policy
