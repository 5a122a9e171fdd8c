#include "terrace/serve/status_text.h"

#include <fmt/format.h>

#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

namespace terrace::serve {
namespace {

using Json = nlohmann::ordered_json;
using manager::StatusReport;
using manager::TierState;

// Fewer say little about what other sizes would hold.
constexpr std::uint64_t kTellingBlocks = 1000;

std::string_view state_name(TierState state) {
  switch (state) {
    case TierState::kOff:
      return "off";
    case TierState::kOpening:
      return "opening";
    case TierState::kOpen:
      return "open";
    case TierState::kFailed:
      return "failed";
  }
  return "?";
}

std::string_view health(const StatusReport& report) {
  return report.is_healthy && !report.is_poisoned ? "green" : "red";
}

std::string_view mode_text(manager::Mode mode) {
  switch (mode) {
    case manager::Mode::kOn:
      return "";
    case manager::Mode::kReadOnly:
      return "mode: readonly: hits are served, nothing is stored; terrace resume ends it\n";
    case manager::Mode::kPaused:
      return "mode: paused: every look-up misses, nothing is stored; terrace resume ends it\n";
    case manager::Mode::kObserve:
      return "mode: observe: nothing is stored or loaded; terrace advise tells what tiers would "
             "do\n";
  }
  return "";
}

double in_seconds(Nanoseconds time) { return static_cast<double>(time.value()) * 1e-9; }

Json tiers_json(const StatusReport& report) {
  Json out = Json::array();
  for (const manager::TierStatus& tier : report.tiers) {
    Json slots = Json::object();
    for (int i = 0; i < catalog::kSlotStateCount; ++i) {
      slots[std::string(catalog::to_string(static_cast<catalog::SlotState>(i)))] =
          tier.slots.at(static_cast<std::size_t>(i));
    }
    slots["pinned"] = tier.pinned;
    out.push_back({{"tier", to_string(tier.tier)},
                   {"state", state_name(tier.state)},
                   {"detail", tier.detail},
                   {"capacity_bytes", tier.capacity.value()},
                   {"slots", std::move(slots)}});
  }
  return out;
}

Json lists_json(const StatusReport& report, Json out) {
  out["queues"] = Json::array();
  for (const manager::QueueStatus& queue : report.queues) {
    out["queues"].push_back({{"name", queue.name},
                             {"waiting", queue.waiting},
                             {"capacity", queue.capacity},
                             {"dropped", queue.dropped}});
  }
  out["attachments"] = Json::array();
  for (const manager::AttachmentStatus& one : report.attachments) {
    out["attachments"].push_back({{"rank", one.rank.value()},
                                  {"epoch", one.epoch.value()},
                                  {"process", one.process},
                                  {"attached", one.is_attached},
                                  {"detail", one.detail}});
  }
  out["namespaces"] = Json::array();
  for (const manager::NamespaceStatus& one : report.namespaces) {
    out["namespaces"].push_back({{"content", one.content},
                                 {"layout", one.layout},
                                 {"blocks", one.blocks},
                                 {"ours", one.is_ours}});
  }
  return out;
}

double written_per_served(const manager::DiskFlowStatus& flow) {
  if (flow.served_bytes == 0) return 0;
  return static_cast<double>(flow.written_bytes) / static_cast<double>(flow.served_bytes);
}

Json flow_json(const manager::DiskFlowStatus& flow) {
  return {{"written_bytes", flow.written_bytes},
          {"served_bytes", flow.served_bytes},
          {"written_per_served", written_per_served(flow)},
          {"write_budget_bytes", flow.budget_bytes},
          {"write_budget_left", flow.budget_left},
          {"dropped_admission", flow.dropped_admission},
          {"dropped_write_budget", flow.dropped_budget}};
}

double gigabytes(double bytes) { return bytes * 1e-9; }

void write_flow(const manager::DiskFlowStatus& flow, std::string& out) {
  auto end = std::back_inserter(out);
  fmt::format_to(end, "  written {:.2f} GB, served {:.2f} GB",
                 gigabytes(static_cast<double>(flow.written_bytes)),
                 gigabytes(static_cast<double>(flow.served_bytes)));
  if (flow.served_bytes > 0) {
    fmt::format_to(end, " ({:.2f} written per byte served)", written_per_served(flow));
  }
  fmt::format_to(end, "; {} blocks refused by admission\n", flow.dropped_admission);
  if (flow.budget_bytes == 0) return;
  fmt::format_to(end, "  write budget {:.2f} GB in 24 h, {:.2f} GB of it now; {} blocks dropped\n",
                 gigabytes(static_cast<double>(flow.budget_bytes)),
                 gigabytes(static_cast<double>(flow.budget_left)), flow.dropped_budget);
}

Json forecast_json(const manager::ForecastStatus& forecast) {
  Json sizes = Json::array();
  for (const manager::SizeForecastStatus& one : forecast.sizes) {
    sizes.push_back({{"tier", to_string(one.tier)},
                     {"factor", one.factor},
                     {"bytes", one.size.value()},
                     {"hit_percent", one.hit_percent}});
  }
  Json curve = Json::array();
  for (const manager::CurvePoint& point : forecast.curve) {
    curve.push_back({{"bytes", point.size.value()}, {"hit_percent", point.hit_percent}});
  }
  return {{"blocks_asked", forecast.blocks_asked},
          {"sizes", std::move(sizes)},
          {"block_bytes", forecast.block.value()},
          {"block_tokens", forecast.block_tokens.value()},
          {"curve", std::move(curve)}};
}

// One line a tier: `host would hold 12.1 % of all blocks asked for at 1.00 GB, …`.
void write_forecast(const manager::ForecastStatus& forecast, std::string& out) {
  if (forecast.blocks_asked < kTellingBlocks) return;
  auto end = std::back_inserter(out);
  std::optional<Tier> last;
  for (const manager::SizeForecastStatus& one : forecast.sizes) {
    if (last != one.tier) {
      if (last) out += '\n';
      fmt::format_to(end, "{} would hold of the blocks asked for:",
                     one.tier == Tier::kHost ? "host" : "host and disk");
    } else {
      out += ',';
    }
    fmt::format_to(end, " {:.1f} % with {:.2f} GB{}", one.hit_percent,
                   gigabytes(static_cast<double>(one.size.value())),
                   one.factor == 1 ? " (now)" : "");
    last = one.tier;
  }
  if (last) out += '\n';
}

template <typename Values>
Json per_tier_json(const Values& values) {
  Json out = Json::object();
  for (int i = 0; i < kTierCount; ++i) {
    out[std::string(to_string(static_cast<Tier>(i)))] = values.at(static_cast<std::size_t>(i));
  }
  return out;
}

Json misses_json(const StatusReport& report) {
  Json out = Json::object();
  for (int i = 0; i < manager::kMissReasonCount; ++i) {
    out[std::string(manager::to_string(static_cast<manager::MissReason>(i)))] =
        report.miss_blocks.at(static_cast<std::size_t>(i));
  }
  return out;
}

Json scrub_json(const tier::ScrubReport& scrub) {
  Json found = Json::array();
  for (const tier::ScrubFinding& one : scrub.found) {
    found.push_back({{"file", one.file},
                     {"offset", one.offset},
                     {"key", one.hash.hex()},
                     {"group", one.group.value()},
                     {"rank", one.rank.value()},
                     {"reason", one.reason}});
  }
  return {{"pass", scrub.pass},
          {"running", scrub.is_running},
          {"asked", scrub.is_asked},
          {"held", scrub.is_held},
          {"bytes_per_second", scrub.bytes_per_second},
          {"progress", scrub.progress},
          {"good_blocks", scrub.good_blocks},
          {"bad_blocks", scrub.bad_blocks},
          {"skipped_blocks", scrub.skipped_blocks},
          {"bytes", scrub.bytes},
          {"seconds", in_seconds(scrub.took)},
          {"found", std::move(found)}};
}

void write_scrub(const tier::ScrubReport& scrub, std::string& out) {
  if (scrub.pass == 0) return;
  fmt::format_to(std::back_inserter(out),
                 "scrub: pass {} {}, {:.0f} %: {} blocks good, {} bad, {} skipped, {:.0f} s\n",
                 scrub.pass, scrub.is_running ? (scrub.is_held ? "held" : "running") : "done",
                 scrub.progress * 100, scrub.good_blocks, scrub.bad_blocks, scrub.skipped_blocks,
                 in_seconds(scrub.took));
}

void write_lists(const StatusReport& report, std::string& out) {
  auto end = std::back_inserter(out);
  for (const manager::QueueStatus& queue : report.queues) {
    fmt::format_to(end, "queue {}: {} waiting", queue.name, queue.waiting);
    if (queue.capacity > 0) fmt::format_to(end, " of {}", queue.capacity);
    fmt::format_to(end, ", {} dropped\n", queue.dropped);
  }
  for (const manager::AttachmentStatus& one : report.attachments) {
    fmt::format_to(end, "rank {}: {}", one.rank.value(),
                   one.is_attached ? fmt::format("attached, process {}, epoch {}", one.process,
                                                 one.epoch.value())
                                   : std::string("not attached"));
    fmt::format_to(end, "{}{}\n", one.detail.empty() ? "" : ", ", one.detail);
  }
  for (const manager::NamespaceStatus& one : report.namespaces) {
    fmt::format_to(end, "namespace {}/{}: {} blocks{}\n", one.content.substr(0, 12),
                   one.layout.substr(0, 12), one.blocks, one.is_ours ? " (this engine)" : "");
  }
}

void write_tiers(const StatusReport& report, std::string& out) {
  auto end = std::back_inserter(out);
  for (const manager::TierStatus& tier : report.tiers) {
    fmt::format_to(end, "{}: {}{}{}\n", to_string(tier.tier), state_name(tier.state),
                   tier.detail.empty() ? "" : ", ", tier.detail);
    if (tier.state == TierState::kOff) continue;
    fmt::format_to(end, "  slots:");
    for (int i = 0; i < catalog::kSlotStateCount; ++i) {
      const std::uint32_t count = tier.slots.at(static_cast<std::size_t>(i));
      fmt::format_to(end, " {} {}", count, catalog::to_string(static_cast<catalog::SlotState>(i)));
    }
    fmt::format_to(end, ", {} pinned\n", tier.pinned);
    if (tier.tier == Tier::kDisk) write_flow(report.disk_flow, out);
  }
}

void write_counters(const StatusReport& report, std::string& out) {
  auto end = std::back_inserter(out);
  fmt::format_to(end, "requests: {} ({} unkeyable, {} active); loads: {}, {} failed ({} tokens)\n",
                 report.requests, report.unkeyable_requests, report.active_requests, report.loads,
                 report.failed_loads, report.failed_tokens);
  fmt::format_to(end, "hit tokens:");
  for (int i = 0; i < kTierCount; ++i) {
    const auto tier = static_cast<std::size_t>(i);
    if (report.hit_tokens.at(tier) == 0) continue;
    fmt::format_to(end, " {} {}", to_string(static_cast<Tier>(i)), report.hit_tokens.at(tier));
  }
  fmt::format_to(end, "\nmissed blocks:");
  for (int i = 0; i < manager::kMissReasonCount; ++i) {
    const std::uint64_t count = report.miss_blocks.at(static_cast<std::size_t>(i));
    if (count == 0) continue;
    fmt::format_to(end, " {} {}", manager::to_string(static_cast<manager::MissReason>(i)), count);
  }
  fmt::format_to(end, "\nmeasured:");
  for (int i = 0; i < kTierCount; ++i) {
    const double rate = report.load_bytes_per_second.at(static_cast<std::size_t>(i));
    if (rate <= 0) continue;
    fmt::format_to(end, " {} {:.2f} GB/s", to_string(static_cast<Tier>(i)), rate * 1e-9);
  }
  fmt::format_to(end, " prefill {:.0f} tokens/s\n", report.prefill_tokens_per_second);
  fmt::format_to(end, "planned loads: {} slower than computing, {} of them given up;",
                 report.slow_loads, report.abandoned_loads);
  fmt::format_to(end, " took of what was predicted:");
  for (int i = 0; i < kTierCount; ++i) {
    const manager::PlanRatio& ratio = report.plan_ratios.at(static_cast<std::size_t>(i));
    if (ratio.p50 <= 0) continue;
    fmt::format_to(end, " {} {:.0f} % (p90 {:.0f} %)", to_string(static_cast<Tier>(i)),
                   100 * ratio.p50, 100 * ratio.p90);
  }
  fmt::format_to(end, "\n");
}

Json ratios_json(const StatusReport& report) {
  Json out = Json::object();
  for (int i = 0; i < kTierCount; ++i) {
    const manager::PlanRatio& ratio = report.plan_ratios.at(static_cast<std::size_t>(i));
    if (ratio.p50 <= 0) continue;
    out[std::string(to_string(static_cast<Tier>(i)))] = {{"p50", ratio.p50}, {"p90", ratio.p90}};
  }
  return out;
}

Json shadow_json(const manager::ShadowStatus& shadow) {
  Json out = {{"share", shadow.share},
              {"floor", {{"element", shadow.floor_element}, {"rms", shadow.floor_rms}}},
              {"requests", shadow.requests},
              {"tokens", shadow.tokens},
              {"equal_blocks", shadow.equal},
              {"within_blocks", shadow.within},
              {"beyond_blocks", shadow.beyond},
              {"skipped_blocks", shadow.skipped},
              {"quarantined", shadow.is_quarantined}};
  if (!shadow.why_none.empty()) out["why_none"] = shadow.why_none;
  return out;
}

void write_shadow(const manager::ShadowStatus& shadow, std::string& out) {
  auto end = std::back_inserter(out);
  if (!shadow.why_none.empty()) {
    fmt::format_to(end, "checked hits: none: {}\n", shadow.why_none);
  } else if (shadow.requests > 0) {
    fmt::format_to(end,
                   "checked hits: {} requests, {} tokens; blocks: {} equal, {} within the noise "
                   "floor, {} beyond it, {} not compared\n",
                   shadow.requests, shadow.tokens, shadow.equal, shadow.within, shadow.beyond,
                   shadow.skipped);
  }
}

}  // namespace

std::string status_json(const StatusReport& report) {
  Json out = {{"engine", report.engine},
              {"process", report.process},
              {"page", report.page},
              {"health", health(report)},
              {"problems", report.problems},
              {"poisoned", report.is_poisoned},
              {"mode", to_string(report.mode)},
              {"ready", report.is_ready},
              {"canary", report.canary},
              {"uptime_seconds", in_seconds(report.uptime)},
              {"tiers", tiers_json(report)}};
  if (report.scrub) out["scrub"] = scrub_json(*report.scrub);
  out = lists_json(report, std::move(out));
  out["disk_flow"] = flow_json(report.disk_flow);
  out["shadow"] = shadow_json(report.shadow);
  out["forecast"] = forecast_json(report.forecast);
  out["requests"] = report.requests;
  out["prompt_tokens"] = report.prompt_tokens;
  out["engine_tokens"] = report.engine_tokens;
  out["unkeyable_requests"] = report.unkeyable_requests;
  out["active_requests"] = report.active_requests;
  out["match_blocks"] = report.match_blocks;
  out["loads"] = report.loads;
  out["failed_loads"] = report.failed_loads;
  out["failed_tokens"] = report.failed_tokens;
  out["slow_loads"] = report.slow_loads;
  out["abandoned_loads"] = report.abandoned_loads;
  out["hit_tokens"] = per_tier_json(report.hit_tokens);
  out["miss_blocks"] = misses_json(report);
  out["corrupt_blocks"] = per_tier_json(report.corrupt_blocks);
  out["load_bytes_per_second"] = per_tier_json(report.load_bytes_per_second);
  out["prefill_tokens_per_second"] = report.prefill_tokens_per_second;
  out["plan_ratios"] = ratios_json(report);
  out["fingerprint"] = report.fingerprint;
  // Paths may hold any bytes; what is not UTF-8 is replaced, never thrown about.
  return out.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string status_text(const StatusReport& report) {
  std::string out = fmt::format("health: {}\n", health(report));
  for (const std::string& problem : report.problems) {
    fmt::format_to(std::back_inserter(out), "  {}\n", problem);
  }
  if (report.is_poisoned) out += "  poisoned: every look-up misses until the engine restarts\n";
  out += mode_text(report.mode);
  if (!report.page.empty()) out += fmt::format("page: {}\n", report.page);
  fmt::format_to(std::back_inserter(out), "ready: {}; canary: {}; up {:.0f} s\n",
                 report.is_ready ? "yes" : "not yet", report.canary.empty() ? "–" : report.canary,
                 in_seconds(report.uptime));
  write_tiers(report, out);
  if (report.scrub) write_scrub(*report.scrub, out);
  write_lists(report, out);
  write_counters(report, out);
  write_shadow(report.shadow, out);
  write_forecast(report.forecast, out);
  return out;
}

}  // namespace terrace::serve
