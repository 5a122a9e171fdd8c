// Load or compute: from moving averages of each tier's speed and of the engine's prefill speed, how
// many leading blocks are worth loading. Conservative until measured: loads are allowed.
// Threading: thread-compatible.  Waits: never.
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
  std::uint64_t blocks = 0;             // Load this many leading blocks; compute the rest.
  Nanoseconds predicted_load{0};
  Nanoseconds predicted_recompute{0};   // Of the same blocks.
};

class Planner {
 public:
  struct Options {
    Bytes block_bytes;  // All ranks and groups.
    Tokens block_tokens;
    bool is_enabled = true;  // false: everything that is found is loaded.
  };
  explicit Planner(const Options& options) : options_(options) {}

  // `latency_included`: elapsed from submission to verified.
  void observe_load(Tier source, Bytes bytes, Nanoseconds elapsed);
  void observe_prefill(Tokens tokens, Nanoseconds elapsed);
  // Runs in chain order; `queued` = bytes already waiting per tier. O(runs).
  [[nodiscard]] LoadPlan plan(std::span<const SourceRun> runs,
                              const std::array<Bytes, kTierCount>& queued) const;
  // Bytes per second; 0 = not measured yet.
  [[nodiscard]] double load_rate(Tier source) const;
  [[nodiscard]] double prefill_rate() const;  // Tokens per second.

 private:
  Options options_;
  std::array<double, kTierCount> seconds_per_byte_{};
  double seconds_per_token_ = 0;
};

}  // namespace terrace::policy
