// How many offload writes may be at the device while somebody reads. A device serves what it was
// given in an order of its own, often that of arrival: each write given to it too early is what a
// read for a first token has to wait for. So while there are reads, writes start with one at a
// time, and with more only as long as reads take no longer for it than they do at best; without
// reads, writes have all that their class may have. Threading: thread-compatible.  Waits: never.
// Memory: fixed.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "terrace/base/strong.h"

namespace terrace::transfer {

class WriteThrottle {
 public:
  // A read is handed to the device.
  void on_read_started(Nanoseconds now) { last_read_ = now; }
  // One came back after `latency`; when it was handed over, the device had `ahead` others.
  void on_read_finished(std::uint64_t bytes, unsigned ahead, Nanoseconds latency, Nanoseconds now);
  // One came back with an error. How soon says nothing of those that bring something: a device that
  // is away may refuse within a microsecond, and no read would be in time again.
  void on_read_failed(Nanoseconds now) { last_read_ = now; }
  // Writes that may be at the device now, of `most`.
  [[nodiscard]] unsigned window(unsigned most, Nanoseconds now) const;

 private:
  // Reads are alike when they are of about one size and had about as many before them.
  static constexpr std::size_t kSizes = 24;  // Powers of two from 4 KiB on.
  static constexpr std::size_t kQueues = 8;
  [[nodiscard]] std::int64_t& best(std::uint64_t bytes, unsigned ahead);

  std::array<std::array<std::int64_t, kQueues>, kSizes> best_{};  // ns; 0 = none yet.
  unsigned window_ = 1;
  unsigned in_time_ = 0;  // Reads in a row.
  Nanoseconds last_read_{INT64_MIN / 2};
  Nanoseconds narrowed_at_{INT64_MIN / 2};
};

}  // namespace terrace::transfer
