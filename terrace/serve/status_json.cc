#include "terrace/serve/status_json.h"

#include <nlohmann/json.hpp>
#include <string_view>

namespace terrace::serve {
namespace {

using Json = nlohmann::ordered_json;
using manager::StatusReport;
using manager::TierState;

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
    Json slots = Json::object();
    for (const Tier tier : {Tier::kHost, Tier::kDisk}) {
      slots[std::string(to_string(tier))] = one.slots.at(static_cast<std::size_t>(tier));
    }
    out["namespaces"].push_back({{"content", one.content},
                                 {"layout", one.layout},
                                 {"blocks", one.blocks},
                                 {"slots", std::move(slots)},
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
          {"window_seconds", in_seconds(forecast.window)},
          {"prompt_tokens", forecast.prompt_tokens},
          {"engine_tokens", forecast.engine_tokens},
          {"longest_usual_blocks", forecast.longest_usual},
          {"least_host_bytes", forecast.least_host.value()},
          {"disk_has_copies", forecast.disk_has_copies},
          {"sizes", std::move(sizes)},
          {"block_bytes", forecast.block.value()},
          {"block_tokens", forecast.block_tokens.value()},
          {"curve", std::move(curve)}};
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
          {"passed_over", scrub.passed_over},
          {"waits_for", scrub.waits_for},
          {"found", std::move(found)}};
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

}  // namespace terrace::serve
