// How many of somebody's calls are at work, so that closing lets them finish and lets no more in.
// Threading: thread-safe.  Waits: end(), up to its deadline.
#pragma once

#include "terrace/base/clock.h"
#include "terrace/base/mutex.h"
#include "terrace/base/sync_point.h"

namespace terrace {

class OpenCalls {
 public:
  // One call. Nothing is touched through one that was not admitted.
  class Call {
   public:
    explicit Call(OpenCalls& calls) : calls_(calls), is_admitted_(calls.enter()) {}
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    ~Call() {
      if (is_admitted_) calls_.leave();
    }
    [[nodiscard]] bool is_admitted() const { return is_admitted_; }

   private:
    OpenCalls& calls_;
    const bool is_admitted_;
  };

  // No call is let in any more; false when one is still at work at `deadline`.
  [[nodiscard]] bool end(Nanoseconds deadline, const Clock& clock) {
    const MutexLock lock(mutex_);
    is_closing_ = true;
    while (running_ != 0) {
      const Nanoseconds left = deadline - clock.now();
      if (left <= Nanoseconds(0)) return false;
      TERRACE_SYNC_POINT("open_calls.waiting");
      (void)ended_.wait_for(mutex_, left);
    }
    return true;
  }

 private:
  bool enter() {
    const MutexLock lock(mutex_);
    if (is_closing_) return false;
    ++running_;
    return true;
  }
  void leave() {
    const MutexLock lock(mutex_);
    --running_;
    ended_.notify_all();
  }

  Mutex mutex_;
  CondVar ended_;
  unsigned running_ TERRACE_GUARDED_BY(mutex_) = 0;
  bool is_closing_ TERRACE_GUARDED_BY(mutex_) = false;
};

}  // namespace terrace
