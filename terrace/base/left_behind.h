// For what a thread or a device may still use when its owner goes: it stays until the process ends.
// Threading: thread-safe.  Waits: never.
#pragma once

#include <memory>

namespace terrace {

namespace base {
void keep_for_good(void* object) noexcept;
}

// Leaves `object` as it is, for good, and in reach of leak checkers.
template <typename T>
void leave_behind(std::unique_ptr<T> object) noexcept {
  base::keep_for_good(object.release());
}

}  // namespace terrace
