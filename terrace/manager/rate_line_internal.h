// One line in so many seconds with what happened in them: rates, shares and reasons, for the log.
// Threading: thread-compatible; the manager's lock guards it.  Waits: never.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "terrace/base/clock.h"
#include "terrace/manager/counters_internal.h"

namespace terrace::manager {

class RateLine {
 public:
  // `every` = 0: never. `counters` outlive it.
  RateLine(const Counters& counters, Nanoseconds every, Nanoseconds now);
  // Nothing while none is due, and nothing of a time in which nobody asked for anything.
  [[nodiscard]] std::optional<std::string> take(Nanoseconds now);

 private:
  struct Seen {
    std::uint64_t requests = 0;
    std::uint64_t prompt_tokens = 0;
    std::uint64_t engine_tokens = 0;
    std::array<std::uint64_t, kTierCount> hit_tokens{};
    std::array<std::uint64_t, kMissReasonCount> miss_blocks{};
    std::uint64_t onboard_bytes = 0;
    std::uint64_t offload_bytes = 0;
    std::uint64_t failed_loads = 0;
    std::uint64_t slow_loads = 0;
    std::uint64_t dropped_blocks = 0;
  };
  [[nodiscard]] static Seen look(const Counters& counters);
  // What came between the two.
  [[nodiscard]] static Seen between(const Seen& before, const Seen& now);
  [[nodiscard]] static std::string text(const Seen& seen, double seconds);

  const Counters& counters_;
  const Nanoseconds every_;
  Nanoseconds last_;
  Seen seen_;
};

}  // namespace terrace::manager
