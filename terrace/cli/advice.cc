#include "terrace/cli/advice.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>

#include "terrace/cli/json_in.h"
#include "terrace/policy/curve/two_pools.h"

namespace terrace::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kDay = 86'400;
constexpr std::uint64_t kTelling = 1000;  // Blocks; with fewer the table is a guess.
constexpr std::size_t kMostHosts = 6;
constexpr std::uint64_t kDiskFactors[] = {0, 4, 16, 64};

struct Point {
  std::uint64_t bytes;
  double percent;
};

class Curve {
 public:
  explicit Curve(const Json& forecast)
      : disk_has_copies_(!forecast.contains("disk_has_copies") ||
                         is_true_in(forecast, "disk_has_copies")) {
    for (const Json& point : part_of(forecast, "curve", Json::value_t::array)) {
      points_.push_back({count_in(point, "bytes"), number_in(point, "hit_percent")});
    }
    std::erase_if(points_, [](const Point& point) { return point.bytes == 0; });
    std::ranges::sort(points_, {}, &Point::bytes);
  }
  [[nodiscard]] const std::vector<Point>& points() const { return points_; }
  [[nodiscard]] double of(const TierSizes& sizes) const {
    const auto ratio = [this](std::uint64_t bytes) { return at(bytes) / 100; };
    return at(policy::size_of_two(ratio, sizes.host, sizes.disk, disk_has_copies_));
  }

 private:
  // Between two points in proportion to the size's logarithm.
  [[nodiscard]] double at(std::uint64_t bytes) const {
    const auto next = std::ranges::lower_bound(points_, bytes, {}, &Point::bytes);
    if (next == points_.end()) return points_.empty() ? 0 : points_.back().percent;
    if (next->bytes == bytes) return next->percent;
    if (next == points_.begin()) {
      return next->percent * static_cast<double>(bytes) / static_cast<double>(next->bytes);
    }
    const Point& before = *std::prev(next);
    const double part =
        std::log2(static_cast<double>(bytes) / static_cast<double>(before.bytes)) /
        std::log2(static_cast<double>(next->bytes) / static_cast<double>(before.bytes));
    return before.percent + part * (next->percent - before.percent);
  }

  bool disk_has_copies_;
  std::vector<Point> points_;
};

// Sizes between where the curve leaves what the engine has and where it ends to rise; none that
// usual prompts do not fit into.
std::vector<std::uint64_t> hosts_of(const Curve& curve, double engine_percent,
                                    std::uint64_t least) {
  std::vector<std::uint64_t> hosts;
  if (curve.points().empty()) return hosts;
  const double most = curve.points().back().percent;
  for (const Point& point : curve.points()) {
    if (!std::has_single_bit(point.bytes)) continue;
    if (point.bytes < least) continue;
    if (point.percent <= engine_percent + 0.5 && point.percent < most) continue;
    hosts.push_back(point.bytes);
    if (hosts.size() == kMostHosts || point.percent >= most - 0.5) break;
  }
  return hosts;
}

std::vector<TierSizes> sizes_of(const Curve& curve, double engine_percent, std::uint64_t least) {
  std::vector<TierSizes> all;
  const double most = curve.points().empty() ? 0 : curve.points().back().percent;
  for (const std::uint64_t host : hosts_of(curve, engine_percent, least)) {
    for (const std::uint64_t factor : kDiskFactors) {
      const std::uint64_t disk = factor * host;
      all.push_back({host, disk});
      if (curve.of({host, disk}) >= most - 0.5) break;
    }
  }
  return all;
}

std::optional<TierSizes> best_of(const std::vector<AdviceRow>& rows) {
  const auto most = std::ranges::max_element(rows, {}, &AdviceRow::beyond_percent);
  if (most == rows.end() || most->beyond_percent < 1) return std::nullopt;
  for (const AdviceRow& row : rows) {  // Memory is dearer than disk: the smallest host first.
    if (row.beyond_percent >= 0.9 * most->beyond_percent) return row.sizes;
  }
  return std::nullopt;
}

Json settings_json(const TierSizes& sizes) {
  Json settings{{"host.size", size_name(sizes.host)}};
  if (sizes.disk > 0) settings["disk.size"] = size_name(sizes.disk);
  return settings;
}

std::string time_name(double seconds) {
  if (seconds < 2 * 3600) return fmt::format("{:.0f} min", seconds / 60);
  return fmt::format("{:.0f} h", seconds / 3600);
}

double rounded(double value) { return std::round(value * 100) / 100; }

}  // namespace

