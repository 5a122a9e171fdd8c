#include "terrace/base/clock.h"

#include <unistd.h>

#include <ctime>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>

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

// Field 22 of /proc/self/stat, in ticks since boot; the name in field 2 may hold anything, so
// fields are counted from its closing bracket, field 3 on.
Nanoseconds process_start() {
  std::ifstream file("/proc/self/stat");
  const std::string line(std::istreambuf_iterator<char>(file), {});
  const auto bracket = line.rfind(')');
  if (bracket == std::string::npos) return Nanoseconds(0);
  std::istringstream fields(line.substr(bracket + 1));
  std::string skipped;
  for (int field = 3; field < 22; ++field) fields >> skipped;
  std::int64_t ticks = 0;
  const long per_second = ::sysconf(_SC_CLK_TCK);
  if (!(fields >> ticks) || per_second <= 0) return Nanoseconds(0);
  const std::int64_t since_boot =
      (ticks + 1) * (1'000'000'000 / per_second);  // Rounded down there.
  return Nanoseconds(read_ns(CLOCK_REALTIME) - (read_ns(CLOCK_BOOTTIME) - since_boot));
}

}  // namespace terrace
