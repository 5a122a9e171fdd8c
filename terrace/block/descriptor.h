// Names bytes inside one registered region. Never seen by index, policy and catalog.
// Threading: immutable values.
#pragma once

#include "terrace/base/strong.h"

namespace terrace {

struct Descriptor {
  RegionId region;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};

}  // namespace terrace
