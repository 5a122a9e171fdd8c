// Runs an action at the end of a scope, also while a Breach unwinds.
// Threading: thread-compatible.  Waits: as the action does.  Errors: the action throws nothing.
#pragma once

#include <functional>

namespace terrace::base {

class Finally {
 public:
  explicit Finally(std::function<void()> action) : action_(std::move(action)) {}
  Finally(const Finally&) = delete;
  Finally& operator=(const Finally&) = delete;
  ~Finally() { action_(); }

 private:
  std::function<void()> action_;
};

}  // namespace terrace::base
