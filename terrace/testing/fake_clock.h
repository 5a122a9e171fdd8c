// A clock that moves only when a test says so, or, where that is said, with each look at it.
// Threading: thread-safe.  Waits: never.
#pragma once

#include <atomic>

#include "terrace/base/clock.h"

namespace terrace::testing {

class FakeClock final : public Clock {
 public:
  explicit FakeClock(Nanoseconds start = seconds(1000), std::int64_t wall_seconds = 1'800'000'000)
      : now_ns_(start.value()), wall_start_(wall_seconds), start_ns_(start.value()) {}
  [[nodiscard]] Nanoseconds now() const override {
    const std::int64_t by = each_look_ns_.load();
    return Nanoseconds(by == 0 ? now_ns_.load() : now_ns_.fetch_add(by));
  }
  [[nodiscard]] std::int64_t wall_seconds() const override {
    return wall_start_ + (now_ns_.load() - start_ns_) / 1'000'000'000;
  }
  void advance(Nanoseconds by) { now_ns_.fetch_add(by.value()); }
  // For what waits until some time, in a thread that nobody can advance beside. 0 = no more.
  void advance_with_each_look(Nanoseconds by) { each_look_ns_.store(by.value()); }

 private:
  mutable std::atomic<std::int64_t> now_ns_;
  std::atomic<std::int64_t> each_look_ns_{0};
  const std::int64_t wall_start_;
  const std::int64_t start_ns_;
};

}  // namespace terrace::testing
