// What a load from one tier takes: latency + bytes x seconds_per_byte, fitted by least squares over
// observations that lose a tenth of their weight with each new one (a stall is forgotten after some
// twenty loads), times a quantile of how far loads lay from that lately, times what broken promises
// cost. Threading: thread-compatible.  Waits: never.
#pragma once

#include <cstdint>

#include "terrace/policy/planner/ratios_internal.h"

namespace terrace::policy {

class TierSpeed {
 public:
  // What it is taken for until it is measured.
  struct Guess {
    double latency_s = 0;
    double seconds_per_byte = 0;
  };
  explicit TierSpeed(const Guess& guess) : guess_(guess) {}

  void observe(double bytes, double elapsed_s);
  // A load was given up that would have taken so long, so many times what it had been thought to.
  void observe_abandoned(double bytes, double whole_s, double times);
  // A load kept its time.
  void trust() { distrust_ = std::max(1.0, kRegained * distrust_); }

  // What is planned with: seven of ten loads take less.
  [[nodiscard]] double seconds(double bytes) const;
  // Nine of ten do.
  [[nodiscard]] double most_seconds(double bytes) const;
  // How much comes in that time, by seconds() and on average.
  [[nodiscard]] double bytes_in(double seconds) const { return bytes_in(seconds, scatter_); }
  [[nodiscard]] double mean_bytes_in(double seconds) const { return bytes_in(seconds, 1); }
  [[nodiscard]] bool is_measured() const { return seconds_per_byte_ > 0; }
  [[nodiscard]] double latency_s() const { return latency_s_; }
  [[nodiscard]] double seconds_per_byte() const { return seconds_per_byte_; }

 private:
  static constexpr double kMostLost = 4;
  static constexpr double kRegained = 0.7;
  static constexpr double kMostDistrust = 16;
  // Until a few loads say how far they scatter, they are taken to.
  static constexpr double kFewLoads = 3;
  static constexpr double kUnknownScatter = 1.25;
  [[nodiscard]] double mean(double bytes) const;
  [[nodiscard]] double bytes_in(double seconds, double scatter) const;
  void fit();
  // Takes what says how far loads scatter. Returns whether the tier has become slower.
  bool take_ratio(double ratio);

  Guess guess_;
  // Decayed sums of 1, bytes, seconds, bytes squared, bytes x seconds.
  double weight_ = 0, x_ = 0, y_ = 0, xx_ = 0, xy_ = 0;
  double latency_s_ = 0;
  double seconds_per_byte_ = 0;  // 0 = not measured yet.
  double distrust_ = 1;          // Grows with each load that was given up.
  double scatter_ = kUnknownScatter;
  double most_scatter_ = kUnknownScatter;
  Ratios ratios_{0.95};       // Actual / mean, the last twenty or so.
  unsigned slow_in_row_ = 0;  // Observations.
};

}  // namespace terrace::policy
