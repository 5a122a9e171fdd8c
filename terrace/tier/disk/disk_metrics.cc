#include <fmt/format.h>

#include "terrace/tier/disk/budget_keeper_internal.h"
#include "terrace/tier/disk/context_internal.h"

namespace terrace::tier::disk {

namespace {
void visit_slots(const Slots& slots, MetricVisitor& visitor) {
  for (int i = 0; i < catalog::kSlotStateCount; ++i) {
    const auto state = static_cast<catalog::SlotState>(i);
    visitor.gauge("terrace_pool_slots",
                  fmt::format("tier=\"disk\",state=\"{}\"", catalog::to_string(state)),
                  static_cast<double>(slots.told(state)));
  }
  visitor.gauge("terrace_disk_foreign_slots", {}, static_cast<double>(slots.told_foreign()));
  visitor.gauge("terrace_disk_locked_slots", {}, static_cast<double>(slots.told_locked()));
  visitor.gauge("terrace_memory_bytes", "of=\"disk_catalog\"",
                static_cast<double>(slots.told_memory()));
}
}  // namespace

double written_per_served(const Meters& meters, const transfer::Backend::Counters& io) {
  const auto written = io.bytes[static_cast<std::size_t>(transfer::IoOp::kWrite)].value();
  const auto served = meters.read_bytes.value();
  return served == 0 ? 0 : static_cast<double>(written) / static_cast<double>(served);
}

void visit_flow(const Meters& meters, const transfer::Backend::Counters& io,
                const BudgetKeeper& budget, const transfer::Queue& queue, MetricVisitor& visitor) {
  visitor.counter("terrace_disk_served_bytes_total", {}, meters.read_bytes.value());
  visitor.gauge("terrace_disk_written_per_served", {}, written_per_served(meters, io));
  const BudgetKeeper::Facts facts = budget.facts();
  visitor.gauge("terrace_disk_write_budget_bytes", {}, static_cast<double>(facts.left));
  visitor.gauge("terrace_disk_write_budget_day_bytes", {},
                static_cast<double>(facts.bytes_per_day));
  visitor.gauge("terrace_disk_write_window", {}, static_cast<double>(queue.write_window().value()));
  const transfer::Queue::Counters& of = queue.counters();
  for (int i = 0; i < transfer::kIoClassCount; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const std::string label =
        fmt::format("class=\"{}\"", transfer::to_string(static_cast<transfer::IoClass>(i)));
    visitor.gauge("terrace_disk_waiting_transfers", label,
                  static_cast<double>(of.waiting[at].value()));
    visitor.gauge("terrace_disk_transfer_seconds_sum", label,
                  static_cast<double>(of.time_ns[at].value()) * 1e-9);
    visitor.counter("terrace_disk_transfer_seconds_count", label, of.done[at].value());
  }
}

void visit(const Meters& meters, const transfer::Backend::Counters& io, const Slots& slots,
           const FrameCrypt& crypt, MetricVisitor& visitor) {
  visitor.counter("terrace_disk_blocks_total", "op=\"read\"", meters.read_blocks.value());
  visitor.counter("terrace_disk_blocks_total", "op=\"write\"", meters.written_blocks.value());
  visitor.counter("terrace_disk_corrupt_blocks_total", {}, meters.corrupt_blocks.value());
  visitor.counter("terrace_disk_forged_frames_total", {}, crypt.forged());
  visitor.counter("terrace_disk_locked_blocks_total", {}, meters.locked_blocks.value());
  visitor.counter("terrace_disk_late_reads_total", {}, meters.late_reads.value());
  visitor.counter("terrace_disk_damaged_records_total", {}, meters.damaged_records.value());
  visitor.counter("terrace_disk_damaged_fingerprints_total", {}, meters.damaged_texts.value());
  visitor.counter("terrace_disk_adopted_blocks_total", {}, meters.adopted_blocks.value());
  visitor.counter("terrace_disk_batches_total", {}, meters.batches.value());
  const auto scrubbed = [&](std::string_view result, const Counter& counter) {
    visitor.counter("terrace_disk_scrub_blocks_total", fmt::format("result=\"{}\"", result),
                    counter.value());
  };
  scrubbed("good", meters.scrub_good);
  scrubbed("bad", meters.scrub_bad);
  scrubbed("skipped", meters.scrub_skipped);
  visitor.counter("terrace_disk_scrub_bytes_total", {}, meters.scrub_bytes.value());
  visitor.counter("terrace_disk_scrub_passes_total", {}, meters.scrub_passes.value());
  const auto drop = [&](std::string_view reason, const Counter& counter) {
    visitor.counter("terrace_disk_drop_blocks_total", fmt::format("reason=\"{}\"", reason),
                    counter.value());
  };
  drop("queue", meters.dropped_full_queue);
  drop("slots", meters.dropped_no_slot);
  drop("full", meters.dropped_full_medium);
  drop("unavailable", meters.dropped_unavailable);
  drop("write_budget", meters.dropped_budget);
  for (int i = 0; i < transfer::kIoOpCount; ++i) {
    const auto op = static_cast<std::size_t>(i);
    const std::string label =
        fmt::format("op=\"{}\"", transfer::to_string(static_cast<transfer::IoOp>(i)));
    visitor.counter("terrace_disk_io_total", label, io.done[op].value());
    visitor.counter("terrace_disk_io_bytes_total", label, io.bytes[op].value());
    visitor.counter("terrace_disk_io_errors_total", label, io.errors[op].value());
  }
  visitor.counter("terrace_disk_stray_completions_total", {}, io.stray.value());
  visit_slots(slots, visitor);
}

}  // namespace terrace::tier::disk
