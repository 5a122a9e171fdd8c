// What counts as slow.
#include <gtest/gtest.h>

#include "terrace/testing/fake_clock.h"
#include "terrace/tier/disk/pace_internal.h"

namespace terrace::tier::disk {
namespace {

constexpr std::uint64_t kMiB = 1U << 20U;

class PaceTest : public ::testing::Test {
 protected:
  // `depth` transfers at a time, each of 1 MiB, one answer each `apart`.
  void run(std::size_t depth, Nanoseconds apart, int answers) {
    for (std::size_t i = 0; i < depth; ++i) pace_.began(i, 0, kMiB);
    for (int i = 0; i < answers; ++i) {
      clock_.advance(apart);
      const std::size_t place = static_cast<std::size_t>(i) % depth;
      pace_.ended(place);
      if (i + 1 < answers) pace_.began(place, 0, kMiB);
    }
    for (std::size_t i = 0; i < depth; ++i) pace_.ended(i);
  }
  // So that it has a norm: 100 MiB/s.
  void learn() { run(1, milliseconds(10), 1000); }

  testing::FakeClock clock_;
  Pace pace_{2, 64, clock_};
};

TEST_F(PaceTest, ADeviceThatFallsFarBelowItsNormIsSlowAndQuickAgainLater) {
  learn();
  EXPECT_NEAR(pace_.norm(0), 100.0 * kMiB, kMiB);
  EXPECT_FALSE(pace_.is_slow(0));
  run(1, milliseconds(300), 20);
  EXPECT_TRUE(pace_.is_slow(0));
  EXPECT_NEAR(pace_.norm(0), 100.0 * kMiB, kMiB) << "a sick device is no new norm";
  EXPECT_FALSE(pace_.is_slow(1));
  run(1, milliseconds(10), 400);
  EXPECT_FALSE(pace_.is_slow(0));
}

TEST_F(PaceTest, ALongQueueAloneIsNotSlow) {
  learn();
  run(64, milliseconds(10), 1000);  // Answers take 640 ms each, but come as fast as ever.
  EXPECT_FALSE(pace_.is_slow(0));
}

TEST_F(PaceTest, AFewBytesNowAndThenAreNotSlow) {
  learn();
  for (int i = 0; i < 1000; ++i) {
    pace_.began(0, 0, 4096);
    clock_.advance(milliseconds(5));
    pace_.ended(0);
    clock_.advance(seconds(1));  // Idle time says nothing.
  }
  EXPECT_FALSE(pace_.is_slow(0));
}

TEST_F(PaceTest, WithoutANormNothingIsSlow) {
  run(1, milliseconds(900), 16);
  EXPECT_FALSE(pace_.is_slow(0));
}

// Two spans are no norm.
TEST_F(PaceTest, ItIsJudgedByWhatWasSeenForAWhile) {
  run(1, milliseconds(10), 200);
  run(1, milliseconds(300), 20);
  EXPECT_FALSE(pace_.is_slow(0));
}

TEST_F(PaceTest, OneAnswerThatTookLongIsNotSlow) {
  learn();
  run(1, seconds(5), 1);
  EXPECT_FALSE(pace_.is_slow(0));
}

TEST_F(PaceTest, AThirdOfItsNormIsNotSlowHoweverLongTheQueueIs) {
  learn();
  run(16, milliseconds(30), 400);
  EXPECT_FALSE(pace_.is_slow(0));
}

TEST_F(PaceTest, TheNormFollowsSlowlyAndTheSpeedOfLateQuickly) {
  learn();
  run(1, milliseconds(20), 50);  // One span at half the rate.
  EXPECT_NEAR(pace_.norm(0), (100.0 - 50.0 / 32) * kMiB, 0.5 * kMiB);
  EXPECT_NEAR(pace_.speed(0), (100.0 - 50.0 / 4) * kMiB, kMiB);
  EXPECT_NEAR(pace_.last(0), 50.0 * kMiB, kMiB);
}

// Else it would flap, and the log with it.
TEST_F(PaceTest, ASlowDeviceIsQuickOnlyWellAboveWhereItBecameSlow) {
  learn();
  run(1, milliseconds(300), 20);
  ASSERT_TRUE(pace_.is_slow(0));
  run(4, milliseconds(50), 200);  // A fifth of its norm.
  EXPECT_TRUE(pace_.is_slow(0));
  for (int i = 0; i < 500; ++i) {  // Few bytes, but at once.
    pace_.began(0, 0, 4096);
    clock_.advance(milliseconds(5));
    pace_.ended(0);
  }
  EXPECT_FALSE(pace_.is_slow(0));
}

TEST_F(PaceTest, WhatBeginsTwiceEndsOnce) {
  EXPECT_TRUE(pace_.began(0, 1, kMiB));
  EXPECT_FALSE(pace_.began(0, 1, kMiB));
  EXPECT_EQ(pace_.ended(0), 1U);
  EXPECT_EQ(pace_.ended(0), std::nullopt);
}

}  // namespace
}  // namespace terrace::tier::disk
