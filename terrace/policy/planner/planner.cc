#include "terrace/policy/planner/planner.h"

#include <algorithm>
#include <limits>

namespace terrace::policy {

namespace {

// A load is given up when it takes this many times what nine of ten take, and some more for what is
// no tier's fault: threads that are woken late, an engine that asks late.
constexpr double kPatience = 3;
constexpr double kGraceSeconds = 0.005;
// A load that turns out to take so many times what was planned is a promise that was broken.
constexpr double kBroken = 2;
// Of the time in which what was refused is computed, probes take this share.
constexpr double kProbing = 0.1;
// Where loading and computing take about the same, computing is the one that keeps its time.
constexpr double kSure = 0.95;

double in_seconds(Nanoseconds time) { return static_cast<double>(time.value()) * 1e-9; }
Nanoseconds from_seconds(double time) {
  constexpr double kLongest = 1e9;  // 30 years; keeps the conversion defined.
  return Nanoseconds(static_cast<std::int64_t>(std::clamp(time, 0.0, kLongest) * 1e9));
}
double in_bytes(Bytes bytes) { return static_cast<double>(bytes.value()); }
double in_tokens(Tokens tokens) { return static_cast<double>(tokens.value()); }
Bytes below_host(const std::array<double, kTierCount>& demand) {
  double sum = 0;
  for (std::size_t i = 0; i < demand.size(); ++i) {
    if (static_cast<Tier>(i) != Tier::kHost) sum += demand[i];
  }
  return Bytes(static_cast<std::uint64_t>(sum));
}

}  // namespace

// Until it is measured: a copy within memory is small beside all else; a SATA disk in bad shape; a
// store across a network.
Planner::Source Planner::source_of(Tier tier) {
  switch (tier) {
    case Tier::kDevice:
    case Tier::kHost:
      return {.speed = TierSpeed({.latency_s = 0, .seconds_per_byte = 0})};
    case Tier::kDisk:
      return {.speed = TierSpeed({.latency_s = 1e-3, .seconds_per_byte = 1 / 200e6})};
    case Tier::kObject:
      return {.speed = TierSpeed({.latency_s = 30e-3, .seconds_per_byte = 1 / 50e6})};
    case Tier::kPeer:
      return {.speed = TierSpeed({.latency_s = 1e-3, .seconds_per_byte = 1 / 100e6})};
  }
  return {.speed = TierSpeed({})};
}

void Planner::observe_load(Tier source, Bytes bytes, Nanoseconds elapsed) {
  if (bytes == Bytes(0) || elapsed <= Nanoseconds(0)) return;
  Source& tier = at(source);
  const bool is_kept = in_seconds(elapsed) <= tier.speed.most_seconds(in_bytes(bytes));
  tier.speed.observe(in_bytes(bytes), in_seconds(elapsed));
  if (is_kept) tier.speed.trust();
}

void Planner::observe_abandoned(const AbandonedLoad& load) {
  const double awaited = in_bytes(load.awaited);
  const double came = awaited - std::min(awaited, in_bytes(load.missing));
  // What is missing would have come as fast as the rest; where nothing came, as much time again is
  // as likely as not.
  const double whole_s = in_seconds(load.elapsed) * (came > 0 ? awaited / came : 2);
  Source& tier = at(load.slowest);
  const double planned_s = load.predicted > Nanoseconds(0) ? in_seconds(load.predicted)
                                                           : tier.speed.most_seconds(awaited);
  const double times = came > 0 ? whole_s / planned_s : std::numeric_limits<double>::infinity();
  if (times >= kBroken) tier.caution = std::min(2 * tier.caution, kMostCaution);
  tier.speed.observe_abandoned(awaited, whole_s, times >= kBroken ? times : 1);
}

void Planner::observe_prefill(const PrefillStep& step, Nanoseconds elapsed) {
  prefill_.observe(step, in_seconds(elapsed));
}

void Planner::settle(Tier slowest, Nanoseconds predicted, Nanoseconds actual) {
  if (predicted <= Nanoseconds(0) || actual <= Nanoseconds(0)) return;
  Source& tier = at(slowest);
  if (actual <= predicted * 2) tier.caution = std::max(tier.caution - 1, kLeastCaution);
  tier.calibration.add(in_seconds(actual) / in_seconds(predicted));
}

Planner::Cost Planner::cost_of(const Demand& demand, const Queued& queued) const {
  Cost cost;
  double bytes = 0;
  for (std::size_t i = 0; i < demand.size(); ++i) {
    bytes += demand[i];
    const auto tier = static_cast<Tier>(i);
    if (demand[i] <= 0 || tier == Tier::kHost) continue;
    const double all = demand[i] + in_bytes(queued[i]);
    const double wait_s = at(tier).speed.seconds(all);
    cost.most_wait_s = std::max(cost.most_wait_s, at(tier).speed.most_seconds(all));
    if (wait_s < cost.wait_s) continue;
    cost.wait_s = wait_s;
    cost.slowest = tier;
  }
  cost.copy_s = at(Tier::kHost).speed.seconds(bytes);
  return cost;
}

std::uint64_t Planner::in_time(const SourceRun& run, const Demand& before, const Queued& queued,
                               double bytes) const {
  if (run.source == Tier::kHost) return run.blocks;
  const auto tier = static_cast<std::size_t>(run.source);
  const double own = bytes - in_bytes(queued[tier]) - before[tier];
  const double blocks = std::max(0.0, own / in_bytes(options_.block_bytes));
  if (blocks >= static_cast<double>(run.blocks)) return run.blocks;
  return static_cast<std::uint64_t>(blocks);
}

void Planner::consider(const Demand& demand, std::uint64_t blocks, std::size_t runs,
                       const Prompt& prompt, const Queued& queued, Choice& best) const {
  const double tokens = static_cast<double>(blocks) * in_tokens(options_.block_tokens);
  const Cost cost = cost_of(demand, queued);
  const double load_s = cost.wait_s + cost.copy_s;
  const double saved_s = prefill_.seconds(prompt.before, prompt.before + tokens,
                                          prompt.found - tokens + prompt.behind);
  const bool is_sure = cost.most_wait_s + cost.copy_s <= kSure * saved_s;
  if (!prompt.takes_all && (!is_sure || saved_s - load_s <= best.gain_s)) return;
  best.gain_s = saved_s - load_s;
  best.runs = runs;
  best.plan = {.blocks = blocks,
               .predicted_load = from_seconds(load_s),
               .predicted_recompute = from_seconds(saved_s),
               .patience = Nanoseconds(INT64_MAX),
               .awaited = below_host(demand),
               .slowest = cost.slowest,
               .probe_blocks = 0};
  if (prompt.takes_all) return;
  // Of a tier that is not measured nothing says what would be late.
  const double late_s =
      at(cost.slowest).speed.is_measured() ? kPatience * cost.most_wait_s : saved_s;
  best.plan.patience = from_seconds(std::min(late_s, saved_s) + kGraceSeconds);
}

Planner::Prompt Planner::prompt_of(std::span<const SourceRun> runs, const PromptPart& part) const {
  std::uint64_t found = 0;
  for (const SourceRun& run : runs) found += run.blocks;
  return {
      .before = in_tokens(part.before),
      .found = static_cast<double>(found) * in_tokens(options_.block_tokens),
      .behind = in_tokens(part.behind),
      .takes_all = !options_.is_enabled || !prefill_.is_measured(),
  };
}

Planner::Choice Planner::choose(std::span<const SourceRun> runs, const Queued& queued,
                                const Prompt& prompt, Nanoseconds most_wait) const {
  Choice best;
  Demand demand{};
  std::uint64_t blocks = 0;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    // Inside a run costs are linear and what is saved grows ever faster, so the least total lies at
    // its end, where its tier begins to be the slowest, or where the time to wait ends.
    std::uint64_t last = runs[i].blocks;
    std::uint64_t free = 0;  // What comes while another tier is waited for.
    if (!prompt.takes_all) {
      const TierSpeed& speed = at(runs[i].source).speed;
      free = in_time(runs[i], demand, queued, speed.bytes_in(cost_of(demand, queued).wait_s));
      last = in_time(runs[i], demand, queued, speed.mean_bytes_in(in_seconds(most_wait)));
    }
    const Demand before = demand;
    double& own = demand[static_cast<std::size_t>(runs[i].source)];
    for (const std::uint64_t end : {free, free + 1, last}) {
      if (end == 0 || end > last) continue;
      own = before[static_cast<std::size_t>(runs[i].source)] +
            static_cast<double>(end) * in_bytes(options_.block_bytes);
      consider(demand, blocks + end, i + 1, prompt, queued, best);
    }
    own = before[static_cast<std::size_t>(runs[i].source)] +
          static_cast<double>(last) * in_bytes(options_.block_bytes);
    blocks += last;
    if (last < runs[i].blocks) break;
  }
  return best;
}

