// A few guest threads that share the copies of a step with the caller; they sleep when idle.
// Threading: run() by one thread at a time.  Owns: its threads.
// Waits: close() until its deadline; run() until every item is done; idle threads for work.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

#include "terrace/base/clock.h"
#include "terrace/base/log.h"

namespace terrace::worker {

class CopyPool {
 public:
  // `threads` counts the caller: 0 and 1 mean no thread of its own. When the system refuses threads
  // there are fewer, and the log says so.
  static std::unique_ptr<CopyPool> start(unsigned threads, LogSink& log);
  ~CopyPool();
  // Ends the threads, which takes as long as the items they are at. False: some are still at it at
  // `deadline` of the clock; call again, or leave this object alone. No run() afterwards.
  [[nodiscard]] bool close(Nanoseconds deadline, const Clock& clock);
  [[nodiscard]] unsigned threads() const;  // The caller included.
  // Calls body(0) … body(count - 1), each once, in any order and any thread. An exception in one
  // ends the run early and is thrown here.
  void run(std::size_t count, const std::function<void(std::size_t)>& body);

 private:
  struct State;
  explicit CopyPool(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace terrace::worker
