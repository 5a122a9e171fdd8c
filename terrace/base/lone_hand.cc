#include <deque>

#include "terrace/base/thread.h"

namespace terrace {

namespace {

constexpr Nanoseconds kNap = seconds(1);

// What the thread has, and the hands as long as they are there.
struct Work {
  Mutex mutex;
  CondVar condition;
  std::deque<Hands::Job> jobs TERRACE_GUARDED_BY(mutex);
  bool is_at_work TERRACE_GUARDED_BY(mutex) = false;
  bool is_over TERRACE_GUARDED_BY(mutex) = false;

  // Nothing when it is time to end.
  Hands::Job next() {
    const MutexLock lock(mutex);
    is_at_work = false;
    while (!is_over && jobs.empty()) (void)condition.wait_for(mutex, kNap);
    if (is_over) return {};
    Hands::Job job = std::move(jobs.front());
    jobs.pop_front();
    is_at_work = true;
    return job;
  }
};

class LoneHand final : public Hands {
 public:
  ~LoneHand() override {
    bool is_at_work = false;
    std::deque<Job> undone;  // Freed without the lock.
    {
      const MutexLock lock(work_->mutex);
      work_->is_over = true;
      undone.swap(work_->jobs);
      is_at_work = work_->is_at_work;
      work_->condition.notify_all();
    }
    if (is_at_work && thread_.joinable()) thread_.detach();  // Else it ends at once.
  }
  Status start(const std::string& name) {
    const auto run = [work = work_](const std::stop_token&) {
      while (const Job job = work->next()) job();
    };
    TERRACE_ASSIGN_OR_RETURN(thread_, start_thread(name, run, [](const char*) {}));
    return {};
  }
  void post(Job job, bool is_urgent) override {
    const MutexLock lock(work_->mutex);
    if (is_urgent) {
      work_->jobs.push_front(std::move(job));
    } else {
      work_->jobs.push_back(std::move(job));
    }
    work_->condition.notify_all();
  }

 private:
  const std::shared_ptr<Work> work_ = std::make_shared<Work>();
  std::jthread thread_;
};

}  // namespace

Result<std::unique_ptr<Hands>> lone_hand(const std::string& name) {
  auto hand = std::make_unique<LoneHand>();
  TERRACE_RETURN_IF_ERROR(hand->start(name));
  return std::unique_ptr<Hands>(std::move(hand));
}

}  // namespace terrace
