// The last use of a block: what a pool's eviction order is told.
// Threading: values.  Waits: never.
#pragma once

#include <cstdint>

#include "terrace/base/clock.h"
#include "terrace/base/strong.h"

namespace terrace::policy {

// A class of requests in a ReturnModel; 0 = all of them, or nothing is known. The lower 9 bits are
// its place, and may be another's later; the upper 7 tell the classes apart that have had it.
using ReturnClass = Id<struct ReturnClassTag, std::uint16_t>;

// Ages are told in ticks: below a fast engine a small pool is turned over within a second.
inline constexpr std::uint32_t kTicksPerSecond = 64;
inline constexpr std::int64_t kTickNanoseconds = 1'000'000'000 / kTicksPerSecond;
[[nodiscard]] constexpr std::uint64_t ticks_of(Nanoseconds time) {
  return time.value() < 0 ? 0 : static_cast<std::uint64_t>(time.value() / kTickNanoseconds);
}
[[nodiscard]] constexpr Nanoseconds time_of(std::uint64_t ticks) {
  return Nanoseconds(static_cast<std::int64_t>(ticks) * kTickNanoseconds);
}

// What a hit in a block is worth to its client, beside one in another's.
enum class Priority : std::uint8_t { kNormal = 0, kHigh = 1, kLow = 2 };

// By a request: when, and of which class it is by what is known of it then.
struct Use {
  Nanoseconds at{0};
  ReturnClass of{0};
  Priority priority = Priority::kNormal;
};

}  // namespace terrace::policy
