#include "terrace/cli/live_text.h"

#include <fmt/format.h>

#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "terrace/cli/json_in.h"

namespace terrace::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kTellingBlocks = 1000;  // Fewer say little about what other sizes would hold.

// Paths and reasons may be in any language, and hold any byte.
std::string printable(std::string text) {
  for (char& c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) c = '?';
  }
  return text;
}

std::string gigabytes(double bytes) { return fmt::format("{:.2f} GB", bytes * 1e-9); }

template <typename... Values>
void add(std::string& out, fmt::format_string<Values...> text, Values&&... values) {
  fmt::format_to(std::back_inserter(out), text, std::forward<Values>(values)...);
}

void add_counts(const Json& status, const char* field, std::string_view title, std::string& out) {
  std::string counts;
  const Json all = part_of(status, field, Json::value_t::object);
  for (const auto& [name, value] : all.items()) {
    if (value.is_number() && value != 0) counts += fmt::format(" {} {}", name, value.dump());
  }
  if (!counts.empty()) add(out, "  {}:{}\n", title, printable(counts));
}

void add_flow(const Json& flow, std::string& out) {
  const double written = number_in(flow, "written_bytes");
  const double served = number_in(flow, "served_bytes");
  if (written > 0 || served > 0) {
    add(out, "    written {}, served {}", gigabytes(written), gigabytes(served));
    if (served > 0) add(out, " ({:.2f} written per byte served)", written / served);
    add(out, "; {:.0f} blocks refused by admission\n", number_in(flow, "dropped_admission"));
  }
  if (const double budget = number_in(flow, "write_budget_bytes"); budget > 0) {
    add(out, "    write budget {} in 24 h, {} of it now; {:.0f} blocks dropped\n",
        gigabytes(budget), gigabytes(number_in(flow, "write_budget_left")),
        number_in(flow, "dropped_write_budget"));
  }
}

void add_tiers(const Json& status, std::string& out) {
  for (const Json& tier : part_of(status, "tiers", Json::value_t::array)) {
    if (!tier.is_object() || text_in(tier, "state", "off") == "off") continue;
    const std::string name = printable(text_in(tier, "tier"));
    add(out, "  {}: {}", name, printable(text_in(tier, "state")));
    // A shared store has packs and no slots.
    if (name != "object") {
      const Json slots = part_of(tier, "slots", Json::value_t::object);
      add(out, ", {:.0f} blocks, {:.0f} slots free", number_in(slots, "sealed"),
          number_in(slots, "free"));
    }
    add(out, "; {}\n", printable(text_in(tier, "detail", "")));
    if (name == "disk") add_flow(part_of(status, "disk_flow", Json::value_t::object), out);
  }
}

// Those in which something waits, or was dropped; ranks that are not as they should be.
void add_lists(const Json& status, std::string& out) {
  for (const Json& queue : part_of(status, "queues", Json::value_t::array)) {
    const double waiting = number_in(queue, "waiting");
    const double dropped = number_in(queue, "dropped");
    if (waiting <= 0 && dropped <= 0) continue;
    add(out, "  queue {}: {:.0f} waiting", printable(text_in(queue, "name")), waiting);
    if (const double most = number_in(queue, "capacity"); most > 0) add(out, " of {:.0f}", most);
    add(out, ", {:.0f} dropped\n", dropped);
  }
  for (const Json& rank : part_of(status, "attachments", Json::value_t::array)) {
    const std::string detail = printable(text_in(rank, "detail", ""));
    const bool is_attached = is_true_in(rank, "attached");
    if (!rank.is_object() || (is_attached && detail.empty())) continue;
    add(out, "  rank {:.0f}: {}{}{}\n", number_in(rank, "rank"),
        is_attached ? "attached" : "not attached", detail.empty() ? "" : ", ", detail);
  }
  const Json scrub = part_of(status, "scrub", Json::value_t::object);
  if (number_in(scrub, "pass") > 0) {
    const char* const state = !is_true_in(scrub, "running") ? "done"
                              : is_true_in(scrub, "held")   ? "held"
                                                            : "running";
    add(out, "  scrub: pass {:.0f} {}, {:.0f} %: {:.0f} blocks good, {:.0f} bad, {:.0f} skipped\n",
        number_in(scrub, "pass"), state, 100 * number_in(scrub, "progress"),
        number_in(scrub, "good_blocks"), number_in(scrub, "bad_blocks"),
        number_in(scrub, "skipped_blocks"));
  }
}

