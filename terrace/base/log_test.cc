#include "terrace/base/log.h"

#include <gtest/gtest.h>

namespace terrace {
namespace {

TEST(RingLogTest, KeepsTheNewestAndCountsWhatItDropped) {
  const SystemClock clock;
  RingLog log(clock, LogLevel::kInfo, 2);
  log.write(LogLevel::kDebug, "too low");
  log.write(LogLevel::kInfo, "a");
  log.write(LogLevel::kInfo, "b");
  log.write(LogLevel::kWarn, "c");
  const auto lines = log.drain();
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[0].text, "b");
  EXPECT_EQ(lines[1].text, "c");
  EXPECT_EQ(log.dropped(), 1U);
  EXPECT_TRUE(log.drain().empty());
}

TEST(RingLogTest, RepeatedLineIsKeptOnce) {
  const SystemClock clock;
  RingLog log(clock, LogLevel::kInfo, 8);
  for (int i = 0; i < 5; ++i) log.write(LogLevel::kWarn, "disk slow");
  EXPECT_EQ(log.drain().size(), 1U);
  EXPECT_EQ(log.dropped(), 4U);
}

}  // namespace
}  // namespace terrace
