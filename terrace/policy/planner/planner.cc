#include "terrace/policy/planner/planner.h"

#include <algorithm>

namespace terrace::policy {

namespace {

// Weight that older observations keep at each new one.
constexpr double kKeep = 0.9;
// Slow is suspicious: an outlier counts as at most this many times the prediction, so that one
// stall moves the average by at most (4 - 1) x (1 - 0.9) = 30 %. Fast is evidence, for no tier can
// be faster than it is: below half the prediction, old observations keep only half their weight.
constexpr double kSlowest = 4;
constexpr double kFast = 0.5;
constexpr double kKeepWhenFast = 0.5;
// Least variance of the sizes, relative to their mean square, from which a latency can be told
// apart.
constexpr double kSizeVariance = 1e-3;

double in_seconds(Nanoseconds time) { return static_cast<double>(time.value()) * 1e-9; }
Nanoseconds from_seconds(double time) {
  constexpr double kLongest = 1e9;  // 30 years; keeps the conversion defined.
  return Nanoseconds(static_cast<std::int64_t>(std::clamp(time, 0.0, kLongest) * 1e9));
}
std::size_t index_of(Tier tier) { return static_cast<std::size_t>(tier); }

}  // namespace

double Planner::load_seconds(const TierSpeed& tier, double bytes) const {
  return tier.seconds_per_byte == 0 ? 0 : tier.latency_s + bytes * tier.seconds_per_byte;
}

void Planner::fit(TierSpeed& tier) {
  const double determinant = tier.weight * tier.xx - tier.x * tier.x;
  tier.latency_s = 0;
  tier.seconds_per_byte = tier.y / tier.x;
  if (determinant <= kSizeVariance * tier.weight * tier.xx) return;
  const double slope = (tier.weight * tier.xy - tier.x * tier.y) / determinant;
  const double intercept = (tier.y - slope * tier.x) / tier.weight;
  if (slope <= 0) return;  // Larger loads were faster: noise, not a model.
  tier.latency_s = std::max(intercept, 0.0);
  tier.seconds_per_byte = intercept > 0 ? slope : tier.xy / tier.xx;
}

void Planner::observe_load(Tier source, Bytes bytes, Nanoseconds elapsed) {
  if (bytes == Bytes(0) || elapsed <= Nanoseconds(0)) return;
  TierSpeed& tier = tiers_[index_of(source)];
  const auto x = static_cast<double>(bytes.value());
  double y = in_seconds(elapsed);
  double keep = kKeep;
  if (const double predicted = load_seconds(tier, x); predicted > 0) {
    y = std::min(y, kSlowest * predicted);
    if (y < kFast * predicted) {
      keep = kKeepWhenFast;
      tier.refusals_to_probe = kFirstProbe;
    }
  }
  tier.weight = keep * tier.weight + 1;
  tier.x = keep * tier.x + x;
  tier.y = keep * tier.y + y;
  tier.xx = keep * tier.xx + x * x;
  tier.xy = keep * tier.xy + x * y;
  fit(tier);
}

void Planner::observe_prefill(Tokens tokens, Nanoseconds elapsed) {
  if (tokens == Tokens(0) || elapsed <= Nanoseconds(0)) return;
  const auto count = static_cast<double>(tokens.value());
  double time = in_seconds(elapsed);
  if (prefill_tokens_ > 0) {
    time = std::min(time, kSlowest * count * prefill_seconds_ / prefill_tokens_);
  }
  prefill_tokens_ = kKeep * prefill_tokens_ + count;
  prefill_seconds_ = kKeep * prefill_seconds_ + time;
}

LoadPlan Planner::plan(std::span<const SourceRun> runs,
                       const std::array<Bytes, kTierCount>& queued) {
  std::uint64_t found = 0;
  for (const SourceRun& run : runs) found += run.blocks;
  const double block_s = prefill_tokens_ == 0 ? 0
                                              : static_cast<double>(options_.block_tokens.value()) *
                                                    prefill_seconds_ / prefill_tokens_;
  const auto block_bytes = static_cast<double>(options_.block_bytes.value());
  const bool takes_all = !options_.is_enabled || block_s == 0;

  LoadPlan best;
  std::size_t best_runs = 0;
  double best_s = static_cast<double>(found) * block_s;
  double load_s = 0;
  std::uint64_t blocks = 0;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const TierSpeed& tier = tiers_[index_of(runs[i].source)];
    const auto waiting = static_cast<double>(queued[index_of(runs[i].source)].value());
    load_s += load_seconds(tier, waiting + static_cast<double>(runs[i].blocks) * block_bytes);
    blocks += runs[i].blocks;
    // Costs are linear inside a run, so the least total lies at a run's end.
    const double total_s = load_s + static_cast<double>(found - blocks) * block_s;
    if (!takes_all && total_s >= best_s) continue;
    best_s = total_s;
    best_runs = i + 1;
    best.blocks = blocks;
    best.predicted_load = from_seconds(load_s);
    best.predicted_recompute = from_seconds(static_cast<double>(blocks) * block_s);
    tiers_[index_of(runs[i].source)].refusals = 0;
  }
  if (best_runs < runs.size()) add_probe(runs[best_runs], block_s, best);
  return best;
}

void Planner::add_probe(const SourceRun& refused, double block_s, LoadPlan& plan) {
  TierSpeed& tier = tiers_[index_of(refused.source)];
  if (++tier.refusals < tier.refusals_to_probe) return;
  tier.refusals = 0;
  tier.refusals_to_probe = std::min(2 * tier.refusals_to_probe, kLastProbe);
  const std::uint64_t blocks = std::min(refused.blocks, options_.probe_blocks);
  const auto count = static_cast<double>(blocks);
  plan.blocks += blocks;
  plan.predicted_load +=
      from_seconds(load_seconds(tier, count * static_cast<double>(options_.block_bytes.value())));
  plan.predicted_recompute += from_seconds(count * block_s);
  plan.is_probe = blocks > 0;
}

double Planner::load_rate(Tier source) const {
  const double spent = tiers_[index_of(source)].seconds_per_byte;
  return spent == 0 ? 0 : 1 / spent;
}

Nanoseconds Planner::load_latency(Tier source) const {
  return from_seconds(tiers_[index_of(source)].latency_s);
}

double Planner::prefill_rate() const {
  return prefill_seconds_ == 0 ? 0 : prefill_tokens_ / prefill_seconds_;
}

}  // namespace terrace::policy
