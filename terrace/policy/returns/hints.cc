#include "terrace/policy/returns/hints.h"

namespace terrace::policy {

Promise promise_of(const Hints& hints) {
  if (hints.is_over) return kPromiseOver;
  if (hints.returns_in <= Nanoseconds(0)) {
    return hints.is_tool_call ? kPromiseToolCall : kPromiseNothing;
  }
  Promise promise = kPromiseReturn;
  for (Nanoseconds step = seconds(1); hints.returns_in > step && promise + 1 < kPromiseCount;
       step = step * 4) {
    ++promise;
  }
  return promise;
}

}  // namespace terrace::policy
