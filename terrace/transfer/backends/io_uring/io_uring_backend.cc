#include "terrace/transfer/backends/io_uring/io_uring_backend.h"

#include <fmt/format.h>
#include <liburing.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "terrace/base/check.h"
#include "terrace/base/file.h"

namespace terrace::transfer {

namespace {
static_assert(sizeof(Progress::Vector) == sizeof(iovec));

constexpr std::uint64_t kWakeToken = 1ULL << 63U;
// The library keeps such completions to itself where the kernel has no waits with a limit (5.10).
static_assert(kWakeToken != LIBURING_UDATA_TIMEOUT);
// Times a transfer is tried again after EINTR or EAGAIN before that counts as its error. As often
// in a row the wake-up may fail.
constexpr int kMaxRetries = 64;

struct Place {
  Transfer transfer;
  std::optional<Progress> progress;
  int retries = 0;
};

class IoUringBackend final : public Backend {
 public:
  explicit IoUringBackend(const Options& options) : Backend(options.depth), places_(depth()) {
    for (unsigned i = depth(); i > 0; --i) free_.push_back(i - 1);
  }
  ~IoUringBackend() override {
    if (is_open_) io_uring_queue_exit(&ring_);
  }

  Status open() {
    wake_fd_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!wake_fd_.is_open())
      return Status::from_errno(errno, "eventfd", "io_uring", Scope::kBackend);
    int error = -1;
    // Newest first; an older kernel answers EINVAL to a flag it does not know.
    for (const unsigned flags : {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, 0U}) {
      // One entry more than the depth for the wake-up.
      error = -io_uring_queue_init(depth() + 1, &ring_, flags);
      if (error != EINVAL) break;
    }
    if (error != 0) {
      const Status status = Status::from_errno(error, "io_uring_setup", "(ring)", Scope::kBackend);
      return {error == ENOMEM ? Code::kExhausted : Code::kRefused, status.message(),
              Scope::kBackend};
    }
    is_open_ = true;
    ::io_uring_ring_dontfork(&ring_);
    arm_wake();
    return {};
  }

  std::string_view name() const override { return "io_uring"; }

  void wake() override {
    const std::uint64_t one = 1;
    // Fails only when the counter is full, and then the ring is about to wake anyway.
    [[maybe_unused]] const ssize_t put = ::write(wake_fd_.get(), &one, sizeof one);
  }

 protected:
  Status start(const Transfer& transfer) override {
    TERRACE_CHECK(!free_.empty());
    const unsigned index = free_.back();
    free_.pop_back();
    Place& place = places_[index];
    place.transfer = transfer;
    place.progress.emplace(place.transfer);
    place.retries = 0;
    queue(index);
    flush();
    return {};
  }

  void collect(std::vector<Finished>& finished) override {
    io_uring_cqe* entry = nullptr;
    std::optional<int> wake;
    while (io_uring_peek_cqe(&ring_, &entry) == 0 && entry != nullptr) {
      const std::uint64_t token = entry->user_data;
      const int result = entry->res;
      io_uring_cqe_seen(&ring_, entry);
      if (token == kWakeToken) {
        wake = result;
      } else {
        settle(static_cast<unsigned>(token), result, finished);
      }
    }
    // Behind the loop: one that fails at once would never let it end. Whoever woke has a reason
    // that was perhaps not looked at yet: the next wait does not begin.
    if (wake) {
      is_woken_ = true;
      take_wake(*wake);
    }
    flush();
  }

  void pause(Nanoseconds limit) override {
    if (std::exchange(is_woken_, false) || limit.value() <= 0) return;
    __kernel_timespec time{};
    time.tv_sec = limit.value() / 1'000'000'000;
    time.tv_nsec = limit.value() % 1'000'000'000;
    io_uring_cqe* entry = nullptr;
    // A completion stays in the ring for collect(); an early or failed return is a spurious
    // wake-up. The wake-up that ended this wait is over with it.
    (void)io_uring_submit_and_wait_timeout(&ring_, &entry, 1, &time, nullptr);
    if (io_uring_peek_cqe(&ring_, &entry) != 0 || entry == nullptr) return;
    if (entry->user_data != kWakeToken) return;
    const int result = entry->res;
    io_uring_cqe_seen(&ring_, entry);
    take_wake(result);
  }

