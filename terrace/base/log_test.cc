#include "terrace/base/log.h"

#include <gtest/gtest.h>

namespace terrace {
namespace {

using namespace std::string_view_literals;

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

TEST(RingLogTest, WhatIsWrittenStaysOneLine) {
  const SystemClock clock;
  RingLog log(clock, LogLevel::kInfo, 8);
  log.write(LogLevel::kWarn, "gave up: x\nerror event=fake\r\x7f\0y\xc3\xa9"sv);
  const auto lines = log.drain();
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_EQ(lines[0].text, "gave up: x\\x0aerror event=fake\\x0d\\x7f\\x00y\xc3\xa9");
}

}  // namespace
}  // namespace terrace
