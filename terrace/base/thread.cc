#include "terrace/base/thread.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <system_error>
#include <vector>

namespace terrace {

namespace {
// Affinity of the process's own main thread may be one core; every allowed CPU is asked for and
// the kernel keeps what the cgroup permits.
void reset_affinity() {
  cpu_set_t all;
  std::memset(&all, 0xFF, sizeof all);
  (void)pthread_setaffinity_np(pthread_self(), sizeof all, &all);
}

// A thread's last word. What came out of it would end the process, which is another's.
void tell(const std::function<void(const char*)>& on_breach, const char* message) {
  try {
    on_breach(message);
  } catch (...) {  // NOLINT(bugprone-empty-catch): there is nobody left to tell.
  }
}

// All signals blocked as long as it lives: new threads inherit it, and the engine's own thread gets
// its mask back whatever is thrown.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_{};
};
}  // namespace

Result<std::jthread> start_thread(const std::string& name,
                                  std::function<void(std::stop_token)> body,
                                  std::function<void(const char*)> on_breach) {
  const BlockedSignals blocked;
  Result<std::jthread> thread;
  try {
    thread = std::jthread(
        [name, body = std::move(body), on_breach = std::move(on_breach)](std::stop_token stop) {
          pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
          reset_affinity();
          try {
            body(std::move(stop));
          } catch (const std::exception& error) {
            tell(on_breach, error.what());
          } catch (...) {
            tell(on_breach, "unknown exception");
          }
        });
  } catch (const std::system_error& error) {
    thread = fail(Code::kExhausted, "start thread " + name + ": " + error.what(), Scope::kNode);
  }
  return thread;
}

void ThreadEnd::set() {
  const MutexLock lock(mutex_);
  is_set_ = true;
  condition_.notify_all();
}

bool ThreadEnd::wait(Nanoseconds deadline, const Clock& clock) {
  const MutexLock lock(mutex_);
  while (!is_set_) {
    const Nanoseconds left = deadline - clock.now();
    if (left <= Nanoseconds(0)) return false;
    (void)condition_.wait_for(mutex_, left);
  }
  return true;
}

Crew thread_crew(const std::string& name, std::size_t size) {
  const std::size_t hands = std::max<std::size_t>(size, 1);
  return {hands, [name, hands](const Crew::Part& part) {
            std::vector<std::exception_ptr> thrown(hands);
            const auto run = [&](std::size_t number) {
              try {
                part(number);
              } catch (...) {
                thrown[number] = std::current_exception();
              }
            };
            {
              std::vector<std::jthread> others;  // Joined at the end of this block.
              std::vector<std::size_t> left{0};
              for (std::size_t number = 1; number < hands; ++number) {
                auto thread = start_thread(
                    name, [&run, number](const std::stop_token&) { run(number); },
                    [](const char*) {});
                if (thread) {
                  others.push_back(*std::move(thread));
                } else {
                  left.push_back(number);
                }
              }
              for (const std::size_t number : left) run(number);
            }
            for (const std::exception_ptr& error : thrown) {
              if (error) std::rethrow_exception(error);
            }
          }};
}

}  // namespace terrace
