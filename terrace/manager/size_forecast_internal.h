// What host and disk tiers of other sizes would have held, from the requests of this engine: the
// miss-ratio curve, fed by engine calls and advanced by the I/O thread. What a request stores is
// there when it has ended, its answer, too, and counts as asked for only once somebody asks.
// Threading: thread-safe; work() belongs to one thread.  Waits: never but for its own lock, which
// work() gives back between requests.  Memory: some MiB from the first request on; at most 4 MiB of
// requests wait, and as much is being learned from; what comes beyond is left out and counted.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/metric.h"
#include "terrace/base/mutex.h"
#include "terrace/manager/options.h"
#include "terrace/manager/status_report.h"
#include "terrace/policy/curve/miss_curve.h"

namespace terrace::manager {

class SizeForecast {
 public:
  explicit SizeForecast(const Options& options, Nanoseconds now = {});
  // A request asked for `chain`, the first block first; what of it is new is stored, or is not. A
  // copy of 16 bytes a block. Throws std::bad_alloc, and nothing was asked for then.
  void ask(std::span<const SequenceHash> chain, bool is_stored = true);
  // It ends, and used `chain` again: as much of prompt and answer as is stored, if it is.
  void end(std::span<const SequenceHash> chain, bool is_stored = true) noexcept;
  // It has ended: tokens of its prompt, and those that the engine's own cache had of them.
  void note_tokens(Tokens prompt, Tokens engine);
  // Learns from what was asked for since, a part at a time. True when there was something.
  bool work(Nanoseconds now);
  [[nodiscard]] ForecastStatus status() const;
  void visit_metrics(MetricVisitor& visitor) const;

 private:
  static constexpr std::size_t kMostWaiting = std::size_t{1} << 18U;  // Blocks.
  // Of the largest tiers asked about, beside those there are.
  static constexpr std::uint64_t kLargest = 4;
  // Whatever the tiers are, the curve is told from a few blocks on to this, four sizes an octave.
  static constexpr std::uint64_t kLeastOfCurve = 16;  // Blocks.
  static constexpr Bytes kMostOfCurve = Bytes(64ULL << 40U);
  // Without tiers counts are halved each time twice as many blocks were asked for: once a day where
  // 400 are in a second.
  static constexpr std::uint64_t kAgingBlocks = std::uint64_t{1} << 24U;
  // In one go: less than a millisecond.
  static constexpr std::size_t kAtOnce = 2048;  // Blocks.
  static constexpr std::size_t kLengthCells = 32 * 4;
  struct Run {
    std::size_t blocks;
    bool is_asked;
    bool is_stored;
  };
  struct Told {
    std::vector<SequenceHash> hashes;  // Of all runs, one after the other.
    std::vector<Run> runs;
    std::uint64_t prompt_tokens = 0;
    std::uint64_t engine_tokens = 0;
  };
  // Older ones weigh less, as what the curve has counted.
  struct Window {
    double seconds = 0;
    double prompt_tokens = 0;
    double engine_tokens = 0;
    std::array<double, kLengthCells> lengths{};  // Requests, by their blocks.
  };
  void add_run(std::span<const SequenceHash> chain, const Run& run) TERRACE_REQUIRES(asked_mutex_);
  void take_told() TERRACE_REQUIRES(curve_mutex_);
  [[nodiscard]] bool make_curve() TERRACE_REQUIRES(curve_mutex_);
  // One slice of one run. Returns how many blocks.
  std::size_t learn(std::size_t most) TERRACE_REQUIRES(curve_mutex_);
  void age_window() TERRACE_REQUIRES(curve_mutex_);
  // In blocks; nearly no prompt is longer.
  [[nodiscard]] std::uint64_t longest_usual() const TERRACE_REQUIRES(curve_mutex_);
  [[nodiscard]] double hit_percent(Tier tier, std::uint64_t blocks) const
      TERRACE_REQUIRES(curve_mutex_);
  void add_sizes(Tier tier, std::uint64_t blocks, ForecastStatus& status) const
      TERRACE_REQUIRES(curve_mutex_);
  void add_curve(ForecastStatus& status) const TERRACE_REQUIRES(curve_mutex_);
  void add_tiers(ForecastStatus& status) const TERRACE_REQUIRES(curve_mutex_);

  const std::uint64_t block_bytes_;  // All ranks and groups.
  const Tokens block_tokens_;
  const std::uint64_t host_blocks_;
  const std::uint64_t disk_blocks_;
  const bool disk_has_copies_;
  const double pin_share_;
  const bool can_store_;
  Counter dropped_;  // Requests, and ends of some.
  mutable Mutex asked_mutex_;
  Told told_ TERRACE_GUARDED_BY(asked_mutex_);
  Told taken_;  // work()'s, as what follows.
  std::size_t run_ = 0;
  std::size_t first_ = 0;   // Block of that run.
  std::size_t looked_ = 0;  // Blocks of it that were looked for,
  std::size_t used_ = 0;    // and used, from its end.
  Nanoseconds worked_at_;
  bool has_failed_ = false;  // No memory for the curve.
  mutable Mutex curve_mutex_;
  std::optional<policy::MissCurve> curve_ TERRACE_GUARDED_BY(curve_mutex_);
  std::uint64_t halvings_ TERRACE_GUARDED_BY(curve_mutex_) = 0;
  Window window_ TERRACE_GUARDED_BY(curve_mutex_);
};

}  // namespace terrace::manager
