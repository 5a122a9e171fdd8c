#include <gtest/gtest.h>
#include <poll.h>

#include <map>
#include <string>

#include "terrace/base/sync_point.h"
#include "terrace/manager/event_signal_internal.h"
#include "terrace/testing/fake_clock.h"

namespace terrace::manager {
namespace {

class Lag final : public MetricVisitor {
 public:
  explicit Lag(const TimeHistogram& times) { times.visit("lag", *this); }
  void counter(std::string_view name, std::string_view, std::uint64_t value) override {
    values[std::string(name)] = static_cast<double>(value);
  }
  void gauge(std::string_view name, std::string_view, double value) override {
    values[std::string(name)] = value;
  }
  std::map<std::string, double> values;
};

bool is_readable(const EventSignal& signal) {
  pollfd one{.fd = signal.fd(), .events = POLLIN, .revents = 0};
  return ::poll(&one, 1, 0) == 1;
}

TEST(EventSignalTest, TheLagRunsFromTheFirstRaiseToWhoComes) {
  testing::FakeClock clock;
  TimeHistogram times;
  EventSignal signal;
  signal.open();
  EXPECT_FALSE(is_readable(signal));
  signal.lower(clock, times);  // Nobody called.
  EXPECT_EQ(Lag(times).values.at("lag_count"), 0);
  signal.raise(clock.now());
  clock.advance(milliseconds(3));
  signal.raise(clock.now());
  clock.advance(milliseconds(4));
  EXPECT_TRUE(is_readable(signal));
  signal.lower(clock, times);
  EXPECT_FALSE(is_readable(signal));
  signal.lower(clock, times);
  Lag lag(times);
  EXPECT_EQ(lag.values.at("lag_count"), 1);
  EXPECT_DOUBLE_EQ(lag.values.at("lag_sum"), 0.007);
  signal.raise(clock.now());
  EXPECT_TRUE(is_readable(signal));
}

// Between the flag and the write of who raises.
TEST(EventSignalTest, WhoComesInTheMiddleOfARaiseDoesNotLeaveItReadableForGood) {
  const testing::FakeClock clock;
  TimeHistogram times;
  EventSignal signal;
  signal.open();
  base::set_sync_point("event_signal.raise", [&] { signal.lower(clock, times); });
  signal.raise(clock.now());
  base::set_sync_point("event_signal.raise", {});
  EXPECT_TRUE(is_readable(signal));
  signal.lower(clock, times);
  EXPECT_FALSE(is_readable(signal));
}

TEST(EventSignalTest, WithoutADescriptorNothingIsCounted) {
  const testing::FakeClock clock;
  TimeHistogram times;
  EventSignal signal;
  signal.raise(clock.now());
  signal.lower(clock, times);
  EXPECT_EQ(signal.fd(), -1);
  EXPECT_EQ(Lag(times).values.at("lag_count"), 0);
}

}  // namespace
}  // namespace terrace::manager
