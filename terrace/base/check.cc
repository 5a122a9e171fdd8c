#include "terrace/base/check.h"

#include <fmt/format.h>

namespace terrace::base {

void breach(const char* condition, const char* file, int line) {
  throw Breach(fmt::format("{}:{}: broken invariant: {}", file, line, condition));
}

}  // namespace terrace::base
