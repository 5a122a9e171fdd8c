// What two pools hold together, one below the other, by the miss-ratio curve of one.
// Threading: pure functions.  Waits: never.
#pragma once

#include <algorithm>
#include <cstdint>

namespace terrace::policy {

// The size of one pool that holds as much as one of `upper` blocks and one of `lower` below it; in
// blocks or in bytes. `hit_ratio(size)` is what one pool would hold of what is asked for, 0 to 1.
//
// If all that is stored is written below at once (`has_copies`), the lower pool holds the last
// that were used, and so does the upper one: together they hold what the larger does. If blocks are
// written when the upper one gives them up, those that it has of the lower one are in both all the
// same, as they stay below when they are loaded. What enters the upper pool was loaded, or is new;
// so the share of it that is nowhere else is what was missed of all that it did not hold itself.
template <typename HitRatio>
[[nodiscard]] std::uint64_t size_of_two(const HitRatio& hit_ratio, std::uint64_t upper,
                                        std::uint64_t lower, bool has_copies) {
  std::uint64_t least = std::max(upper, lower);
  if (has_copies || upper == 0 || lower == 0) return least;
  const double missed_above = std::max(1e-9, 1 - hit_ratio(upper));
  // A larger one misses less, so there is one size that fits: it is halved in on.
  std::uint64_t most = upper + lower;
  constexpr int kHalvings = 24;
  for (int i = 0; i < kHalvings && most - least > 1; ++i) {
    const std::uint64_t tried = least + (most - least) / 2;
    const double own = std::clamp((1 - hit_ratio(tried)) / missed_above, 0.0, 1.0);
    const double fits = static_cast<double>(lower) + static_cast<double>(upper) * own;
    (fits > static_cast<double>(tried) ? least : most) = tried;
  }
  return least;
}

}  // namespace terrace::policy
