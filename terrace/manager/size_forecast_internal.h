// What host and disk tiers of other sizes would have held, from the requests of this engine: the
// miss-ratio curve, fed by engine calls and advanced by the I/O thread.
// Threading: thread-safe; work() belongs to one thread.  Waits: never but for its own lock, which
// work() gives back between requests.  Memory: some MiB from the first request on; at most 4 MiB of
// requests wait, what comes beyond is left out and counted.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "terrace/base/metric.h"
#include "terrace/base/mutex.h"
#include "terrace/manager/options.h"
#include "terrace/manager/status_report.h"
#include "terrace/policy/curve/miss_curve.h"

namespace terrace::manager {

class SizeForecast {
 public:
  explicit SizeForecast(const Options& options);
  // A request asked for `chain`, the first block first. A copy of 16 bytes a block. Throws
  // std::bad_alloc, and nothing was asked for then.
  void ask(std::span<const SequenceHash> chain);
  // Learns from what was asked for since. True when there was something.
  bool work();
  [[nodiscard]] ForecastStatus status() const;
  void visit_metrics(MetricVisitor& visitor) const;

 private:
  static constexpr std::size_t kMostWaiting = std::size_t{1} << 18U;  // Blocks.
  // Of the largest tiers asked about, beside those there are.
  static constexpr std::uint64_t kLargest = 4;
  // Whatever the tiers are, the curve is told from a few blocks on to this, four sizes an octave.
  static constexpr std::uint64_t kLeastOfCurve = 16;  // Blocks.
  static constexpr Bytes kMostOfCurve = Bytes(64ULL << 40U);
  struct Asked {
    std::vector<SequenceHash> hashes;  // Of all requests, one after the other.
    std::vector<std::size_t> lengths;
  };
  void add_sizes(Tier tier, std::uint64_t below, std::uint64_t blocks, ForecastStatus& status) const
      TERRACE_REQUIRES(curve_mutex_);

  void add_curve(ForecastStatus& status) const TERRACE_REQUIRES(curve_mutex_);
  void add_tiers(ForecastStatus& status) const TERRACE_REQUIRES(curve_mutex_);

  const std::uint64_t block_bytes_;  // All ranks and groups.
  const Tokens block_tokens_;
  const std::uint64_t host_blocks_;
  const std::uint64_t disk_blocks_;
  Counter dropped_;  // Requests.
  mutable Mutex asked_mutex_;
  Asked asked_ TERRACE_GUARDED_BY(asked_mutex_);
  Asked taken_;  // work()'s.
  mutable Mutex curve_mutex_;
  std::optional<policy::MissCurve> curve_ TERRACE_GUARDED_BY(curve_mutex_);
  bool has_failed_ = false;  // work()'s: no memory for the curve.
};

}  // namespace terrace::manager
