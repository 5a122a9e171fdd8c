// A token bucket: what a device of so many bytes a second has let through, and when it lets more.
// Threading: thread-compatible.  Waits: never.
#pragma once

#include <algorithm>
#include <cstdint>

#include "terrace/base/clock.h"

namespace terrace::transfer {

struct Throttle {
  double bytes_per_second = 0;  // 0 = no limit.
  double burst_bytes = 0;       // What may pass at once after a pause.
};

class TokenBucket {
 public:
  // Full at first; what is in it stays when the limit changes, up to the new burst.
  void set(const Throttle& limit, Nanoseconds now) {
    fill(0, now);
    const bool is_first = limit_.bytes_per_second <= 0;
    limit_ = limit;
    tokens_ = is_first ? limit.burst_bytes : std::min(tokens_, limit.burst_bytes);
    last_ = now;
  }
  // Takes `bytes` if they are there. More than the burst is saved up for, and waits the longer.
  [[nodiscard]] bool take(std::uint64_t bytes, Nanoseconds now) {
    if (wait_for(bytes, now) > Nanoseconds(0)) return false;
    tokens_ -= std::min(tokens_, static_cast<double>(bytes));
    return true;
  }
  // How long until take() succeeds.
  [[nodiscard]] Nanoseconds wait_for(std::uint64_t bytes, Nanoseconds now) {
    if (limit_.bytes_per_second <= 0) return Nanoseconds(0);
    fill(static_cast<double>(bytes), now);
    const double missing = static_cast<double>(bytes) - tokens_;
    // Half a byte: sums of fractions need not meet a whole number.
    if (missing < 0.5) return Nanoseconds(0);
    return Nanoseconds(static_cast<std::int64_t>(missing / limit_.bytes_per_second * 1e9) + 1);
  }

 private:
  void fill(double wanted, Nanoseconds now) {
    const double most = std::max({limit_.burst_bytes, wanted, tokens_});
    const double came = limit_.bytes_per_second * static_cast<double>((now - last_).value()) / 1e9;
    tokens_ = std::min(most, tokens_ + came);
    last_ = now;
  }

  Throttle limit_;
  double tokens_ = 0;
  Nanoseconds last_{0};
};

}  // namespace terrace::transfer
