#include "terrace/transfer/write_throttle.h"

#include <algorithm>
#include <bit>

namespace terrace::transfer {

namespace {
// Longer than the gaps between the reads of one load, shorter than what a person calls a pause.
constexpr Nanoseconds kQuietTime = seconds(1);
// A read is late beyond this, in eighths of the best one like it: half way to what is promised at
// the far end, twice as long.
constexpr std::int64_t kLateEighths = 12;
// So many reads in time before one more write is tried: with one write at a time every other read
// of a device without parallelism is in time, too, and that is no reason.
constexpr unsigned kReadsToWiden = 32;
constexpr unsigned kMostWindow = 1024;
// The best time rises by a part of itself with each read, so that a device which became slower is
// known after some thousand.
constexpr std::int64_t kForgetShare = 2048;
}  // namespace

std::int64_t& WriteThrottle::best(std::uint64_t bytes, unsigned ahead) {
  const auto size = static_cast<std::size_t>(std::bit_width(bytes >> 12U));
  const auto queue = static_cast<std::size_t>(std::bit_width(ahead));
  return best_[std::min(size, kSizes - 1)][std::min(queue, kQueues - 1)];
}

void WriteThrottle::on_read_finished(std::uint64_t bytes, unsigned ahead, Nanoseconds latency,
                                     Nanoseconds now) {
  last_read_ = now;
  const std::int64_t taken = std::max<std::int64_t>(latency.value(), 1);
  std::int64_t& best = this->best(bytes, ahead);
  best = best == 0 ? taken : std::min(best + best / kForgetShare + 1, taken);
  if (taken <= best / 8 * kLateEighths) {
    if (++in_time_ < kReadsToWiden) return;
    in_time_ = 0;
    window_ = std::min(window_ + 1, kMostWindow);
    return;
  }
  in_time_ = 0;
  if (now - latency < narrowed_at_) return;  // It began when there were more than there are now.
  narrowed_at_ = now;
  window_ = std::max(1U, window_ / 2);
}

unsigned WriteThrottle::window(unsigned most, Nanoseconds now) const {
  return now - last_read_ > kQuietTime ? most : std::min(window_, most);
}

}  // namespace terrace::transfer
