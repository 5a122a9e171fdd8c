#include "terrace/base/rng.h"

#include <sys/random.h>

#include "terrace/base/check.h"

namespace terrace {

std::uint64_t random_u64() {
  std::uint64_t value = 0;
  TERRACE_CHECK(getrandom(&value, sizeof value, 0) == static_cast<ssize_t>(sizeof value));
  return value;
}

}  // namespace terrace
