#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include "terrace/cli/commands_internal.h"
#include "terrace/cli/simulate_rows.h"
#include "terrace/config/load.h"
#include "terrace/config/table.h"
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

// What is mixed into a trace, or made up in place of one.
struct Scenario {
  bool has_scan = false;
  bool has_burst = false;
  std::string made_up;  // chat, rag or batch; empty = nobody said, a chat.
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
  trace::Replay::Options replay;  // But for sizes and eviction.
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
    } else if (name == "chat" || name == "rag" || name == "batch") {
      if (!scenario.made_up.empty() && scenario.made_up != name) {
        return fail(Code::kInvalid, fmt::format("--scenario {},{}: only one can be made up",
                                                scenario.made_up, name));
      }
      scenario.made_up = name;
    } else {
      return fail(Code::kInvalid, "--scenario " + name +
                                      ": there is no such; known: scan, burst, chat, rag, batch");
    }
  }
  if (options.traces.empty() && options.scenario.empty()) {
    return fail(Code::kInvalid, "give a trace, or --scenario chat for one that is made up");
  }
  if (!options.traces.empty() && !scenario.made_up.empty()) {
    return fail(Code::kInvalid, fmt::format("--scenario {} is in place of a trace: leave one of "
                                            "them out",
                                            scenario.made_up));
  }
  return scenario;
}

// The settings of an engine with this preset, or with none, where nobody says otherwise.
Result<config::Settings> settings_of(const std::string& preset) {
  if (preset.empty()) return config::defaults();
  config::Sources sources;
  sources.overrides = {{"preset", preset}, {"host.size", "1GiB"}};
  TERRACE_ASSIGN_OR_RETURN(const config::Loaded loaded, config::load(sources));
  return loaded.settings;
}

// True for the second of a setting's two words. Empty: as `otherwise`.
Result<bool> is_second(const std::string& option, std::string_view setting, const std::string& text,
                       bool otherwise) {
  if (text.empty()) return otherwise;
  const config::Row& row = *config::find_row(setting);
  const auto value = config::parse_value(row, text);
  if (!value) {
    return fail(Code::kInvalid, fmt::format("{} {}: {}; give {}", option, text,
                                            value.error().message(), config::allowed_text(row)));
  }
  return std::get<std::string>(*value) == config::split_words(row.choices, '|').back();
}

// As a share of all blocks.
Result<double> loss_of(const SimulateOptions& options, std::string_view admission,
                       double otherwise) {
  const std::string& text = options.admission_loss;
  if (text.empty()) return otherwise / 100;
  if (admission != "expected") {
    return fail(Code::kInvalid,
                fmt::format("--admission-loss {} is for --admission expected, not {}: leave one of "
                            "them out",
                            text, admission));
  }
  const config::Row& row = *config::find_row("disk.admission_loss");
  const auto value = config::parse_value(row, text);
  if (!value) {
    return fail(Code::kInvalid, fmt::format("--admission-loss {}: {}; give {}", text,
                                            value.error().message(), config::allowed_text(row)));
  }
  return std::get<double>(*value) / 100;
}

// What nobody said is the preset's, or the default.
Status take_policies(const SimulateOptions& options, Plan& plan) {
  TERRACE_ASSIGN_OR_RETURN(const config::Settings usual, settings_of(options.preset));
  plan.policies = options.policies;
  if (plan.policies.empty()) plan.policies.push_back(usual.host.eviction);
  for (const std::string& policy : plan.policies) {  // Before a long trace is read.
    if (const auto made = policy::make_eviction(policy, 1); !made) {
      return {Code::kInvalid, "--policy " + policy + ": " + made.error().message()};
    }
  }
  trace::Replay::Options& replay = plan.replay;
  replay.admission = options.admission.empty() ? usual.disk.admission : options.admission;
  if (const auto made = policy::make_admission(replay.admission, {}); !made) {
    return {Code::kInvalid, "--admission " + replay.admission + ": " + made.error().message()};
  }
  TERRACE_ASSIGN_OR_RETURN(replay.admission_loss,
                           loss_of(options, replay.admission, usual.disk.admission_loss));
  TERRACE_ASSIGN_OR_RETURN(replay.is_demote,
                           is_second("--write", "disk.write", options.write,
                                     usual.disk.write == config::DiskWrite::kDemote));
  TERRACE_ASSIGN_OR_RETURN(replay.is_prompt_only,
                           is_second("--scope", "offload.scope", options.scope,
                                     usual.offload.scope == config::OffloadScope::kPrompt));
  return {};
}

