#include <array>
#include <deque>
#include <exception>
#include <vector>

#include "terrace/base/check.h"
#include "terrace/base/thread.h"

namespace terrace {

namespace {

constexpr Nanoseconds kNap = seconds(1);

class ThreadHands final : public Hands {
 public:
  explicit ThreadHands(std::function<void(const char*)> on_breach)
      : on_breach_(std::move(on_breach)) {}
  ~ThreadHands() override {
    for (std::jthread& thread : threads_) thread.request_stop();
    wake();
    threads_.clear();  // Joins.
  }
  Status start(const std::string& name, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) {
      auto thread =
          start_thread(name, [this](const std::stop_token& stop) { run(stop); }, on_breach_);
      if (thread) {
        threads_.push_back(*std::move(thread));
      } else if (threads_.empty() && i + 1 == size) {
        return std::move(thread).error();
      }
    }
    return {};
  }
  void post(Job job, bool is_urgent) override {
    {
      const MutexLock lock(mutex_);
      jobs_[is_urgent ? 0 : 1].push_back(std::move(job));
    }
    condition_.notify_one();
  }

 private:
  void wake() {
    const MutexLock lock(mutex_);
    condition_.notify_all();
  }
  // Nothing when it is time to end.
  Job next(const std::stop_token& stop) {
    const MutexLock lock(mutex_);
    while (!stop.stop_requested()) {
      for (std::deque<Job>& jobs : jobs_) {
        if (jobs.empty()) continue;
        Job job = std::move(jobs.front());
        jobs.pop_front();
        return job;
      }
      (void)condition_.wait_for(mutex_, kNap);
    }
    return {};
  }
  void run(const std::stop_token& stop) {
    while (const Job job = next(stop)) job();
  }

  const std::function<void(const char*)> on_breach_;
  Mutex mutex_;
  CondVar condition_;
  std::array<std::deque<Job>, 2> jobs_ TERRACE_GUARDED_BY(mutex_);  // Urgent ones first.
  std::vector<std::jthread> threads_;
};

}  // namespace

Result<std::unique_ptr<Hands>> thread_hands(const std::string& name, std::size_t size,
                                            std::function<void(const char*)> on_breach) {
  auto hands = std::make_unique<ThreadHands>(std::move(on_breach));
  TERRACE_RETURN_IF_ERROR(hands->start(name, size));
  return std::unique_ptr<Hands>(std::move(hands));
}

}  // namespace terrace
