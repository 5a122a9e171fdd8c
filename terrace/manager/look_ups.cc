#include <algorithm>

#include "terrace/manager/look_ups_internal.h"

namespace terrace::manager {

namespace {

// A slow disk is no reason to throw away what it brings a little later: the next look-up has it.
constexpr std::int64_t kReadPatience = 4;

Nanoseconds read_deadline(const Options& options, Nanoseconds now) {
  return now + options.lookup_deadline * kReadPatience;
}

void mark_from_disk(Request& request, std::uint64_t block) {
  if (request.from_disk.size() <= block) request.from_disk.resize(block + 1);
  request.from_disk[block] = true;
}

}  // namespace

std::uint64_t LookUps::max_waiting_pins() const {
  const double slots = context_.host == nullptr ? 0.0 : context_.host->geometry().slots;
  return static_cast<std::uint64_t>(slots * context_.options.pin_share);
}

std::optional<Event> LookUps::event_of(const Request& request, std::uint64_t block) const {
  if (!context_.options.has_events) return std::nullopt;
  return describe(request, block, context_.options.layout.block_tokens);
}

void LookUps::begin(Request& request, Serving serving, Nanoseconds now) {
  if (serving != Serving::kAll || context_.lower == nullptr || !context_.is_lower_readable ||
      !request.can_load || !context_.options.can_load) {
    return;
  }
  const auto hashes = request.chain.hashes();
  std::vector<policy::SourceRun> runs;
  const std::size_t in_host = context_.pool().match(context_.name_space, kGroup, hashes);
  (void)survey(hashes, in_host, runs);
  // Half of what waiting requests may hold: a prefetch is a guess about how much the engine has
  // itself.
  const std::uint64_t room = max_waiting_pins() / 2;
  std::uint64_t block = 0;
  for (const policy::SourceRun& run : runs) {
    for (std::uint64_t i = 0; i < run.blocks; ++i, ++block) {
      if (run.source != Tier::kDisk) continue;
      if (reads_.size() >= room) return;
      const bool is_coming =
          reads_.want(context_.key_of(hashes[block]), transfer::IoClass::kPrefetch,
                      read_deadline(context_.options, now), std::nullopt, event_of(request, block));
      if (!is_coming) return;
      mark_from_disk(request, block);
      if (context_.options.has_events) context_.note_disk_stored(*event_of(request, block));
    }
  }
}

MatchAnswer LookUps::miss(Request& request, std::optional<MissReason> reason, Nanoseconds now) {
  drop(request);
  if (reason) request.look_up.reason = reason;
  finish(request, now);
  return {.is_ready = true, .external = Tokens(0)};
}

MatchAnswer LookUps::poll(Request& request, Tokens local, Tokens limit, Serving serving,
                          Nanoseconds now) {
  LookUp& look_up = request.look_up;
  if (!look_up.first_poll) look_up.first_poll = now;
  const Tokens block_tokens = context_.options.layout.block_tokens;
  const auto hashes = request.chain.hashes();
  const std::uint64_t first = local / block_tokens;
  const std::uint64_t end = std::min<std::uint64_t>(hashes.size(), limit / block_tokens);
  if (look_up.phase != LookUp::Phase::kNone && look_up.first != first) drop(request);
  look_up.first = first;
  look_up.end = std::max(first, end);
  if (!request.is_keyed) return miss(request, MissReason::kUnkeyable, now);
  if (!request.can_load || request.has_failed || serving == Serving::kNothing) {
    return miss(request, std::nullopt, now);
  }
  const bool may_wait_to_open =
      !has_waited_in_vain_ && now < *look_up.first_poll + context_.options.attach_lookup_wait;
  // One that only stores waits for the ranks as well: what it computes before is lost.
  const bool is_opening =
      context_.options.can_load ? serving != Serving::kAll : serving == Serving::kNotYet;
  if (is_opening && may_wait_to_open) return {};
  has_waited_in_vain_ = is_opening;
  if (!context_.options.can_load) return miss(request, std::nullopt, now);
  if (serving == Serving::kNotYet) return miss(request, MissReason::kLate, now);
  touch(request);
  if (look_up.first >= look_up.end) return miss(request, std::nullopt, now);

  expire(request, now);
  if (!look_up.first_probe) look_up.first_probe = now;
  const Nanoseconds deadline = *look_up.first_probe + context_.options.lookup_deadline;
  if (look_up.phase == LookUp::Phase::kNone) {
    probe(request, hashes.subspan(first, look_up.end - first), now < deadline && !is_disk_stuck_,
          now);
  }
  if (look_up.phase == LookUp::Phase::kWaiting) {
    if (look_up.tail_missing > 0 && now < deadline) return {};
    if (look_up.tail_missing > 0) {
      context_.counters.late_look_ups.add();
      is_disk_stuck_ = last_read_ < *look_up.first_probe;
      const auto gap =
          std::ranges::find_if(look_up.tail, [](const auto& pin) { return !pin.holds(); });
      cut(look_up, look_up.run.size() + static_cast<std::uint64_t>(gap - look_up.tail.begin()),
          MissReason::kLate);
    }
    finish(request, now);
  }
  const std::uint64_t blocks =
      std::min<std::uint64_t>(look_up.run.size(), look_up.end - look_up.first);
  return {.is_ready = true, .external = block_tokens * blocks};
}

void LookUps::touch(Request& request) {
  LookUp& look_up = request.look_up;
  if (std::exchange(look_up.has_touched, true)) return;
  // What the engine has itself would age out here otherwise; what is pinned is touched when let go.
  context_.touch(request.chain.hashes());
}

std::uint64_t LookUps::survey(std::span<const SequenceHash> hashes, std::uint64_t in_host,
                              std::vector<policy::SourceRun>& runs) const {
  std::uint64_t found = in_host;
  if (in_host > 0) runs.push_back({Tier::kHost, in_host});
  if (context_.lower == nullptr || !context_.is_lower_readable) return found;
  while (found < hashes.size() && runs.size() < kMaxRuns) {
    const std::size_t on_disk = context_.lower->match(kGroup, hashes.subspan(found));
    if (on_disk == 0) break;
    // Within a run on disk blocks may be in host as well; those need no read, but the plan is about
    // what it costs at most.
    runs.push_back({Tier::kDisk, on_disk});
    found += on_disk;
    const std::size_t more =
        context_.host->pool().match(context_.name_space, kGroup, hashes.subspan(found));
    if (more == 0) break;
    runs.push_back({Tier::kHost, more});
    found += more;
  }
  return found;
}

void LookUps::probe(Request& request, std::span<const SequenceHash> hashes, bool may_read,
                    Nanoseconds now) {
  LookUp& look_up = request.look_up;
  look_up.run = context_.pool().pin_run(context_.name_space, kGroup, hashes);
  std::optional<MissReason> reason;
  for (std::size_t i = 0; !condemned_.empty() && i < look_up.run.size(); ++i) {
    if (!is_condemned(look_up.run.slot(i))) continue;
    look_up.run.shrink(i);
    reason = MissReason::kCorrupt;
  }
  std::vector<policy::SourceRun> runs;
  std::uint64_t found = look_up.run.size();
  if (may_read && !reason) {
    found = survey(hashes, look_up.run.size(), runs);
  } else if (found > 0) {
    runs.push_back({Tier::kHost, found});
  }
  std::uint64_t wanted = 0;
  if (found > 0) {
    std::array<Bytes, kTierCount> queued{};
    queued[static_cast<std::size_t>(Tier::kDisk)] = reads_.queued_beside(hashes.first(found));
    wanted = std::min(found, context_.planner.plan(runs, queued).blocks);
  }
  if (!reason && wanted < found) reason = MissReason::kNotWorthIt;
  const std::uint64_t room = max_waiting_pins() - std::min(max_waiting_pins(), waiting_pins_);
  if (wanted > room) {
    context_.counters.drop_pins.add(wanted - room);
    wanted = room;
    reason = MissReason::kDropped;
  }
  // After the deadline the first finding stands: it says what was waited for.
  if (!reason && found < hashes.size() && (may_read || !look_up.reason)) {
    reason = why_short(hashes[found], may_read);
  }
  if (reason || found >= hashes.size()) look_up.reason = reason;
  look_up.run.shrink(wanted);
  charge(look_up, wanted);
  look_up.phase = LookUp::Phase::kWaiting;
  look_up.expires = now + context_.options.lookup_deadline + context_.options.pin_time;
  collect_tail(request, hashes, wanted, now);
}

MissReason LookUps::why_short(const SequenceHash& hash, bool may_read) {
  const bool is_below = !may_read && context_.lower != nullptr && context_.is_lower_readable &&
                        context_.lower->contains(kGroup, hash);
  if (!is_below) return context_.why_missing(hash);
  context_.counters.late_look_ups.add();
  return MissReason::kLate;
}

void LookUps::collect_tail(Request& request, std::span<const SequenceHash> hashes,
                           std::uint64_t count, Nanoseconds now) {
  LookUp& look_up = request.look_up;
  const std::uint64_t leading = look_up.run.size();
  if (count <= leading) return;
  look_up.tail.resize(count - leading);
  look_up.tail_missing = look_up.tail.size();
  // First hold what is there: reserving slots for the rest must not evict it.
  for (std::uint64_t i = leading; i < count; ++i) {
    auto pin = context_.pool().pin(context_.key_of(hashes[i]));
    if (!pin || is_condemned(pin->slot())) continue;
    look_up.tail[i - leading] = std::move(*pin);
    --look_up.tail_missing;
  }
  for (std::uint64_t i = leading; i < count; ++i) {
    if (look_up.tail[i - leading].holds()) continue;
    const std::uint64_t block = look_up.first + i;
    const bool is_coming =
        reads_.want(context_.key_of(hashes[i]), transfer::IoClass::kTtftRead,
                    read_deadline(context_.options, now),
                    Waiter{.request = request.id, .block = block}, event_of(request, block));
    if (!is_coming) {
      cut(look_up, i, MissReason::kDropped);
      return;
    }
    mark_from_disk(request, block);
    if (context_.options.has_events) context_.note_disk_stored(*event_of(request, block));
  }
}

void LookUps::on_block(Request& request, std::uint64_t block, std::optional<MissReason> reason) {
  LookUp& look_up = request.look_up;
  if (look_up.phase != LookUp::Phase::kWaiting || block < look_up.first + look_up.run.size())
    return;
  const std::uint64_t at = block - look_up.first - look_up.run.size();
  if (at >= look_up.tail.size() || look_up.tail[at].holds()) return;
  std::optional<catalog::Pin> pin;
  if (!reason) pin = context_.pool().pin(context_.key_of(request.chain.hashes()[block]));
  if (pin) {
    look_up.tail[at] = std::move(*pin);
    --look_up.tail_missing;
  } else {
    cut(look_up, block - look_up.first, reason.value_or(MissReason::kEvicted));
  }
}

void LookUps::cut(LookUp& look_up, std::uint64_t blocks, MissReason reason) {
  look_up.shrink(blocks);
  charge(look_up, blocks);
  look_up.reason = reason;
}

void LookUps::charge(LookUp& look_up, std::uint64_t pins) {
  waiting_pins_ -= look_up.charged;
  waiting_pins_ += pins;
  look_up.charged = pins;
}

void LookUps::finish(Request& request, Nanoseconds now) {
  LookUp& look_up = request.look_up;
  for (catalog::Pin& pin : look_up.tail) look_up.run.add(std::move(pin));
  look_up.tail.clear();
  look_up.expires = now + context_.options.pin_time;
  // Nothing found: the next poll may look again, at little cost. What the planner refused stays
  // refused for a while, so that asking again does not count as another request.
  const bool is_sticky = !look_up.run.empty() || look_up.reason == MissReason::kNotWorthIt;
  look_up.phase = is_sticky ? LookUp::Phase::kReady : LookUp::Phase::kNone;
  if (request.ledger.lookup_wait == Nanoseconds(0) && look_up.first_poll) {
    request.ledger.lookup_wait = now - *look_up.first_poll;
  }
}

catalog::PinRun LookUps::accept(Request& request, std::uint64_t first, std::uint64_t blocks) {
  LookUp& look_up = request.look_up;
  catalog::PinRun run;
  if (look_up.phase == LookUp::Phase::kReady && look_up.first == first) {
    run = std::move(look_up.run);
    run.shrink(blocks);
  }
  drop(request);
  return run;
}

void LookUps::settle(Request& request, Tokens local, std::uint64_t accepted) {
  LookUp& look_up = request.look_up;
  if (!look_up.first_poll) return;
  request.ledger.local = std::max(request.ledger.local, local);
  request.has_looked_up = true;
  context_.counters.match_blocks.add(accepted);
  context_.counters.match_tokens.add(accepted * context_.options.layout.block_tokens.value());
  const std::uint64_t wanted = look_up.end - look_up.first;
  if (accepted < wanted && look_up.reason) {
    if (!request.ledger.first_miss) request.ledger.first_miss = look_up.reason;
    context_.counters.miss_blocks[static_cast<std::size_t>(*look_up.reason)].add(wanted - accepted);
  }
  drop(request);
  look_up = LookUp{};
}

void LookUps::drop(Request& request) {
  LookUp& look_up = request.look_up;
  look_up.shrink(0);
  charge(look_up, 0);
  look_up.phase = LookUp::Phase::kNone;
}

void LookUps::expire(Request& request, Nanoseconds now) {
  if (request.look_up.phase != LookUp::Phase::kNone && now >= request.look_up.expires)
    drop(request);
}

bool LookUps::is_condemned(SlotRef slot) const {
  return !condemned_.empty() && std::ranges::find(condemned_, slot) != condemned_.end();
}

}  // namespace terrace::manager
