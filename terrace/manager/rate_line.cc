#include <fmt/format.h>

#include <iterator>

#include "terrace/manager/rate_line_internal.h"

namespace terrace::manager {

RateLine::RateLine(const Counters& counters, Nanoseconds every, Nanoseconds now)
    : counters_(counters), every_(every), last_(now), seen_(look(counters)) {}

RateLine::Seen RateLine::look(const Counters& counters) {
  Seen seen{.requests = counters.requests.value(),
            .prompt_tokens = counters.prompt_tokens.value(),
            .engine_tokens = counters.engine_tokens.value(),
            .onboard_bytes = counters.onboard_bytes.value(),
            .offload_bytes = counters.offload_bytes.value(),
            .failed_loads = counters.failed_loads.value(),
            .slow_loads = counters.slow_loads.value(),
            .dropped_blocks = counters.dropped_blocks()};
  for (std::size_t i = 0; i < seen.hit_tokens.size(); ++i) {
    seen.hit_tokens[i] = counters.hit_tokens[i].value();
  }
  for (std::size_t i = 0; i < seen.miss_blocks.size(); ++i) {
    seen.miss_blocks[i] = counters.miss_blocks[i].value();
  }
  return seen;
}

RateLine::Seen RateLine::between(const Seen& before, const Seen& now) {
  Seen change{.requests = now.requests - before.requests,
              .prompt_tokens = now.prompt_tokens - before.prompt_tokens,
              .engine_tokens = now.engine_tokens - before.engine_tokens,
              .onboard_bytes = now.onboard_bytes - before.onboard_bytes,
              .offload_bytes = now.offload_bytes - before.offload_bytes,
              .failed_loads = now.failed_loads - before.failed_loads,
              .slow_loads = now.slow_loads - before.slow_loads,
              .dropped_blocks = now.dropped_blocks - before.dropped_blocks};
  for (std::size_t i = 0; i < change.hit_tokens.size(); ++i) {
    change.hit_tokens[i] = now.hit_tokens[i] - before.hit_tokens[i];
  }
  for (std::size_t i = 0; i < change.miss_blocks.size(); ++i) {
    change.miss_blocks[i] = now.miss_blocks[i] - before.miss_blocks[i];
  }
  return change;
}

std::string RateLine::text(const Seen& seen, double seconds) {
  const auto per_second = [&](std::uint64_t count) { return static_cast<double>(count) / seconds; };
  const auto percent = [&](std::uint64_t tokens) {
    if (seen.prompt_tokens == 0) return 0.0;
    return 100 * static_cast<double>(tokens) / static_cast<double>(seen.prompt_tokens);
  };
  std::string line = fmt::format(
      "event=rates seconds={:.0f} requests={} prompt_tokens_per_s={:.0f} engine={:.1f}%", seconds,
      seen.requests, per_second(seen.prompt_tokens), percent(seen.engine_tokens));
  auto end = std::back_inserter(line);
  for (const Tier tier : {Tier::kHost, Tier::kDisk, Tier::kObject}) {
    fmt::format_to(end, " {}={:.1f}%", to_string(tier),
                   percent(seen.hit_tokens[static_cast<std::size_t>(tier)]));
  }
  std::string missed;
  for (int i = 0; i < kMissReasonCount; ++i) {
    const std::uint64_t blocks = seen.miss_blocks[static_cast<std::size_t>(i)];
    if (blocks == 0) continue;
    fmt::format_to(std::back_inserter(missed), "{}{}:{}", missed.empty() ? "" : ",",
                   to_string(static_cast<MissReason>(i)), blocks);
  }
  fmt::format_to(end,
                 " missed_blocks={} loaded_mb_per_s={:.1f} stored_mb_per_s={:.1f} failed_loads={} "
                 "slow_loads={} dropped_blocks={}",
                 missed.empty() ? "0" : missed, per_second(seen.onboard_bytes) * 1e-6,
                 per_second(seen.offload_bytes) * 1e-6, seen.failed_loads, seen.slow_loads,
                 seen.dropped_blocks);
  return line;
}

std::optional<std::string> RateLine::take(Nanoseconds now) {
  if (every_ == Nanoseconds(0) || now - last_ < every_) return std::nullopt;
  const Seen all = look(counters_);
  const Seen change = between(seen_, all);
  const double took = static_cast<double>((now - last_).value()) * 1e-9;
  seen_ = all;
  last_ = now;
  const bool is_quiet = change.requests == 0 && change.prompt_tokens == 0 &&
                        change.onboard_bytes == 0 && change.offload_bytes == 0;
  if (is_quiet) return std::nullopt;
  return text(change, took);
}

}  // namespace terrace::manager
