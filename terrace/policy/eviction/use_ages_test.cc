#include <gtest/gtest.h>

#include <vector>

#include "terrace/base/rng.h"
#include "terrace/policy/eviction/use_ages_internal.h"
#include "terrace/testing/property.h"

namespace terrace::policy {
namespace {

constexpr std::uint32_t kDay = 86'400;

// Slots whose uses are known, beside their marks.
class UseAgesTest : public ::testing::Test {
 protected:
  static constexpr std::uint32_t kSlots = 1000;
  static constexpr std::uint64_t kFew = 10;

  std::uint64_t pass(std::uint32_t seconds) {
    now_ += seconds;
    return ages_.pass(seconds, [this](std::uint32_t slot) {
      marks_[slot] = ages_.renewed(slot, marks_[slot]) & kKept;
    });
  }
  void use(std::uint32_t slot) {
    marks_[slot] = ages_.now();
    used_[slot] = now_;
  }
  void expect_right() {
    for (std::uint32_t slot = 0; slot < kSlots; ++slot) {
      const std::int64_t age = std::min<std::int64_t>(now_ - used_[slot], UseAges::kOldest);
      ASSERT_EQ(ages_.age_of(slot, marks_[slot]), age) << "slot " << slot;
    }
  }

  static constexpr std::uint32_t kKept = (1U << UseAges::kBits) - 1;
  UseAges ages_{kSlots, kFew};
  std::int64_t now_ = 0;
  std::vector<std::uint32_t> marks_ = std::vector<std::uint32_t>(kSlots);
  std::vector<std::int64_t> used_ = std::vector<std::int64_t>(kSlots);
};

TEST_F(UseAgesTest, InThreeDaysOfUseEverySlotIsLookedAtOnce) {
  std::uint64_t looks = 0;
  for (std::uint32_t i = 0; i < UseAges::kRound; ++i) looks += pass(1);
  EXPECT_EQ(looks, kSlots);
}

TEST_F(UseAgesTest, AfterDaysWithoutAnyUseNoCallLooksAtManyAndAllAgesAreRight) {
  for (std::uint32_t slot = 0; slot < kSlots; ++slot) {
    pass(slot % 7);
    use(slot);
  }
  ASSERT_LT(ages_.most_at_once(), kSlots / 50);
  for (const std::uint32_t idle : {2 * kDay, 4 * kDay, 10 * kDay, 100 * kDay}) {
    EXPECT_LE(pass(idle), ages_.most_at_once());
    expect_right();
    std::size_t calls = 0;
    while (const std::uint64_t looks = pass(0)) {
      ASSERT_LE(looks, ages_.most_at_once());
      ASSERT_LT(++calls, UseAges::kMostPauses);
      expect_right();
    }
    EXPECT_GT(calls, 0U);
    for (std::uint32_t slot = 0; slot < kSlots; slot += 3) use(slot);
  }
}

TEST_F(UseAgesTest, PausesUpToAnyNumberAndLengthAreAsTold) {
  const auto [seed, steps] = testing::property(11, 6'000);
  Rng rng(seed);
  for (std::uint64_t step = 0; step < steps; ++step) {
    constexpr std::uint32_t kPauses[] = {0, 1, 30, 900, 5'000, 20'000, 3 * kDay, 30 * kDay};
    // Now one short after the other, now long ones alone.
    const std::uint64_t kinds = step / 500 % 2 == 0 ? 8 : 6;
    const std::uint64_t looks = pass(kPauses[rng.below(kinds)]);
    ASSERT_LE(looks, ages_.most_at_once()) << "seed " << seed << " step " << step;
    for (std::uint64_t i = rng.below(20); i > 0; --i) {
      const auto slot = static_cast<std::uint32_t>(rng.below(kSlots));
      const auto other = static_cast<std::uint32_t>(rng.below(kSlots));
      if (rng.chance(50)) {
        use(slot);
      } else {  // As it comes from another pool, which was told of the same uses.
        marks_[slot] = ages_.mark_of(slot, ages_.age_of(other, marks_[other]));
        used_[slot] = used_[other];
      }
    }
    expect_right();
    if (HasFatalFailure()) FAIL() << "seed " << seed << " step " << step;
  }
}

TEST_F(UseAgesTest, WhatIsAheadOfNowIsOfBeforeThePauseToo) {
  pass(100);
  use(0);
  ages_.step_back(10);
  now_ -= 10;
  EXPECT_EQ(ages_.age_of(0, marks_[0]), 0U);
  pass(5 * kDay);
  EXPECT_EQ(ages_.age_of(0, marks_[0]), 5 * kDay - 10);
  while (pass(0) > 0) {
  }
  EXPECT_EQ(ages_.age_of(0, marks_[0]), 5 * kDay - 10);
}

TEST_F(UseAgesTest, AFewSlotsAreLookedAtAtOnce) {
  UseAges few(32);
  EXPECT_EQ(few.pass(100 * kDay, [](std::uint32_t) {}), 32U);
  EXPECT_EQ(few.pass(0, [](std::uint32_t) {}), 0U);
}

}  // namespace
}  // namespace terrace::policy
