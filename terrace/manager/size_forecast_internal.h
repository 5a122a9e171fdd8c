// What host and disk tiers of other sizes would have held, from the requests of this engine: the
// miss-ratio curve of `lru` and what the tiers' own eviction holds beyond it, fed by engine calls
// and advanced by the I/O thread. What a request stores is there when it has ended, its answer,
// too, and counts as asked for only once somebody asks.
// Threading: thread-safe; work() belongs to one thread.  Waits: never but for its own lock, which
// work() gives back between slices.  Memory: some MiB from the first request on; at most 6 MiB of
// requests wait, and as much is being learned from; what comes beyond is left out and counted.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/metric.h"
#include "terrace/base/mutex.h"
#include "terrace/manager/options.h"
#include "terrace/manager/request_internal.h"
#include "terrace/manager/status_report.h"
#include "terrace/policy/curve/eviction_gain.h"
#include "terrace/policy/curve/miss_curve.h"
#include "terrace/policy/returns/return_model.h"

namespace terrace::manager {

// What host has given up so far: blocks that were written below, and those that nobody took in
// time, as they were too many at once.
struct GivenUp {
  std::uint64_t written = 0;
  std::uint64_t lost = 0;
  friend bool operator==(const GivenUp&, const GivenUp&) = default;
};

class SizeForecast {
 public:
  explicit SizeForecast(const Options& options, Nanoseconds now = {});
  // A request asked for its chain; what of it is new is stored, or is not. A copy of 16 bytes a
  // block. Throws std::bad_alloc, and nothing was asked for then.
  void ask(const AskedChain& asked);
  // It ends, and used its chain again: as much of prompt and answer as is stored, if it is.
  void end(const EndedChain& ended) noexcept;
  // It has ended: tokens of its prompt, and those that the engine's own cache had of them.
  void note_tokens(Tokens prompt, Tokens engine);
  // Learns from what was asked for since, a part at a time. True when there was something.
  bool work(Nanoseconds now, const GivenUp& given_up = {});
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
  static constexpr std::size_t kMostRuns = std::size_t{1} << 14U;
  // In one go: about a millisecond. A request takes as long as so many blocks, by itself.
  static constexpr std::size_t kAtOnce = 2048;  // Blocks.
  static constexpr std::size_t kOfRequest = 32;
  static constexpr std::size_t kLengthCells = 32 * 4;
  // Of requests that have not ended: of more, the latest.
  static constexpr std::size_t kArrivals = 4096;
  struct Run {
    std::size_t blocks;
    bool is_asked;
    bool is_stored;
    RequestId id;
    Nanoseconds at;
    // Of one that ends.
    std::size_t prompt = 0;
    std::uint64_t answer_tokens = 0;
    policy::Ending ending = policy::Ending::kUnknown;
    policy::Hints hints{};
  };
  struct Arrival {
    RequestId id{};
    policy::Visit visit{};
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
    double written = 0;                          // Of what host gave up, blocks that the disk took,
    double lost = 0;                             // and that it did not.
    std::array<double, kLengthCells> lengths{};  // Requests, by their blocks.
  };
  void add_run(std::span<const SequenceHash> chain, const Run& run) TERRACE_REQUIRES(asked_mutex_);
  void take_told() TERRACE_REQUIRES(curve_mutex_);
  [[nodiscard]] bool make_curve() TERRACE_REQUIRES(curve_mutex_);
  void make_gain(std::uint64_t most_blocks) TERRACE_REQUIRES(curve_mutex_);
  // One slice of one run. Returns the blocks' worth of work.
  std::size_t learn(std::size_t most) TERRACE_REQUIRES(curve_mutex_);
  void begin_run(const Run& run, std::span<const SequenceHash> chain)
      TERRACE_REQUIRES(curve_mutex_);
  // Of which class the model of returns takes it for.
  [[nodiscard]] policy::ReturnClass class_of(const Run& run, std::span<const SequenceHash> chain)
      TERRACE_REQUIRES(curve_mutex_);
  void age_window() TERRACE_REQUIRES(curve_mutex_);
  // In blocks; nearly no prompt is longer.
  [[nodiscard]] std::uint64_t longest_usual() const TERRACE_REQUIRES(curve_mutex_);
  // Of a pool with that eviction. Once there is a curve.
  [[nodiscard]] policy::HitRatio hit_ratio(std::string_view eviction) const
      TERRACE_REQUIRES(curve_mutex_);
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
  const std::string host_eviction_;
  const std::string disk_eviction_;
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
  GivenUp given_up_;         // As told last.
  bool has_failed_ = false;  // No memory for the curve.
  mutable Mutex curve_mutex_;
  std::optional<policy::MissCurve> curve_ TERRACE_GUARDED_BY(curve_mutex_);
  // Nothing where all tiers go by `lru`. A model of its own: it is told of all requests, also by an
  // engine that stores none.
  std::shared_ptr<policy::ReturnModel> returns_ TERRACE_GUARDED_BY(curve_mutex_);
  std::optional<policy::EvictionGain> gain_ TERRACE_GUARDED_BY(curve_mutex_);
  std::vector<Arrival> arrivals_ TERRACE_GUARDED_BY(curve_mutex_);  // By id.
  policy::Use use_ TERRACE_GUARDED_BY(curve_mutex_);                // Of the run that is learned.
  std::uint64_t halvings_ TERRACE_GUARDED_BY(curve_mutex_) = 0;
  Window window_ TERRACE_GUARDED_BY(curve_mutex_);
};

}  // namespace terrace::manager
