// A mutex and condition variable that clang's thread-safety analysis understands.
// Threading: thread-safe.
// Every wait takes a deadline; under a lock there is no I/O, allocation, logging or foreign code.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#include "terrace/base/strong.h"

#if defined(__clang__)
#define TERRACE_ANNOTATE(x) __attribute__((x))
#else
#define TERRACE_ANNOTATE(x)
#endif
#define TERRACE_GUARDED_BY(x) TERRACE_ANNOTATE(guarded_by(x))
#define TERRACE_REQUIRES(...) TERRACE_ANNOTATE(requires_capability(__VA_ARGS__))
#define TERRACE_EXCLUDES(...) TERRACE_ANNOTATE(locks_excluded(__VA_ARGS__))

namespace terrace {

class TERRACE_ANNOTATE(capability("mutex")) Mutex {
 public:
  // Tries for some microseconds before it sleeps: what is done under a lock is shorter than the
  // kernel's waking of a thread, and an engine's scheduler should wait for neither.
  void lock() TERRACE_ANNOTATE(acquire_capability()) {
    for (int i = 0; i < kTries; ++i) {
      if (mutex_.try_lock()) return;
      relax();
    }
    mutex_.lock();
  }
  void unlock() TERRACE_ANNOTATE(release_capability()) { mutex_.unlock(); }
  [[nodiscard]] bool try_lock() TERRACE_ANNOTATE(try_acquire_capability(true)) {
    return mutex_.try_lock();
  }

 private:
  friend class CondVar;
  static constexpr int kTries = 500;  // 5 to 25 us, by what the CPU takes a pause for.
  static void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  std::mutex mutex_;
};

class TERRACE_ANNOTATE(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) TERRACE_ANNOTATE(acquire_capability(mutex)) : mutex_(mutex) {
    mutex_.lock();
  }
  ~MutexLock() TERRACE_ANNOTATE(release_capability()) { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

class CondVar {
 public:
  void notify_one() { condition_.notify_one(); }
  void notify_all() { condition_.notify_all(); }
  // Waits at most `limit`; false when the time ran out. Spurious wake-ups happen: re-check.
  bool wait_for(Mutex& mutex, Nanoseconds limit) TERRACE_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    const auto status = condition_.wait_for(lock, std::chrono::nanoseconds(limit.value()));
    lock.release();
    return status == std::cv_status::no_timeout;
  }

 private:
  std::condition_variable condition_;
};

}  // namespace terrace
