// A clock that moves only when a test says so.
// Threading: thread-safe.  Waits: never.
#pragma once

#include <atomic>

#include "terrace/base/clock.h"

namespace terrace::testing {

class FakeClock final : public Clock {
 public:
  explicit FakeClock(Nanoseconds start = seconds(1000), std::int64_t wall_seconds = 1'800'000'000)
      : now_ns_(start.value()), wall_start_(wall_seconds), start_ns_(start.value()) {}
  [[nodiscard]] Nanoseconds now() const override { return Nanoseconds(now_ns_.load()); }
  [[nodiscard]] std::int64_t wall_seconds() const override {
    return wall_start_ + (now_ns_.load() - start_ns_) / 1'000'000'000;
  }
  void advance(Nanoseconds by) { now_ns_.fetch_add(by.value()); }

 private:
  std::atomic<std::int64_t> now_ns_;
  const std::int64_t wall_start_;
  const std::int64_t start_ns_;
};

}  // namespace terrace::testing
