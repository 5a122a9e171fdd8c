#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include "terrace/cli/commands_internal.h"
#include "terrace/cli/simulate_rows.h"
#include "terrace/config/value.h"
#include "terrace/trace/optimum.h"
#include "terrace/trace/reader.h"
#include "terrace/trace/replay.h"
#include "terrace/trace/scenario.h"

namespace terrace::cli {
namespace {

using trace::Counts;
using trace::Workload;

constexpr std::uint64_t kMostSlots = std::numeric_limits<std::int32_t>::max();

// "2%" of all distinct blocks of a trace, or "5000" blocks.
struct Size {
  double percent = 0;
  std::uint64_t blocks = 0;
  [[nodiscard]] std::uint32_t of(const Workload& workload) const {
    const double share = static_cast<double>(workload.unique_blocks()) * percent / 100;
    const auto all = blocks + static_cast<std::uint64_t>(std::llround(share));
    return static_cast<std::uint32_t>(std::min(all, kMostSlots));
  }
};

// What is mixed into a trace.
struct Scenario {
  bool has_scan = false;
  bool has_burst = false;
  bool has_chat = false;
  [[nodiscard]] bool is_mixed() const { return has_scan || has_burst; }
  [[nodiscard]] std::string name() const {
    if (has_scan && has_burst) return "scan and burst";
    if (has_scan) return "scan";
    return has_burst ? "burst" : "";
  }
};

// The options, understood.
struct Plan {
  std::vector<Size> hosts;
  Size disk;
  std::vector<std::string> policies;
  trace::CostModel cost;
  Scenario scenario;
};

std::optional<Size> parse_tier_size(std::string_view text) {
  Size size;
  if (text.ends_with('%')) {
    text.remove_suffix(1);
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), size.percent);
    const bool is_share = size.percent >= 0 && size.percent <= 1000;  // No NaN either.
    if (error != std::errc{} || end != text.data() + text.size() || !is_share) return {};
    return size;
  }
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), size.blocks);
  if (error != std::errc{} || end != text.data() + text.size()) return {};
  return size.blocks <= kMostSlots ? std::optional(size) : std::nullopt;
}

Result<Size> tier_size(const std::string& name, const std::string& text) {
  if (const auto size = parse_tier_size(text)) return *size;
  return fail(Code::kInvalid,
              fmt::format("{} {}: give a share of the distinct blocks such as 2%, or a number of "
                          "blocks",
                          name, text));
}

Result<double> bytes_of(const std::string& name, const std::string& text) {
  const auto parsed = config::parse_size(text);
  if (parsed && *parsed > 0) return static_cast<double>(*parsed);
  return fail(Code::kInvalid,
              fmt::format("{} {}: give bytes above 0, such as 128KiB or 3GB", name, text));
}

Result<trace::CostModel> cost_of(const SimulateOptions& options) {
  trace::CostModel cost;
  cost.prefill_tokens_per_s = options.prefill_rate;
  TERRACE_ASSIGN_OR_RETURN(cost.token_bytes, bytes_of("--token-bytes", options.token_bytes));
  TERRACE_ASSIGN_OR_RETURN(cost.host_bytes_per_s,
                           bytes_of("--host-bandwidth", options.host_bandwidth));
  TERRACE_ASSIGN_OR_RETURN(cost.disk_bytes_per_s,
                           bytes_of("--disk-bandwidth", options.disk_bandwidth));
  const auto latency = config::parse_duration(options.disk_latency);
  constexpr Nanoseconds kMostLatency = seconds(3600);
  if (!latency || *latency < 0 || Nanoseconds(*latency) > kMostLatency) {
    return fail(Code::kInvalid, fmt::format("--disk-latency {}: give a time up to an hour, such as "
                                            "200us",
                                            options.disk_latency));
  }
  cost.disk_latency = Nanoseconds(*latency);
  return cost;
}

Result<Scenario> scenario_of(const SimulateOptions& options) {
  Scenario scenario;
  for (const std::string& name : options.scenario) {
    if (name == "scan") {
      scenario.has_scan = true;
    } else if (name == "burst") {
      scenario.has_burst = true;
    } else if (name == "chat") {
      scenario.has_chat = true;
    } else {
      return fail(Code::kInvalid,
                  "--scenario " + name + ": there is no such; known: scan, burst, chat");
    }
  }
  if (options.traces.empty() && options.scenario.empty()) {
    return fail(Code::kInvalid, "give a trace, or --scenario chat for one that is made up");
  }
  if (!options.traces.empty() && scenario.has_chat) {
    return fail(Code::kInvalid, "--scenario chat is in place of a trace: leave one of them out");
  }
  return scenario;
}

Status check_policies(const SimulateOptions& options) {
  for (const std::string& policy : options.policies) {  // Before a long trace is read.
    if (const auto made = policy::make_eviction(policy, 1); !made) {
      return {Code::kInvalid, "--policy " + policy + ": " + made.error().message()};
    }
  }
  if (const auto made = policy::make_admission(options.admission, {}); !made) {
    return {Code::kInvalid, "--admission " + options.admission + ": " + made.error().message()};
  }
  return {};
}

Result<Plan> plan_of(const SimulateOptions& options) {
  Plan plan;
  if (options.is_compared) {
    for (const std::string& text : options.sizes) {
      TERRACE_ASSIGN_OR_RETURN(const Size size, tier_size("--sizes", text));
      plan.hosts.push_back(size);
    }
  } else {
    TERRACE_ASSIGN_OR_RETURN(const Size size, tier_size("--host", options.host));
    plan.hosts.push_back(size);
  }
  TERRACE_ASSIGN_OR_RETURN(plan.disk, tier_size("--disk", options.disk));
  TERRACE_ASSIGN_OR_RETURN(plan.cost, cost_of(options));
  TERRACE_ASSIGN_OR_RETURN(plan.scenario, scenario_of(options));
  TERRACE_RETURN_IF_ERROR(check_policies(options));
  plan.policies = options.policies;
  if (options.is_compared) {  // What the others are drawn beside comes first.
    std::erase(plan.policies, "lru");
    plan.policies.insert(plan.policies.begin(), "lru");
  }
  return plan;
}

