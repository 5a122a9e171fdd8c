// A named thread that is a guest in somebody else's process: all signals blocked, CPU affinity
// reset to what the process was given (engines pin their threads), Breach caught and reported.
// Threading: owned by its creator.  Waits: join() only in the destructor, after request_stop().
#pragma once

#include <functional>
#include <memory>
#include <stop_token>
#include <string>
#include <thread>

#include "terrace/base/clock.h"
#include "terrace/base/crew.h"
#include "terrace/base/hands.h"
#include "terrace/base/mutex.h"
#include "terrace/base/status.h"

namespace terrace {

// Starts `body`; `on_breach` is called in the thread with the message if an exception escapes it.
// What escapes `on_breach` itself, as there is no memory, is dropped.
// Errors: kExhausted when the system refuses another thread.
[[nodiscard]] Result<std::jthread> start_thread(const std::string& name,
                                                std::function<void(std::stop_token)> body,
                                                std::function<void(const char*)> on_breach);

// What a thread does last, for whoever may wait for its end only so long before it is joined.
// Threading: thread-safe.
class ThreadEnd {
 public:
  void set();
  // False when `deadline` passed first.
  [[nodiscard]] bool wait(Nanoseconds deadline, const Clock& clock);

 private:
  Mutex mutex_;
  CondVar condition_;
  bool is_set_ TERRACE_GUARDED_BY(mutex_) = false;
};

// A crew of the calling thread and, for the time of each run(), size - 1 more. A thread that the
// system refuses costs time, not parts. What a part throws is thrown again by run(), once all have
// ended.
[[nodiscard]] Crew thread_crew(const std::string& name, std::size_t size);

// Threads that live as long as the hands. Those that the system refuses are done without, as long
// as one is there. What nobody has begun when they go is not done. Errors: kExhausted = not even
// one.
[[nodiscard]] Result<std::unique_ptr<Hands>> thread_hands(
    const std::string& name, std::size_t size, std::function<void(const char*)> on_breach);

// One thread for jobs that may hang in the system, first come, first served but for urgent ones.
// Nobody waits for it: where the hands go while it is at a job, it ends behind that job, and frees
// what the job has. So a job owns all that it uses. What was not begun is not done.
// Errors: kExhausted when the system refuses another thread.
[[nodiscard]] Result<std::unique_ptr<Hands>> lone_hand(const std::string& name);

}  // namespace terrace
