// Load or compute: from moving averages of each tier's speed and of the engine's prefill speed, how
// many leading blocks are worth loading.
//
// Per tier, elapsed = latency + bytes x seconds_per_byte is fitted by least squares over
// observations that lose a tenth of their weight with each new one: a stall is forgotten after some
// twenty loads. Until a tier and the prefill rate are measured, what is found is loaded: the first
// loads are the measurement, and their deadline bounds what they can cost. A tier that is not worth
// it would never be measured again. So after some refusals in a row a probe is planned: at most
// `probe_blocks`, at first after 8 refusals, then after twice as many each time, up to 256, until
// the tier is worth it again. Threading: thread-compatible.  Waits: never.  Source: design.md
// section 7; weighted least squares.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "terrace/base/strong.h"
#include "terrace/block/location.h"

namespace terrace::policy {

// A candidate run: `blocks` leading blocks that lie in `source`, in chain order.
struct SourceRun {
  Tier source;
  std::uint64_t blocks = 0;
};

struct LoadPlan {
  std::uint64_t blocks = 0;            // Load this many leading blocks; compute the rest.
  Nanoseconds predicted_load{0};       // 0 where not measured yet.
  Nanoseconds predicted_recompute{0};  // Of the same blocks.
  bool is_probe = false;               // Planned to measure, not because it is predicted to pay.
};

class Planner {
 public:
  struct Options {
    Bytes block_bytes;  // All ranks and groups.
    Tokens block_tokens;
    bool is_enabled = true;  // false: everything that is found is loaded.
    std::uint64_t probe_blocks = 4;
  };
  explicit Planner(const Options& options) : options_(options) {}

  // `elapsed`: from when the tier took the load up (the wait behind other loads left out, plan()
  // adds it) to its bytes verified. Observations without bytes or time are ignored.
  void observe_load(Tier source, Bytes bytes, Nanoseconds elapsed);
  void observe_prefill(Tokens tokens, Nanoseconds elapsed);
  // Runs in chain order; `queued` = bytes already waiting per tier. O(runs). Counts refusals.
  [[nodiscard]] LoadPlan plan(std::span<const SourceRun> runs,
                              const std::array<Bytes, kTierCount>& queued);
  // Bytes per second, without latency; 0 = not measured yet.
  [[nodiscard]] double load_rate(Tier source) const;
  [[nodiscard]] Nanoseconds load_latency(Tier source) const;
  [[nodiscard]] double prefill_rate() const;  // Tokens per second; 0 = not measured yet.

 private:
  static constexpr std::uint32_t kFirstProbe = 8;
  static constexpr std::uint32_t kLastProbe = 256;
  struct TierSpeed {
    // Decayed sums of 1, bytes, seconds, bytes squared, bytes x seconds.
    double weight = 0, x = 0, y = 0, xx = 0, xy = 0;
    double latency_s = 0;
    double seconds_per_byte = 0;  // 0 = not measured yet.
    std::uint32_t refusals = 0;
    std::uint32_t refusals_to_probe = kFirstProbe;
  };
  static void fit(TierSpeed& tier);
  [[nodiscard]] double load_seconds(const TierSpeed& tier, double bytes) const;
  void add_probe(const SourceRun& refused, double block_s, LoadPlan& plan);

  Options options_;
  std::array<TierSpeed, kTierCount> tiers_{};
  double prefill_tokens_ = 0;  // Decayed sums.
  double prefill_seconds_ = 0;
};

}  // namespace terrace::policy
