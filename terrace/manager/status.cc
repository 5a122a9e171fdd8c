#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <span>

#include "terrace/manager/status_internal.h"

namespace terrace::manager {

namespace {

TierStatus host_status(const Core& core, Nanoseconds now) {
  TierStatus status;
  status.state = TierState::kOpening;
  const tier::HostTier* host = core.context().host.get();
  if (host == nullptr && core.gate().state(now) == Gate::State::kShut) {
    status.state = TierState::kFailed;
    status.detail = core.gate().reason(now);
  }
  if (host == nullptr) return status;
  status.state = TierState::kOpen;
  status.capacity = host->bytes();
  status.detail =
      fmt::format("{} of {} slots populated{}", host->populated_slots(), host->geometry().slots,
                  host->uses_huge_pages() ? ", huge pages" : "");
  const catalog::Pool& pool = host->pool();
  for (int i = 0; i < catalog::kSlotStateCount; ++i) {
    status.slots[static_cast<std::size_t>(i)] = pool.count(static_cast<catalog::SlotState>(i));
  }
  status.pinned = pool.pinned();
  return status;
}

TierStatus disk_status(const Options& options, const Core& core, const Opened& opened) {
  TierStatus status;
  status.tier = Tier::kDisk;
  if (options.disk.paths.empty()) return status;
  status.state = TierState::kOpening;
  status.detail = core.lower_problem();
  if (core.is_lower_settled()) {
    status.state = core.lower_problem().empty() ? TierState::kOpen : TierState::kFailed;
  }
  if (!opened.has_disk.load() || core.context().lower == nullptr) return status;
  const tier::DiskTier& disk = *opened.disk;
  if (status.detail.empty()) {
    status.detail = disk.backend_name();
    if (const std::string keys = disk.key_ids(); !keys.empty()) {
      status.detail += ", encrypted, key " + keys;
    }
  }
  status.capacity = core.context().groups.most_bytes() * disk.slots();
  for (int i = 0; i < catalog::kSlotStateCount; ++i) {
    status.slots[static_cast<std::size_t>(i)] = disk.count(static_cast<catalog::SlotState>(i));
  }
  return status;
}

DiskFlowStatus disk_flow(const Opened& opened, const Counters& counters) {
  DiskFlowStatus status;
  status.dropped_admission = counters.drop_admission.value();
  status.dropped_budget = counters.drop_write_budget.value();
  if (!opened.has_disk.load() || opened.disk == nullptr) return status;
  const tier::DiskTier::Flow flow = opened.disk->flow();
  status.written_bytes = flow.written_bytes;
  status.served_bytes = flow.served_bytes;
  status.budget_bytes = flow.budget_bytes;
  status.budget_left = flow.budget_left;
  return status;
}

TierStatus object_status(const Options& options, const Core& core, const Opened& opened) {
  TierStatus status;
  status.tier = Tier::kObject;
  if (!options.object.open_store) return status;
  status.state = TierState::kOpening;
  status.detail = core.objects_problem();
  if (!status.detail.empty()) status.state = TierState::kFailed;
  if (!opened.has_objects.load() || core.context().objects == nullptr) return status;
  const tier::ObjectTier& objects = *opened.objects;
  if (objects.is_open()) status.state = TierState::kOpen;
  const std::string summary = objects.summary();
  status.detail = fmt::format("{}, packs of {} blocks{}{}", objects.place(), objects.pack_blocks(),
                              summary.empty() ? "" : "; ", summary);
  if (const std::string keys = objects.key_ids(); !keys.empty()) {
    status.detail += ", encrypted, key " + keys;
  }
  return status;
}

}  // namespace

std::vector<std::string> problems_of(const Core& core, Nanoseconds now) {
  std::vector<std::string> problems;
  if (core.is_poisoned()) {
    problems.push_back(
        fmt::format("poisoned: {}: restart the engine and report this", core.poison_reason()));
  }
  if (core.shadows().is_quarantined()) {
    problems.push_back(fmt::format(
        "quarantined: a block computed anew differs from the stored one ({}): nothing is loaded or "
        "stored any more, and what was stored is dropped; the runbook of TerraceQuarantined says "
        "what to do",
        core.shadows().reason()));
  }
  const Gate::State state = core.gate().state(now);
  if (state == Gate::State::kShut || state == Gate::State::kLate) {
    problems.push_back(core.gate().reason(now));
  }
  if (!core.lower_problem().empty()) problems.push_back(core.lower_problem());
  if (core.context().lower == nullptr) {
    if (const Status undropped = core.undropped(); !undropped.is_ok()) {
      problems.push_back(undropped.message());
    }
  }
  if (core.context().lower != nullptr) {
    for (std::string& problem : core.context().lower->problems()) {
      problems.push_back(std::move(problem));
    }
  }
  if (core.context().options.can_store) {
    if (std::string problem = core.packs().problem(); !problem.empty()) {
      problems.push_back(std::move(problem));
    }
  }
  if (!core.objects_problem().empty()) problems.push_back(core.objects_problem());
  if (core.context().objects != nullptr) {
    for (std::string& problem : core.context().objects->problems()) {
      problems.push_back(std::move(problem));
    }
  }
  return problems;
}

namespace {

void add_counters(const Counters& counters, StatusReport& report) {
  report.requests = counters.requests.value();
  report.prompt_tokens = counters.prompt_tokens.value();
  report.engine_tokens = counters.engine_tokens.value();
  report.unkeyable_requests = counters.unkeyable_requests.value();
  report.match_blocks = counters.match_blocks.value();
  report.loads = counters.loads.value();
  report.failed_loads = counters.failed_loads.value();
  report.slow_loads = counters.slow_loads.value();
  report.abandoned_loads = counters.abandoned_loads.value();
  report.failed_tokens = counters.failed_tokens.value();
  for (std::size_t i = 0; i < counters.hit_tokens.size(); ++i) {
    report.hit_tokens[i] = counters.hit_tokens[i].value();
    report.corrupt_blocks[i] = counters.corrupt_blocks[i].value();
  }
  for (std::size_t i = 0; i < counters.miss_blocks.size(); ++i) {
    report.miss_blocks[i] = counters.miss_blocks[i].value();
  }
}

void add_queues(const Options& options, const Core& core, const Counters& counters,
                StatusReport& report) {
  report.queues.push_back({.name = "disk_read",
                           .waiting = core.reads(),
                           .capacity = core.look_ups().max_waiting_pins(),
                           .dropped = counters.drop_pins.value()});
  report.queues.push_back({.name = "disk_write",
                           .waiting = core.writes(),
                           .capacity = options.disk.queue_blocks,
                           .dropped = counters.drop_disk_write.value()});
  if (options.object.open_store) {
    const std::uint64_t blocks = options.object.pack_blocks;
    report.queues.push_back({.name = "object_write",
                             .waiting = core.packs().size() * blocks,
                             .capacity = core.packs().limit() * blocks,
                             .dropped = counters.drop_pack.value()});
  }
  report.queues.push_back({.name = "steps",
                           .waiting = core.steps().in_flight(),
                           .capacity = 256,
                           .dropped = counters.drop_steps.value()});
}

ShadowStatus shadow_status(const Options& options, const Core& core, const Counters& counters) {
  ShadowStatus status;
  status.share = core.shadows().is_on() ? options.shadow.share : 0;
  if (options.shadow.share > 0 && !core.shadows().is_on()) {
    const auto dtype = kv_dtype(options.fingerprint);
    status.why_none =
        fmt::format("KV of {} cannot be compared number by number",
                    dtype.empty() ? "a type that nobody told" : fmt::format("the type {}", dtype));
  }
  if (options.shadow.element) {
    const NoiseFloor floor = noise_floor(*options.shadow.element, options.shadow.tolerance);
    status.floor_element = floor.element;
    status.floor_rms = floor.rms;
  }
  status.requests = counters.shadow_requests.value();
  status.tokens = counters.shadow_tokens.value();
  status.equal = counters.shadow_equal.value();
  status.within = counters.shadow_within.value();
  status.beyond = counters.shadow_beyond.value();
  status.skipped = counters.shadow_skipped.value();
  status.is_quarantined = core.shadows().is_quarantined();
  return status;
}

std::array<PlanRatio, kTierCount> plan_ratios(const Core& core) {
  std::array<PlanRatio, kTierCount> ratios{};
  for (std::size_t i = 0; i < ratios.size(); ++i) {
    const auto tier = static_cast<Tier>(i);
    ratios[i] = {.p50 = core.context().planner.calibration(tier, 0.5),
                 .p90 = core.context().planner.calibration(tier, 0.9)};
  }
  return ratios;
}

std::string canary_text(const Gate& gate, Nanoseconds now) {
  if (gate.is_serving()) return "passed";
  const std::string reason = gate.reason(now);
  return reason.starts_with("canary") ? "failed: " + reason : "pending";
}

// Offload copies, so most blocks of host lie on disk as well: their sum says nothing of how many
// there are.
void add_slots(std::span<const TierStatus> tiers, NamespaceStatus& status) {
  for (const TierStatus& tier : tiers) {
    const std::uint64_t sealed = tier.slots[static_cast<std::size_t>(catalog::SlotState::kSealed)];
    status.slots[static_cast<std::size_t>(tier.tier)] = sealed;
    status.blocks = std::max(status.blocks, sealed);
  }
}

}  // namespace

StatusReport make_status(const Options& options, const Shared& shared, const Opened& opened,
                         const Counters& counters, const SizeForecast& forecast, Nanoseconds now,
                         Nanoseconds opened_at) {
  const MutexLock guard(opened.guard);
  StatusReport report;
  report.engine = options.engine_id;
  report.process = ::getpid();
  report.uptime = now - opened_at;
  report.forecast = forecast.status();
  if (opened.has_fingerprint.load()) {
    report.fingerprint = opened.fingerprint.text();
    report.namespaces.push_back({.content = opened.fingerprint.content_digest(),
                                 .layout = opened.fingerprint.layout_digest(),
                                 .slots = {},
                                 .blocks = 0,
                                 .is_ours = true});
  } else {
    report.fingerprint = options.fingerprint.text();
  }
  add_counters(counters, report);
  report.disk_flow = disk_flow(opened, counters);
  if (opened.has_disk.load() && opened.disk != nullptr) report.scrub = opened.disk->scrub_report();
  const MutexLock lock(shared.mutex);
  const Core& core = shared.core;
  report.is_poisoned = core.is_poisoned();
  report.mode = core.context().mode;
  report.is_ready = core.gate().is_serving() && !core.is_poisoned();
  report.canary = canary_text(core.gate(), now);
  report.tiers = {host_status(core, now), disk_status(options, core, opened)};
  if (options.object.open_store) report.tiers.push_back(object_status(options, core, opened));
  for (std::uint16_t rank = 0; rank < options.layout.ranks; ++rank) {
    const Epoch epoch = core.gate().epoch_of(RankId(rank));
    AttachmentStatus attachment;
    attachment.rank = RankId(rank);
    attachment.epoch = epoch;
    attachment.process = core.gate().process_of(RankId(rank));
    attachment.is_attached = epoch != Epoch(0);
    report.attachments.push_back(std::move(attachment));
  }
  report.active_requests = core.requests();
  report.shadow = shadow_status(options, core, counters);
  add_queues(options, core, counters, report);
  report.problems = problems_of(core, now);
  report.is_healthy = report.problems.empty();
  for (const Tier tier : {Tier::kHost, Tier::kDisk, Tier::kObject}) {
    report.load_bytes_per_second[static_cast<std::size_t>(tier)] =
        core.context().planner.load_rate(tier);
  }
  report.plan_ratios = plan_ratios(core);
  report.prefill_tokens_per_second = core.context().planner.prefill_rate();
  if (!report.namespaces.empty()) add_slots(report.tiers, report.namespaces[0]);
  return report;
}

void visit_all(const Shared& shared, const Opened& opened, const Counters& counters,
               const SizeForecast& forecast, MetricVisitor& visitor) {
  const MutexLock guard(opened.guard);
  counters.visit(visitor);
  forecast.visit_metrics(visitor);
  shared.figures.visit(visitor);
  if (opened.has_disk.load() && opened.disk != nullptr) opened.disk->visit_metrics(visitor);
  if (opened.has_objects.load() && opened.objects != nullptr) {
    opened.objects->visit_metrics(visitor);
  }
}

}  // namespace terrace::manager
