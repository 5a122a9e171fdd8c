// A backend library (include/terrace/backend.h) for benchmarks on a real engine: the tree's own
// backend behind the fault decorator, whose token bucket makes a slow disk of a fast one. Loaded by
// `disk.backend_library`; whoever loaded it sets the rate by terrace_throttle(), at any time.
// Threading: terrace_throttle() thread-safe, the table's calls as the header says; one thread of
// its own per instance drives the backend below.
#include <terrace/backend.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "terrace/base/mutex.h"
#include "terrace/base/thread.h"
#include "terrace/transfer/backends/fault/fault_backend.h"
#include "terrace/transfer/builtin.h"

namespace terrace::transfer {
namespace {

// Seen by all instances: one process has one engine, and this is its disk.
std::atomic<double> bytes_per_second{0};

constexpr double kBurstSeconds = 0.01;
constexpr Nanoseconds kIdleLimit = milliseconds(20);  // How soon a new rate counts.

// `pread /kv/0.slots: EIO (5: Input/output error)`: the number is all that the table has room for.
std::int32_t errno_of(const Status& status) {
  if (status.is_ok()) return 0;
  if (status.code() == Code::kCorrupt) return TERRACE_BACKEND_END_OF_FILE;
  const std::string& text = status.message();
  const std::size_t number = text.rfind(" (");
  const int found = number == std::string::npos ? 0 : std::atoi(text.c_str() + number + 2);
  return found > 0 ? found : EIO;
}

Transfer ours(const terrace_backend_transfer& given) {
  Transfer transfer;
  transfer.token = given.token;
  transfer.op = static_cast<IoOp>(given.op);
  transfer.io_class = static_cast<IoClass>(given.io_class);
  transfer.file = given.file;
  transfer.offset = given.offset;
  transfer.length = given.length;
  transfer.piece_count = given.piece_count;
  for (std::uint32_t i = 0; i < given.piece_count; ++i) {
    transfer.pieces[i] = {static_cast<std::byte*>(given.pieces[i].data), given.pieces[i].bytes};
  }
  return transfer;
}

class Throttled {
 public:
  Throttled(std::unique_ptr<Backend> inner, int event)
      : faults_(std::move(inner), 1), event_(event) {}
  ~Throttled() {
    is_closing_ = true;
    faults_.wake();
    thread_ = {};  // Joins: what is in flight comes back, unthrottled.
  }
  Status start() {
    TERRACE_ASSIGN_OR_RETURN(
        thread_,
        start_thread(
            "terrace-throttl", [this](const std::stop_token&) { drive(); }, [](const char*) {}));
    return {};
  }
  void submit(const terrace_backend_transfer& given) {
    {
      const MutexLock lock(mutex_);
      asked_.push_back(ours(given));
    }
    faults_.wake();
  }
  std::int32_t poll(terrace_backend_completion* completions, std::uint32_t room) {
    const MutexLock lock(mutex_);
    const std::size_t count = std::min<std::size_t>(room, done_.size());
    std::copy_n(done_.begin(), count, completions);
    done_.erase(done_.begin(), done_.begin() + static_cast<std::ptrdiff_t>(count));
    return static_cast<std::int32_t>(count);
  }

