#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "terrace/cli/commands_internal.h"
#include "terrace/trace/optimum.h"
#include "terrace/trace/reader.h"
#include "terrace/trace/replay.h"

namespace terrace::cli {
namespace {

using trace::Counts;
using trace::Workload;

constexpr std::uint64_t kMostSlots = std::numeric_limits<std::int32_t>::max();

Answer failed(int code, std::string_view what) {
  return {code, "", fmt::format("terrace simulate: {}\n", what)};
}

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

struct Row {
  std::string trace;
  std::string policy;
  std::uint32_t host_blocks;
  std::uint32_t disk_blocks;
  Counts counts;
  std::uint64_t optimum_hits;
};

double rounded(double percent) { return std::round(percent * 100) / 100; }

std::string row_json(const Row& row) {
  const Counts& counts = row.counts;
  const nlohmann::ordered_json json{
      {"trace", row.trace},
      {"policy", row.policy},
      {"host_blocks", row.host_blocks},
      {"disk_blocks", row.disk_blocks},
      {"prompt_blocks", counts.blocks},
      {"host_hit_percent", rounded(counts.percent(counts.host_hits))},
      {"disk_hit_percent", rounded(counts.percent(counts.disk_hits))},
      {"disk_writes_per_100", rounded(counts.percent(counts.disk_writes))},
      {"optimum_percent", rounded(counts.percent(row.optimum_hits))}};
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string row_text(const Row& row) {
  const Counts& counts = row.counts;
  return fmt::format(
      "{}: {}, host {} blocks, disk {}: hits {:.2f} % host, {:.2f} % disk; {:.2f} disk writes per "
      "100 blocks; optimum {:.2f} %\n",
      row.trace, row.policy, row.host_blocks, row.disk_blocks, counts.percent(counts.host_hits),
      counts.percent(counts.disk_hits), counts.percent(counts.disk_writes),
      counts.percent(row.optimum_hits));
}

// One line for each policy on one trace.
Status simulate(const std::string& path, const SimulateOptions& options, Size host, Size disk,
                std::string& out) {
  trace::ReadOptions reading;
  reading.seed = options.seed;
  reading.window = Nanoseconds(std::llround(options.window_minutes * 60e9));
  reading.rate = options.rate;
  reading.block_tokens = options.block_tokens;
  TERRACE_ASSIGN_OR_RETURN(const Workload workload, trace::read_workload(path, reading));
  trace::Replay::Options wanted;
  wanted.host_slots = host.of(workload);
  wanted.disk_slots = disk.of(workload);
  wanted.admission = options.admission;
  if (wanted.host_slots == 0) {
    return {Code::kInvalid,
            fmt::format("--host is less than one of the {} distinct blocks of {}; give more",
                        workload.unique_blocks(), path)};
  }
  const std::uint64_t slots = std::uint64_t{wanted.host_slots} + wanted.disk_slots;
  const std::uint64_t optimum = trace::optimum_hits(workload, slots);
  for (const std::string& policy : options.policies) {
    wanted.eviction = policy;
    TERRACE_ASSIGN_OR_RETURN(auto replay, trace::Replay::create(wanted));
    const Row row{path,   policy, wanted.host_slots, wanted.disk_slots, replay.run(workload),
                  optimum};
    out += options.is_json ? row_json(row) : row_text(row);
  }
  return {};
}

}  // namespace

Answer run_simulate(const SimulateOptions& options) {
  const auto host = parse_tier_size(options.host);
  const auto disk = parse_tier_size(options.disk);
  if (!host || !disk) {
    return failed(kUsage, fmt::format("{}: give a share of the distinct blocks such as 2%, or a "
                                      "number of blocks",
                                      host ? "--disk " + options.disk : "--host " + options.host));
  }
  for (const std::string& policy : options.policies) {  // Before a long trace is read.
    if (const auto made = policy::make_eviction(policy, 1); !made) {
      return failed(kUsage, "--policy " + policy + ": " + made.error().message());
    }
  }
  if (const auto made = policy::make_admission(options.admission, {}); !made) {
    return failed(kUsage, "--admission " + options.admission + ": " + made.error().message());
  }
  Answer answer;
  for (const std::string& path : options.traces) {
    const Status status = simulate(path, options, *host, *disk, answer.out);
    if (status.is_ok()) continue;
    answer.exit_code = kFailed;
    answer.error += fmt::format("terrace simulate: {}\n", status.message());
  }
  return answer;
}

}  // namespace terrace::cli