// A trace, and the same with what the scenario mixes in, if it does.
struct Source {
  std::string name;
  Workload alone;
  std::optional<Workload> mixed;
};

Source source_of(std::string name, Workload workload, const SimulateOptions& options,
                 const Scenario& scenario) {
  Source source{std::move(name), std::move(workload), std::nullopt};
  if (!scenario.is_mixed()) return source;
  source.mixed = source.alone;
  // One at a time would see what the other has added; each looks at the trace's own requests only.
  if (scenario.has_scan) trace::mix_scan(*source.mixed, options.seed);
  if (scenario.has_burst) trace::mix_burst(*source.mixed, options.seed);
  return source;
}

// One replay of the source as it is, and one more of the trace alone where something is mixed in.
Result<SimulateRow> row_of(const Source& source, const Plan& plan,
                           const trace::Replay::Options& wanted, std::uint64_t optimum) {
  SimulateRow row{.trace = source.name,
                  .scenario = plan.scenario.name(),
                  .policy = wanted.eviction,
                  .admission = wanted.admission,
                  .host_blocks = wanted.host_slots,
                  .disk_blocks = wanted.disk_slots,
                  .unique_blocks = source.alone.unique_blocks(),
                  .optimum_hits = optimum};
  const Workload& workload = source.mixed ? *source.mixed : source.alone;
  TERRACE_ASSIGN_OR_RETURN(auto replay, trace::Replay::create(wanted));
  const Counts all = replay.run(workload);
  row.counts = replay.counts_of(trace::Part::kTrace);
  row.counts.disk_writes = all.disk_writes;
  row.all_blocks = all.blocks;
  row.times = replay.times();
  row.block_bytes = replay.block_bytes();
  row.alone_hits = row.hits();
  if (source.mixed) {
    TERRACE_ASSIGN_OR_RETURN(auto alone, trace::Replay::create(wanted));
    const Counts undisturbed = alone.run(source.alone);
    row.alone_hits = undisturbed.host_hits + undisturbed.disk_hits;
  }
  return row;
}

// One row for each size and policy.
Status simulate(const Source& source, const SimulateOptions& options, const Plan& plan,
                std::string& out) {
  std::vector<SimulateRow> rows;
  std::vector<std::uint32_t> done;
  for (const Size& host : plan.hosts) {
    trace::Replay::Options wanted;
    wanted.host_slots = host.of(source.alone);
    wanted.disk_slots = plan.disk.of(source.alone);
    wanted.admission = options.admission;
    wanted.cost = plan.cost;
    if (wanted.host_slots == 0) {
      return {Code::kInvalid,
              fmt::format("{} is less than one of the {} distinct blocks of {}; give more",
                          options.is_compared ? "one of --sizes" : "--host",
                          source.alone.unique_blocks(), source.name)};
    }
    if (std::ranges::find(done, wanted.host_slots) != done.end()) continue;  // Of a small trace.
    done.push_back(wanted.host_slots);
    const std::uint64_t slots = std::uint64_t{wanted.host_slots} + wanted.disk_slots;
    const std::uint64_t optimum = trace::optimum_hits(source.alone, slots);
    for (const std::string& policy : plan.policies) {
      wanted.eviction = policy;
      TERRACE_ASSIGN_OR_RETURN(SimulateRow row, row_of(source, plan, wanted, optimum));
      if (options.is_json) {
        out += row_json(row);
      } else if (!options.is_compared) {
        out += row_text(row);
      } else {
        rows.push_back(std::move(row));
      }
    }
  }
  out += chart_text(rows);
  return {};
}

Result<Workload> read(const std::string& path, const SimulateOptions& options) {
  trace::ReadOptions reading;
  reading.seed = options.seed;
  reading.window = Nanoseconds(std::llround(options.window_minutes * 60e9));
  reading.rate = options.rate;
  reading.block_tokens = options.block_tokens;
  return trace::read_workload(path, reading);
}

Workload chat_of(const SimulateOptions& options) {
  trace::ChatOptions chat;
  chat.seed = options.seed;
  chat.span = Nanoseconds(std::llround(options.window_minutes * 60e9 / options.rate));
  if (options.block_tokens > 0) chat.block_tokens = options.block_tokens;
  return trace::make_chat(chat);
}

}  // namespace

Answer run_simulate(const SimulateOptions& options) {
  const auto plan = plan_of(options);
  if (!plan) {
    return {kUsage, "", fmt::format("terrace simulate: {}\n", plan.error().message())};
  }
  Answer answer;
  const auto note = [&](const Status& status) {
    if (status.is_ok()) return;
    answer.exit_code = kFailed;
    answer.error += fmt::format("terrace simulate: {}\n", status.message());
  };
  if (options.traces.empty()) {
    const Source chat = source_of("chat", chat_of(options), options, plan->scenario);
    note(simulate(chat, options, *plan, answer.out));
  }
  for (const std::string& path : options.traces) {
    auto workload = read(path, options);
    if (!workload) {
      note(workload.error());
      continue;
    }
    const Source source = source_of(path, std::move(*workload), options, plan->scenario);
    note(simulate(source, options, *plan, answer.out));
  }
  return answer;
}

}  // namespace terrace::cli
