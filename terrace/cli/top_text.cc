#include "terrace/cli/top_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>

#include "terrace/cli/json_in.h"
#include "terrace/cli/why_text.h"

namespace terrace::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kColumns = 79;
constexpr std::size_t kBar = 16;

Json parsed(const std::string& text) {
  return Json::parse(text, nullptr, /*allow_exceptions=*/false);
}

std::string line_of(std::string_view text) { return plain(text, kColumns) + '\n'; }

std::string bar(double share) {
  const auto full = static_cast<std::size_t>(std::lround(std::clamp(share, 0.0, 1.0) * kBar));
  return fmt::format("[{:#<{}}{:{}}]", "", full, "", kBar - full);
}

// "12", "1.2k", "3.4M": five columns at most.
std::string count_name(double count) {
  constexpr std::pair<double, const char*> kUnits[] = {
      {1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}};
  for (const auto& [size, unit] : kUnits) {
    if (count < size) continue;
    return fmt::format("{:.{}f}{}", count / size, count < 10 * size ? 1 : 0, unit);
  }
  return fmt::format("{:.{}f}", count,
                     count > 0 && count < 10 && count != std::floor(count) ? 1 : 0);
}

// What came between two statuses, or since the start.
class Change {
 public:
  explicit Change(const TopEngine& engine)
      : now_(parsed(engine.status)), before_(Json::object()), seconds_(engine.seconds) {
    if (!engine.before.empty() && engine.seconds > 0) before_ = parsed(engine.before);
    // An engine that was started anew counts anew.
    const bool is_same = number_in(before_, "process") == number_in(now_, "process");
    has_before_ = !engine.before.empty() && engine.seconds > 0 && is_same;
    if (!has_before_) {
      before_ = Json::object();
      seconds_ = number_in(now_, "uptime_seconds");
    }
  }
  [[nodiscard]] const Json& now() const { return now_; }
  [[nodiscard]] bool has_before() const { return has_before_; }
  [[nodiscard]] double of(const char* name) const {
    return std::max(0.0, number_in(now_, name) - number_in(before_, name));
  }
  // Of a number in an object.
  [[nodiscard]] double of(const char* object, const char* name) const {
    const Json now = part_of(now_, object, Json::value_t::object);
    const Json before = part_of(before_, object, Json::value_t::object);
    return std::max(0.0, number_in(now, name) - number_in(before, name));
  }
  [[nodiscard]] double per_second(double count) const {
    return seconds_ > 0 ? count / seconds_ : 0;
  }

 private:
  Json now_;
  Json before_;
  double seconds_;
  bool has_before_ = false;
};

std::string head_text(const TopEngine& engine, const Json& status) {
  const std::string state =
      fmt::format("health {}, mode {}{}, up {}", text_in(status, "health"), text_in(status, "mode"),
                  is_true_in(status, "ready") ? "" : ", not ready yet",
                  duration_name(number_in(status, "uptime_seconds") * 1e9));
  const std::string whole = fmt::format("{}: {}", engine.name, state);
  // An id that nobody chose is a UUID; what is wrong must not be what it pushes out.
  std::string out =
      whole.size() <= kColumns ? line_of(whole) : line_of(engine.name) + line_of("  " + state);
  for (const Json& problem : part_of(status, "problems", Json::value_t::array)) {
    if (!problem.is_string()) continue;
    out += line_of(fmt::format("  problem: {}", problem.get<std::string>()));
  }
  return out;
}

std::string flow_text(const Change& change) {
  std::string out = line_of(fmt::format(
      "  rate    {} requests/s, {} tokens/s{}; {:.0f} run; computes {}/s",
      count_name(change.per_second(change.of("requests"))),
      count_name(change.per_second(change.of("prompt_tokens"))),
      change.has_before() ? "" : " since its start", number_in(change.now(), "active_requests"),
      count_name(number_in(change.now(), "prefill_tokens_per_second"))));
  const double prompt = change.of("prompt_tokens");
  if (prompt <= 0) return out + line_of("  tokens  none");
  const double engine = change.of("engine_tokens");
  double rest = std::max(0.0, prompt - engine);
  std::string shares =
      fmt::format("  tokens  engine {:.1f}%", std::min(100.0, 100 * engine / prompt));
  for (const char* tier : {"host", "disk", "object"}) {
    const double hit = change.of("hit_tokens", tier);
    rest = std::max(0.0, rest - hit);
    fmt::format_to(std::back_inserter(shares), ", {} {:.1f}%", tier,
                   std::min(100.0, 100 * hit / prompt));
  }
  return out + line_of(shares + fmt::format(", computed {:.1f}%", 100 * rest / prompt));
}

