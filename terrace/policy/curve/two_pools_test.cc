#include "terrace/policy/curve/two_pools.h"

#include <gtest/gtest.h>

namespace terrace::policy {
namespace {

// Half of what is asked for returns, evenly over 1000 blocks.
double even(std::uint64_t size) { return 0.5 * std::min(1.0, static_cast<double>(size) / 1000); }

TEST(TwoPoolsTest, CopiesAddNothing) {
  EXPECT_EQ(size_of_two(even, 100, 500, true), 500U);
  EXPECT_EQ(size_of_two(even, 500, 100, true), 500U);
  EXPECT_EQ(size_of_two(even, 500, 0, true), 500U);
}

TEST(TwoPoolsTest, WhatWasLoadedFromBelowIsInBoth) {
  // 580 blocks hold 0.29 of what is asked for: of what 100 hold, which miss 0.95, is 0.71 / 0.95
  // nowhere else.
  EXPECT_NEAR(static_cast<double>(size_of_two(even, 100, 500, false)), 574, 2);
}

TEST(TwoPoolsTest, WhereNothingReturnsTheyAddUp) {
  const auto never = [](std::uint64_t) { return 0.0; };
  EXPECT_NEAR(static_cast<double>(size_of_two(never, 100, 500, false)), 600, 1);
  EXPECT_EQ(size_of_two(never, 100, 0, false), 100U);
  EXPECT_EQ(size_of_two(never, 0, 500, false), 500U);
}

TEST(TwoPoolsTest, WhereAllReturnsBelowItIsTheLarger) {
  const auto all = [](std::uint64_t size) { return size >= 500 ? 1.0 : 0.0; };
  EXPECT_EQ(size_of_two(all, 100, 500, false), 500U);
  const auto always = [](std::uint64_t) { return 1.0; };
  EXPECT_GE(size_of_two(always, 100, 500, false), 500U);
}

}  // namespace
}  // namespace terrace::policy
