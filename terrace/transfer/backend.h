// Moves bytes between memory and a file, asynchronously; completions are polled. One folder each
// under backends/: `io_uring`, `threads` (preadv/pwritev), `plugin` (a library from outside the
// tree), `fault` (a decorator that breaks any of them). Public calls check and count; the virtuals
// move bytes. Threading: owned by one thread at a time (the tier's I/O thread); `wake()` and
// counters() are thread-safe. Waits: only wait(), with a limit.  Bounds: at most Options::depth
// transfers in flight.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/metric.h"
#include "terrace/base/status.h"
#include "terrace/transfer/arrivals.h"
#include "terrace/transfer/in_flight.h"

namespace terrace::transfer {

// I/O priority, highest first.
enum class IoClass : std::uint8_t { kTtftRead = 0, kPrefetch = 1, kOffloadWrite = 2, kScrub = 3 };
inline constexpr int kIoClassCount = 4;
[[nodiscard]] std::string_view to_string(IoClass io_class);

// kSync = fdatasync; kAllocate = fallocate, growing the file if needed.
enum class IoOp : std::uint8_t { kRead, kWrite, kSync, kAllocate };
inline constexpr int kIoOpCount = 4;
// "read", "write", … as in metric labels.
[[nodiscard]] std::string_view to_string(IoOp op);

struct MemoryPiece {
  std::byte* data = nullptr;
  std::size_t bytes = 0;
};
inline constexpr std::size_t kMaxPieces = 16;  // Per transfer: header page + payload of 8 frames.

// One vectored read or write of a contiguous file range, an fdatasync, or an allocation of
// [offset, offset + length).
struct Transfer {
  std::uint64_t token = 0;  // The caller's; comes back in the completion.
  IoOp op = IoOp::kRead;
  IoClass io_class = IoClass::kPrefetch;
  // Of several, by number: what the file lies on. One that hangs keeps no other one waiting.
  std::uint32_t volume = 0;
  int file = -1;
  std::uint64_t offset = 0;
  std::uint64_t length = 0;                      // kAllocate only.
  std::array<MemoryPiece, kMaxPieces> pieces{};  // Those behind piece_count mean nothing.
  std::size_t piece_count = 0;
  Nanoseconds deadline = kNoDeadline;  // Kept by Queue; a backend never gives a transfer up.
  // kRead: told what has arrived, by backends that can. Outlives the completion.
  Arrivals* arrivals = nullptr;
  [[nodiscard]] std::size_t bytes() const;
};

// Short reads and writes are finished or turned into an error by the backend: ok = all bytes moved.
// Codes: kExhausted = the medium is full (ENOSPC, EDQUOT, EFBIG); kCorrupt = the file ended before
// the read did; kUnavailable = the file system cannot do this operation (EOPNOTSUPP); kRefused = it
// is read-only (EROFS); kIo = the rest.
struct Completion {
  std::uint64_t token = 0;
  Status status;
};

class Backend {
 public:
  struct Options {
    unsigned depth = 64;
    unsigned threads = 4;  // `threads` only: those that move bytes, of all volumes together.
    // `library` only: the plug-in's file, and how long it may owe a completion.
    std::string library{};
    Nanoseconds patience = seconds(60);
    unsigned volumes = 1;  // Transfer::volume is below; `threads` only.
  };
  struct Counters {
    std::array<Counter, kIoOpCount> done;    // Completions, by op, failed ones included.
    std::array<Counter, kIoOpCount> bytes;   // Of ok reads and writes.
    std::array<Counter, kIoOpCount> errors;  // By op.
    Counter resumed;                         // Short, interrupted or refused for now: went on.
    Counter stray;                           // Completions of nothing in flight: left out.
  };
  explicit Backend(unsigned depth) : depth_(depth), in_flight_(depth) {}
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;
  virtual ~Backend() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;
  // Pieces of one transfer, at most kMaxPieces.
  [[nodiscard]] virtual std::size_t most_pieces() const { return kMaxPieces; }
  // Reads that lie one behind the other are worth joining up to so many bytes: a device gives most
  // to requests of half a MiB and more (docs/adr/0030-small-neighbours-are-read-together.md).
  [[nodiscard]] virtual std::uint64_t joined_bytes() const { return 512ULL << 10U; }
  // What error messages call this descriptor; empty forgets it.
  virtual void name_file(int file, const std::string& path);
  // Errors: kExhausted = depth reached, poll first; kInvalid = no pieces, or too many. The memory
  // stays the caller's to keep alive until the completion, which always comes.
  [[nodiscard]] Status submit(const Transfer& transfer);
  // Appends what finished, each transfer once: a completion that comes twice, or late for a place
  // that another transfer has by now, is counted and left out. Never blocks.
  void poll(std::vector<Completion>& completions);
  // Returns when something finished, or wake() was called since the last wait, whatever was polled
  // meanwhile, or after `limit` (a duration).
  void wait(Nanoseconds limit) { pause(limit); }
  virtual void wake() = 0;
  [[nodiscard]] unsigned in_flight() const { return in_flight_.count(); }
  [[nodiscard]] unsigned depth() const { return depth_; }
  [[nodiscard]] const Counters& counters() const { return counters_; }

 protected:
  struct Finished {
    Transfer transfer;  // As it was started: its token is this room's own.
    Status status;
  };
  [[nodiscard]] virtual Status start(const Transfer& transfer) = 0;
  virtual void collect(std::vector<Finished>& finished) = 0;
  virtual void pause(Nanoseconds limit) = 0;

  // `pread /kv/0.slots: EIO (5)`, with the code that Completion promises.
  [[nodiscard]] Status io_error(int error, const Transfer& transfer) const;
  [[nodiscard]] Status end_of_file(const Transfer& transfer) const;
  [[nodiscard]] const std::string& path_of(int file) const;
  void count_resumed() { counters_.resumed.add(); }

 private:
  const unsigned depth_;
  InFlight in_flight_;
  std::map<int, std::string> paths_;
  std::vector<Finished> finished_;
  Counters counters_;
};

// How far a transfer has come, for backends that have to go on after a short read or write.
class Progress {
 public:
  explicit Progress(const Transfer& transfer);
  struct Vector {  // Same shape as iovec.
    void* data;
    std::size_t bytes;
  };
  // What is left, for the next call.
  [[nodiscard]] std::span<const Vector> rest() const { return {vectors_.data(), count_}; }
  [[nodiscard]] std::uint64_t offset() const;
  [[nodiscard]] std::uint64_t done() const { return done_; }
  [[nodiscard]] bool is_complete() const { return done_ == total_; }
  // Takes note of `moved` bytes. False = no headway: the file or the medium ends here. A transfer
  // that is in whole sectors goes on at a sector, as O_DIRECT wants it.
  [[nodiscard]] bool advance(std::size_t moved);

 private:
  void build();
  const Transfer* transfer_;
  std::size_t total_;
  std::size_t done_ = 0;
  bool is_in_sectors_;
  std::array<Vector, kMaxPieces> vectors_{};
  std::size_t count_ = 0;
};

}  // namespace terrace::transfer
