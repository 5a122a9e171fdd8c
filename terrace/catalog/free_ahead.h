// How many slots of a pool are to be free, or about to be, before anybody takes them, where what
// leaves it may have to be written first: a few, or as many as were taken at once of late.
// Threading: thread-compatible.  Waits: never.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "terrace/base/clock.h"

namespace terrace::catalog {

class FreeAhead {
 public:
  // It is the turn of whoever keeps them free. `taken`: slots that were taken so far, as a prompt's
  // step or a load takes many between two turns.
  void note_turn(std::uint64_t taken, Nanoseconds now) {
    const std::uint64_t at_once = taken - std::exchange(taken_before_, taken);
    if (now - window_began_ >= kWindow) {
      burst_before_ = now - window_began_ < kWindow * 2 ? burst_ : 0;
      burst_ = 0;
      window_began_ = now;
    }
    burst_ = static_cast<std::uint32_t>(std::max<std::uint64_t>(burst_, at_once));
  }
  // Of a pool of so many.
  [[nodiscard]] std::uint32_t wanted(std::uint32_t slots) const {
    const std::uint32_t few = std::min(kFew, slots / 16);
    return std::clamp(std::max(burst_, burst_before_), few, std::max(few, slots / 4));
  }

 private:
  static constexpr std::uint32_t kFew = 64;
  static constexpr Nanoseconds kWindow = seconds(600);
  std::uint64_t taken_before_ = 0;
  std::uint32_t burst_ = 0;         // The largest of this window,
  std::uint32_t burst_before_ = 0;  // and of the one before.
  Nanoseconds window_began_{0};
};

}  // namespace terrace::catalog
