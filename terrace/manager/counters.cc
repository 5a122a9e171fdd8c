#include <fmt/format.h>

#include "terrace/manager/counters_internal.h"

namespace terrace::manager {

namespace {

void visit_bytes(MetricVisitor& visitor, std::string_view op, Tier source, Tier target,
                 const Counter& cell) {
  visitor.counter("terrace_transfer_bytes_total",
                  fmt::format("op=\"{}\",source=\"{}\",target=\"{}\"", op, to_string(source),
                              to_string(target)),
                  cell.value());
}

void visit_said(MetricVisitor& visitor, const Counters& counters) {
  for (std::size_t kind = 0; kind < kHintKinds; ++kind) {
    visitor.counter("terrace_hints_total", fmt::format("hint=\"{}\"", hint_name(kind)),
                    counters.hints[kind].value());
  }
  visitor.counter("terrace_ignored_hints_total", "", counters.ignored_hints.value());
  for (std::size_t i = 0; i < policy::kEndingCount; ++i) {
    visitor.counter("terrace_answers_total",
                    fmt::format("ending=\"{}\"", to_string(static_cast<policy::Ending>(i))),
                    counters.endings[i].value());
  }
}

void visit_drop(MetricVisitor& visitor, std::string_view queue, const Counter& cell) {
  visitor.counter("terrace_drop_blocks_total", fmt::format("queue=\"{}\"", queue), cell.value());
}

}  // namespace

std::uint64_t Counters::dropped_blocks() const {
  std::uint64_t sum = 0;
  for (const Counter* cell :
       {&drop_no_slot, &drop_step_bytes, &drop_copy_budget, &drop_steps, &drop_tainted,
        &drop_unfilled, &drop_disk_write, &drop_admission, &drop_write_budget, &drop_pack_admission,
        &drop_pack, &drop_demote, &drop_mode, &drop_pins}) {
    sum += cell->value();
  }
  return sum;
}

void Counters::visit_shadow(MetricVisitor& visitor) const {
  visitor.counter("terrace_shadow_requests_total", "", shadow_requests.value());
  visitor.counter("terrace_shadow_tokens_total", "", shadow_tokens.value());
  visitor.counter("terrace_shadow_bytes_total", "", shadow_bytes.value());
  visitor.counter("terrace_shadow_blocks_total", "result=\"equal\"", shadow_equal.value());
  visitor.counter("terrace_shadow_blocks_total", "result=\"within\"", shadow_within.value());
  visitor.counter("terrace_shadow_blocks_total", "result=\"beyond\"", shadow_beyond.value());
  visitor.counter("terrace_shadow_blocks_total", "result=\"skipped\"", shadow_skipped.value());
  visitor.gauge("terrace_shadow_floor_ratio", "of=\"element\"",
                static_cast<double>(shadow_element.value()) * 1e-6);
  visitor.gauge("terrace_shadow_floor_ratio", "of=\"rms\"",
                static_cast<double>(shadow_rms.value()) * 1e-6);
  visitor.gauge("terrace_shadow_quarantined", "", static_cast<double>(shadow_quarantined.value()));
}

void Counters::visit_drops(MetricVisitor& visitor) const {
  visit_drop(visitor, "host_slots", drop_no_slot);
  visit_drop(visitor, "step_bytes", drop_step_bytes);
  visit_drop(visitor, "copy_budget", drop_copy_budget);
  visit_drop(visitor, "steps", drop_steps);
  visit_drop(visitor, "tainted", drop_tainted);
  visit_drop(visitor, "unfilled", drop_unfilled);
  visit_drop(visitor, "disk_write", drop_disk_write);
  visit_drop(visitor, "admission", drop_admission);
  visit_drop(visitor, "write_budget", drop_write_budget);
  visit_drop(visitor, "object_write", drop_pack);
  visit_drop(visitor, "object_admission", drop_pack_admission);
  visit_drop(visitor, "demote", drop_demote);
  visit_drop(visitor, "mode", drop_mode);
  visit_drop(visitor, "pins", drop_pins);
}

void Counters::visit(MetricVisitor& visitor) const {
  for (const Tier tier : {Tier::kHost, Tier::kDisk, Tier::kObject}) {
    const auto t = static_cast<std::size_t>(tier);
    const std::string label = fmt::format("tier=\"{}\"", to_string(tier));
    visitor.counter("terrace_hit_tokens_total", label, hit_tokens[t].value());
    visitor.counter("terrace_hit_blocks_total", label, hit_blocks[t].value());
    visitor.counter("terrace_corrupt_blocks_total", label, corrupt_blocks[t].value());
  }
  for (int i = 0; i < kMissReasonCount; ++i) {
    visitor.counter("terrace_miss_blocks_total",
                    fmt::format("reason=\"{}\"", to_string(static_cast<MissReason>(i))),
                    miss_blocks[static_cast<std::size_t>(i)].value());
  }
  visitor.counter("terrace_match_blocks_total", "", match_blocks.value());
  visitor.counter("terrace_match_tokens_total", "", match_tokens.value());
  visitor.counter("terrace_failed_tokens_total", "", failed_tokens.value());
  visitor.counter("terrace_requests_total", "", requests.value());
  visitor.counter("terrace_prompt_tokens_total", "", prompt_tokens.value());
  visitor.counter("terrace_engine_hit_tokens_total", "", engine_tokens.value());
  visitor.counter("terrace_unkeyable_requests_total", "", unkeyable_requests.value());
  visitor.counter("terrace_late_lookups_total", "", late_look_ups.value());
  visit_said(visitor, *this);
  visitor.counter("terrace_transfer_blocks_total", R"(op="offload",source="device",target="host")",
                  offload_blocks.value());
  visitor.counter("terrace_transfer_blocks_total", R"(op="offload",source="host",target="disk")",
                  write_blocks.value());
  visit_bytes(visitor, "onboard", Tier::kHost, Tier::kDevice, onboard_bytes);
  visit_bytes(visitor, "offload", Tier::kDevice, Tier::kHost, offload_bytes);
  for (const Tier tier : {Tier::kDisk, Tier::kObject}) {
    visit_bytes(visitor, "prefetch", tier, Tier::kHost,
                prefetch_bytes[static_cast<std::size_t>(tier)]);
    visitor.counter("terrace_cancel_blocks_total", fmt::format("tier=\"{}\"", to_string(tier)),
                    cancel_blocks[static_cast<std::size_t>(tier)].value());
  }
  visitor.counter("terrace_transfer_blocks_total", R"(op="offload",source="host",target="object")",
                  pack_blocks.value());
  visit_bytes(visitor, "offload", Tier::kHost, Tier::kObject, pack_bytes);
  visit_bytes(visitor, "offload", Tier::kHost, Tier::kDisk, write_bytes);
  visit_drops(visitor);
  visitor.counter("terrace_loads_total", "result=\"loaded\"", loads.value());
  visitor.counter("terrace_loads_total", "result=\"failed\"", failed_loads.value());
  visitor.counter("terrace_slow_loads_total", "", slow_loads.value());
  visitor.counter("terrace_abandoned_loads_total", "", abandoned_loads.value());
  visitor.gauge("terrace_load_seconds_sum", "", static_cast<double>(load_ns.value()) * 1e-9);
  visitor.counter("terrace_load_seconds_count", "", loads.value() + failed_loads.value());
  visitor.gauge("terrace_offload_seconds_sum", "", static_cast<double>(save_ns.value()) * 1e-9);
  visitor.counter("terrace_offload_seconds_count", "", save_steps.value());
  look_up_times.visit("terrace_lookup_seconds", visitor);
  onboard_times.visit("terrace_onboard_seconds", visitor);
  event_lag.visit("terrace_event_lag_seconds", visitor);
  visitor.counter("terrace_verified_blocks_total", "", verified_blocks.value());
  visit_shadow(visitor);
  visitor.counter("terrace_reports_total", "result=\"taken\"", reports.value());
  visitor.counter("terrace_reports_total", "result=\"refused\"", reports_refused.value());
  visitor.counter("terrace_lost_steps_total", "", steps_lost.value());
  visitor.counter("terrace_canaries_total", "result=\"passed\"", canaries_passed.value());
  visitor.counter("terrace_canaries_total", "result=\"failed\"", canaries_failed.value());
  visitor.counter("terrace_disk_failures_total", "op=\"read\"", read_failures.value());
  visitor.counter("terrace_disk_failures_total", "op=\"write\"", write_failures.value());
  visitor.gauge("terrace_poisoned", "", static_cast<double>(poisoned.value()));
  visitor.gauge("terrace_mode", "", static_cast<double>(mode.value()));
}

}  // namespace terrace::manager
