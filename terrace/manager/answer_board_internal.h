// What a look-up's next poll can be told without the core's lock: that it still waits, or what it
// came to. An engine polls while the I/O thread takes in the blocks that the request waits for,
// lock in hand; most polls learn nothing new, and the last one only what that thread knows already.
// A cell holds one request; two that share a cell only send each other to the core.
// Threading: wait(), answer() and revoke() under the manager's lock, wait() by the engine's thread;
// read() by the engine's thread, without a lock.  Waits: never.  Memory: 16 KiB, from the start.
// Invariant: what read() answers, the core would have answered at some moment since the last change
// under the lock; every change that the core would answer by something else revokes.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>

#include "terrace/base/clock.h"
#include "terrace/manager/block_manager.h"

namespace terrace::manager {

class AnswerBoard {
 public:
  // Polls of `request` with the same arguments need not ask again before `until`, unless something
  // is answered or revoked.
  void wait(RequestId request, Tokens local, Tokens limit, Nanoseconds until);
  // What it waited for came: `blocks` of them. Nothing happens if it does not wait here.
  void answer(RequestId request, std::uint64_t blocks);
  // The core must be asked.
  void revoke(RequestId request);
  void revoke_all() noexcept;

  // Nothing: ask the core.
  [[nodiscard]] std::optional<MatchAnswer> read(RequestId request, Tokens local, Tokens limit,
                                                Tokens block_tokens, Nanoseconds now) const;

 private:
  static constexpr std::size_t kCells = 256;
  // A word: the request, 40 bits; blocks + 2 if answered, 1 if it waits, 24 bits. 0 = nothing.
  static constexpr unsigned kStateBits = 24;
  static constexpr std::uint64_t kStates = std::uint64_t{1} << kStateBits;
  static constexpr std::uint64_t kWaits = 1;
  static constexpr std::uint64_t kAnswered = 2;
  // Beside the word, written before it. One line, so that a poll meets no other request's.
  struct alignas(64) Cell {
    std::atomic<std::uint64_t> word{0};
    std::atomic<std::uint64_t> local{0};
    std::atomic<std::uint64_t> limit{0};
    std::atomic<std::int64_t> until_ns{0};
  };
  [[nodiscard]] static std::uint64_t word_of(RequestId request, std::uint64_t state) {
    return (request.value() << kStateBits) | state;
  }
  [[nodiscard]] Cell& cell_of(RequestId request) { return cells_[request.value() % kCells]; }
  [[nodiscard]] const Cell& cell_of(RequestId request) const {
    return cells_[request.value() % kCells];
  }

  std::array<Cell, kCells> cells_{};
};

}  // namespace terrace::manager
