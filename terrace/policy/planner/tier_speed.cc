#include <algorithm>
#include <limits>

#include "terrace/policy/planner/tier_speed_internal.h"

namespace terrace::policy {

namespace {

// Weight that older observations keep at each new one.
constexpr double kKeep = 0.9;
// Slow is suspicious: an outlier counts as at most this many times the prediction, so that one
// slow load moves the average by at most (4 - 1) x (1 - 0.9) = 30 %. Fast is evidence, for no tier
// can be faster than it is: below half the prediction, old observations keep only half their
// weight.
constexpr double kSlowest = 4;
constexpr double kFast = 0.5;
constexpr double kKeepWhenFast = 0.5;  // And when it has become slower.
constexpr double kPlanned = 0.7;
constexpr double kMost = 0.9;
// One that is slower by this is suspicious; several in a row are a tier that has become slower, by
// how much they say: not loads that scatter. What came before says little about either then.
constexpr double kSlower = 1.5;
constexpr unsigned kSlowerInRow = 3;
// Least variance of the sizes, relative to their mean square, from which a latency can be told
// apart.
constexpr double kSizeVariance = 1e-3;

}  // namespace

double TierSpeed::mean(double bytes) const {
  if (!is_measured()) return guess_.latency_s + bytes * guess_.seconds_per_byte;
  return latency_s_ + bytes * seconds_per_byte_;
}

double TierSpeed::seconds(double bytes) const {
  return bytes <= 0 ? 0 : mean(bytes) * scatter_ * distrust_;
}

double TierSpeed::most_seconds(double bytes) const {
  return bytes <= 0 ? 0 : mean(bytes) * most_scatter_ * distrust_;
}

double TierSpeed::bytes_in(double seconds, double scatter) const {
  const double latency = is_measured() ? latency_s_ : guess_.latency_s;
  const double per_byte = is_measured() ? seconds_per_byte_ : guess_.seconds_per_byte;
  if (per_byte <= 0) return std::numeric_limits<double>::infinity();
  return std::max(0.0, (seconds / (scatter * distrust_) - latency) / per_byte);
}

void TierSpeed::fit() {
  const double determinant = weight_ * xx_ - x_ * x_;
  latency_s_ = 0;
  seconds_per_byte_ = y_ / x_;
  if (determinant <= kSizeVariance * weight_ * xx_) return;
  const double slope = (weight_ * xy_ - x_ * y_) / determinant;
  const double intercept = (y_ - slope * x_) / weight_;
  if (slope <= 0) return;  // Larger loads were faster: noise, not a model.
  latency_s_ = std::max(intercept, 0.0);
  seconds_per_byte_ = intercept > 0 ? slope : xy_ / xx_;
}

bool TierSpeed::take_ratio(double ratio) {
  slow_in_row_ = ratio > kSlower ? slow_in_row_ + 1 : 0;
  if (slow_in_row_ >= kSlowerInRow) {
    ratios_.forget();
    scatter_ = most_scatter_ = kUnknownScatter;
    return true;
  }
  ratios_.add(ratio);
  if (ratios_.weight() < kFewLoads) return false;
  scatter_ = ratios_.quantile(kPlanned);
  most_scatter_ = ratios_.quantile(kMost);
  return false;
}

void TierSpeed::observe(double bytes, double elapsed_s) {
  if (bytes <= 0 || elapsed_s <= 0) return;
  double y = elapsed_s;
  double keep = kKeep;
  if (is_measured()) {
    const double predicted = mean(bytes);
    const bool is_slower = take_ratio(y / predicted);
    y = std::min(y, kSlowest * predicted);
    if (is_slower || y < kFast * predicted) keep = kKeepWhenFast;
  }
  weight_ = keep * weight_ + 1;
  x_ = keep * x_ + bytes;
  y_ = keep * y_ + y;
  xx_ = keep * xx_ + bytes * bytes;
  xy_ = keep * xy_ + bytes * y;
  fit();
}

void TierSpeed::observe_abandoned(double bytes, double whole_s, double times) {
  distrust_ = std::min(std::clamp(times, 1.0, kMostLost) * distrust_, kMostDistrust);
  if (whole_s > mean(bytes)) observe(bytes, whole_s);
}

}  // namespace terrace::policy
