// Holds threads at a sync point, as a file system that does not answer holds them in a call: for at
// most kPatience, so that a test which waits for them fails and ends. Tests only.
// Threading: thread-safe.  Waits: never, but for the threads that it holds.
#pragma once

#include <pthread.h>

#include <array>
#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "terrace/base/sync_point.h"
#include "terrace/testing/eventually.h"

namespace terrace::testing {

class Hang {
 public:
  // Of the `thread` alone, by its name, if there is one.
  explicit Hang(std::string point, std::string thread = {}) : point_(std::move(point)) {
    base::set_sync_point(point_, [facts = facts_, wanted = std::move(thread)] {
      if (!wanted.empty() && wanted != own_name()) return;
      if (!facts->is_held || facts->passes-- > 0) return;
      ++facts->held;
      (void)eventually([&] { return !facts->is_held; });
      --facts->held;
    });
  }
  Hang(const Hang&) = delete;
  Hang& operator=(const Hang&) = delete;
  ~Hang() {
    base::set_sync_point(point_, {});
    release();
  }
  // Who comes from here on, after the next `passes`.
  void hold(int passes = 0) {
    facts_->passes = passes;
    facts_->is_held = true;
  }
  void release() { facts_->is_held = false; }
  [[nodiscard]] int held() const { return facts_->held; }

 private:
  static std::string own_name() {
    std::array<char, 16> name{};
    ::pthread_getname_np(::pthread_self(), name.data(), name.size());
    return name.data();
  }
  struct Facts {  // Also of threads that outlive the test.
    std::atomic<bool> is_held{false};
    std::atomic<int> passes{0};
    std::atomic<int> held{0};
  };
  const std::string point_;
  const std::shared_ptr<Facts> facts_ = std::make_shared<Facts>();
};

}  // namespace terrace::testing
