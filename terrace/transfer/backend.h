// Moves bytes between memory and a file, asynchronously; completions are polled. One folder each under
// backends/: `io_uring`, `threads` (preadv/pwritev), `fault` (a decorator that breaks any of them).
// Public calls check and count; the virtuals move bytes.
// Threading: owned by one thread (the tier's I/O thread); `wake()` is thread-safe.
// Waits: only wait(), which takes a deadline.  Bounds: at most Options::depth transfers in flight.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/status.h"

namespace terrace::transfer {

// I/O priority, highest first.
enum class IoClass : std::uint8_t { kTtftRead = 0, kPrefetch = 1, kOffloadWrite = 2, kScrub = 3 };
inline constexpr int kIoClassCount = 4;
[[nodiscard]] std::string_view to_string(IoClass io_class);

enum class IoOp : std::uint8_t { kRead, kWrite, kSync };

struct MemoryPiece {
  std::byte* data = nullptr;
  std::size_t bytes = 0;
};
inline constexpr std::size_t kMaxPieces = 4;  // Per transfer: header page + payload, with room.

// One vectored read or write of a contiguous file range, or an fdatasync.
struct Transfer {
  std::uint64_t token = 0;  // The caller's; comes back in the completion.
  IoOp op = IoOp::kRead;
  IoClass io_class = IoClass::kPrefetch;
  int file = -1;
  std::uint64_t offset = 0;
  std::array<MemoryPiece, kMaxPieces> pieces{};
  std::size_t piece_count = 0;
  Nanoseconds deadline = kNoDeadline;
};

// Short reads and writes are finished or turned into an error by the backend: ok = all bytes moved.
struct Completion {
  std::uint64_t token = 0;
  Status status;
};

class Backend {
 public:
  struct Options {
    unsigned depth = 64;
    unsigned threads = 4;  // `threads` only.
  };
  virtual ~Backend() = default;
  [[nodiscard]] virtual std::string_view name() const = 0;
  // Errors: kExhausted = depth reached, poll first. The memory stays the caller's to keep alive until
  // the completion, which always comes, even after cancel().
  [[nodiscard]] virtual Status submit(const Transfer& transfer) = 0;
  // Appends what finished. Never blocks.
  virtual void poll(std::vector<Completion>& completions) = 0;
  // Returns when something finished, wake() was called, or at the deadline.
  virtual void wait(Nanoseconds limit) = 0;
  virtual void wake() = 0;
  [[nodiscard]] virtual unsigned in_flight() const = 0;
};

}  // namespace terrace::transfer
