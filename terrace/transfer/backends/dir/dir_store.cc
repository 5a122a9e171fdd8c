#include "terrace/transfer/backends/dir/dir_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <exception>
#include <new>
#include <thread>

#include "terrace/base/finally.h"
#include "terrace/base/mutex.h"
#include "terrace/base/sync_point.h"
#include "terrace/base/thread.h"
#include "terrace/transfer/backends/dir/dir_store_internal.h"
#include "terrace/transfer/backends/dir/object_files_internal.h"

namespace terrace::transfer {

namespace dir {
namespace {

// A worker looks for its stop request this often even if a wake-up was lost.
constexpr Nanoseconds kIdleLimit = milliseconds(500);

Status status_of(const std::exception& error) {
  try {
    return {Code::kInternal, error.what()};
  } catch (const std::bad_alloc&) {
    return {Code::kInternal, "out of memory"};  // So short that it needs none.
  }
}

class DirStore final : public ObjectStore {
 public:
  DirStore(const DirStoreOptions& options, std::unique_ptr<FileCalls> calls)
      : ObjectStore(options.depth), place_(options.path), files_(options, std::move(calls)) {
    outcomes_.reserve(options.depth);
  }
  ~DirStore() override { stop(); }  // The threads join here, each after the request that it is at.

  Status open(unsigned threads) {
    TERRACE_RETURN_IF_ERROR(files_.prepare());
    for (unsigned i = 0; i < threads; ++i) {
      TERRACE_ASSIGN_OR_RETURN(
          std::jthread worker,
          start_thread(
              fmt::format("terrace-dir-{}", i), [this](const std::stop_token& stop) { work(stop); },
              [](const char*) {}));
      workers_.push_back(std::move(worker));
      const MutexLock lock(mutex_);
      ++working_;
    }
    return {};
  }

  std::string_view name() const override { return "dir"; }
  const std::string& place() const override { return place_; }
  bool shows_arrivals() const override { return true; }

  void wake() override {
    {
      const MutexLock lock(mutex_);
      is_woken_ = true;
    }
    result_came_.notify_all();
  }

  bool close(Nanoseconds limit) override {
    stop();
    const SystemClock clock;
    const Nanoseconds end = clock.now() + limit;
    const MutexLock lock(mutex_);
    while (working_ > 0) {
      const Nanoseconds left = end - clock.now();
      if (left.value() <= 0) return false;
      (void)thread_ended_.wait_for(mutex_, left);
    }
    return true;
  }

 protected:
  Status start(ObjectRequest request) override {
    {
      const MutexLock lock(mutex_);
      waiting_.push_back(std::move(request));
    }
    work_came_.notify_one();
    return {};
  }

  void collect(std::vector<Finished>& finished) override {
    const Nanoseconds now = SystemClock().now();
    std::size_t begun = 0;
    {
      const MutexLock lock(mutex_);
      finished.swap(outcomes_);
      begun = finished.size();
      // What no thread has begun by its deadline is answered though all of them may be stuck.
      std::erase_if(waiting_, [&](ObjectRequest& request) {
        if (request.deadline == kNoDeadline || request.deadline > now) return false;
        finished.push_back({std::move(request), {}});
        return true;
      });
    }
    for (std::size_t i = begun; i < finished.size(); ++i) {
      finished[i].answer.status =
          Status(Code::kDeadline,
                 fmt::format("{} {}: not begun in time", to_string(finished[i].request.op),
                             finished[i].request.name));
    }
  }

  void pause(Nanoseconds limit) override {
    if (limit.value() <= 0) return;
    const SystemClock clock;
    const Nanoseconds now = clock.now();
    Nanoseconds end = limit > kNoDeadline - now ? kNoDeadline : now + limit;
    const MutexLock lock(mutex_);
    for (const ObjectRequest& request : waiting_) end = std::min(end, request.deadline);
    while (outcomes_.empty() && !is_woken_) {
      const Nanoseconds left = end - clock.now();
      if (left.value() <= 0) break;
      (void)result_came_.wait_for(mutex_, std::min(left, seconds(3600)));
    }
    is_woken_ = false;
  }

 private:
  void stop() {
    TERRACE_SYNC_POINT("dir.stop");
    for (auto& worker : workers_) worker.request_stop();
    {
      const MutexLock lock(mutex_);
      waiting_.clear();
    }
    work_came_.notify_all();
  }

  void work(const std::stop_token& stop) {
    const base::Finally ended([this] {
      const MutexLock lock(mutex_);
      --working_;
      thread_ended_.notify_all();
    });
    while (!stop.stop_requested()) {
      Finished item;
      if (!take(stop, item.request)) continue;
      TERRACE_SYNC_POINT("dir.begun");
      try {
        item.answer = files_.run(item.request);
      } catch (const std::exception& error) {
        item.answer = {};
        item.answer.status = status_of(error);
      }
      {
        const MutexLock lock(mutex_);
        outcomes_.push_back(std::move(item));
      }
      result_came_.notify_all();
      tell_listener();
    }
  }

  // The oldest request, after a wait of at most kIdleLimit.
  bool take(const std::stop_token& stop, ObjectRequest& request) {
    const MutexLock lock(mutex_);
    if (waiting_.empty() && !stop.stop_requested()) {
      (void)work_came_.wait_for(mutex_, kIdleLimit);
    }
    if (waiting_.empty()) return false;
    request = std::move(waiting_.front());
    waiting_.pop_front();
    return true;
  }

  const std::string place_;
  ObjectFiles files_;
  Mutex mutex_;
  CondVar work_came_;
  CondVar result_came_;
  CondVar thread_ended_;
  std::deque<ObjectRequest> waiting_ TERRACE_GUARDED_BY(mutex_);
  std::vector<Finished> outcomes_ TERRACE_GUARDED_BY(mutex_);  // Never grows: room for `depth`.
  bool is_woken_ TERRACE_GUARDED_BY(mutex_) = false;
  unsigned working_ TERRACE_GUARDED_BY(mutex_) = 0;  // Threads that have not ended.
  std::vector<std::jthread> workers_;                // Last: joined before the rest goes.
};

}  // namespace

Result<std::unique_ptr<ObjectStore>> make_store(const DirStoreOptions& options,
                                                std::unique_ptr<FileCalls> calls) {
  if (options.depth == 0 || options.threads == 0 || options.threads > 256) {
    return fail(Code::kInvalid,
                fmt::format("object depth {} and {} threads: depth must be at least "
                            "1, threads 1 to 256",
                            options.depth, options.threads));
  }
  if (!options.path.starts_with('/') || options.leftover_age < seconds(60)) {
    return fail(Code::kInvalid,
                fmt::format("object directory '{}': an absolute path is wanted, and at least a "
                            "minute before what others left is removed",
                            options.path));
  }
  auto store = std::make_unique<DirStore>(options, std::move(calls));
  TERRACE_RETURN_IF_ERROR(store->open(options.threads));
  return store;
}

}  // namespace dir

Result<std::unique_ptr<ObjectStore>> make_dir_store(const DirStoreOptions& options) {
  return dir::make_store(options, std::make_unique<dir::FileCalls>());
}

}  // namespace terrace::transfer