std::string tiers_text(const Json& status) {
  std::string out;
  for (const Json& tier : part_of(status, "tiers", Json::value_t::array)) {
    const std::string state = text_in(tier, "state", "off");
    if (state == "off") continue;
    const Json slots = part_of(tier, "slots", Json::value_t::object);
    double all = 0;
    for (const auto& [name, count] : slots.items()) {
      if (count.is_number() && name != "pinned") all += count.template get<double>();
    }
    const double sealed = number_in(slots, "sealed");
    const std::string name =
        fmt::format("  {:<7} {:<7}", plain(text_in(tier, "tier"), 7), plain(state, 7));
    if (all > 0) {
      out += line_of(fmt::format("{} {} {:>3.0f}%  {} blocks, {} pinned, {} free", name,
                                 bar(sealed / all), 100 * sealed / all, count_name(sealed),
                                 count_name(number_in(slots, "pinned")),
                                 count_name(number_in(slots, "free"))));
    } else {
      out += line_of(fmt::format("{} {}", name, text_in(tier, "detail", "")));
    }
  }
  return out;
}

std::string misses_text(const Change& change) {
  std::string counts;
  const Json now = part_of(change.now(), "miss_blocks", Json::value_t::object);
  for (const auto& [reason, count] : now.items()) {
    const double missed = change.of("miss_blocks", reason.c_str());
    if (missed <= 0) continue;
    fmt::format_to(std::back_inserter(counts), "{} {} {}", counts.empty() ? "" : ",",
                   plain(reason, 15), count_name(missed));
  }
  std::string out = line_of(fmt::format("  missed {} blocks", counts.empty() ? " no" : counts));
  out += line_of(
      fmt::format("  loads   {:.0f}, {:.0f} failed, {:.0f} slower than computing, {:.0f} given up",
                  change.of("loads"), change.of("failed_loads"), change.of("slow_loads"),
                  change.of("abandoned_loads")));
  std::string queues;
  for (const Json& queue : part_of(change.now(), "queues", Json::value_t::array)) {
    const double waiting = number_in(queue, "waiting");
    const double dropped = number_in(queue, "dropped");
    if (waiting <= 0 && dropped <= 0) continue;
    fmt::format_to(std::back_inserter(queues), "{} {} {} waiting, {} dropped",
                   queues.empty() ? "" : ";", plain(text_in(queue, "name"), 12),
                   count_name(waiting), count_name(dropped));
  }
  if (!queues.empty()) out += line_of("  queues " + queues);
  return out;
}

std::string requests_text(const std::string& text, std::size_t most, std::int64_t now) {
  std::string out;
  const Json ledgers = parsed(text);
  for (const Json& one : part_of(ledgers, "ledgers", Json::value_t::array)) {
    if (most-- == 0) break;
    out += ledger_line(one.dump(-1, ' ', true, Json::error_handler_t::replace), now);
  }
  return out.empty() ? out : ledger_heading() + out;
}

}  // namespace

std::string top_text(const std::vector<TopEngine>& engines, std::size_t requests,
                     std::int64_t now) {
  std::string out;
  for (const TopEngine& engine : engines) {
    if (!out.empty()) out += '\n';
    const Change change(engine);
    out += head_text(engine, change.now());
    out += flow_text(change);
    out += tiers_text(change.now());
    out += misses_text(change);
    out += requests_text(engine.ledgers, requests, now);
  }
  return out;
}

std::string cropped(const std::string& text, std::size_t rows, std::size_t columns) {
  const auto lines = static_cast<std::size_t>(std::ranges::count(text, '\n'));
  const std::size_t shown = lines <= rows ? lines : std::max<std::size_t>(rows, 1) - 1;
  std::string out;
  std::string_view left = text;
  const auto add = [&](std::string_view line) {
    out += line.substr(0, columns);
    out += '\n';
  };
  for (std::size_t i = 0; i < shown; ++i) {
    const std::string_view line = left.substr(0, left.find('\n'));
    left.remove_prefix(line.size() + 1);
    add(line);
  }
  if (shown < lines && rows > 0)
    add(fmt::format("({} more lines: a taller window, or --engine)", lines - shown));
  return out;
}

}  // namespace terrace::cli