// How long conversations start, and what is made up lasts, and how large its blocks are.
Status check_reading(const SimulateOptions& options) {
  constexpr double kMostMinutes = 15e6;  // 30 years; as nanoseconds it fits.
  constexpr std::uint32_t kMostBlockTokens = 1U << 20U;
  if (!(options.window_minutes / options.rate <= kMostMinutes)) {
    return {Code::kInvalid, fmt::format("--window {} at --rate {} is over 30 years; give less",
                                        options.window_minutes, options.rate)};
  }
  if (options.block_tokens <= kMostBlockTokens) return {};
  return {Code::kInvalid, fmt::format("--block-tokens {}: give at most {}", options.block_tokens,
                                      kMostBlockTokens)};
}

Result<Plan> plan_of(const SimulateOptions& options) {
  Plan plan;
  TERRACE_RETURN_IF_ERROR(check_reading(options));
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
  TERRACE_ASSIGN_OR_RETURN(plan.replay.cost, cost_of(options));
  TERRACE_ASSIGN_OR_RETURN(plan.scenario, scenario_of(options));
  TERRACE_RETURN_IF_ERROR(take_policies(options, plan));
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

// Errors: kInvalid where there is nobody whom it would disturb.
Result<Source> source_of(std::string name, Workload workload, const SimulateOptions& options,
                         const Scenario& scenario) {
  Source source{std::move(name), std::move(workload), std::nullopt};
  if (!scenario.is_mixed()) return source;
  source.mixed = source.alone;
  // One at a time would see what the other has added; each looks at the trace's own requests only.
  if (scenario.has_scan && !trace::mix_scan(*source.mixed, options.seed)) {
    return fail(Code::kInvalid, fmt::format("--scenario scan: in the middle half of its time {} "
                                            "asks for nothing, so there is nothing to mix in",
                                            source.name));
  }
  if (scenario.has_burst && !trace::mix_burst(*source.mixed, options.seed)) {
    return fail(Code::kInvalid, fmt::format("--scenario burst: in the middle twentieth of its time "
                                            "{} asks for nothing, so there is nothing to mix in",
                                            source.name));
  }
  return source;
}

// One replay of the source as it is, and one more of the trace alone where something is mixed in.
Result<SimulateRow> row_of(const Source& source, const Plan& plan,
                           const trace::Replay::Options& wanted, std::uint64_t optimum) {
  SimulateRow row{.trace = source.name,
                  .scenario = plan.scenario.name(),
                  .policy = wanted.eviction,
                  .admission = wanted.admission,
                  .write = wanted.is_demote ? "demote" : "through",
                  .scope = wanted.is_prompt_only ? "prompt" : "all",
                  .host_blocks = wanted.host_slots,
                  .disk_blocks = wanted.disk_slots,
                  .unique_blocks = source.alone.unique_blocks(),
                  .optimum_hits = optimum};
  const Workload& workload = source.mixed ? *source.mixed : source.alone;
  TERRACE_ASSIGN_OR_RETURN(auto replay, trace::Replay::create(wanted));
  const Counts all = replay.run(workload);
  row.counts = replay.counts_of(trace::Part::kTrace);
  row.counts.disk_writes = all.disk_writes;
  row.counts.stores = all.stores;
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
    trace::Replay::Options wanted = plan.replay;
    wanted.host_slots = host.of(source.alone);
    wanted.disk_slots = plan.disk.of(source.alone);
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

Workload made_up(std::string_view name, const SimulateOptions& options) {
  const auto filled = [&](auto made) {
    made.seed = options.seed;
    made.span = Nanoseconds(std::llround(options.window_minutes * 60e9 / options.rate));
    if (options.block_tokens > 0) made.block_tokens = options.block_tokens;
    return made;
  };
  if (name == "rag") return trace::make_rag(filled(trace::RagOptions{}));
  if (name == "batch") return trace::make_batch(filled(trace::BatchOptions{}));
  return trace::make_chat(filled(trace::ChatOptions{}));
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
  const auto simulate_one = [&](const std::string& name, Workload workload) {
    const auto source = source_of(name, std::move(workload), options, plan->scenario);
    note(source ? simulate(*source, options, *plan, answer.out) : source.error());
  };
  if (options.traces.empty()) {
    const std::string& said = plan->scenario.made_up;
    const std::string name = said.empty() ? "chat" : said;
    simulate_one(name, made_up(name, options));
  }
  for (const std::string& path : options.traces) {
    auto workload = read(path, options);
    if (!workload) {
      note(workload.error());
      continue;
    }
    simulate_one(path, *std::move(workload));
  }
  return answer;
}

}  // namespace terrace::cli
