// What a request came to: its ledger while loads are reported, at its end, and after it.
#include <fmt/format.h>

#include <algorithm>

#include "terrace/manager/core_internal.h"

namespace terrace::manager {

void Core::finish_batch(const LoadBatch& batch, bool is_known, Nanoseconds copy_time) {
  Request* request = find(batch.request);
  const auto late = unreported_.find(batch.request);
  Ledger* ledger = request == nullptr ? nullptr : &request->ledger;
  if (late != unreported_.end()) ledger = &late->second.ledger;
  const Tokens block_tokens = context_.options.layout.block_tokens;
  // The engine keeps what leads up to the first bad block, of several groups nothing.
  std::uint64_t good = is_known ? batch.good() : 0;
  if (good < batch.blocks && !context_.groups.is_plain()) good = 0;
  for (std::uint64_t i = 0; i < good; ++i) {
    const auto tier = static_cast<std::size_t>(batch.sources[i]);
    context_.counters.hit_tokens[tier].add(block_tokens.value());
    context_.counters.hit_blocks[tier].add();
    if (ledger != nullptr) ledger->hit[tier] += block_tokens;
  }
  context_.counters.verified_blocks.add(good);
  const bool is_good = good == batch.blocks;
  const Tokens lost = block_tokens * (batch.blocks - good);
  // Without a pin the answer had expired before it was taken.
  const bool is_void = std::ranges::all_of(batch.groups, [&](const GroupLoad& load) {
    return load.from + load.pins.size() <= std::max(load.from, batch.first + good);
  });
  const MissReason reason = is_void ? MissReason::kLate : MissReason::kCorrupt;
  if (ledger != nullptr) {
    ledger->stages.copied += copy_time;
    ledger->failed += lost;
    if (!is_good && !ledger->first_miss) ledger->first_miss = reason;
    if (is_good && ledger->decision) settle_decision(*ledger->decision, copy_time);
  }
  if (late != unreported_.end()) settle_late(batch);
  if (is_good) {
    context_.counters.loads.add();
    return;
  }
  context_.counters.failed_loads.add();
  context_.counters.failed_tokens.add(lost.value());
  context_.counters.miss_blocks[static_cast<std::size_t>(reason)].add(batch.blocks - good);
  for (const GroupLoad& load : batch.groups) {
    for (std::size_t i = 0; is_known && i < load.pins.size(); ++i) {
      if (load.failed[i]) question(load.pins.slot(i));
    }
  }
  if (request == nullptr) return;
  request->has_failed = true;
  context_.answers.revoke(request->id);
  rewind(batch.request, batch.first);
}

void Core::settle_decision(Decision& decision, Nanoseconds copy_time) {
  if (!decision.is_abandoned) {
    decision.load += copy_time;
    context_.planner.settle(decision.slowest, decision.predicted_load, decision.load);
  }
  context_.counters.onboard_times.add(decision.load);
  const bool is_slow =
      decision.predicted_recompute > Nanoseconds(0) && decision.load > decision.predicted_recompute;
  if (is_slow || decision.is_abandoned) context_.counters.slow_loads.add();
}

void Core::settle_late(const LoadBatch& batch) {
  const auto late = unreported_.find(batch.request);
  auto& [ledger, number] = late->second;
  ledger.pending -= context_.options.layout.block_tokens * batch.blocks;
  const bool is_over = ledger.pending == Tokens(0);
  ledgers_.amend(number, ledger, is_over ? LedgerState::kEnded : LedgerState::kReporting);
  if (!is_over) return;
  hits_.add(ledger);
  unreported_.erase(late);
}

void Core::close_ledger(Request& request, Nanoseconds now) {
  Ledger& ledger = request.ledger;
  ledger.pending = context_.options.layout.block_tokens * steps_.blocks_under_way(request.id);
  ledger.stages.total = now - request.began;
  if (!request.is_keyed) {
    const std::uint64_t local = ledger.local / context_.options.layout.block_tokens;
    context_.counters.miss_blocks[static_cast<std::size_t>(MissReason::kUnkeyable)].add(
        request.prompt_blocks - std::min(request.prompt_blocks, local));
  } else if (!request.can_load && !ledger.not_asked) {
    ledger.not_asked = NotAsked::kOptedOut;
  }
}

Ledger Core::end_request(Request& request, Nanoseconds now, const AnswerEnd& end) {
  look_ups_.settle(request, request.ledger.local, 0);
  reads_.release(request.id);
  shadows_.release(request);
  steps_.forget_pending(request.id);
  if (request.over_cap > 0) {
    (request.is_over_budget ? context_.counters.drop_copy_budget
                            : context_.counters.drop_step_bytes)
        .add(request.over_cap);
    const auto hashes = request.chain.hashes();
    const std::uint64_t from = request.over_cap_from;
    for (std::uint64_t i = 0; i < request.over_cap && from + i < hashes.size(); ++i) {
      context_.ghosts.remember(hashes[from + i], MissReason::kDropped);
    }
  }
  note_end(request, end, now);
  if (request.is_keyed && request.can_store && can_store_now()) {
    packs_.offer_found(request.chain.hashes(), request.found_blocks, now);
  }
  close_ledger(request, now);
  const Ledger ledger = request.ledger;
  context_.counters.prompt_tokens.add(ledger.prompt.value());
  context_.counters.engine_tokens.add(ledger.local.value());
  const bool is_over = ledger.pending == Tokens(0);
  const std::uint64_t number =
      ledgers_.add({.state = is_over ? LedgerState::kEnded : LedgerState::kReporting,
                    .name = request.name,
                    .unkeyable = request.unkeyable,
                    .ended = now,
                    .ledger = ledger});
  if (!is_over) {
    unreported_.emplace(request.id, Unreported{.ledger = ledger, .number = number});
  } else if (request.has_looked_up) {
    hits_.add(ledger);
  }
  requests_.erase(request.id);
  return ledger;
}

void Core::find_running(std::string_view name, Nanoseconds now,
                        std::vector<KeptLedger>& found) const {
  const std::string_view begin = name.substr(0, Label::kMost);
  for (const auto& [id, request] : requests_) {
    if (found.size() == found.capacity()) return;
    if (!request->name.view().starts_with(begin)) continue;
    KeptLedger& kept = found.emplace_back(KeptLedger{.name = request->name,
                                                     .unkeyable = request->unkeyable,
                                                     .ended = now,
                                                     .ledger = request->ledger});
    kept.ledger.stages.total = now - request->began;
    kept.ledger.pending =
        context_.options.layout.block_tokens * steps_.blocks_under_way(request->id);
  }
}

void Core::log_hits(Nanoseconds now) {
  const Nanoseconds every = context_.options.log_hits_every;
  if (every == Nanoseconds(0) || now - hits_logged_at_ < every) return;
  hits_logged_at_ = now;
  if (hits_.ended() == hits_logged_ended_) return;
  hits_logged_ended_ = hits_.ended();
  context_.note(LogLevel::kInfo, hits_.log_line(context_.options.engine_id));
}

void Core::log_rates(Nanoseconds now) {
  if (auto line = rates_.take(now)) context_.note(LogLevel::kInfo, *std::move(line));
}

}  // namespace terrace::manager
