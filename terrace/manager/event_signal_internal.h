// The descriptor that tells an engine's own thread that events wait, and how long it takes to come
// for them. Threading: thread-safe after open().  Waits: never.  Owns: the descriptor.
#pragma once

#include <atomic>

#include "terrace/base/clock.h"
#include "terrace/base/file.h"
#include "terrace/base/metric.h"

namespace terrace::manager {

class EventSignal {
 public:
  // Without descriptors to be had there is none: fd() is -1, and who polls anyway misses nothing.
  void open();
  [[nodiscard]] int fd() const { return fd_.get(); }
  // Readable from now on.
  void raise(Nanoseconds now);
  // Somebody comes for the events. `lag` gets the time since the first raise() after the last one
  // who did.
  void lower(const Clock& clock, TimeHistogram& lag);

 private:
  UniqueFd fd_;
  std::atomic<bool> is_raised_{false};
  std::atomic<std::int64_t> raised_at_ns_{0};
};

}  // namespace terrace::manager
