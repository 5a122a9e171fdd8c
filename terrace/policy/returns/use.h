// The last use of a block: what a pool's eviction order is told.
// Threading: values.  Waits: never.
#pragma once

#include <cstdint>

#include "terrace/base/strong.h"

namespace terrace::policy {

// A class of requests in a ReturnModel; 0 = all of them, or nothing is known.
using ReturnClass = Id<struct ReturnClassTag, std::uint16_t>;

// By a request: when, and of which class it is by what is known of it then.
struct Use {
  Nanoseconds at{0};
  ReturnClass of{0};
};

}  // namespace terrace::policy
