// The only source of time. Injected everywhere; tests use testing::FakeClock.
// Threading: thread-safe.  Waits: never.
#pragma once

#include "terrace/base/strong.h"

namespace terrace {

class Clock {
 public:
  virtual ~Clock() = default;
  // Monotonic time; deadlines are values of this clock.
  [[nodiscard]] virtual Nanoseconds now() const = 0;
  // Seconds since 1970, for people and files; may step back.
  [[nodiscard]] virtual std::int64_t wall_seconds() const = 0;
};

class SystemClock final : public Clock {
 public:
  [[nodiscard]] Nanoseconds now() const override;
  [[nodiscard]] std::int64_t wall_seconds() const override;
};

// CPU time of the calling thread, for benchmarks on a machine that others use too: what a preempted
// thread waits is not counted. Never for deadlines.
class ThreadCpuClock final : public Clock {
 public:
  [[nodiscard]] Nanoseconds now() const override;
  [[nodiscard]] std::int64_t wall_seconds() const override;
};

// When this process started, since 1970 by the wall clock as it goes now; 0 when nobody says. Up to
// 10 ms late, never early. A child of fork() started when it was forked.
[[nodiscard]] Nanoseconds process_start();

inline constexpr Nanoseconds kNoDeadline{INT64_MAX};

}  // namespace terrace
