#include "terrace/transfer/backends/threads/threads_backend.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <thread>

#include "terrace/base/mutex.h"
#include "terrace/base/sync_point.h"
#include "terrace/base/thread.h"

namespace terrace::transfer {

namespace {
static_assert(sizeof(Progress::Vector) == sizeof(iovec));

constexpr int kMaxRetries = 64;
// Of a read that somebody looks at, by a call: so much is still in the nearer caches.
constexpr std::size_t kShownBytes = 256U << 10U;
// A worker looks for its stop request this often even if a wake-up was lost.
constexpr Nanoseconds kIdleLimit = milliseconds(500);
constexpr int kEndOfFile = -1;  // Beside errno values.
// Syncs and allocations wait for the medium and move nothing: in threads of their own they keep
// nobody from reading and writing. Two, as data and records of a volume are synced side by side.
constexpr unsigned kWaiters = 2;
// Of each of several volumes: its threads are its own, as one whose device hangs would have all of
// them otherwise, and a write of it keeps no read waiting.
constexpr unsigned kLeastMovers = 2;
// Of others that a thread may take before the oldest of a class that waits: else a read of the
// lowest one, once here, would stay as long as there are others, and seem to hang.
constexpr unsigned kFloorStarts = 32;

struct Outcome {
  Transfer transfer;
  int error = 0;
};

class ThreadsBackend final : public Backend {
 public:
  ThreadsBackend(unsigned depth, unsigned volumes) : Backend(depth), volumes_(volumes) {
    // There are never more: what a worker has done is told, be there memory or not.
    outcomes_.reserve(depth);
    taken_.reserve(depth);
  }
  ~ThreadsBackend() override {
    for (auto& worker : workers_) worker.request_stop();
    for (Volume& volume : volumes_) {
      volume.movers.work_came.notify_all();
      volume.waiters.work_came.notify_all();
    }
    // The threads join here. One that sits in a system call ends when the call does.
  }

  Status open(unsigned threads) {
    const auto volumes = static_cast<unsigned>(volumes_.size());
    const unsigned movers =
        volumes == 1 ? threads : std::max((threads + volumes - 1) / volumes, kLeastMovers);
    for (unsigned v = 0; v < volumes; ++v) {
      for (unsigned i = v * movers; i < (v + 1) * movers; ++i) {
        TERRACE_RETURN_IF_ERROR(
            start_worker(fmt::format("terrace-disk-{}", i), volumes_[v].movers));
      }
      for (unsigned i = v * kWaiters; i < (v + 1) * kWaiters; ++i) {
        TERRACE_RETURN_IF_ERROR(
            start_worker(fmt::format("terrace-sync-{}", i), volumes_[v].waiters));
      }
    }
    return {};
  }

  std::string_view name() const override { return "threads"; }

  // A thread has one request under way: fewer and larger ones leave less time between two.
  [[nodiscard]] std::uint64_t joined_bytes() const override { return 13ULL << 18U; }

  void wake() override {
    {
      const MutexLock lock(mutex_);
      is_woken_ = true;
    }
    result_came_.notify_all();
  }

 protected:
  Status start(const Transfer& transfer) override {
    const bool moves = transfer.op == IoOp::kRead || transfer.op == IoOp::kWrite;
    Volume& volume = volumes_[transfer.volume % volumes_.size()];
    Lane& lane = moves ? volume.movers : volume.waiters;
    {
      const MutexLock lock(mutex_);
      lane.waiting[static_cast<std::size_t>(transfer.io_class)].push_back(transfer);
    }
    lane.work_came.notify_one();
    return {};
  }

  void collect(std::vector<Finished>& finished) override {
    {
      const MutexLock lock(mutex_);
      outcomes_.swap(taken_);
    }
    for (Outcome& outcome : taken_) {
      Status status;
      if (outcome.error == kEndOfFile) {
        status = end_of_file(outcome.transfer);
      } else if (outcome.error != 0) {
        status = io_error(outcome.error, outcome.transfer);
      }
      finished.push_back({outcome.transfer, std::move(status)});
    }
    taken_.clear();
  }

  void pause(Nanoseconds limit) override {
    if (limit.value() <= 0) return;
    const SystemClock clock;
    const Nanoseconds now = clock.now();
    const Nanoseconds end = limit > kNoDeadline - now ? kNoDeadline : now + limit;
    const MutexLock lock(mutex_);
    while (outcomes_.empty() && !is_woken_) {
      const Nanoseconds left = end - clock.now();
      if (left.value() <= 0) break;
      (void)result_came_.wait_for(mutex_, std::min(left, seconds(3600)));
    }
    is_woken_ = false;
  }

 private:
  struct Lane {  // What one kind of worker takes from; guarded by mutex_ but for the condition.
    CondVar work_came;
    std::array<std::deque<Transfer>, kIoClassCount> waiting;
    std::array<unsigned, kIoClassCount> passed_over{};  // While it waited.
  };
  struct Volume {
    Lane movers;
    Lane waiters;
  };

  Status start_worker(const std::string& name, Lane& lane) {
    // Nothing that a worker does needs memory, so nothing throws but for a broken rule of our own.
    // That ends the worker, and its transfer never comes back: it hangs, as the device might.
    TERRACE_ASSIGN_OR_RETURN(
        std::jthread worker,
        start_thread(
            name, [this, &lane](const std::stop_token& stop) { run(stop, lane); },
            [](const char*) {}));
    workers_.push_back(std::move(worker));
    return {};
  }

