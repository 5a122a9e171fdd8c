// Feeds a backend by strict priority: a transfer of a lower class is started only when no higher
// one waits, and lower classes may fill only part of the depth and a bounded number of bytes, so
// that a read for a first token never stands behind a full device queue of writes; while there are
// reads, writes get less (write_throttle.h). None starves: what was passed over kFloorStarts times
// goes next. Small reads of neighbouring ranges go as one request, as long as that succeeds.
// All of this holds for each volume by itself: it has its share of the depth and of the bytes, so
// that one whose device hangs leaves the others theirs.
// Threading: owned by one thread, the backend's; write_window() and counters() are thread-safe.
// Waits: never. Bounds: Options::capacity waiting.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <vector>

#include "terrace/base/metric.h"
#include "terrace/transfer/backend.h"
#include "terrace/transfer/write_throttle.h"

namespace terrace::transfer {

class Queue {
 public:
  // Transfers of higher classes that may start before one of a lower class that waits.
  static constexpr unsigned kFloorStarts = 32;
  struct Options {
    std::size_t capacity = 4096;  // Waiting transfers, all classes together.
    // Bytes of one class in flight; one transfer is always let through. By class.
    std::array<std::uint64_t, kIoClassCount> class_bytes{1ULL << 40U, 64ULL << 20U, 16ULL << 20U,
                                                         4ULL << 20U};
    // Reads that lie one behind the other go as one request of at most so many bytes; 0 = never.
    std::uint64_t merged_bytes = 0;
    // Called just before a transfer is handed to the backend, to add buffers that exist only while
    // it is in flight. False = none left: try again at the next poll.
    std::function<bool(Transfer&)> prepare{};
    // Called when what was prepared has to wait again: whoever goes first has its buffers. It is
    // prepared anew.
    std::function<void(Transfer&)> release{};
    // Each has an equal share of the depth, at least one place, and of class_bytes; those that the
    // backend has no place for are not safe from one that hangs.
    std::uint32_t volumes = 1;
  };
  struct Counters {
    std::array<Counter, kIoClassCount> done;     // Transfers that ended, failed and late ones too.
    std::array<Counter, kIoClassCount> time_ns;  // From their push to their end, all together.
    std::array<Gauge, kIoClassCount> waiting;    // As of the last poll.
  };
  // Both references outlive the queue.
  Queue(Backend& backend, const Clock& clock, Options options);

  // Errors: kExhausted = full.
  [[nodiscard]] Status push(const Transfer& transfer);
  // Starts what may start and appends what finished. A transfer whose deadline passes while it
  // waits completes as kDeadline, its memory untouched; one in flight completes when the backend
  // says so, and not before: until then its memory may be written, and its place is taken.
  void poll(std::vector<Completion>& completions);
  // Completes everything that waits in `io_class` with `status`; what is in flight goes on.
  void cancel(IoClass io_class, const Status& status, std::vector<Completion>& completions);

  // The same of what waits in any class and whose token `is_meant`.
  void cancel_if(const std::function<bool(std::uint64_t)>& is_meant, const Status& status,
                 std::vector<Completion>& completions);

  [[nodiscard]] std::size_t waiting() const { return waiting_count_; }
  [[nodiscard]] std::size_t waiting(IoClass io_class) const;
  [[nodiscard]] std::size_t in_flight() const { return backend_.in_flight(); }
  // Offload writes that may be at the devices, as of the last poll.
  [[nodiscard]] const Gauge& write_window() const { return write_window_; }
  [[nodiscard]] const Counters& counters() const { return counters_; }
  [[nodiscard]] unsigned depth() const { return backend_.depth(); }
  [[nodiscard]] bool is_idle() const { return waiting_count_ == 0 && in_flight() == 0; }
  // Nothing of the volume waits or is under way.
  [[nodiscard]] bool is_idle(std::uint32_t volume) const;
  [[nodiscard]] bool has_room(std::size_t transfers) const {
    return waiting_count_ + transfers <= options_.capacity;
  }

 private:
  struct Waiting {
    Transfer transfer;
    Nanoseconds pushed{0};
    bool is_alone = false;  // It failed together with others: what is its own fault?
  };
  struct Running {
    std::uint64_t token = 0;        // The caller's.
    std::vector<Transfer> parts{};  // Of a request for several, all of them; else none.
    IoClass io_class = IoClass::kScrub;
    std::uint32_t volume = 0;
    std::uint64_t bytes = 0;
    bool is_read = false;   // Of a class that somebody waits for.
    unsigned ahead = 0;     // Of such reads, those that the volume had already.
    Nanoseconds pushed{0};  // Of several, the first one.
    Nanoseconds started{0};
  };
  struct Volume {
    std::array<std::deque<Waiting>, kIoClassCount> waiting;
    std::array<std::uint64_t, kIoClassCount> flying_bytes{};
    std::array<unsigned, kIoClassCount> flying{};
    std::array<unsigned, kIoClassCount> passed_over{};  // Since its last start, while it waited.
    unsigned flying_all = 0;
    unsigned flying_reads = 0;
    WriteThrottle throttle;
    unsigned writes_now = 0;  // The throttle's window, as of this poll.
    // In this poll nothing more starts: of any class; of the one whose turn it is.
    bool is_held = false;
    bool is_unprepared = false;
  };
  [[nodiscard]] static Running running_of(const Transfer& transfer);
  [[nodiscard]] bool may_start(const Volume& volume, const Transfer& transfer) const;
  void start_waiting(std::vector<Completion>& completions);
  // The volumes take turns.
  void start_class(std::size_t io_class, std::vector<Completion>& completions);
  // Starts the first that waits in the class, or ends it with an error. False if it has to wait.
  [[nodiscard]] bool start_front(Volume& volume, std::size_t io_class,
                                 std::vector<Completion>& completions);
  // Takes what waits next to `transfer`, which waits in front, out of the class and makes it part
  // of it. All of them as they were, `transfer` first; none if there is only that.
  [[nodiscard]] std::vector<Transfer> merge(std::deque<Waiting>& waiting, Transfer& transfer);
  [[nodiscard]] bool may_merge(const Transfer& transfer, const Waiting& next) const;
  void release(Transfer& transfer) const;
  void end(Running running, Status status, std::vector<Completion>& completions);
  void note_start(Volume& volume, const Running& running);
  void note_end(IoClass io_class, Nanoseconds pushed, std::uint64_t transfers);
  void expire(std::vector<Completion>& completions);
  void finish(std::vector<Completion>& completions);

  Backend& backend_;
  const Clock& clock_;
  const Options options_;
  std::vector<Volume> volumes_;
  const unsigned volume_depth_;
  std::size_t waiting_count_ = 0;
  Nanoseconds next_deadline_ = kNoDeadline;
  std::vector<Running> running_;       // One place per depth; its index is the backend's token.
  std::vector<std::uint32_t> places_;  // Free places of running_.
  Gauge write_window_;
  Counters counters_;
  std::vector<Completion> scratch_;
};

}  // namespace terrace::transfer
