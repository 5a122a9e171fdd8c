// What the ranks and the I/O thread tell the core: reports, deaths, finished reads, writes and
// checks.
#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "terrace/manager/core_internal.h"

namespace terrace::manager {

namespace {
constexpr Nanoseconds kLearnedEvery = seconds(600);
// Between two looks at the disk's answers: a few milliseconds of checksums.
constexpr Bytes kCheckedAtOnce = 16_MiB;
}  // namespace

Status Core::take_report(const wire::Report& report, Nanoseconds now) {
  auto over = steps_.take(report);
  if (!over) {
    context_.counters.reports_refused.add();
    return std::move(over).error();
  }
  context_.counters.reports.add();
  finish_all(std::move(*over), now);
  return {};
}

void Core::taint_steps() {
  steps_.taint_in_flight();
  drop_saves(steps_.drop_pending_saves(), context_.counters.drop_tainted);
}

void Core::finish_all(std::vector<Step> over, Nanoseconds now) {
  bool is_tainted = false;
  for (Step& step : over) {  // Oldest first.
    step.is_tainted = step.is_tainted || is_tainted;
    is_tainted = finish(std::move(step), now) || is_tainted;
  }
}

bool Core::finish(Step step, Nanoseconds now) {
  if (step.has_lost_reports) context_.counters.steps_lost.add();
  const bool has_bad_loads =
      step.has_failures || step.has_failed_load() || (step.has_lost_reports && !step.loads.empty());
  if (has_bad_loads) {
    // Whatever was ordered before this was known may have been computed on the bad blocks.
    step.is_tainted = true;
    taint_steps();
  }
  finish_loads(step);
  std::vector<RequestId> stored;  // That ended meanwhile; mostly none.
  for (const Save& save : step.saves) {
    const bool is_known = !stored.empty() && stored.back() == save.request;
    if (!is_known && ended_.contains(save.request)) stored.push_back(save.request);
  }
  if (shadows_.is_on()) finish_comparisons(step);
  finish_saves(step, now);
  settle_ended(stored);
  finish_canary(step, now);
  observe(step, now);
  has_signal_ = has_signal_ || !context_.events.is_empty();
  return has_bad_loads;
}

void Core::finish_loads(Step& step) {
  std::uint64_t blocks = 0;
  for (const LoadBatch& batch : step.loads) blocks += batch.blocks;
  for (const LoadBatch& batch : step.loads) {
    const auto part = static_cast<double>(batch.blocks) / static_cast<double>(blocks);
    const auto copy_ns = static_cast<double>(step.load_time.value()) * part;
    finish_batch(batch, !step.has_lost_reports, Nanoseconds(static_cast<std::int64_t>(copy_ns)));
  }
  if (!step.loads.empty()) {
    context_.counters.load_ns.add(static_cast<std::uint64_t>(step.load_time.value()));
    context_.counters.onboard_bytes.add(step.load_bytes.value());
  }
  step.loads.clear();
}

void Core::finish_saves(Step& step, Nanoseconds now) {
  if (step.is_quarantined) {
    // Nobody is left who could write to them.
    for (const Save& save : step.saves) context_.pool().release_quarantined(save.place);
  }
  if (step.is_tainted || step.has_lost_reports) {
    drop_saves(step.saves,
               step.is_tainted ? context_.counters.drop_tainted : context_.counters.drop_unfilled);
    step.saves.clear();
    return;
  }
  context_.counters.offload_bytes.add(step.save_bytes.value());
  for (std::size_t i = 0; i < step.saves.size();) {
    const RequestId request = step.saves[i].request;
    catalog::PinRun pins;
    std::vector<Writes::Candidate> blocks;
    std::vector<PackHashes> packs;
    for (; i < step.saves.size() && step.saves[i].request == request; ++i) {
      Save& save = step.saves[i];
      auto pin = seal(save);
      if (!pin) continue;
      pins.add(std::move(*pin));
      blocks.push_back({.key = save.key, .stored = std::move(save.event)});
      const bool is_new = packs.empty() || packs.back() != save.pack;
      if (save.pack != nullptr && is_new) packs.push_back(std::move(save.pack));
    }
    keep_roots(request, blocks.size(), now);
    writes_.offer(std::move(pins), std::move(blocks), now);
    for (const PackHashes& pack : packs) packs_.offer(pack, now);
  }
}

std::optional<catalog::Pin> Core::seal(Save& save) {
  if (std::popcount(save.filled) != context_.options.layout.ranks) {
    context_.counters.drop_unfilled.add();
    context_.ghosts.remember(save.key.hash, MissReason::kDropped);
    rewind(save.request, save.block);  // Its lane may not have been populated yet: offered again.
    return std::nullopt;
  }
  if (save.key.name_space != context_.name_space) return std::nullopt;
  const SlotIndex slot = save.place.index;
  const auto ranks = static_cast<std::uint16_t>(save.checksums.size());
  for (std::uint16_t rank = 0; rank < ranks; ++rank) {
    context_.host->set_checksum(slot, RankId(rank), save.checksums[rank]);
  }
  context_.host->set_alias(slot, save.alias);
  auto pin = std::move(save.slot).seal();
  if (pin) context_.counters.offload_blocks.add();
  if (pin && save.event) context_.note_host_stored(*save.event);
  return pin;
}

void Core::drop_saves(std::span<const Save> saves, Counter& counter) {
  for (const Save& save : saves) {
    if (save.request == RequestId(0)) continue;  // A canary's slot.
    if (save.is_to_compare()) continue;          // Its tally counts it.
    counter.add();
    context_.ghosts.remember(save.key.hash, MissReason::kDropped);
    rewind(save.request, save.block);
  }
}

void Core::rewind(RequestId request, std::uint64_t block) {
  if (Request* found = find(request); found != nullptr) {
    found->cursor = std::min(found->cursor, block);
  }
}

void Core::lose_canary(Nanoseconds now) {
  if (!gate_.on_canary_lost(now)) return;
  context_.answers.revoke_all();
  context_.note(LogLevel::kError,
                fmt::format("event=canary_late reason=\"{}\"", gate_.reason(now)));
}

void Core::finish_canary(const Step& step, Nanoseconds now) {
  if (step.canary_results.empty()) return;
  const Gate::State before = gate_.state(now);
  if (step.has_lost_reports || !gate_.on_canary(step.canary_results)) return lose_canary(now);
  if (gate_.state(now) == before) return;  // Of older ranks, or a second answer that agrees.
  context_.answers.revoke_all();
  if (gate_.is_serving()) {
    context_.counters.canaries_passed.add();
    context_.note(LogLevel::kInfo, "event=serving canary=passed");
    has_signal_ = true;
  } else if (gate_.state(now) == Gate::State::kShut) {
    context_.counters.canaries_failed.add();
    context_.note(LogLevel::kError,
                  fmt::format("event=canary_failed reason=\"{}\"", gate_.reason(now)));
  }
}

void Core::observe(const Step& step, Nanoseconds now) {
  if (step.has_lost_reports) return;
  const std::uint16_t ranks = context_.options.layout.ranks;
  // No copy takes longer than its step, whatever a rank says.
  const Nanoseconds copied =
      std::clamp(step.save_time, Nanoseconds(0), std::max(Nanoseconds(0), now - step.issued));
  copy_budget_.finish(Bytes(step.save_bytes.value() / ranks), copied, step.save_charged);
  if (step.save_bytes > Bytes(0)) {
    context_.counters.save_ns.add(static_cast<std::uint64_t>(copied.value()));
    context_.counters.save_steps.add();
  }
  if (step.load_bytes > Bytes(0)) {
    context_.planner.observe_load(Tier::kHost, step.load_bytes, step.load_time);
  }
  const Nanoseconds computed = now - step.issued - step.load_time;
  if (computed <= Nanoseconds(0)) return;
  context_.planner.observe_prefill(step.prefilled, computed);
  for (const PrefillPart& part : step.prefills) {
    Request* request = find(part.request);
    if (request == nullptr) continue;
    request->ledger.stages.computed += computed;
    request->ledger.stages.computed_tokens += part.tokens;
    if (!request->ledger.decision) continue;
    request->ledger.decision->recompute += computed;
    request->ledger.decision->recomputed += part.tokens;
  }
}

void Core::question(SlotRef slot) {
  if (look_ups_.survey().is_condemned(slot)) return;
  auto pin = context_.pool().pin(slot);
  const auto key = context_.pool().key_of(slot);
  if (!pin || !key) return;
  look_ups_.survey().condemn(slot);
  checks_.emplace(++last_check_, Check{.pin = std::move(*pin), .key = *key});
}

void Core::on_check(std::uint64_t token, bool is_right) {
  auto node = checks_.extract(token);
  if (node.empty()) return;
  const SlotRef slot = node.mapped().pin.slot();
  node.mapped().pin.reset();
  if (is_right) {  // The bytes are good: something between host and device was not.
    look_ups_.survey().absolve(slot);
    return;
  }
  context_.counters.corrupt_blocks[static_cast<std::size_t>(Tier::kHost)].add();
  context_.note(LogLevel::kWarn,
                fmt::format("event=corrupt tier=host slot={}", slot.index.value()));
  if (!remove_condemned(slot)) to_remove_.push_back(slot);
}

bool Core::remove_condemned(SlotRef slot) {
  if (!context_.remove(slot, MissReason::kCorrupt)) return false;
  look_ups_.survey().absolve(slot);
  return true;
}

void Core::tick(Nanoseconds now) {
  for (auto& [id, request] : requests_) {
    look_ups_.expire(*request, now);
    shadows_.expire(*request, now);
  }
  if (const std::size_t overdue = steps_.quarantine_overdue(now); overdue > 0) {
    context_.note(LogLevel::kWarn, fmt::format("event=steps_overdue count={}", overdue));
  }
  log_hits(now);
  log_rates(now);
  if (context_.host == nullptr) return;
  std::erase_if(to_remove_, [&](SlotRef slot) { return remove_condemned(slot); });
  if (context_.is_paused()) cancel_reads();  // The disk may have given some back.
  has_more_to_touch_ = context_.touch_some();
  has_more_to_touch_ = sightings_.work(now) || has_more_to_touch_;
  context_.note_disk_evictions();
  writes_.drive_eviction(now);
  has_signal_ = has_signal_ || !context_.events.is_empty();
}

void Core::open_lower(LowerTier& lower) {
  if (was_reset_) lower.forget_all();  // What was asked for while it was opening.
  context_.lower = &lower;
  load_learned(lower);
}

// Some 2 ms under the lock, once, for what would take days to learn.
void Core::load_learned(const LowerTier& lower) {
  const std::string found = lower.learned();
  if (context_.returns == nullptr || found.empty()) return;
  const Status status = context_.returns->load(found);
  if (status.is_ok()) {
    context_.note(LogLevel::kInfo,
                  fmt::format("event=learned_found classes={}", context_.returns->classes()));
  } else {
    context_.note(
        LogLevel::kWarn,
        fmt::format("event=learned_refused reason=\"{}\": eviction learns anew", status.message()));
  }
}

bool Core::is_learned_due(Nanoseconds now) const {
  // A disk that is not trusted, or that nobody may write to, gets nothing.
  const bool may_write = context_.lower != nullptr && context_.is_lower_readable &&
                         context_.mode == Mode::kOn && context_.options.can_store;
  if (context_.returns == nullptr || !may_write || is_poisoned()) return false;
  if (context_.returns->requests() == learned_requests_) return false;
  return is_closing_ ? !has_learned_last_ : now - learned_at_ >= kLearnedEvery;
}

std::string Core::take_learned(Nanoseconds now) {
  learned_at_ = now;
  learned_requests_ = context_.returns->requests();
  has_learned_last_ = is_closing_;
  return context_.returns->save();
}

bool Core::has_jobs() const {
  return reads_.has_jobs() || writes_.has_jobs() || writes_.is_behind() || has_more_to_touch_ ||
         packs_.has_jobs() || look_ups_.has_probes() ||
         std::ranges::any_of(checks_, [](const auto& check) { return !check.second.is_begun; }) ||
         std::ranges::any_of(comparisons_, [](const auto& one) { return !one.second.is_begun; });
}

void Core::take_jobs(std::size_t limit, Nanoseconds now, Jobs& jobs) {
  reads_.take_cancels(jobs.cancels);
  reads_.take(limit, now, jobs.reads);
  writes_.take(limit, jobs.writes);
  packs_.take(limit, jobs.packs);
  for (const RequestId id : look_ups_.take_probes()) {
    Request* request = find(id);
    if (request == nullptr) continue;
    if (request->is_growing) {  // It computes already: nothing that is there would help it.
      request->probe = Request::Probe::kDone;
      continue;
    }
    const auto chain = request->chain.hashes();
    jobs.probes.push_back({.request = id,
                           .chain = {chain.begin(), chain.end()},
                           .deadline = now + context_.options.lookup_deadline});
  }
  take_comparisons(jobs);
  take_checks(limit, jobs);
}

// Many at once come where the host's memory or the way to the device is bad.
void Core::take_checks(std::size_t limit, Jobs& jobs) {
  Bytes taken(0);
  for (auto& [token, check] : checks_) {
    if (jobs.checks.size() >= limit) return;
    if (check.is_begun) continue;
    taken += context_.groups.bytes(check.key.group);
    if (taken > kCheckedAtOnce && !jobs.checks.empty()) return;
    check.is_begun = true;
    CheckJob job{
        .token = token, .group = check.key.group, .slot = check.pin.slot().index, .checksums = {}};
    for (std::uint16_t rank = 0; rank < context_.options.layout.ranks; ++rank) {
      job.checksums.push_back(context_.host->checksum(job.slot, RankId(rank)));
    }
    jobs.checks.push_back(std::move(job));
  }
}

void Core::on_probed(RequestId request, Nanoseconds now) {
  Request* found = find(request);
  if (found == nullptr) return;
  look_ups_.on_probed(*found, serving(now), now);
  has_signal_ = true;
}

void Core::on_read(std::uint64_t token, const Status& status, std::span<const Checksum> checksums,
                   std::uint64_t alias, Nanoseconds now) {
  auto outcome = reads_.finish(token, status, checksums, alias, now);
  if (!outcome) return;
  if (!outcome->reason) look_ups_.on_disk_read(now);
  for (const Waiter& waiter : outcome->waiters) {
    if (Request* request = find(waiter.request); request != nullptr) {
      look_ups_.on_block(*request, waiter.group, waiter.block, outcome->reason);
      look_ups_.complete(*request, now);
    }
  }
  if (outcome->pin && outcome->source == Tier::kObject) promote(*std::move(outcome), now);
  has_signal_ = true;
}

// The next time the disk has it, which is nearer.
void Core::promote(ReadOutcome outcome, Nanoseconds now) {
  if (!context_.options.object.is_promoted) return context_.leave_to_store(outcome.key);
  if (!can_store_now()) return;
  catalog::PinRun pins;
  pins.add(*std::move(outcome.pin));
  std::vector<Writes::Candidate> blocks;
  blocks.push_back({.key = outcome.key, .stored = std::nullopt});
  writes_.offer(std::move(pins), std::move(blocks), now);
}

}  // namespace terrace::manager
