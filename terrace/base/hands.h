// Others' hands for work that would hold up who gives it away: a room without threads of its own
// takes Hands in its options; a room that may have them makes some with thread_hands().
// Threading: thread-safe.  Waits: never.
#pragma once

#include <functional>

namespace terrace {

class Hands {
 public:
  using Job = std::function<void()>;
  Hands() = default;
  Hands(const Hands&) = delete;
  Hands& operator=(const Hands&) = delete;
  virtual ~Hands() = default;
  // Done by some thread, soon; urgent ones before all others, else first come, first served. A job
  // neither waits nor throws; who posts bounds how many there are.
  virtual void post(Job job, bool is_urgent) = 0;
};

}  // namespace terrace