 private:
  // Polled, not read: before 5.15 a read of what does not block fails at once when there is
  // nothing.
  void arm_wake() {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    TERRACE_CHECK(entry != nullptr);
    io_uring_prep_poll_add(entry, wake_fd_.get(), POLLIN);
    entry->user_data = kWakeToken;
    flush();
  }

  // Without it a wait ends at its limit.
  void take_wake(int result) {
    if (result == -ECANCELED) return arm_wake();  // The thread that armed it has ended.
    std::uint64_t count = 0;
    const bool is_well =
        result >= 0 && (::read(wake_fd_.get(), &count, sizeof count) >= 0 || errno == EAGAIN);
    wake_failures_ = is_well ? 0 : wake_failures_ + 1;
    if (wake_failures_ <= kMaxRetries) arm_wake();
  }

  // Every place has room in the submission queue: it is one entry longer than the depth, and
  // flush() leaves nothing in it but what the kernel refused for now.
  void queue(unsigned index) {
    Place& place = places_[index];
    const Transfer& transfer = place.transfer;
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    TERRACE_CHECK(entry != nullptr);
    switch (transfer.op) {
      case IoOp::kRead:
      case IoOp::kWrite: {
        const auto rest = place.progress->rest();
        const auto* vectors = reinterpret_cast<const iovec*>(rest.data());
        const auto count = static_cast<unsigned>(rest.size());
        if (transfer.op == IoOp::kRead) {
          io_uring_prep_readv(entry, transfer.file, vectors, count, place.progress->offset());
        } else {
          io_uring_prep_writev(entry, transfer.file, vectors, count, place.progress->offset());
        }
        break;
      }
      case IoOp::kSync:
        io_uring_prep_fsync(entry, transfer.file, IORING_FSYNC_DATASYNC);
        break;
      case IoOp::kAllocate:
        io_uring_prep_fallocate(entry, transfer.file, 0, static_cast<off_t>(transfer.offset),
                                static_cast<off_t>(transfer.length));
        break;
    }
    entry->user_data = index;
  }

  // What the kernel does not take now (EAGAIN, EBUSY) stays queued for the next call.
  void flush() {
    while (io_uring_sq_ready(&ring_) > 0) {
      const int taken = io_uring_submit(&ring_);
      if (taken == -EINTR) continue;
      if (taken <= 0) return;
    }
  }

  void settle(unsigned index, int result, std::vector<Finished>& finished) {
    TERRACE_CHECK(index < places_.size());
    Place& place = places_[index];
    const Transfer& transfer = place.transfer;
    Status status;
    if (result == -EINTR || result == -EAGAIN) {
      if (++place.retries <= kMaxRetries) return again(index);
      status = io_error(-result, transfer);
    } else if (result < 0) {
      status = io_error(-result, transfer);
    } else if (transfer.op == IoOp::kRead || transfer.op == IoOp::kWrite) {
      if (!place.progress->advance(static_cast<std::size_t>(result))) {
        status = end_of_file(transfer);
      } else if (!place.progress->is_complete()) {
        return again(index);
      }
    }
    finished.push_back({transfer, std::move(status)});
    free_.push_back(index);
  }

  void again(unsigned index) {
    count_resumed();
    queue(index);
    flush();
  }

  io_uring ring_{};
  bool is_open_ = false;
  UniqueFd wake_fd_;
  int wake_failures_ = 0;  // In a row.
  bool is_woken_ = false;  // Since the last wait.
  std::vector<Place> places_;
  std::vector<unsigned> free_;
};
}  // namespace

Result<std::unique_ptr<Backend>> make_io_uring_backend(const Backend::Options& options) {
  if (options.depth == 0 || options.depth > 4096) {
    return fail(Code::kInvalid, fmt::format("io depth {}: must be 1 to 4096", options.depth));
  }
  auto backend = std::make_unique<IoUringBackend>(options);
  TERRACE_RETURN_IF_ERROR(backend->open());
  return backend;
}

}  // namespace terrace::transfer
