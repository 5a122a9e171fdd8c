// What a cache could hit at best that knew the future: prefix-tree Belady. It keeps the blocks
// whose next use is nearest, gives up the deepest first among those of one next use, and may
// decline a block.
// Threading: thread-safe.  Waits: never.  Memory: 4 bytes per distinct block, and 8 for each
// request and each later request that a request shares a prefix with first.
// Source: L. A. Belady, A study of replacement algorithms for a virtual-storage computer, 1966.
#pragma once

#include <cstdint>

#include "terrace/trace/workload.h"

namespace terrace::trace {

// Prefix-contiguous hits of all requests in one cache of `slots` blocks.
[[nodiscard]] std::uint64_t optimum_hits(const Workload& workload, std::uint64_t slots);

}  // namespace terrace::trace
