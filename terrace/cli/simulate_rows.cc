#include "terrace/cli/simulate_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace terrace::cli {
namespace {

using trace::EngineTimes;

constexpr std::size_t kWidth = 80;

double rounded(double value, double steps = 100) { return std::round(value * steps) / steps; }

double seconds_of(Nanoseconds time) { return static_cast<double>(time.value()) * 1e-9; }

// Of all that were asked for.
double per_100(const SimulateRow& row, std::uint64_t blocks) {
  return row.all_blocks == 0
             ? 0
             : 100.0 * static_cast<double>(blocks) / static_cast<double>(row.all_blocks);
}
double writes_per_100(const SimulateRow& row) { return per_100(row, row.counts.disk_writes); }

// A point of time on three digits or more.
std::string duration_text(Nanoseconds time) {
  const double value = seconds_of(time);
  if (value >= 100) return fmt::format("{:.0f} s", value);
  if (value >= 1) return fmt::format("{:.2f} s", value);
  return fmt::format("{:.0f} ms", value * 1e3);
}

std::string bytes_text(double bytes) {
  if (bytes >= 1e12) return fmt::format("{:.2f} TB", bytes / 1e12);
  return fmt::format("{:.1f} GB", bytes / 1e9);
}

// The end of it, which says more than the folders.
std::string cut(const std::string& text, std::size_t width) {
  if (text.size() <= width) return text;
  return "..." + text.substr(text.size() - (width - 3));
}

std::string title_of(const SimulateRow& row, std::size_t width) {
  const std::string mixed = row.scenario.empty() ? "" : ", with " + row.scenario;
  return cut(row.trace, width - std::min(width - 8, mixed.size())) + mixed;
}

}  // namespace