void add_measured(const Json& status, std::string& out) {
  std::string speeds;
  const Json rates = part_of(status, "load_bytes_per_second", Json::value_t::object);
  for (const auto& [tier, rate] : rates.items()) {
    if (rate.is_number() && rate > 0) {
      add(speeds, " {} {:.2f} GB/s,", printable(tier), rate.template get<double>() * 1e-9);
    }
  }
  const double prefill = number_in(status, "prefill_tokens_per_second");
  if (!speeds.empty() || prefill > 0) {
    add(out, "  measured:{} prefill {:.0f} tokens/s\n", speeds, prefill);
  }
  std::string plans;
  const Json ratios = part_of(status, "plan_ratios", Json::value_t::object);
  for (const auto& [tier, ratio] : ratios.items()) {
    add(plans, "{} {} {:.0f} % (p90 {:.0f} %)", plans.empty() ? "" : ",", printable(tier),
        100 * number_in(ratio, "p50"), 100 * number_in(ratio, "p90"));
  }
  if (plans.empty()) return;
  add(out, "  planned loads took of what was predicted:{}; {:.0f} slower than computing\n", plans,
      number_in(status, "slow_loads"));
}

void add_checked(const Json& shadow, std::string& out) {
  if (const std::string why = text_in(shadow, "why_none", ""); !why.empty()) {
    add(out, "  checked hits: none: {}\n", printable(why));
  } else if (number_in(shadow, "requests") > 0) {
    add(out,
        "  checked hits: {:.0f} requests, {:.0f} tokens; blocks: {:.0f} equal, {:.0f} within the "
        "noise floor, {:.0f} beyond it, {:.0f} not compared\n",
        number_in(shadow, "requests"), number_in(shadow, "tokens"),
        number_in(shadow, "equal_blocks"), number_in(shadow, "within_blocks"),
        number_in(shadow, "beyond_blocks"), number_in(shadow, "skipped_blocks"));
  }
}

// One line a tier: `host would hold of the blocks asked for: 12.1 % with 1.00 GB, …`.
void add_forecast(const Json& forecast, std::string& out) {
  if (number_in(forecast, "blocks_asked") < kTellingBlocks) return;
  std::string last;
  for (const Json& one : part_of(forecast, "sizes", Json::value_t::array)) {
    const std::string tier = text_in(one, "tier");
    if (tier != last) {
      add(out, "{}  {} would hold of the blocks asked for:", last.empty() ? "" : "\n",
          tier == "host" ? "host" : "host and disk");
    } else {
      out += ',';
    }
    add(out, " {:.1f} % with {}{}", number_in(one, "hit_percent"),
        gigabytes(number_in(one, "bytes")), number_in(one, "factor") == 1 ? " (now)" : "");
    last = tier;
  }
  if (!last.empty()) out += '\n';
}

}  // namespace

std::string live_text(std::string_view name, std::string_view status) {
  const Json json = Json::parse(status, nullptr, /*allow_exceptions=*/false);
  std::string out;
  add(out, "{}: health {}, mode {}, {}, up {:.0f} s\n", printable(std::string(name)),
      printable(text_in(json, "health")), printable(text_in(json, "mode")),
      is_true_in(json, "ready") ? "ready" : "not ready yet", number_in(json, "uptime_seconds"));
  for (const Json& problem : part_of(json, "problems", Json::value_t::array)) {
    add(out, "  problem: {}\n",
        problem.is_string() ? printable(problem.get<std::string>()) : std::string("?"));
  }
  if (const std::string page = text_in(json, "page", ""); !page.empty()) {
    add(out, "  page: {}\n", printable(page));
  }
  add_tiers(json, out);
  add_lists(json, out);
  add_counts(json, "hit_tokens", "hit tokens", out);
  add_counts(json, "miss_blocks", "missed blocks", out);
  add_measured(json, out);
  add_checked(part_of(json, "shadow", Json::value_t::object), out);
  add_forecast(part_of(json, "forecast", Json::value_t::object), out);
  return out;
}

}  // namespace terrace::cli
