#include "terrace/manager/answer_board_internal.h"

namespace terrace::manager {

void AnswerBoard::wait(RequestId request, Tokens local, Tokens limit, Nanoseconds until) {
  Cell& cell = cell_of(request);
  cell.local.store(local.value(), std::memory_order_relaxed);
  cell.limit.store(limit.value(), std::memory_order_relaxed);
  cell.until_ns.store(until.value(), std::memory_order_relaxed);
  cell.word.store(word_of(request, kWaits), std::memory_order_release);
}

void AnswerBoard::answer(RequestId request, std::uint64_t blocks) {
  Cell& cell = cell_of(request);
  if (cell.word.load(std::memory_order_relaxed) != word_of(request, kWaits)) return;
  const bool fits = blocks < kStates - kAnswered;
  cell.word.store(fits ? word_of(request, kAnswered + blocks) : 0, std::memory_order_release);
}

void AnswerBoard::revoke(RequestId request) {
  std::atomic<std::uint64_t>& word = cell_of(request).word;
  if (word.load(std::memory_order_relaxed) >> kStateBits != word_of(request, 0) >> kStateBits) {
    return;
  }
  word.store(0, std::memory_order_release);
}

void AnswerBoard::revoke_all() noexcept {
  for (Cell& cell : cells_) cell.word.store(0, std::memory_order_release);
}

std::optional<MatchAnswer> AnswerBoard::read(RequestId request, Tokens local, Tokens limit,
                                             Tokens block_tokens, Nanoseconds now) const {
  const Cell& cell = cell_of(request);
  const std::uint64_t word = cell.word.load(std::memory_order_acquire);
  const std::uint64_t state = word % kStates;
  if (state == 0 || word != word_of(request, state)) return std::nullopt;
  if (cell.local.load(std::memory_order_relaxed) != local.value() ||
      cell.limit.load(std::memory_order_relaxed) != limit.value() ||
      now.value() >= cell.until_ns.load(std::memory_order_relaxed)) {
    return std::nullopt;
  }
  if (state == kWaits) return MatchAnswer{};
  return MatchAnswer{.is_ready = true, .external = block_tokens * (state - kAnswered)};
}

}  // namespace terrace::manager