std::string row_json(const SimulateRow& row) {
  const trace::Counts& counts = row.counts;
  const EngineTimes& times = row.times;
  const auto quantile = [](const std::vector<Nanoseconds>& of, double share) {
    return rounded(seconds_of(EngineTimes::quantile(of, share)), 1e4);
  };
  nlohmann::ordered_json json{{"trace", row.trace},
                              {"policy", row.policy},
                              {"admission", row.admission},
                              {"write", row.write},
                              {"scope", row.scope},
                              {"host_blocks", row.host_blocks},
                              {"disk_blocks", row.disk_blocks},
                              {"unique_blocks", row.unique_blocks},
                              {"requests", counts.requests},
                              {"prompt_blocks", counts.blocks},
                              {"host_hit_percent", rounded(counts.percent(counts.host_hits))},
                              {"disk_hit_percent", rounded(counts.percent(counts.disk_hits))},
                              {"stores_per_100", rounded(per_100(row, row.counts.stores))},
                              {"disk_writes_per_100", rounded(writes_per_100(row))},
                              {"disk_write_bytes", counts.disk_writes * row.block_bytes},
                              {"optimum_percent", rounded(counts.percent(row.optimum_hits))},
                              {"loaded_percent", rounded(counts.percent(times.loaded_blocks))},
                              {"abandoned_loads", times.abandoned_loads},
                              {"saved_prefill_seconds", rounded(seconds_of(times.saved_prefill))},
                              {"ttft_p50_seconds", quantile(times.first_token, 0.5)},
                              {"ttft_p99_seconds", quantile(times.first_token, 0.99)},
                              {"off_ttft_p50_seconds", quantile(times.off, 0.5)},
                              {"off_ttft_p99_seconds", quantile(times.off, 0.99)},
                              {"regret_percent", rounded(times.regret_percent())}};
  if (!row.scenario.empty()) {
    json["scenario"] = row.scenario;
    json["scenario_blocks"] = row.all_blocks - counts.blocks;
    json["alone_hit_percent"] = rounded(counts.percent(row.alone_hits));
  }
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string row_text(const SimulateRow& row) {
  const trace::Counts& counts = row.counts;
  const EngineTimes& times = row.times;
  std::string text = fmt::format("{}: {}, host {} blocks, disk {}", title_of(row, 4096), row.policy,
                                 row.host_blocks, row.disk_blocks);
  if (row.disk_blocks > 0) text += " by " + row.admission;
  text += fmt::format("\n  hits {:.2f} % host, {:.2f} % disk", counts.percent(counts.host_hits),
                      counts.percent(counts.disk_hits));
  if (!row.scenario.empty()) {
    text += fmt::format(" ({:.2f} % alone)", counts.percent(row.alone_hits));
  }
  text += fmt::format("; optimum {:.2f} %\n", counts.percent(row.optimum_hits));
  if (row.disk_blocks > 0) {
    text += fmt::format(
        "  {:.2f} disk writes per 100 blocks, {}\n", writes_per_100(row),
        bytes_text(static_cast<double>(counts.disk_writes) * static_cast<double>(row.block_bytes)));
  }
  if (times.first_token.empty()) return text;
  const auto both = [&](double share) {
    return fmt::format("{} (off {})",
                       duration_text(EngineTimes::quantile(times.first_token, share)),
                       duration_text(EngineTimes::quantile(times.off, share)));
  };
  text +=
      fmt::format("  first token p50 {}, p99 {}; regret {:.2f} %; prefill saved {}\n", both(0.5),
                  both(0.99), times.regret_percent(), duration_text(times.saved_prefill));
  return text;
}

std::string chart_text(std::span<const SimulateRow> rows) {
  if (rows.empty()) return "";
  double most = 1;  // Percent.
  for (const SimulateRow& row : rows) {
    most = std::max({most, row.counts.percent(row.optimum_hits), row.counts.percent(row.hits())});
  }
  std::string text = title_of(rows.front(), kWidth) + "\n";
  text += fmt::format("hits in percent of {} prompt blocks, {} distinct; a bar of {:.0f} is full\n",
                      rows.front().counts.blocks, rows.front().unique_blocks, std::ceil(most));
  if (rows.front().disk_blocks > 0) {
    text += fmt::format("below host a disk of {} blocks by {}\n", rows.front().disk_blocks,
                        rows.front().admission);
  }
  text += fmt::format("{:>16}  {:<10} {:>6} {:>5}\n", "host", "policy", "hits", "gap");
  const auto line = [&](const std::string& size, const std::string& name, double percent,
                        const std::string& gap, char mark) {
    std::string one = fmt::format("{:>16}  {:<10} {:>6.2f} {:>5}  ", cut(size, 16), cut(name, 10),
                                  percent, cut(gap, 5));
    const double room = static_cast<double>(kWidth - one.size());
    one +=
        std::string(static_cast<std::size_t>(std::floor(percent / std::ceil(most) * room)), mark);
    text += one.substr(0, one.find_last_not_of(' ') + 1) + "\n";
  };
  for (std::size_t from = 0; from < rows.size();) {
    std::size_t to = from;
    while (to < rows.size() && rows[to].host_blocks == rows[from].host_blocks) ++to;
    const SimulateRow& base = rows[from];
    const double share = base.unique_blocks == 0 ? 0
                                                 : 100.0 * static_cast<double>(base.host_blocks) /
                                                       static_cast<double>(base.unique_blocks);
    for (std::size_t i = from; i < to; ++i) {
      const SimulateRow& row = rows[i];
      const double gap = static_cast<double>(base.optimum_hits) - static_cast<double>(base.hits());
      const double won = static_cast<double>(row.hits()) - static_cast<double>(base.hits());
      line(i == from ? fmt::format("{} {:>5.2f} %", base.host_blocks, share) : "", row.policy,
           row.counts.percent(row.hits()),
           i == from || gap <= 0 ? "" : fmt::format("{:.0f} %", 100 * won / gap), '#');
    }
    line("", "optimum", base.counts.percent(base.optimum_hits), "", '.');
    from = to;
  }
  return text;
}

}  // namespace terrace::cli
