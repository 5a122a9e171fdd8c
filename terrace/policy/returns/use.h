// The last use of a block: what a pool's eviction order is told.
// Threading: values.  Waits: never.
#pragma once

#include <cstdint>

#include "terrace/base/strong.h"

namespace terrace::policy {

// A class of requests in a ReturnModel; 0 = all of them, or nothing is known. The lower 9 bits are
// its place, and may be another's later; the upper 7 tell the classes apart that have had it.
using ReturnClass = Id<struct ReturnClassTag, std::uint16_t>;

// What a hit in a block is worth to its client, beside one in another's.
enum class Priority : std::uint8_t { kNormal = 0, kHigh = 1, kLow = 2 };

// By a request: when, and of which class it is by what is known of it then.
struct Use {
  Nanoseconds at{0};
  ReturnClass of{0};
  Priority priority = Priority::kNormal;
};

}  // namespace terrace::policy