Advice advice_of(std::string_view status, std::optional<TierSizes> wanted) {
  const Json json = Json::parse(status, nullptr, /*allow_exceptions=*/false);
  const Json forecast = part_of(json, "forecast", Json::value_t::object);
  const Curve curve(forecast);
  Advice advice;
  advice.blocks_asked = count_in(forecast, "blocks_asked");
  // Rates of the time that the curve is of; an older engine tells of all its time alone.
  advice.window_seconds = number_in(forecast, "window_seconds");
  const Json& told = advice.window_seconds > 0 ? forecast : json;
  const double tokens = number_in(told, "prompt_tokens");
  const double seconds =
      advice.window_seconds > 0 ? advice.window_seconds : number_in(json, "uptime_seconds");
  if (tokens > 0) advice.engine_percent = 100 * number_in(told, "engine_tokens") / tokens;
  if (seconds > 0) advice.tokens_per_second = tokens / seconds;
  advice.prefill_tokens_per_second = number_in(json, "prefill_tokens_per_second");
  advice.least_host = count_in(forecast, "least_host_bytes");
  const double block_tokens = std::max(1.0, number_in(forecast, "block_tokens"));
  const double bytes_per_token = number_in(forecast, "block_bytes") / block_tokens;
  const double a_day = advice.tokens_per_second * kDay;
  const auto all =
      wanted ? std::vector{*wanted} : sizes_of(curve, advice.engine_percent, advice.least_host);
  for (const TierSizes& sizes : all) {
    AdviceRow row{.sizes = sizes};
    row.hit_percent = curve.of(sizes);
    row.beyond_percent = std::max(0.0, row.hit_percent - advice.engine_percent);
    if (advice.prefill_tokens_per_second > 0) {
      row.saved_seconds = row.beyond_percent / 100 * a_day / advice.prefill_tokens_per_second;
    }
    if (sizes.disk > 0) row.written_bytes = (100 - row.hit_percent) / 100 * a_day * bytes_per_token;
    advice.rows.push_back(row);
  }
  if (!wanted) advice.best = best_of(advice.rows);
  return advice;
}

std::string size_name(std::uint64_t bytes) {
  constexpr std::pair<std::uint64_t, const char*> kUnits[] = {
      {1ULL << 40U, "TiB"}, {1ULL << 30U, "GiB"}, {1ULL << 20U, "MiB"}, {1ULL << 10U, "KiB"}};
  for (const auto& [unit, name] : kUnits) {
    if (bytes >= unit && bytes % unit == 0) return fmt::format("{}{}", bytes / unit, name);
  }
  return fmt::format("{}", bytes);
}

std::string settings_of(const TierSizes& sizes) { return settings_json(sizes).dump(); }

std::string advice_text(const Advice& advice, std::string_view engine) {
  const bool is_timed = advice.prefill_tokens_per_second > 0;
  const std::string speed =
      is_timed ? fmt::format("computes {:.0f} a second", advice.prefill_tokens_per_second)
               : "how fast it computes is not known yet";
  std::string out = fmt::format(
      "{}: {:.0f} prompt tokens a second, {:.1f} % of them in the engine's own cache; {}\n", engine,
      advice.tokens_per_second, advice.engine_percent, speed);
  auto end = std::back_inserter(out);
  if (advice.rows.empty()) {
    out += "  no prompt was asked for yet: ask again when users have been there\n";
    return out;
  }
  if (advice.blocks_asked < kTelling) {
    fmt::format_to(end, "  learned from {} blocks only: ask again later\n", advice.blocks_asked);
  } else if (advice.window_seconds > 0) {
    fmt::format_to(end, "  all that of the last {}\n", time_name(advice.window_seconds));
  }
  if (advice.rows.front().sizes.host < advice.least_host) {
    fmt::format_to(end,
                   "  a host below {:.1f} GB lends no request as many blocks as the longest usual "
                   "prompts ask for (lookup.pin_share): their hits are cut\n",
                   static_cast<double>(advice.least_host) * 1e-9);
  }
  fmt::format_to(end, "  {:>8} {:>8} {:>16} {:>16} {:>14}\n", "host", "disk", "hits beyond it",
                 "computing saved", "written");
  for (const AdviceRow& row : advice.rows) {
    fmt::format_to(
        end, "  {:>8} {:>8} {:>14.1f} % {:>16} {:>8.1f} GB a day{}\n", size_name(row.sizes.host),
        row.sizes.disk > 0 ? size_name(row.sizes.disk) : "–", row.beyond_percent,
        is_timed ? fmt::format("{:.0f} s a day", row.saved_seconds) : "–", row.written_bytes * 1e-9,
        advice.best && advice.best->host == row.sizes.host && advice.best->disk == row.sizes.disk
            ? "  <"
            : "");
  }
  if (advice.best) {
    fmt::format_to(end, "  settings to paste: {}\n", settings_of(*advice.best));
  } else if (advice.rows.size() > 1) {
    out += "  no size gains a point: this engine's own cache is enough\n";
  }
  return out;
}

std::string advice_json(const Advice& advice, std::string_view engine) {
  const bool is_timed = advice.prefill_tokens_per_second > 0;
  Json rows = Json::array();
  for (const AdviceRow& row : advice.rows) {
    rows.push_back(
        {{"host_bytes", row.sizes.host},
         {"disk_bytes", row.sizes.disk},
         {"hit_percent", rounded(row.hit_percent)},
         {"beyond_engine_percent", rounded(row.beyond_percent)},
         {"saved_prefill_seconds_per_day", is_timed ? Json(rounded(row.saved_seconds)) : Json()},
         {"written_bytes_per_day", std::llround(row.written_bytes)},
         {"settings", settings_json(row.sizes)}});
  }
  Json out{{"engine", engine},
           {"blocks_asked", advice.blocks_asked},
           {"window_seconds", rounded(advice.window_seconds)},
           {"least_host_bytes", advice.least_host},
           {"engine_hit_percent", rounded(advice.engine_percent)},
           {"prompt_tokens_per_second", rounded(advice.tokens_per_second)},
           {"prefill_tokens_per_second", rounded(advice.prefill_tokens_per_second)},
           {"rows", std::move(rows)}};
  out["advice"] = advice.best ? settings_json(*advice.best) : Json();
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace terrace::cli