  void run(const std::stop_token& stop, Lane& lane) {
    while (!stop.stop_requested()) {
      Transfer transfer;
      if (!take(lane, transfer)) continue;
      const int error = move_bytes(transfer);
      {
        const MutexLock lock(mutex_);
        outcomes_.push_back({transfer, error});
      }
      result_came_.notify_all();
    }
  }

  // The class whose turn it is; kIoClassCount = nothing waits.
  static std::size_t next_class(Lane& lane) {
    std::size_t next = kIoClassCount;
    for (std::size_t i = kIoClassCount; i > 0; --i) {
      const std::size_t io_class = i - 1;
      if (lane.waiting[io_class].empty()) continue;
      if (lane.passed_over[io_class] >= kFloorStarts) return io_class;
      next = io_class;
    }
    return next;
  }

  // The oldest transfer of the class whose turn it is, after a wait of at most kIdleLimit.
  bool take(Lane& lane, Transfer& transfer) {
    const MutexLock lock(mutex_);
    for (int round = 0; round < 2; ++round) {
      const std::size_t next = next_class(lane);
      if (next < kIoClassCount) {
        transfer = lane.waiting[next].front();
        lane.waiting[next].pop_front();
        lane.passed_over[next] = 0;
        for (std::size_t lower = next + 1; lower < kIoClassCount; ++lower) {
          lane.passed_over[lower] = lane.waiting[lower].empty() ? 0 : lane.passed_over[lower] + 1;
        }
        return true;
      }
      if (round == 0) (void)lane.work_came.wait_for(mutex_, kIdleLimit);
    }
    return false;
  }

  // The first kShownBytes of `rest`, in `part`.
  static std::span<const Progress::Vector> first_of(
      std::span<const Progress::Vector> rest, std::array<Progress::Vector, kMaxPieces>& part) {
    std::size_t room = kShownBytes;
    std::size_t count = 0;
    for (; count < rest.size() && room > 0; ++count) {
      part[count] = {rest[count].data, std::min(rest[count].bytes, room)};
      room -= part[count].bytes;
    }
    return std::span(part).first(count);
  }

  // 0, an errno, or kEndOfFile.
  int move_bytes(const Transfer& transfer) {
    if (transfer.op == IoOp::kSync) TERRACE_SYNC_POINT("threads.sync");
    TERRACE_SYNC_POINT(transfer.volume == 0 ? "threads.first_volume" : "threads.other_volume");
    Progress progress(transfer);
    for (int retries = 0; retries <= kMaxRetries;) {
      const ssize_t moved = call(transfer, progress);
      if (moved < 0) {
        const int error = errno;
        if (error != EINTR && error != EAGAIN) return error;
        count_resumed();
        if (++retries > kMaxRetries) return error;
        continue;
      }
      if (transfer.op == IoOp::kSync || transfer.op == IoOp::kAllocate) return 0;
      const std::uint64_t before = progress.done();
      if (!progress.advance(static_cast<std::size_t>(moved))) return kEndOfFile;
      if (is_shown(transfer)) transfer.arrivals->on_bytes(before, progress.done());
      if (progress.is_complete()) return 0;
      if (!is_shown(transfer) || static_cast<std::size_t>(moved) < kShownBytes) count_resumed();
    }
    return EAGAIN;
  }

  static bool is_shown(const Transfer& transfer) {
    return transfer.op == IoOp::kRead && transfer.arrivals != nullptr;
  }

  static ssize_t call(const Transfer& transfer, const Progress& progress) {
    std::array<Progress::Vector, kMaxPieces> part;
    auto rest = progress.rest();
    if (is_shown(transfer)) rest = first_of(rest, part);
    const auto* vectors = reinterpret_cast<const iovec*>(rest.data());
    const auto count = static_cast<int>(rest.size());
    const auto offset = static_cast<off_t>(progress.offset());
    switch (transfer.op) {
      case IoOp::kRead:
        return ::preadv(transfer.file, vectors, count, offset);
      case IoOp::kWrite:
        return ::pwritev(transfer.file, vectors, count, offset);
      case IoOp::kSync:
        return ::fdatasync(transfer.file);
      case IoOp::kAllocate:
        return ::fallocate(transfer.file, 0, offset, static_cast<off_t>(transfer.length));
    }
    return 0;
  }

  Mutex mutex_;
  CondVar result_came_;
  std::vector<Volume> volumes_;  // As many as there are, from the start.
  std::vector<Outcome> outcomes_ TERRACE_GUARDED_BY(mutex_);
  bool is_woken_ TERRACE_GUARDED_BY(mutex_) = false;
  std::vector<Outcome> taken_;
  std::vector<std::jthread> workers_;  // Last: joined before the rest goes.
};
}  // namespace

Result<std::unique_ptr<Backend>> make_threads_backend(const Backend::Options& options) {
  if (options.depth == 0 || options.threads == 0 || options.threads > 256 || options.volumes == 0) {
    return fail(Code::kInvalid,
                fmt::format("io depth {}, {} threads for {} volumes: depth and volumes must be at "
                            "least 1, threads 1 to 256",
                            options.depth, options.threads, options.volumes));
  }
  auto backend = std::make_unique<ThreadsBackend>(options.depth, options.volumes);
  TERRACE_RETURN_IF_ERROR(backend->open(options.threads));
  return backend;
}

}  // namespace terrace::transfer