LoadPlan Planner::plan(std::span<const SourceRun> runs, const Queued& queued,
                       const PromptPart& part) {
  const Prompt prompt = prompt_of(runs, part);
  Choice best = choose(runs, queued, prompt, part.most_wait);
  for (std::size_t i = 0; i < best.runs; ++i) at(runs[i].source).refusals = 0;
  if (best.runs == runs.size()) return best.plan;
  const double loaded =
      prompt.before + static_cast<double>(best.plan.blocks) * in_tokens(options_.block_tokens);
  add_probe(runs[best.runs], prefill_.seconds(loaded, prompt.before + prompt.found, prompt.behind),
            best.plan);
  return best.plan;
}

std::uint32_t Planner::refusals_to_probe(Tier source, double computing_s) const {
  const Source& tier = at(source);
  if (!tier.speed.is_measured()) return 1;
  if (source == Tier::kHost) return kProbeLate;
  const double probe_s = tier.speed.seconds(static_cast<double>(options_.probe_blocks) *
                                            in_bytes(options_.block_bytes));
  const double needed = computing_s > 0 ? probe_s / (kProbing * computing_s) : kProbeLate;
  const double bounded = std::clamp<double>(needed, kProbeSoon, kProbeLate);
  return std::max(static_cast<std::uint32_t>(bounded), tier.caution);
}

void Planner::add_probe(const SourceRun& refused, double computing_s, LoadPlan& plan) {
  Source& tier = at(refused.source);
  if (++tier.refusals < refusals_to_probe(refused.source, computing_s)) return;
  tier.refusals = 0;
  // After broken promises probes are larger: a device that lets a few blocks pass at once and then
  // no more looks fast to small ones.
  const std::uint64_t larger = std::min(tier.caution, kLargestProbe);
  const std::uint64_t blocks = std::min(refused.blocks, options_.probe_blocks * larger);
  if (refused.source == Tier::kHost) {
    plan.blocks += blocks;  // Only a load shows what a copy to the device takes.
  } else {
    plan.probe_blocks = blocks;
  }
}

double Planner::load_rate(Tier source) const {
  const double spent = at(source).speed.seconds_per_byte();
  return spent == 0 ? 0 : 1 / spent;
}

Nanoseconds Planner::load_latency(Tier source) const {
  return from_seconds(at(source).speed.latency_s());
}

double Planner::prefill_rate() const { return prefill_.tokens_per_second(); }

double Planner::calibration(Tier slowest, double share) const {
  return at(slowest).calibration.quantile(share);
}

}  // namespace terrace::policy
