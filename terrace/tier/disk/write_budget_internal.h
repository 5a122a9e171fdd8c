// How many bytes may be written yet: a bucket that fills evenly with 23/24 of a day's bytes and
// holds 1/24 of them, so that in no 24 hours more is taken than the day's bytes. What is zeroed
// beforehand is charged, too, and may leave it in debt.
//
// A restart gives nothing away. An account is kept on the medium, and it is always behind: what it
// says to be left has a *promise* taken off already, of which bytes are taken until the next
// account is durable. So who starts again after a crash finds less than was left, never more;
// without an account, or with a damaged one, the bucket starts empty, and it fills no faster for
// being asked often. The time that nobody ran counts as filling, by the wall clock, up to a full
// bucket. There are several copies of the account, so that one that is lost stops nothing, and an
// account is as good as durable once one of them is: the least of them counts, and only where none
// is missing may that be above 0. Threading: thread-compatible.  Waits: never.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/tier/disk/format_internal.h"

namespace terrace::tier::disk {

// What was found at the start.
struct WriteAccounts {
  std::vector<WriteAccount> copies;
  bool has_unread = false;  // One more is there, damaged or not to be read.

  // All copies of one set are here, and no others.
  [[nodiscard]] bool is_whole() const;
};

class WriteBudget {
 public:
  struct Options {
    std::uint64_t bytes_per_day = 0;  // 0 = no bound.
    std::uint64_t block_bytes = 0;    // The largest there are: the bucket holds one at least.
  };
  WriteBudget(const Options& options, const WriteAccounts& saved, Nanoseconds now,
              std::int64_t wall_seconds);

  [[nodiscard]] bool may_take(std::uint64_t bytes, Nanoseconds now);
  // Whether or not they are there: may leave debt.
  void take(std::uint64_t bytes, Nanoseconds now);
  // The account to be made durable now, if one is due, of no set yet; then saved() is to be called.
  [[nodiscard]] std::optional<WriteAccount> due(Nanoseconds now, std::int64_t wall_seconds);
  void saved(bool is_durable, Nanoseconds now);
  // The account without a promise, for the end; nothing is taken from here on.
  [[nodiscard]] std::optional<WriteAccount> last(Nanoseconds now, std::int64_t wall_seconds);

  [[nodiscard]] std::uint64_t bytes_per_day() const { return options_.bytes_per_day; }
  // Below 0: debt.
  [[nodiscard]] std::int64_t level(Nanoseconds now);

 private:
  void fill(Nanoseconds now);

  const Options options_;
  const double depth_;
  const double promise_;
  double level_ = 0;
  Nanoseconds filled_at_;
  // Bytes taken since the start, and up to where durable accounts allow it, or soon will.
  std::uint64_t taken_ = 0;
  std::uint64_t promised_ = 0;
  std::uint64_t promising_ = 0;
  bool is_saving_ = false;
  bool is_over_ = false;
  Nanoseconds retry_at_{INT64_MIN};
};

}  // namespace terrace::tier::disk
