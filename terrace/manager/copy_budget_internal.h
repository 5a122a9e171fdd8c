// How much engine steps may copy out: no more than a share of the engine's time, by how fast copies
// out turned out to be. Time that was not used is kept for a burst.
// Threading: under the manager's lock.  Waits: never.
#pragma once

#include <algorithm>
#include <cstdint>

#include "terrace/base/clock.h"
#include "terrace/base/strong.h"

namespace terrace::manager {

class CopyBudget {
 public:
  static constexpr Nanoseconds kBurst = seconds(10);  // Its share of the time is kept.
  // `share` of the time, above 0; 1 and more = no bound.
  CopyBudget(double share, Nanoseconds now)
      : share_(share), left_s_(share * in_seconds(kBurst)), last_(now) {}

  // Time has passed: told before a step is put together, however long nothing was to be done.
  void pass(Nanoseconds now) {
    const double passed = in_seconds(std::max(Nanoseconds(0), now - last_));
    last_ = std::max(last_, now);
    // A stall of minutes is not held against the hours after it.
    left_s_ = std::clamp(left_s_, -most_s(), most_s());
    left_s_ = std::min(left_s_ + share_ * passed, most_s());
  }
  // Of each rank. All there is until the speed is known.
  [[nodiscard]] Bytes room() const {
    if (share_ >= 1 || speed() <= 0) return Bytes(UINT64_MAX);
    return Bytes(
        static_cast<std::uint64_t>(std::clamp(std::min(left_s_, most_s()) * speed(), 0.0, kMost)));
  }
  // A step is ordered that copies `bytes` out of each rank. Returns what it is charged.
  [[nodiscard]] Nanoseconds order(Bytes bytes) {
    if (speed() <= 0) return Nanoseconds(0);
    const Nanoseconds charged = of_seconds(static_cast<double>(bytes.value()) / speed());
    left_s_ -= in_seconds(charged);
    return charged;
  }
  // The slowest rank took so long. A step whose ranks do not report keeps its charge.
  void finish(Bytes bytes, Nanoseconds took, Nanoseconds charged) {
    left_s_ += in_seconds(charged) - in_seconds(took);
    if (bytes == Bytes(0) || took <= Nanoseconds(0)) return;
    bytes_ = kMemory * bytes_ + static_cast<double>(bytes.value());
    seconds_ = kMemory * seconds_ + in_seconds(took);
  }
  // Bytes a second of one rank; 0 = not known.
  [[nodiscard]] double speed() const { return seconds_ > 0 ? bytes_ / seconds_ : 0; }

 private:
  static constexpr double kMemory = 0.9;  // Of what is known, at each further step.
  static constexpr double kMost = 1e18;
  [[nodiscard]] double most_s() const { return share_ * in_seconds(kBurst); }
  static double in_seconds(Nanoseconds time) { return static_cast<double>(time.value()) * 1e-9; }
  static Nanoseconds of_seconds(double time) {
    return Nanoseconds(static_cast<std::int64_t>(std::min(time * 1e9, kMost)));
  }

  const double share_;
  double left_s_;  // Below 0 after copies that took longer than thought.
  Nanoseconds last_;
  double bytes_ = 0;
  double seconds_ = 0;
};

}  // namespace terrace::manager
