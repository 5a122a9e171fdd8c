#include "terrace/base/clock.h"

#include <ctime>

namespace terrace {

namespace {
std::int64_t read_ns(clockid_t id) {
  timespec now{};
  clock_gettime(id, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}
}  // namespace

Nanoseconds SystemClock::now() const { return Nanoseconds(read_ns(CLOCK_MONOTONIC)); }
std::int64_t SystemClock::wall_seconds() const { return read_ns(CLOCK_REALTIME) / 1'000'000'000; }

Nanoseconds ThreadCpuClock::now() const { return Nanoseconds(read_ns(CLOCK_THREAD_CPUTIME_ID)); }
std::int64_t ThreadCpuClock::wall_seconds() const { return SystemClock().wall_seconds(); }

}  // namespace terrace
