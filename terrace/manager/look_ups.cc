#include <algorithm>
#include <utility>

#include "terrace/manager/look_ups_internal.h"

namespace terrace::manager {

namespace {

// A slow disk is no reason to throw away what it brings a little later: the next look-up has it.
constexpr std::int64_t kReadPatience = 4;

Nanoseconds read_deadline(const Options& options, Nanoseconds now) {
  return now + options.lookup_deadline * kReadPatience;
}

void mark_source(Request& request, std::uint64_t block, Tier source) {
  if (request.sources.size() <= block) request.sources.resize(block + 1, Tier::kHost);
  request.sources[block] = source;
}

}  // namespace

std::uint64_t LookUps::max_waiting_pins() const {
  if (context_.host == nullptr) return 0;
  const auto slots = static_cast<double>(context_.host->geometry().slots);
  // One at least, or the smallest tier would store what nobody may hit.
  return std::max<std::uint64_t>(1, static_cast<std::uint64_t>(slots * context_.options.pin_share));
}

std::uint64_t LookUps::room() const {
  return max_waiting_pins() - std::min(max_waiting_pins(), waiting_pins_);
}

std::optional<Event> LookUps::event_of(const Request& request, GroupId group,
                                       std::uint64_t block) const {
  if (!context_.options.has_events) return std::nullopt;
  return describe(request, group, block, context_.options.layout.block_tokens);
}

bool LookUps::want(Request& request, GroupId group, std::uint64_t block, Purpose purpose,
                   Nanoseconds now) {
  const bool is_waiting = purpose == Purpose::kAwaited;
  const auto io_class = is_waiting ? transfer::IoClass::kTtftRead : transfer::IoClass::kPrefetch;
  std::optional<Waiter> waiter;
  if (is_waiting) waiter = Waiter{.request = request.id, .group = group, .block = block};
  std::optional<RequestId> asker;
  if (purpose != Purpose::kProbe) asker = request.id;
  const auto& hash = request.chain.hashes()[block];
  const auto source =
      reads_.want(context_.key_of(group, hash), io_class, read_deadline(context_.options, now),
                  asker, waiter, event_of(request, group, block));
  if (!source) return false;
  mark_source(request, block, *source);
  if (context_.options.has_events && *source == Tier::kDisk) {
    context_.note_disk_stored(*event_of(request, group, block));
  }
  return true;
}

std::uint64_t LookUps::leading_in_host(GroupId group, std::span<const SequenceHash> hashes,
                                       const std::vector<policy::SourceRun>& runs) {
  if (!context_.groups.is_plain()) {
    return context_.pool().match(context_.name_space, group, hashes);
  }
  const bool is_there = !runs.empty() && runs.front().source == Tier::kHost;
  return is_there ? runs.front().blocks : 0;  // Found by the survey already.
}

void LookUps::begin(Request& request, Serving serving, Nanoseconds now) {
  if (serving != Serving::kAll || !survey_.can_read() || context_.is_paused() ||
      !request.can_load || !context_.options.can_load) {
    return;
  }
  const auto hashes = request.chain.hashes();
  std::vector<policy::SourceRun> runs;
  const std::uint64_t end = survey_.resume_at(hashes, 0, hashes.size(), true, runs);
  (void)is_probing(request, end);
  // What will be refused need not be brought. But a disk that brought nothing to anybody is only
  // known to be well again by what it brings.
  const auto queued = reads_.queued_beside(hashes.first(end));
  std::uint64_t wanted = context_.planner.peek(runs, queued, part_of(request, 0, end)).blocks;
  if (is_disk_stuck_) wanted = std::max(wanted, context_.planner.probe_blocks());
  prefetch(request, std::min(end, wanted), runs, now);
}

void LookUps::on_probed(Request& request, Serving serving, Nanoseconds now) {
  request.probe = Request::Probe::kDone;
  // Before the first poll, what was found is fetched. A poll that waited for it goes on by itself;
  // one that did not wait has been answered, and the engine may compute since, its chain growing.
  const bool is_computing = request.is_growing || request.computed > Tokens(0);
  if (!request.is_polled && !is_computing) begin(request, serving, now);
}

bool LookUps::is_probing(Request& request, std::uint64_t known) {
  if (request.probe == Request::Probe::kNone && context_.objects != nullptr &&
      context_.objects->may_hold_more(request.chain.hashes(), known)) {
    request.probe = Request::Probe::kRunning;
    to_probe_.push_back(request.id);
  }
  return request.probe == Request::Probe::kRunning;
}

void LookUps::prefetch(Request& request, std::uint64_t end, std::vector<policy::SourceRun>& runs,
                       Nanoseconds now) {
  const auto hashes = request.chain.hashes();
  // Half of what waiting requests may hold: a prefetch is a guess about how much the engine has
  // itself.
  const std::uint64_t room = max_waiting_pins() / 2;
  // What the request finds in host is not to go for what it reads.
  std::vector<catalog::PinRun> own(context_.groups.count());
  for (std::uint16_t number = 0; number < context_.groups.count(); ++number) {
    const GroupId group(number);
    const std::uint64_t first = context_.groups.first_needed(group, end);
    const auto wanted = hashes.subspan(first, end - first);
    // Asked about one by one, many cost more than they are worth.
    const std::uint64_t leading = leading_in_host(group, wanted, runs);
    if (leading >= wanted.size()) continue;
    own[number] = context_.pool().pin_run(context_.name_space, group, wanted.first(leading));
    for (std::uint64_t block = first + leading; block < end; ++block) {
      if (auto pin = context_.pool().pin(context_.key_of(group, hashes[block]))) {
        own[number].add(std::move(*pin));
        continue;
      }
      if (reads_.size() >= room) return;
      if (!want(request, group, block, Purpose::kAhead, now)) return;
    }
  }
}

MatchAnswer LookUps::miss(Request& request, std::optional<MissReason> reason, Nanoseconds now) {
  drop(request);
  if (reason) request.look_up.reason = reason;
  finish(request, now);
  return {.is_ready = true, .external = Tokens(0)};
}

MatchAnswer LookUps::do_without(Request& request, NotAsked why, Nanoseconds now) {
  if (!request.ledger.not_asked) request.ledger.not_asked = why;
  return miss(request, std::nullopt, now);
}

MatchAnswer LookUps::poll(Request& request, Tokens local, Tokens limit, Serving serving,
                          Nanoseconds now) {
  LookUp& look_up = request.look_up;
  if (!look_up.first_poll) look_up.first_poll = now;
  if (!std::exchange(request.is_polled, true)) request.ledger.stages.queued = now - request.began;
  const Tokens block_tokens = context_.options.layout.block_tokens;
  const auto hashes = request.chain.hashes();
  const std::uint64_t first = local / block_tokens;
  const std::uint64_t end = std::min<std::uint64_t>(hashes.size(), limit / block_tokens);
  // With windows a shorter answer needs other blocks; without, what leads is part of what is held.
  const bool is_too_long = !context_.groups.is_plain() && first + look_up.blocks > end;
  if (look_up.phase != LookUp::Phase::kNone && (look_up.first != first || is_too_long)) {
    drop(request);
  }
  look_up.first = first;
  look_up.end = std::max(first, end);
  if (!request.is_keyed) return miss(request, MissReason::kUnkeyable, now);
  if (!request.can_load) return do_without(request, NotAsked::kOptedOut, now);
  if (shadows_.is_quarantined() && context_.options.can_load) {
    return miss(request, MissReason::kQuarantined, now);
  }
  if (request.has_failed) return miss(request, std::nullopt, now);
  if (serving == Serving::kNothing) return do_without(request, NotAsked::kNotServing, now);
  if (context_.mode == Mode::kObserve) return do_without(request, NotAsked::kObserves, now);
  if (context_.mode == Mode::kPaused && context_.options.can_load) {
    return miss(request, MissReason::kPaused, now);
  }
  const bool may_wait_to_open =
      !has_waited_in_vain_ && now < *look_up.first_poll + context_.options.attach_lookup_wait;
  // One that only stores waits for the ranks as well: what it computes before is lost.
  const bool is_opening =
      context_.options.can_load ? serving != Serving::kAll : serving == Serving::kNotYet;
  if (is_opening && may_wait_to_open) return {};
  has_waited_in_vain_ = is_opening;
  if (!context_.options.can_load) return do_without(request, NotAsked::kStoresOnly, now);
  if (serving == Serving::kNotYet) return miss(request, MissReason::kLate, now);
  touch(request, now);
  if (look_up.first >= look_up.end) return miss(request, std::nullopt, now);

  expire(request, now);
  if (request.shadow.is_on) return miss(request, MissReason::kShadow, now);
  if (!look_up.first_probe) look_up.first_probe = now;
  while (look_up.phase != LookUp::Phase::kReady) {
    if (look_up.phase == LookUp::Phase::kNone) {
      const bool may_read =
          now < deadline_of(look_up) && !look_up.is_host_only && !request.has_given_up;
      if (may_read && awaits_probe(request)) return {};
      probe(request, may_read && !is_disk_stuck_, now);
    }
    if (look_up.missing() > 0) {
      if (const Nanoseconds deadline = deadline_of(look_up); now < deadline) {
        context_.answers.wait(request.id, local, limit, deadline);
        return {};
      }
      context_.counters.late_look_ups.add();
      give_up(request, now);
    }
    if (look_up.phase == LookUp::Phase::kNone) continue;  // Cut: there may be less to resume from.
    finish(request, now);
    break;
  }
  if (std::exchange(look_up.is_fresh, false)) look_up.expires = now + context_.options.pin_time;
  const std::uint64_t blocks = std::min(look_up.blocks, look_up.end - look_up.first);
  if (blocks > 0 && shadows_.claim(request, blocks, now)) {
    return miss(request, MissReason::kShadow, now);
  }
  return {.is_ready = true, .external = block_tokens * blocks};
}

bool LookUps::awaits_probe(Request& request) {
  if (context_.objects == nullptr || request.probe == Request::Probe::kDone) return false;
  if (request.probe == Request::Probe::kRunning) return true;  // Nothing to survey again.
  const LookUp& look_up = request.look_up;
  std::vector<policy::SourceRun> runs;
  const auto hashes = request.chain.hashes();
  return is_probing(request, survey_.resume_at(hashes, look_up.first, look_up.end, true, runs));
}

void LookUps::touch(Request& request, Nanoseconds now) {
  LookUp& look_up = request.look_up;
  if (std::exchange(look_up.has_touched, true)) return;
  // What the engine has itself would age out here otherwise; what is pinned is touched when let go.
  const auto hashes = request.chain.hashes();
  if (context_.returns != nullptr && request.visit.turn == 0) {
    request.visit = context_.returns->arrive(hashes, now, request.ledger.hints);
  }
  context_.note_use(hashes,
                    {.at = now, .of = request.visit.of, .priority = request.ledger.hints.priority});
}

void LookUps::probe(Request& request, bool may_read, Nanoseconds now) {
  LookUp& look_up = request.look_up;
  if (context_.groups.is_plain()) {
    choose_plain(request, may_read, now);
  } else {
    choose(request, may_read, now);
  }
  look_up.phase = LookUp::Phase::kWaiting;
  look_up.expires = now + context_.options.lookup_deadline + context_.options.pin_time;
  collect(request, now);
}

void LookUps::choose_plain(Request& request, bool may_read, Nanoseconds now) {
  constexpr GroupId kOnly{0};
  LookUp& look_up = request.look_up;
  const auto hashes = request.chain.hashes().subspan(look_up.first, look_up.end - look_up.first);
  look_up.strands.clear();
  Strand& strand = look_up.strands.emplace_back(kOnly, look_up.first);
  std::optional<MissReason> reason;
  if (!survey_.hold_leading(strand, hashes)) reason = MissReason::kCorrupt;
  std::vector<policy::SourceRun> runs;
  const std::uint64_t found =
      survey_.leading(kOnly, hashes, strand.size(), may_read && !reason, runs);
  std::uint64_t wanted = worth(request, found, runs, now);
  if (!reason && wanted < found) reason = MissReason::kNotWorthIt;
  if (wanted > room()) {
    context_.counters.drop_pins.add(wanted - room());
    wanted = room();
    reason = MissReason::kDropped;
  }
  // After the deadline the first finding stands: it says what was waited for.
  if (!reason && found < hashes.size() && (may_read || !look_up.reason)) {
    reason = why_short(hashes[found], may_read);
  }
  if (reason || found >= hashes.size()) look_up.reason = reason;
  strand.shrink(wanted);
  look_up.blocks = wanted;
  charge(look_up, wanted);
}

std::uint64_t LookUps::pins_for(std::uint64_t first, std::uint64_t end) const {
  std::uint64_t pins = 0;
  for (std::uint16_t group = 0; group < context_.groups.count(); ++group) {
    pins += end - std::min(end, std::max(first, context_.groups.first_needed(GroupId(group), end)));
  }
  return pins;
}

std::uint64_t LookUps::fitting(std::uint64_t first, std::uint64_t end) const {
  const std::uint64_t most = room();
  std::uint64_t low = first;  // Fits; pins never decrease with the end.
  std::uint64_t high = end;
  while (low < high) {
    const std::uint64_t middle = high - (high - low) / 2;
    if (pins_for(first, middle) <= most) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

void LookUps::choose(Request& request, bool may_read, Nanoseconds now) {
  LookUp& look_up = request.look_up;
  const auto hashes = request.chain.hashes();
  const std::uint64_t first = look_up.first;
  const std::uint64_t end = std::max(first, std::min(look_up.end, look_up.limit));
  std::vector<policy::SourceRun> runs;
  const std::uint64_t found = survey_.resume_at(hashes, first, end, may_read, runs);
  std::optional<MissReason> reason;
  if (found < end && (may_read || !look_up.reason)) reason = why_short(hashes[found], may_read);
  std::uint64_t at = first + worth(request, found - first, runs, now);
  if (at < found) reason = MissReason::kNotWorthIt;
  if (const std::uint64_t fits = fitting(first, at); fits < at) {
    context_.counters.drop_pins.add(at - fits);
    at = fits;
    reason = MissReason::kDropped;
  }
  if (at < found) at = survey_.resume_at(hashes, first, at, may_read, runs);
  // What was waited for and did not come says more than what is found afterwards.
  if (reason || found >= look_up.end) look_up.reason = reason;
  look_up.blocks = at - first;
  look_up.strands.clear();
  for (std::uint16_t number = 0; number < context_.groups.count(); ++number) {
    const GroupId group(number);
    const std::uint64_t from = std::max(first, context_.groups.first_needed(group, at));
    Strand& strand = look_up.strands.emplace_back(group, from);
    if (from < at) (void)survey_.hold_leading(strand, hashes.subspan(from, at - from));
  }
  charge(look_up, pins_for(first, at));
}

MissReason LookUps::why_short(const SequenceHash& hash, bool may_read) {
  bool is_below = false;
  for (std::uint16_t group = 0; group < context_.groups.count() && !may_read; ++group) {
    is_below = is_below || context_.source_of(GroupId(group), hash).has_value();
  }
  if (!is_below) return context_.why_missing(hash);
  context_.counters.late_look_ups.add();
  return MissReason::kLate;
}

void LookUps::collect(Request& request, Nanoseconds now) {
  LookUp& look_up = request.look_up;
  const auto hashes = request.chain.hashes();
  const std::uint64_t end = look_up.first + look_up.blocks;
  // First hold what is there: reserving slots for the rest must not evict it.
  for (Strand& strand : look_up.strands) {
    strand.await(end);
    for (std::uint64_t block = strand.tail_from(); block < end; ++block) {
      (void)survey_.hold(strand, block, hashes[block]);
    }
  }
  for (std::size_t number = 0; number < look_up.strands.size(); ++number) {
    Strand& strand = look_up.strands[number];
    for (std::uint64_t block = strand.tail_from(); strand.missing() > 0 && block < end; ++block) {
      if (!strand.is_missing(block)) continue;
      if (want(request, strand.group(), block, Purpose::kAwaited, now)) continue;
      // No slot is to be had for the rest.
      look_up.is_host_only = !context_.groups.is_plain();
      return cut(request, strand.group(), block, MissReason::kDropped);
    }
  }
}

void LookUps::on_block(Request& request, GroupId group, std::uint64_t block,
                       std::optional<MissReason> reason) {
  LookUp& look_up = request.look_up;
  if (look_up.phase != LookUp::Phase::kWaiting || group.value() >= look_up.strands.size()) return;
  Strand& strand = look_up.strands[group.value()];
  if (!strand.is_missing(block)) return;
  if (!reason && request.is_growing) reason = MissReason::kLate;  // It was not waited for.
  if (!reason) {
    switch (survey_.hold(strand, block, request.chain.hashes()[block])) {
      case Survey::Hold::kHeld:
        return;
      case Survey::Hold::kGone:
        reason = MissReason::kEvicted;
        break;
      case Survey::Hold::kInDoubt:  // In host, and what came from disk gave way to that.
        reason = MissReason::kCorrupt;
        break;
    }
  }
  cut(request, group, block, *reason);
}

// Held as long as what waits, which is pin_time beyond the last moment at which the board tells it.
void LookUps::complete(Request& request, Nanoseconds now) {
  LookUp& look_up = request.look_up;
  if (look_up.phase != LookUp::Phase::kWaiting || look_up.missing() > 0) return;
  if (look_up.blocks == 0) return context_.answers.revoke(request.id);  // There may be another try.
  const Nanoseconds expires = look_up.expires;
  finish(request, now);
  look_up.expires = expires;
  look_up.is_fresh = true;
  if (shadows_.wants(request)) return context_.answers.revoke(request.id);  // Poll claims it.
  context_.answers.answer(request.id, std::min(look_up.blocks, look_up.end - look_up.first));
}

void LookUps::cut(Request& request, GroupId group, std::uint64_t block, MissReason reason) {
  LookUp& look_up = request.look_up;
  look_up.reason = reason;
  if (context_.groups.is_plain()) {
    Strand& strand = look_up.strands[group.value()];
    strand.shrink(block - strand.from());
    look_up.blocks = block - strand.from();
    charge(look_up, look_up.blocks);
    return;
  }
  look_up.limit = std::max(look_up.first, block);
  drop(request);
}

void LookUps::charge(LookUp& look_up, std::uint64_t pins) {
  waiting_pins_ -= look_up.charged;
  waiting_pins_ += pins;
  look_up.charged = pins;
}

void LookUps::finish(Request& request, Nanoseconds now) {
  LookUp& look_up = request.look_up;
  for (Strand& strand : look_up.strands) strand.close();
  look_up.expires = now + context_.options.pin_time;
  // Nothing found: the next poll may look again, at little cost. What the planner refused stays
  // refused for a while, so that asking again does not count as another request.
  const bool is_sticky = look_up.blocks > 0 || look_up.reason == MissReason::kNotWorthIt;
  look_up.phase = is_sticky ? LookUp::Phase::kReady : LookUp::Phase::kNone;
  if (auto& decision = request.ledger.decision; decision && !request.has_given_up) {
    decision->load = now - look_up.planned_at;
  }
  if (look_up.answered_at) return;
  look_up.answered_at = now;
  if (!look_up.first_poll) return;  // It was ready before anybody asked.
  request.ledger.lookup_wait = now - *look_up.first_poll;
  context_.counters.look_up_times.add(request.ledger.lookup_wait);
}

std::vector<Strand> LookUps::accept(Request& request, std::uint64_t first, std::uint64_t blocks) {
  LookUp& look_up = request.look_up;
  std::vector<Strand> strands;
  if (look_up.phase == LookUp::Phase::kReady && look_up.first == first) {
    if (context_.groups.is_plain()) {
      strands = std::move(look_up.strands);
      strands.front().shrink(blocks);
    } else if (look_up.blocks == blocks) {
      strands = std::move(look_up.strands);
    }
  }
  drop(request);
  return strands;
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
  for (Strand& strand : look_up.strands) strand.shrink(0);
  look_up.strands.clear();
  look_up.blocks = 0;
  charge(look_up, 0);
  look_up.phase = LookUp::Phase::kNone;
  look_up.is_fresh = false;
  context_.answers.revoke(request.id);
}

void LookUps::expire(Request& request, Nanoseconds now) {
  if (request.look_up.phase != LookUp::Phase::kNone && now >= request.look_up.expires)
    drop(request);
}

}  // namespace terrace::manager
