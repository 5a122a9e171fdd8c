// What the clients of recorded requests could have said of them, known from what came after; and
// said wrong in some of the cases. For asking what hints are worth, and what wrong ones cost.
// Threading: thread-safe.  Waits: never.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "terrace/trace/workload.h"

namespace terrace::trace {

// Of each request of a workload.
struct Foresight {
  // The one that goes on with its conversation; nothing = none does.
  std::vector<std::optional<std::uint32_t>> next;
  // The first of its conversation.
  std::vector<std::uint32_t> session;
};
// Conversations follow from the blocks: a request goes on where the deepest one before it ended
// (but for its last block), the first that does; all others begin anew.
[[nodiscard]] Foresight foresee(const Workload& workload);

struct Saying {
  bool over = false;     // Whether somebody goes on.
  bool returns = false;  // When, if somebody does.
  bool session = false;
  double wrong = 0;        // Share of requests of which the opposite is said, or another's time.
  std::uint64_t seed = 1;  // Which ones.
};
// The same requests, with hints.
[[nodiscard]] Workload with_hints(const Workload& workload, const Saying& saying);

}  // namespace terrace::trace
