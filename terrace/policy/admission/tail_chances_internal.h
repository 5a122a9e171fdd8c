// How much less likely the ends of prompts are asked for again than their beginnings: whoever comes
// back may go on with other tokens than those that were stored last, such as an answer that was
// cut. By the distance from a chain's end, beside what is expected of its request as a whole. What
// lies before others is never less likely than they are, as they are of no use without it.
// Threading: thread-compatible.  Waits: never.  Memory: 150 bytes.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

namespace terrace::policy {

class TailChances {
 public:
  using Mark = std::uint8_t;
  static constexpr Mark kMarks = 6;
  // So many blocks of its chain come after it.
  [[nodiscard]] static Mark mark_of(std::size_t after) {
    return static_cast<Mark>(
        std::min<std::size_t>(static_cast<std::size_t>(std::bit_width(after)), kMarks - 1));
  }
  void note_seen(Mark mark, double expected) { counts_[mark].expected += expected; }
  void note_returned(Mark mark, double held) { counts_[mark].returned += held; }
  // In parts of what is expected of the request.
  [[nodiscard]] double factor(Mark mark) const { return factors_[mark]; }
  void judge() {
    double before = kMost;
    for (std::size_t mark = kMarks; mark-- > 0;) {
      const Count& count = counts_[mark];
      before = std::min(before, (count.returned + kLean) / (count.expected + kLean));
      factors_[mark] = before;
    }
  }
  void halve() {
    for (Count& count : counts_) {
      count.expected /= 2;
      count.returned /= 2;
    }
  }

 private:
  static constexpr double kMost = 2;
  // As many returns as expected weigh so much.
  static constexpr double kLean = 64;
  struct Count {
    double expected = 0;
    double returned = 0;
  };
  std::array<Count, kMarks> counts_{};
  std::array<double, kMarks> factors_{1, 1, 1, 1, 1, 1};
};

}  // namespace terrace::policy
