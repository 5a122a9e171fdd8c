#include "terrace/base/thread.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <cstring>
#include <system_error>

namespace terrace {

namespace {
// Affinity of the process's own main thread may be one core; every allowed CPU is asked for and
// the kernel keeps what the cgroup permits.
void reset_affinity() {
  cpu_set_t all;
  std::memset(&all, 0xFF, sizeof all);
  (void)pthread_setaffinity_np(pthread_self(), sizeof all, &all);
}
}  // namespace

Result<std::jthread> start_thread(const std::string& name,
                                  std::function<void(std::stop_token)> body,
                                  std::function<void(const char*)> on_breach) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // Inherited by the new thread.
  Result<std::jthread> thread;
  try {
    thread = std::jthread(
        [name, body = std::move(body), on_breach = std::move(on_breach)](std::stop_token stop) {
          pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
          reset_affinity();
          try {
            body(std::move(stop));
          } catch (const std::exception& error) {
            on_breach(error.what());
          } catch (...) {
            on_breach("unknown exception");
          }
        });
  } catch (const std::system_error& error) {
    thread = fail(Code::kExhausted, "start thread " + name + ": " + error.what(), Scope::kNode);
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

}  // namespace terrace
