#include "terrace/worker/copy_pool.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <utility>
#include <vector>

#include "terrace/base/mutex.h"
#include "terrace/base/thread.h"

namespace terrace::worker {
namespace {

constexpr unsigned kMaxThreads = 64;
constexpr Nanoseconds kLook = seconds(60);  // Bound of a wait; waking up for nothing is harmless.

// One call of run(). Items are handed out by a counter, so threads of unequal speed share fairly.
struct Round {
  const std::function<void(std::size_t)>* body = nullptr;
  std::size_t count = 0;
  std::atomic<std::size_t> next{0};
};

}  // namespace

struct CopyPool::State {
  LogSink& log;
  const pid_t process = ::getpid();
  Round round;
  Mutex mutex;
  CondVar has_work;
  CondVar is_done;
  std::uint64_t round_number TERRACE_GUARDED_BY(mutex) = 0;
  bool is_open TERRACE_GUARDED_BY(mutex) = false;  // Helpers may join the round.
  bool is_closing TERRACE_GUARDED_BY(mutex) = false;
  unsigned helping TERRACE_GUARDED_BY(mutex) = 0;
  std::exception_ptr error TERRACE_GUARDED_BY(mutex);
  std::vector<std::unique_ptr<ThreadEnd>> ends;  // [thread]
  std::vector<std::jthread> threads;             // Last: joined before what they use goes.

  explicit State(LogSink& its_log) : log(its_log) {}
  void request_stop();
  void take_items();
  void serve();
};

void CopyPool::State::request_stop() {
  {
    const MutexLock lock(mutex);
    is_closing = true;
  }
  has_work.notify_all();
}

void CopyPool::State::take_items() {
  try {
    for (;;) {
      const std::size_t i = round.next.fetch_add(1, std::memory_order_relaxed);
      if (i >= round.count) return;
      (*round.body)(i);
    }
  } catch (...) {
    round.next.store(round.count, std::memory_order_relaxed);
    const MutexLock lock(mutex);
    error = std::current_exception();
  }
}

void CopyPool::State::serve() {
  std::uint64_t seen = 0;
  for (;;) {
    {
      const MutexLock lock(mutex);
      while (!is_closing && (!is_open || round_number == seen))
        (void)has_work.wait_for(mutex, kLook);
      if (is_closing) return;
      seen = round_number;
      ++helping;
    }
    take_items();
    const MutexLock lock(mutex);
    if (--helping == 0) is_done.notify_all();
  }
}

CopyPool::CopyPool(std::unique_ptr<State> state) : state_(std::move(state)) {}

std::unique_ptr<CopyPool> CopyPool::start(unsigned threads, LogSink& log) {
  auto state = std::make_unique<State>(log);
  State* const raw = state.get();
  for (unsigned i = 1; i < std::min(threads, kMaxThreads); ++i) {
    auto made = std::make_unique<ThreadEnd>();
    auto thread = start_thread(
        fmt::format("terrace-copy-{}", i),
        [raw, end = made.get()](const std::stop_token&) {
          raw->serve();
          end->set();
        },
        [raw, end = made.get()](const char* reason) {
          raw->log.write(LogLevel::kError,
                         fmt::format("part=worker event=breach reason=\"{}\"", reason));
          end->set();
        });
    if (!thread.has_value()) {
      log.write(LogLevel::kWarn, fmt::format("part=worker copy_threads={} wanted={} reason=\"{}\"",
                                             i, threads, thread.error().message()));
      break;
    }
    state->ends.push_back(std::move(made));
    state->threads.push_back(std::move(*thread));
  }
  return std::unique_ptr<CopyPool>(new CopyPool(std::move(state)));
}

CopyPool::~CopyPool() {
  if (state_->process != ::getpid()) {  // In a forked child the threads are not here.
    (void)state_.release();
    return;
  }
  state_->request_stop();
}

bool CopyPool::close(Nanoseconds deadline, const Clock& clock) {
  state_->request_stop();
  for (const auto& end : state_->ends) {
    if (!end->wait(deadline, clock)) return false;
  }
  state_->threads.clear();
  return true;
}

unsigned CopyPool::threads() const { return static_cast<unsigned>(state_->threads.size()) + 1; }

void CopyPool::run(std::size_t count, const std::function<void(std::size_t)>& body) {
  State& state = *state_;
  // No helper touches the round now: the last run() waited until all had left it.
  state.round.body = &body;
  state.round.count = count;
  state.round.next.store(0, std::memory_order_relaxed);
  {
    const MutexLock lock(state.mutex);
    ++state.round_number;
    state.is_open = true;
  }
  state.has_work.notify_all();
  state.take_items();
  std::exception_ptr error;
  {
    const MutexLock lock(state.mutex);
    state.is_open = false;
    while (state.helping != 0) (void)state.is_done.wait_for(state.mutex, kLook);
    error = std::exchange(state.error, nullptr);
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace terrace::worker
