#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "terrace/manager/steps_internal.h"

namespace terrace::manager {

std::uint64_t LoadBatch::good() const {
  std::uint64_t end = first + blocks;
  for (const GroupLoad& load : groups) {
    const auto bad = std::ranges::find(load.failed, true);
    if (bad == load.failed.end()) continue;
    end = std::min(end, load.from + static_cast<std::uint64_t>(bad - load.failed.begin()));
  }
  return end - first;
}

bool LoadBatch::has_failed() const {
  return std::ranges::any_of(groups, [](const GroupLoad& load) {
    return std::ranges::find(load.failed, true) != load.failed.end();
  });
}

void LoadBatch::void_all() {
  for (GroupLoad& load : groups) load.pins.shrink(0);
}

bool Step::has_failed_load() const { return std::ranges::any_of(loads, &LoadBatch::has_failed); }

Steps::Steps(const Options& options) : options_(options) {}

bool Steps::has_load(RequestId request, std::uint64_t first) const {
  return std::ranges::any_of(next_.loads, [&](const LoadBatch& batch) {
    return batch.request == request && batch.first == first;
  });
}

std::uint64_t Steps::blocks_under_way(RequestId request) const {
  std::uint64_t blocks = 0;
  for (const auto& [id, step] : in_flight_) {
    for (const LoadBatch& batch : step.loads) {
      if (batch.request == request) blocks += batch.blocks;
    }
  }
  return blocks;
}

bool Steps::has_saves_under_way(RequestId request) const {
  return std::ranges::any_of(in_flight_, [&](const auto& entry) {
    return std::ranges::find(entry.second.saves, request, &Save::request) !=
           entry.second.saves.end();
  });
}

void Steps::add_prefilled(RequestId request, Tokens from, Tokens to) {
  const auto first = static_cast<double>(from.value());
  const auto end = static_cast<double>(to.value());
  next_.prefilled.tokens += to - from;
  next_.prefilled.pairs += (end * end - first * first) / 2;
  next_.prefills.push_back({.request = request, .tokens = to - from});
}

void Steps::forget_pending(RequestId request) {
  for (LoadBatch& batch : next_.loads) {
    if (batch.request == request) batch.void_all();
  }
  std::erase_if(next_.saves, [&](const Save& save) { return save.request == request; });
}

std::vector<Save> Steps::drop_pending_saves() { return std::exchange(next_.saves, {}); }

void Steps::void_pending_loads() {
  for (LoadBatch& batch : next_.loads) batch.void_all();
}

bool Steps::is_due() const {
  const bool is_timed = options_.times_prefill && next_.prefilled.tokens > Tokens(0) && has_room();
  return is_timed || !next_.loads.empty() || !next_.saves.empty() || next_.canary.has_value();
}

Steps::Built Steps::build(std::span<const Epoch> epochs, const tier::HostTier* host,
                          Nanoseconds save_charged, Nanoseconds now) {
  if (!has_room()) {  // Nobody will wait for it: nothing may be copied in it.
    void_pending_loads();
    next_.saves.clear();
    next_.canary.reset();
  }
  Step step = std::exchange(next_, Step{});
  step.id = StepId(++last_id_);
  step.issued = now;
  step.save_charged = save_charged;
  step.epochs.assign(epochs.begin(), epochs.end());
  wire::Orders orders;
  orders.owner = options_.owner;
  orders.step = step.id;
  for (std::size_t rank = 0; rank < epochs.size(); ++rank) {
    if (epochs[rank] != Epoch(0)) step.outstanding |= std::uint64_t{1} << rank;
  }
  if (step.canary) {
    orders.canary_slot = step.canary->slot().index.value();
    step.canary_results.assign(options_.ranks, wire::CanaryResult::kNotRun);
  }
  for (LoadBatch& batch : step.loads) add_orders(batch, host, orders);
  orders.saves.reserve(step.saves.size());
  for (const Save& save : step.saves) {
    orders.saves.push_back(
        {.slot = save.place, .group = save.key.group, .device_block = save.device_block});
  }
  Built built{.orders = std::move(orders)};
  if (step.outstanding == 0 || !has_room()) {
    step.has_lost_reports = true;
    built.over = std::move(step);
  } else {
    in_flight_.emplace(step.id.value(), std::move(step));
  }
  return built;
}

void Steps::add_orders(LoadBatch& batch, const tier::HostTier* host, wire::Orders& orders) const {
  for (GroupLoad& load : batch.groups) {
    load.failed.assign(load.device_blocks.size(), false);
    for (std::size_t i = 0; i < load.device_blocks.size(); ++i) {
      wire::LoadOrder order;
      order.group = load.group;
      order.device_block = load.device_blocks[i];
      order.is_void = i >= load.pins.size();
      if (order.is_void) {
        load.failed[i] = true;
      } else {
        order.slot = load.pins.slot(i);
      }
      for (std::uint16_t rank = 0; rank < options_.ranks; ++rank) {
        order.checksums.push_back(order.is_void ? Checksum{}
                                                : host->checksum(order.slot.index, RankId(rank)));
      }
      orders.loads.push_back(std::move(order));
    }
  }
}

Result<std::vector<Step>> Steps::take(const wire::Report& report) {
  if (report.owner != options_.owner || report.rank.value() >= options_.ranks) {
    return fail(Code::kRefused, "report: of another owner or an unknown rank");
  }
  const auto found = in_flight_.find(report.step.value());
  const std::uint64_t bit = std::uint64_t{1} << report.rank.value();
  std::vector<Step> over;
  if (found == in_flight_.end() || (found->second.outstanding & bit) == 0) {
    // Of one that there was no room for: by it those make room that were ordered before.
    if (report.step.value() <= last_id_ && lose_before(report, over)) return over;
    return fail(Code::kNotFound, fmt::format("report: step {} is not outstanding for rank {}",
                                             report.step.value(), report.rank.value()));
  }
  Step& step = found->second;
  if (step.epochs[report.rank.value()] != report.epoch) {
    return fail(Code::kRefused, fmt::format("report: epoch {} of rank {} is not the one ordered",
                                            report.epoch.value(), report.rank.value()));
  }
  (void)lose_before(report, over);
  for (std::size_t i = 0; i < report.saves.size(); ++i) {
    note_save(step, report.rank, report.saves[i], i);
  }
  note_failures(step, report.failures);
  if (!step.canary_results.empty()) step.canary_results[report.rank.value()] = report.canary;
  step.load_time = std::max(step.load_time, Nanoseconds(static_cast<std::int64_t>(report.load_ns)));
  step.load_bytes += Bytes(report.load_bytes);
  step.save_bytes += Bytes(report.save_bytes);
  step.save_time = std::max(step.save_time, Nanoseconds(static_cast<std::int64_t>(report.save_ns)));
  clear_rank(found, report.rank, over);
  return over;
}

// A rank works in order: what it did not report before this step it will not report any more.
bool Steps::lose_before(const wire::Report& report, std::vector<Step>& over) {
  const std::uint64_t bit = std::uint64_t{1} << report.rank.value();
  bool has_lost = false;
  for (auto it = in_flight_.begin(); it != in_flight_.end() && it->first < report.step.value();) {
    const auto current = it++;
    Step& step = current->second;
    if ((step.outstanding & bit) == 0 || step.epochs[report.rank.value()] != report.epoch) continue;
    step.has_lost_reports = true;
    clear_rank(current, report.rank, over);
    has_lost = true;
  }
  return has_lost;
}

void Steps::note_save(Step& step, RankId rank, const wire::SaveReport& report, std::size_t hint) {
  const auto is_it = [&](const Save& save) {
    return save.place == report.slot && save.key.group == report.group;
  };
  // Ranks report in the order of the orders; anything else is found the slow way.
  auto at = step.saves.begin() + static_cast<std::ptrdiff_t>(std::min(hint, step.saves.size()));
  if (at == step.saves.end() || !is_it(*at)) at = std::ranges::find_if(step.saves, is_it);
  if (at == step.saves.end() || !report.is_filled) return;
  at->checksums.resize(step.epochs.size());
  at->checksums[rank.value()] = report.checksum;
  at->filled |= std::uint64_t{1} << rank.value();
}

void Steps::note_failures(Step& step, const std::vector<wire::LoadFailure>& failures) {
  if (failures.empty()) return;
  step.has_failures = true;
  std::set<std::pair<std::uint32_t, SlotRef>> named;
  for (const wire::LoadFailure& failure : failures)
    named.emplace(failure.device_block, failure.slot);
  for (LoadBatch& batch : step.loads) {
    for (GroupLoad& load : batch.groups) {
      for (std::size_t i = 0; i < load.pins.size(); ++i) {
        if (named.contains({load.device_blocks[i], load.pins.slot(i)})) load.failed[i] = true;
      }
    }
  }
}

void Steps::clear_rank(InFlight::iterator step, RankId rank, std::vector<Step>& over) {
  step->second.outstanding &= ~(std::uint64_t{1} << rank.value());
  if (step->second.outstanding != 0) return;
  over.push_back(std::move(step->second));
  in_flight_.erase(step);
}

std::vector<Step> Steps::on_death(RankId rank, Epoch epoch) {
  std::vector<Step> over;
  const std::uint64_t bit = std::uint64_t{1} << rank.value();
  for (auto it = in_flight_.begin(); it != in_flight_.end();) {
    const auto current = it++;
    Step& step = current->second;
    if ((step.outstanding & bit) == 0 || step.epochs[rank.value()] != epoch) continue;
    step.has_lost_reports = true;
    quarantine(step);  // The other ranks may still write into their lanes of the same slots.
    clear_rank(current, rank, over);
  }
  return over;
}

void Steps::quarantine(Step& step) {
  if (std::exchange(step.is_quarantined, true)) return;
  for (Save& save : step.saves) std::move(save.slot).quarantine();
  if (step.canary && step.canary->holds()) {
    // Handled like a save, so that it is released with them.
    Save canary{.place = step.canary->slot()};
    std::move(*step.canary).quarantine();
    step.saves.push_back(std::move(canary));
  }
  // A load that still copies from a slot that changes fails its check: nothing is handed on.
  for (LoadBatch& batch : step.loads) {
    for (GroupLoad& load : batch.groups) load.failed.assign(load.failed.size(), true);
    batch.void_all();
  }
}

std::size_t Steps::quarantine_overdue(Nanoseconds now) {
  std::size_t count = 0;
  for (auto& [id, step] : in_flight_) {
    if (step.is_quarantined || now < step.issued + options_.timeout) continue;
    step.has_lost_reports = true;
    quarantine(step);
    ++count;
  }
  return count;
}

void Steps::taint_in_flight() {
  for (auto& [id, step] : in_flight_) step.is_tainted = true;
}

}  // namespace terrace::manager