 private:
  void drive() {
    while (!is_closing_ || faults_.in_flight() > 0) {
      set_rate(is_closing_ ? 0 : bytes_per_second.load());
      {
        const MutexLock lock(mutex_);
        mine_.swap(asked_);
      }
      for (const Transfer& transfer : mine_) begin(transfer);
      mine_.clear();
      faults_.wait(kIdleLimit);
      finished_.clear();
      faults_.poll(finished_);
      for (const Completion& completion : finished_) end(completion.token, completion.status);
    }
  }
  void set_rate(double rate) {
    if (rate == rate_) return;
    rate_ = rate;
    faults_.set_throttle({.bytes_per_second = rate, .burst_bytes = rate * kBurstSeconds}, clock_);
  }
  void begin(const Transfer& transfer) {
    const bool moves = transfer.op == IoOp::kRead || transfer.op == IoOp::kWrite;
    bytes_[transfer.token] = moves ? transfer.bytes() : 0;
    if (const Status status = faults_.submit(transfer); !status.is_ok()) {
      end(transfer.token, status);
    }
  }
  void end(std::uint64_t token, const Status& status) {
    const auto found = bytes_.find(token);
    terrace_backend_completion completion{};
    completion.token = token;
    completion.error = errno_of(status);
    if (found != bytes_.end()) {
      if (status.is_ok()) completion.bytes = found->second;
      bytes_.erase(found);
    }
    {
      const MutexLock lock(mutex_);
      done_.push_back(completion);
    }
    const std::uint64_t one = 1;
    // Full = somebody will wake up anyway.
    if (::write(event_, &one, sizeof one) < 0) return;
  }

  const SystemClock clock_;
  FaultBackend faults_;  // The thread's, but for wake().
  const int event_;
  double rate_ = 0;
  std::unordered_map<std::uint64_t, std::uint64_t> bytes_;  // By token, of what is in flight.
  std::vector<Transfer> mine_;
  std::vector<Completion> finished_;
  std::atomic<bool> is_closing_ = false;
  Mutex mutex_;
  std::vector<Transfer> asked_ TERRACE_GUARDED_BY(mutex_);
  std::vector<terrace_backend_completion> done_ TERRACE_GUARDED_BY(mutex_);
  std::jthread thread_;  // Last: joined before the rest goes.
};

Result<std::unique_ptr<Throttled>> open(const terrace_backend_options& options) {
  TERRACE_ASSIGN_OR_RETURN(
      auto chosen, make_backend("auto", {.depth = options.depth, .threads = options.threads}));
  auto made = std::make_unique<Throttled>(std::move(chosen.backend), options.event_fd);
  TERRACE_RETURN_IF_ERROR(made->start());
  return made;
}

}  // namespace
}  // namespace terrace::transfer

using terrace::transfer::Throttled;

struct terrace_backend {
  std::unique_ptr<Throttled> throttled;
};

namespace {

std::int32_t throttled_open(const terrace_backend_options* options, terrace_backend** instance,
                            char* reason, std::uint32_t reason_bytes) {
  auto opened = terrace::transfer::open(*options);
  if (!opened) {
    (void)std::snprintf(reason, reason_bytes, "%s", opened.error().message().c_str());
    return EIO;
  }
  *instance = new terrace_backend{*std::move(opened)};
  return 0;
}

std::int32_t throttled_submit(terrace_backend* self, const terrace_backend_transfer* transfer) {
  self->throttled->submit(*transfer);
  return 0;
}

std::int32_t throttled_poll(terrace_backend* self, terrace_backend_completion* completions,
                            std::uint32_t room) {
  return self->throttled->poll(completions, room);
}

void throttled_close(terrace_backend* self) { delete self; }

constexpr terrace_backend_table kTable = {
    .abi_version = TERRACE_BACKEND_ABI,
    .struct_size = sizeof(terrace_backend_table),
    .transfer_size = sizeof(terrace_backend_transfer),
    .completion_size = sizeof(terrace_backend_completion),
    .name = "throttled",
    .open = throttled_open,
    .submit = throttled_submit,
    .poll = throttled_poll,
    .close = throttled_close,
    .name_file = nullptr,
};

}  // namespace

extern "C" {
__attribute__((visibility("default"))) const terrace_backend_table* terrace_backend_describe() {
  return &kTable;
}

// Bytes a second that reads and writes of an instance may move together; 0 = no limit.
__attribute__((visibility("default"))) void terrace_throttle(double bytes_per_second) {
  terrace::transfer::bytes_per_second.store(bytes_per_second);
}
}
