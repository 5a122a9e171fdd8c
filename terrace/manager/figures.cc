#include <fmt/format.h>

#include "terrace/manager/figures_internal.h"

namespace terrace::manager {

void Figures::tell(const Core& core) noexcept {
  const auto set = [](Gauge& gauge, std::uint64_t value) {
    gauge.set(static_cast<std::int64_t>(value));
  };
  if (const tier::HostTier* host = core.context().host.get(); host != nullptr) {
    const catalog::Pool& pool = host->pool();
    for (std::size_t i = 0; i < host_slots_.size(); ++i) {
      set(host_slots_[i], pool.count(static_cast<catalog::SlotState>(i)));
    }
    set(host_pinned_, pool.pinned());
  }
  const HitWindow::Totals& hits = core.hits().totals();
  set(asked_, hits.asked);
  set(host_hits_, hits.host);
  set(disk_hits_, hits.disk);
  set(object_hits_, hits.object);
  set(active_requests_, core.requests());
  set(steps_in_flight_, core.steps().in_flight());
  set(waiting_pins_, core.look_ups().waiting_pins());
  const Options& options = core.context().options;
  set(disk_reads_.waiting, core.reads());
  set(disk_reads_.limit, core.look_ups().max_waiting_pins());
  set(disk_writes_.waiting, core.writes());
  set(disk_writes_.limit, options.disk.queue_blocks);
  set(packs_.waiting, core.packs().size() * options.object.pack_blocks);
  set(packs_.limit,
      options.object.open_store ? core.packs().limit() * options.object.pack_blocks : 0);
}

void Figures::tell_plans(const Core& core) noexcept {
  for (std::size_t i = 0; i < plans_.size(); ++i) {
    const auto tier = static_cast<Tier>(i);
    plans_[i].p50.store(core.context().planner.calibration(tier, 0.5), std::memory_order_relaxed);
    plans_[i].p90.store(core.context().planner.calibration(tier, 0.9), std::memory_order_relaxed);
  }
}

void Figures::tell_memory(const Core& core) noexcept {
  const auto set = [](Gauge& gauge, Bytes bytes) {
    gauge.set(static_cast<std::int64_t>(bytes.value()));
  };
  const Context& context = core.context();
  if (context.host != nullptr) {
    set(host_memory_, context.host->bytes());
    set(host_catalog_memory_, context.host->pool().memory());
  }
  if (context.returns != nullptr) set(returns_memory_, context.returns->memory());
  Bytes filters(0);
  for (const auto* filter : {&context.admission, &context.pack_admission}) {
    if (*filter != nullptr) filters += (*filter)->memory();
  }
  set(admission_memory_, filters);
}

void Figures::tell_problems(std::size_t problems) noexcept {
  problems_.set(static_cast<std::int64_t>(problems));
}

void Figures::visit_queues(MetricVisitor& visitor) const {
  const auto one = [&](std::string_view name, const QueueFigures& queue) {
    const std::string label = fmt::format("queue=\"{}\"", name);
    visitor.gauge("terrace_queue_blocks", label, static_cast<double>(queue.waiting.value()));
    visitor.gauge("terrace_queue_limit_blocks", label, static_cast<double>(queue.limit.value()));
  };
  one("disk_read", disk_reads_);
  one("disk_write", disk_writes_);
  one("object_write", packs_);
}

void Figures::visit_memory(MetricVisitor& visitor) const {
  const auto one = [&](std::string_view of, const Gauge& bytes) {
    visitor.gauge("terrace_memory_bytes", fmt::format("of=\"{}\"", of),
                  static_cast<double>(bytes.value()));
  };
  one("host", host_memory_);
  one("host_catalog", host_catalog_memory_);
  one("returns", returns_memory_);
  one("admission", admission_memory_);
}

void Figures::visit(MetricVisitor& visitor) const {
  for (std::size_t i = 0; i < host_slots_.size(); ++i) {
    visitor.gauge("terrace_pool_slots",
                  fmt::format("tier=\"host\",state=\"{}\"",
                              catalog::to_string(static_cast<catalog::SlotState>(i))),
                  static_cast<double>(host_slots_[i].value()));
  }
  visitor.gauge("terrace_pool_slots", "tier=\"host\",state=\"pinned\"",
                static_cast<double>(host_pinned_.value()));
  const auto asked = static_cast<double>(asked_.value());
  const auto rate = [&](const char* tier, const Gauge& hits) {
    visitor.gauge("terrace_hit_rate", tier,
                  asked == 0 ? 0 : static_cast<double>(hits.value()) / asked);
  };
  rate("tier=\"host\"", host_hits_);
  rate("tier=\"disk\"", disk_hits_);
  rate("tier=\"object\"", object_hits_);
  for (const Tier tier : {Tier::kHost, Tier::kDisk, Tier::kObject}) {
    const Plan& plan = plans_[static_cast<std::size_t>(tier)];
    visitor.gauge("terrace_plan_ratio",
                  fmt::format("tier=\"{}\",fraction=\"0.5\"", to_string(tier)),
                  plan.p50.load(std::memory_order_relaxed));
    visitor.gauge("terrace_plan_ratio",
                  fmt::format("tier=\"{}\",fraction=\"0.9\"", to_string(tier)),
                  plan.p90.load(std::memory_order_relaxed));
  }
  visitor.gauge("terrace_active_requests", "", static_cast<double>(active_requests_.value()));
  visitor.gauge("terrace_steps_in_flight", "", static_cast<double>(steps_in_flight_.value()));
  visitor.gauge("terrace_waiting_pins", "", static_cast<double>(waiting_pins_.value()));
  visitor.gauge("terrace_problems", "", static_cast<double>(problems_.value()));
  visit_queues(visitor);
  visit_memory(visitor);
}

}  // namespace terrace::manager
