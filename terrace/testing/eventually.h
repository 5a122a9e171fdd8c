// Waits for something another thread or process does: polls, bounded, no fixed sleep.
// Threading: thread-safe.  Waits: until the condition holds, at most kPatience.
#pragma once

#include <poll.h>

#include <functional>

#include "terrace/base/clock.h"

namespace terrace::testing {

// Ample: a loaded machine with sanitizers must not fail a test that is right.
inline constexpr Nanoseconds kPatience = seconds(60);

[[nodiscard]] inline bool eventually(const std::function<bool()>& condition) {
  const SystemClock clock;
  const Nanoseconds end = clock.now() + kPatience;
  while (!condition()) {
    if (clock.now() >= end) return false;
    (void)::poll(nullptr, 0, 1);
  }
  return true;
}

}  // namespace terrace::testing
