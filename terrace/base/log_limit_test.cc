#include "terrace/base/log_limit.h"

#include <gtest/gtest.h>

#include <string>

#include "terrace/base/rng.h"
#include "terrace/testing/fake_clock.h"
#include "terrace/testing/memory_log.h"

namespace terrace {
namespace {

class LogLimitTest : public ::testing::Test {
 protected:
  void write(int count, LogLevel level = LogLevel::kWarn) {
    for (int i = 0; i < count; ++i) limit_.write(level, "line " + std::to_string(next_++));
  }

  testing::FakeClock clock_;
  testing::MemoryLog log_;
  LogLimit limit_{clock_, log_, "part=x event=y", {2, seconds(60)}};
  int next_ = 0;
};

TEST_F(LogLimitTest, TheFirstLinesComeInFullThenOneLineCounts) {
  write(7);
  EXPECT_EQ(log_.text(),
            "warn line 0\n"
            "warn line 1\n");
  clock_.advance(seconds(60));
  write(1);
  EXPECT_EQ(log_.text(),
            "warn line 0\n"
            "warn line 1\n"
            "warn part=x event=y left_out=5 within_s=60\n"
            "warn line 7\n");
}

TEST_F(LogLimitTest, TheCountComesWithoutAFurtherLine) {
  write(3);
  clock_.advance(seconds(59));
  limit_.tick();
  EXPECT_EQ(log_.count("left_out"), 0U);
  clock_.advance(seconds(1));
  limit_.tick();
  limit_.tick();
  EXPECT_EQ(log_.text(),
            "warn line 0\n"
            "warn line 1\n"
            "warn part=x event=y left_out=1 within_s=60\n");
}

TEST_F(LogLimitTest, NothingLeftOutIsNotTold) {
  write(2);
  clock_.advance(seconds(61));
  limit_.tick();
  write(2);
  limit_.flush();
  EXPECT_EQ(log_.text(),
            "warn line 0\n"
            "warn line 1\n"
            "warn line 2\n"
            "warn line 3\n");
}

TEST_F(LogLimitTest, FlushTellsAtOnceAndBeginsANewSpan) {
  write(4);
  clock_.advance(seconds(5));
  limit_.flush();
  write(1);
  EXPECT_EQ(log_.text(),
            "warn line 0\n"
            "warn line 1\n"
            "warn part=x event=y left_out=2 within_s=5\n"
            "warn line 4\n");
}

TEST_F(LogLimitTest, TheCountHasTheHighestLevelOfWhatItStandsFor) {
  write(2, LogLevel::kError);
  write(1, LogLevel::kInfo);
  write(1, LogLevel::kWarn);
  write(1, LogLevel::kInfo);
  limit_.flush();
  EXPECT_EQ(log_.count("warn part=x event=y left_out=3"), 1U) << log_.text();
}

// Whatever comes when: what was written and what was counted is what came.
TEST_F(LogLimitTest, RandomLinesAreAllWrittenOrCounted) {
  Rng rng(20261128);
  std::uint64_t came = 0;
  for (int i = 0; i < 20'000; ++i) {
    clock_.advance(milliseconds(static_cast<std::int64_t>(rng.below(20'000))));
    const int burst = static_cast<int>(rng.below(6));
    write(burst);
    came += static_cast<std::uint64_t>(burst);
    if (rng.below(3) == 0) limit_.tick();
  }
  limit_.flush();
  const std::uint64_t counted = log_.sum("left_out=");
  EXPECT_EQ(log_.count("warn line") + counted, came);
  EXPECT_GT(counted, 0U);
}

}  // namespace
}  // namespace terrace
