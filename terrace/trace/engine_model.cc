#include "terrace/trace/engine_model.h"

#include <algorithm>
#include <cmath>

namespace terrace::trace {
namespace {

constexpr double kLongest = 1e9;  // Seconds; as nanoseconds they fit.

Nanoseconds of_seconds(double time) {
  return Nanoseconds(static_cast<std::int64_t>(std::clamp(time, 0.0, kLongest) * 1e9));
}

double in_seconds(Nanoseconds time) { return static_cast<double>(time.value()) * 1e-9; }

}  // namespace

Nanoseconds EngineTimes::quantile(std::vector<Nanoseconds> times, double share) {
  if (times.empty()) return Nanoseconds(0);
  const double rank = std::ceil(share * static_cast<double>(times.size()));
  const auto place = std::min(times.size(), static_cast<std::size_t>(std::max(rank, 1.0))) - 1;
  std::ranges::nth_element(times, times.begin() + static_cast<std::ptrdiff_t>(place));
  return times[place];
}

double EngineTimes::regret_percent() const {
  const auto sum = [](const std::vector<Nanoseconds>& times) {
    double all = 0;
    for (const Nanoseconds time : times) all += in_seconds(time);
    return all;
  };
  const double least = sum(best);
  return least > 0 ? 100 * (sum(first_token) / least - 1) : 0;
}

EngineModel::EngineModel(const CostModel& cost, std::uint32_t block_tokens)
    : cost_(cost),
      block_tokens_(block_tokens),
      block_bytes_(static_cast<std::uint64_t>(
          std::max(1.0, cost.token_bytes * static_cast<double>(block_tokens)))),
      planner_({.block_bytes = Bytes(block_bytes_), .block_tokens = Tokens(block_tokens)}) {}

Nanoseconds EngineModel::disk_time(std::uint64_t blocks) const {
  return of_seconds(static_cast<double>(blocks * block_bytes_) / cost_.disk_bytes_per_s);
}

Nanoseconds EngineModel::compute_time(std::uint64_t tokens) const {
  return of_seconds(static_cast<double>(tokens) / cost_.prefill_tokens_per_s);
}

void EngineModel::teach(Nanoseconds until) {
  while (!lessons_.empty() && lessons_.top().at <= until) {
    teach(lessons_.top());
    lessons_.pop();
  }
}

void EngineModel::teach(const Lesson& lesson) {
  if (lesson.missing_blocks > 0) {
    planner_.observe_abandoned({.slowest = Tier::kDisk,
                                .awaited = bytes_of(lesson.disk_blocks),
                                .missing = bytes_of(lesson.missing_blocks),
                                .predicted = lesson.plan.predicted_load,
                                .elapsed = lesson.load_time});
  } else if (lesson.disk_blocks > 0) {
    planner_.observe_load(Tier::kDisk, bytes_of(lesson.disk_blocks), lesson.disk_time);
  }
  planner_.observe_load(Tier::kHost, bytes_of(lesson.copied_blocks), lesson.copy_time);
  planner_.observe_prefill(lesson.computed, lesson.compute_time);
  if (lesson.plan.blocks > 0) {
    planner_.settle(lesson.plan.slowest, lesson.plan.predicted_load, lesson.load_time);
  }
}

Nanoseconds EngineModel::read(Nanoseconds now, std::uint64_t blocks, Nanoseconds give_up,
                              Lesson& lesson) {
  const Nanoseconds start = std::max(now, disk_free_);
  const Nanoseconds done = start + disk_time(blocks) + cost_.disk_latency;
  lesson.disk_blocks = blocks;
  lesson.disk_time = done - start;
  if (done <= give_up) {
    disk_free_ = done - cost_.disk_latency;
    return done;
  }
  const double spent = in_seconds(give_up - start) - in_seconds(cost_.disk_latency);
  const double there =
      std::floor(std::max(0.0, spent) * cost_.disk_bytes_per_s / static_cast<double>(block_bytes_));
  lesson.missing_blocks = blocks - std::min(blocks, static_cast<std::uint64_t>(there));
  lesson.disk_time = std::max(Nanoseconds(0), give_up - start);
  disk_free_ = std::max(start, give_up);
  return give_up;
}

void EngineModel::probe(Nanoseconds now, std::uint64_t blocks) {
  if (blocks == 0) return;
  Lesson lesson{.order = ++order_};
  lesson.at = read(now, blocks, Nanoseconds(INT64_MAX), lesson);
  lessons_.push(lesson);
}

std::uint64_t EngineModel::take_found(const FoundPrompt& prompt) {
  // The engine needs a token to compute: the last block is not worth loading whole.
  std::uint64_t left = prompt.tokens == 0 ? 0 : (prompt.tokens - 1) / block_tokens_;
  std::uint64_t found = 0;
  runs_.clear();
  for (const policy::SourceRun& run : prompt.runs) {
    const std::uint64_t blocks = std::min(left, run.blocks);
    if (blocks == 0) break;
    runs_.push_back({run.source, blocks});
    left -= blocks;
    found += blocks;
  }
  return found;
}

// Within a run all is linear, so the least lies where one ends, or at nothing.
Nanoseconds EngineModel::best_time(const FoundPrompt& prompt) const {
  Nanoseconds best = compute_time(prompt.tokens);
  const Nanoseconds queue = std::max(Nanoseconds(0), disk_free_ - prompt.at);
  std::uint64_t blocks = 0;
  std::uint64_t on_disk = 0;
  for (const policy::SourceRun& run : runs_) {
    blocks += run.blocks;
    if (run.source == Tier::kDisk) on_disk += run.blocks;
    Nanoseconds time =
        of_seconds(static_cast<double>(blocks * block_bytes_) / cost_.host_bytes_per_s);
    if (on_disk > 0) time = time + queue + disk_time(on_disk) + cost_.disk_latency;
    best = std::min(best, time + compute_time(prompt.tokens - blocks * block_tokens_));
  }
  return best;
}

// Returns how many leading blocks were loaded.
std::uint64_t EngineModel::load(const FoundPrompt& prompt, std::uint64_t found, Lesson& lesson,
                                Nanoseconds& waited) {
  if (found == 0) return 0;
  policy::Planner::Queued queued{};
  const double busy = in_seconds(std::max(Nanoseconds(0), disk_free_ - prompt.at));
  queued[static_cast<std::size_t>(Tier::kDisk)] =
      Bytes(static_cast<std::uint64_t>(busy * cost_.disk_bytes_per_s));
  lesson.plan =
      planner_.plan(runs_, queued, {.behind = Tokens(prompt.tokens - found * block_tokens_)});
  const std::uint64_t planned = std::min(found, lesson.plan.blocks);
  std::uint64_t on_disk = 0;
  std::uint64_t at = 0;
  for (const policy::SourceRun& run : runs_) {
    const std::uint64_t taken = std::min(run.blocks, planned - at);
    if (run.source == Tier::kDisk) on_disk += taken;
    at += taken;
  }
  std::uint64_t loaded = planned;
  if (on_disk > 0) {
    const Nanoseconds give_up = lesson.plan.patience < Nanoseconds(INT64_MAX) - prompt.at
                                    ? prompt.at + lesson.plan.patience
                                    : Nanoseconds(INT64_MAX);
    waited = read(prompt.at, on_disk, give_up, lesson) - prompt.at;
    if (lesson.missing_blocks > 0) {
      ++times_.abandoned_loads;
      std::uint64_t there = on_disk - lesson.missing_blocks;
      loaded = 0;
      for (const policy::SourceRun& run : runs_) {
        const std::uint64_t taken = std::min(run.blocks, planned - loaded);
        loaded += run.source == Tier::kDisk ? std::min(taken, there) : taken;
        if (run.source == Tier::kDisk && there < taken) break;
        there -= run.source == Tier::kDisk ? taken : 0;
      }
    }
  }
  probe(prompt.at, lesson.plan.probe_blocks);
  return loaded;
}

void EngineModel::serve(const FoundPrompt& prompt) {
  teach(prompt.at);
  Lesson lesson{.order = ++order_};
  Nanoseconds waited{0};
  const std::uint64_t found = take_found(prompt);
  const Nanoseconds best = best_time(prompt);
  const std::uint64_t loaded = load(prompt, found, lesson, waited);
  lesson.copied_blocks = loaded;
  lesson.copy_time =
      of_seconds(static_cast<double>(loaded * block_bytes_) / cost_.host_bytes_per_s);
  lesson.computed = Tokens(prompt.tokens - loaded * block_tokens_);
  lesson.compute_time = compute_time(lesson.computed.value());
  lesson.load_time = waited + lesson.copy_time;
  const Nanoseconds took = lesson.load_time + lesson.compute_time;
  lesson.at = prompt.at + took;
  lessons_.push(lesson);
  if (!prompt.is_counted || prompt.tokens == 0) return;
  times_.first_token.push_back(took);
  times_.off.push_back(compute_time(prompt.tokens));
  times_.best.push_back(best);
  times_.loaded_blocks += loaded;
  times_.saved_prefill = compute_time(times_.loaded_blocks * block_tokens_);
}

}  // namespace terrace::trace
