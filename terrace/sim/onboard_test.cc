#include <gtest/gtest.h>

#include "terrace/sim/onboard_rig.h"

namespace terrace::sim {
namespace {

// What the device takes for one frame, by its model.
Nanoseconds service(const OnboardLoad& load) {
  const auto pages = static_cast<std::int64_t>(load.payload_bytes / 4096 + 1);
  return load.device.latency + load.device.per_page * pages;
}

TEST(OnboardTest, AnIdleDeviceTakesItsServiceTimeAndTheLoadFillsIt) {
  OnboardLoad load{.payload_bytes = 16 << 10U, .reads = 400};
  load.device.channels = 16;
  const OnboardTimes times = measure_onboard(load);
  EXPECT_EQ(times.idle_p50, service(load));
  EXPECT_EQ(times.idle_p99, service(load));
  EXPECT_GE(times.loaded_p99, times.loaded_p50);
  EXPECT_GT(times.written_share, 0.1);
  EXPECT_LE(times.written_share, 1.0);
}

TEST(OnboardTest, EqualSeedsGiveEqualTimes) {
  const OnboardLoad load{.payload_bytes = 8 << 10U, .blocks_per_read = 4, .reads = 200};
  const OnboardTimes first = measure_onboard(load);
  const OnboardTimes second = measure_onboard(load);
  EXPECT_EQ(first.loaded_p99, second.loaded_p99);
  EXPECT_EQ(first.idle_p99, second.idle_p99);
  EXPECT_EQ(first.written_share, second.written_share);
}

// The device has fixed service times and the clock is virtual: the figures are of the order in
// which the tier asks, the same everywhere.
TEST(OnboardTest, AReadBehindAFullWriteLoadTakesAtMostTwiceItsTimeAlone) {
  for (const std::uint32_t blocks : {1U, 16U}) {
    const OnboardTimes times = measure_onboard({.blocks_per_read = blocks, .reads = 400});
    EXPECT_LE(times.ratio(), 2.0) << blocks;
    EXPECT_GT(times.written_share, 0.2) << "writes get what reads leave";
  }
}

}  // namespace
}  // namespace terrace::sim
