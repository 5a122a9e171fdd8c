#include <fmt/format.h>

#include <algorithm>

#include "terrace/manager/core_internal.h"

namespace terrace::manager {

namespace {

// An engine step may compile a model first; but several more steps without an answer are telling.
constexpr Nanoseconds kCanaryPatience = seconds(1);
constexpr int kCanarySteps = 4;
constexpr SequenceHash
    kCanaryHash{};  // No chain gives it: SHA-256 of something is never all zero here.

}  // namespace

Core::Core(const Options& options, std::uint64_t owner, Counters& counters, AnswerBoard& answers,
           LedgerRing& ledgers, Nanoseconds now)
    : context_(options, counters, answers),
      gate_({.ranks = options.layout.ranks, .attach_timeout = options.attach_timeout}, now),
      reads_(context_),
      writes_(context_),
      sightings_(context_, writes_),
      packs_(context_),
      shadows_(context_, owner),
      look_ups_(context_, reads_, shadows_),
      steps_({.ranks = options.layout.ranks,
              .owner = owner,
              .max_in_flight = 256,
              .timeout = options.step_timeout,
              .times_prefill = options.observed.has_value()}),
      hits_(options.hit_window, options.layout.block_tokens),
      hits_logged_at_(now),
      rates_(counters, options.log_rates_every, now),
      copy_budget_(options.offload_time_share, now),
      ledgers_(ledgers),
      learned_at_(now) {
  context_.counters.mode.set(static_cast<std::int64_t>(context_.mode));
}

void Core::open_host(std::unique_ptr<tier::HostTier> host) {
  context_.host = std::move(host);
  gate_.open_host();
}

void Core::open_objects(tier::ObjectTier& objects) {
  if (was_reset_) objects.forget_all();
  context_.objects = &objects;
  objects_problem_.clear();  // It may have failed to open before.
}

void Core::close_objects(const std::string& reason) {
  context_.objects = nullptr;
  has_no_objects_ = true;
  objects_problem_ = reason;
}

bool Core::is_below_settled() const {
  const bool are_settled = !wants_objects() || has_no_objects_ ||
                           (context_.objects != nullptr && context_.objects->is_settled());
  return is_lower_settled_ && are_settled;
}

void Core::close_lower(const std::string& reason, bool has_remains) {
  context_.lower = nullptr;
  context_.is_lower_readable = false;
  is_lower_settled_ = true;
  lower_problem_ = reason;
  has_lower_remains_ = has_remains;
}

void Core::on_lower_canary(const std::string& problem) {
  context_.is_lower_readable = problem.empty();
  is_lower_settled_ = true;
  lower_problem_ = problem;
}

Result<catalog::FillingSlot> Core::reserve_canary() {
  return context_.reserve({NamespaceId(0), GroupId(0), kCanaryHash});
}

void Core::on_attach(const attach::AttachEvent& event, Nanoseconds now) {
  context_.answers.revoke_all();
  switch (event.change) {
    case attach::AttachChange::kAttached:
      gate_.on_attached(event.rank, event.epoch, event.process);
      context_.note(LogLevel::kInfo,
                    fmt::format("event=attached rank={} epoch={} process={}", event.rank.value(),
                                event.epoch.value(), event.process));
      return;
    case attach::AttachChange::kPopulated:
    case attach::AttachChange::kRefused:  // The server has told who and why.
      return;
    case attach::AttachChange::kDied:
      break;
  }
  gate_.on_died(event.rank, event.epoch, now);
  context_.note(LogLevel::kWarn, fmt::format("event=rank_died rank={} epoch={}", event.rank.value(),
                                             event.epoch.value()));
  steps_.void_pending_loads();
  drop_saves(steps_.drop_pending_saves(), context_.counters.drop_unfilled);
  finish_all(steps_.on_death(event.rank, event.epoch), now);
}

Request& Core::add_request(std::unique_ptr<Request> request, Nanoseconds now) {
  context_.counters.requests.add();
  if (!request->is_keyed) context_.counters.unkeyable_requests.add();
  request->began = now;
  copy_budget_.pass(now);
  Request& added = *requests_.emplace(request->id, std::move(request)).first->second;
  if (added.is_keyed) look_ups_.begin(added, serving(now), now);
  return added;
}

Request* Core::find(RequestId request) {
  const auto found = requests_.find(request);
  return found == requests_.end() ? nullptr : found->second.get();
}

Serving Core::serving(Nanoseconds now) const {
  if (is_poisoned() || is_closing_ || shadows_.is_quarantined()) return Serving::kNothing;
  switch (gate_.state(now)) {
    case Gate::State::kOpening:
      return Serving::kNotYet;
    case Gate::State::kServing:
      return is_below_settled() ? Serving::kAll : Serving::kHostOnly;
    case Gate::State::kLate:
    case Gate::State::kShut:
      return Serving::kNothing;
  }
  return Serving::kNothing;
}

MatchAnswer Core::poll(Request& request, Tokens local, Tokens limit, Nanoseconds now) {
  return look_ups_.poll(request, local, limit, serving(now), now);
}

Status Core::accept(Request& request, Tokens local, Tokens external,
                    std::span<const std::span<const std::uint32_t>> block_tables, Nanoseconds now) {
  const Tokens block_tokens = context_.options.layout.block_tokens;
  const std::uint64_t first = local / block_tokens;
  const std::uint64_t count = external / block_tokens;
  request.has_begun = true;
  copy_budget_.pass(now);
  if (external != Tokens(0) && steps_.has_load(request.id, first)) return {};  // Told twice.
  if (const auto answered = request.look_up.answered_at) {
    request.ledger.stages.placed += now - *answered;
  }
  request.computed = local + external;
  request.found_blocks = first + count;
  const auto hashes = request.chain.hashes();
  sightings_.note(hashes.first(std::min<std::uint64_t>(first + count, hashes.size())),
                  request.sources);
  if (external == Tokens(0)) {
    look_ups_.settle(request, local, 0);
    return {};
  }
  if (local % block_tokens != 0 || external % block_tokens != 0) {
    look_ups_.settle(request, local, 0);
    return {Code::kInvalid, fmt::format("accept: {} + {} tokens are no whole blocks of {}",
                                        local.value(), external.value(), block_tokens.value())};
  }
  if (blocks_in(block_tables) < first + count) {
    look_ups_.settle(request, local, 0);
    return {Code::kInvalid, fmt::format("accept: block table ends before block {}", first + count)};
  }
  add_load(request, first, count, block_tables);
  return {};
}

std::uint64_t Core::blocks_in(std::span<const std::span<const std::uint32_t>> block_tables) const {
  if (block_tables.size() < context_.groups.count()) return 0;
  std::uint64_t blocks = UINT64_MAX;
  for (std::uint16_t group = 0; group < context_.groups.count(); ++group) {
    blocks = std::min<std::uint64_t>(blocks, block_tables[group].size());
  }
  return blocks;
}

void Core::add_load(Request& request, std::uint64_t first, std::uint64_t count,
                    std::span<const std::span<const std::uint32_t>> block_tables) {
  LoadBatch batch{.request = request.id,
                  .first = first,
                  .blocks = count,
                  .sources = std::vector<Tier>(count, Tier::kHost),
                  .groups = {}};
  std::vector<Strand> strands = look_ups_.accept(request, first, count);
  std::uint64_t held = strands.empty() ? 0 : count;
  for (std::uint16_t number = 0; number < context_.groups.count(); ++number) {
    const GroupId group(number);
    const std::uint64_t from = std::max(first, context_.groups.first_needed(group, first + count));
    const auto table = block_tables[number].subspan(from, first + count - from);
    GroupLoad load{.group = group, .from = from, .pins = {}, .device_blocks = {}, .failed = {}};
    load.device_blocks.assign(table.begin(), table.end());
    if (!strands.empty()) load.pins = strands[number].take_run();
    held = std::min<std::uint64_t>(held, load.pins.size() + (from - first));
    batch.groups.push_back(std::move(load));
  }
  // What is not held any more is promised all the same: it fails as a load, and is counted there.
  if (held < count && !request.ledger.first_miss) request.ledger.first_miss = MissReason::kLate;
  look_ups_.settle(request, context_.options.layout.block_tokens * first, count);
  if (!steps_.has_room()) batch.void_all();
  for (std::uint64_t i = 0; i < count && first + i < request.sources.size(); ++i) {
    batch.sources[i] = request.sources[first + i];
  }
  steps_.add_load(std::move(batch));
}

bool Core::can_store_now() const {
  return !is_poisoned() && !is_closing_ && !shadows_.is_quarantined() && gate_.is_serving() &&
         context_.options.can_store && context_.mode == Mode::kOn;
}

void Core::advance(Request& request, const Progress& progress) {
  // One that decodes is heard of when a block is full, and computes one token then.
  if (request.computed + context_.options.layout.block_tokens < progress.computed) {
    steps_.add_prefilled(request.id, request.computed, progress.computed);
    request.is_prefilling = true;
  } else {
    request.is_prefilling = false;
  }
  request.has_begun = true;
  request.computed = progress.computed;  // Lower than before after a failed load or a preemption.
  for (std::size_t i = 0; i < progress.aliases.size(); ++i) {
    const std::uint64_t block = progress.alias_first + i;
    if (block >= request.chain.hashes().size()) break;
    if (request.aliases.size() <= block) request.aliases.resize(block + 1);
    request.aliases[block] = progress.aliases[i];
  }
  if (request.shadow.is_on) order_comparisons(request, progress);
  if (!request.is_keyed || !request.can_store || progress.block_tables.empty() ||
      !can_store_now()) {
    return;
  }
  offload(request, std::min(storable(request), blocks_in(progress.block_tables)),
          progress.block_tables);
}

std::uint64_t Core::storable(const Request& request) const {
  std::uint64_t end = request.computed / context_.options.layout.block_tokens;
  end = std::min<std::uint64_t>(end, request.chain.hashes().size());
  return context_.options.is_prompt_only ? std::min(end, request.prompt_blocks) : end;
}

bool Core::is_held(const Request& request, std::uint64_t block, const BlockKey& key) const {
  const catalog::Pool& pool = context_.host->pool();
  if (pool.contains(key) || pool.is_filling(key)) return true;
  // What it computed although a tier below has it was too far away: host should have it next time.
  const bool is_found = block < request.found_blocks;
  return is_found && context_.source_of(key.group, key.hash).has_value();
}

std::uint64_t Core::leading_in_host(std::span<const SequenceHash> hashes) {
  std::uint64_t leading = hashes.size();
  for (std::uint16_t group = 0; group < context_.groups.count(); ++group) {
    leading = context_.pool().match(context_.name_space, GroupId(group), hashes.first(leading));
  }
  return leading;
}

void Core::offload(Request& request, std::uint64_t end,
                   std::span<const std::span<const std::uint32_t>> tables) {
  if (request.cursor >= end) return;
  const bool has_doubts = look_ups_.survey().has_doubts();
  std::optional<std::uint64_t> doubtful;  // Considered again, once it is known to be bad.
  std::uint64_t block = request.cursor;
  if (!has_doubts) {
    block += leading_in_host(request.chain.hashes().subspan(block, end - block));
  }
  for (; block < end; ++block) {
    bool is_in_doubt = false;
    if (!offload_block(request, block, tables, is_in_doubt)) break;
    if (is_in_doubt && !doubtful) doubtful = block;
  }
  request.cursor = doubtful.value_or(block);
  request.over_cap_from = block;
  request.over_cap = end - block;
  request.is_over_budget = copy_budget_.room() < context_.options.offload_step_bytes;
}

// One block always goes, or a cap below one block would switch offloading off.
bool Core::is_step_full() const {
  if (steps_.pending_saves() == 0) return false;
  const Bytes ordered = context_.groups.most_shard_bytes() * (steps_.pending_saves() + 1);
  return ordered > std::min(context_.options.offload_step_bytes, copy_budget_.room());
}

bool Core::offload_block(const Request& request, std::uint64_t block,
                         std::span<const std::span<const std::uint32_t>> tables,
                         bool& is_in_doubt) {
  for (std::uint16_t number = 0; number < context_.groups.count(); ++number) {
    const GroupId group(number);
    const std::uint32_t device_block = tables[number][block];
    // Out of its window, and gone from the engine.
    if (context_.groups.is_null(group, device_block)) continue;
    const BlockKey key = context_.key_of(group, request.chain.hashes()[block]);
    if (is_held(request, block, key)) {
      is_in_doubt = is_in_doubt || look_ups_.survey().is_in_doubt(key);
      continue;
    }
    if (is_step_full()) return false;
    if (!steps_.has_room()) {
      context_.counters.drop_steps.add();
      return false;
    }
    auto slot = context_.reserve(key);
    if (!slot) {
      context_.counters.drop_no_slot.add();
      context_.ghosts.remember(key.hash, MissReason::kDropped);
      continue;
    }
    add_save(request, group, block, std::move(*slot), device_block);
  }
  return true;
}

void Core::add_save(const Request& request, GroupId group, std::uint64_t block,
                    catalog::FillingSlot slot, std::uint32_t device_block) {
  const SlotRef place = slot.slot();
  Save save{.request = request.id,
            .block = block,
            .key = context_.key_of(group, request.chain.hashes()[block]),
            .slot = std::move(slot),
            .place = place,
            .device_block = device_block,
            .alias = request.alias(block),
            .event = std::nullopt,
            .pack = packs_.pack_of(request.chain.hashes(), block),
            .filled = 0,
            .checksums = {}};
  if (context_.options.has_events) {
    save.event = describe(request, group, block, context_.options.layout.block_tokens);
  }
  steps_.add_save(std::move(save));
}

void Core::order_canary(Nanoseconds now) {
  if (gate_.is_canary_ordered() && ++canary_waits_ >= kCanarySteps &&
      now - canary_ordered_ >= kCanaryPatience) {
    lose_canary(now);  // A rank that had not seen its attachment yet ran none.
  }
  if (!gate_.wants_canary(now) || !steps_.has_room() || is_poisoned()) return;
  auto slot = reserve_canary();
  if (!slot) return;
  steps_.add_canary(std::move(*slot));
  gate_.on_canary_ordered();
  canary_ordered_ = now;
  canary_waits_ = 0;
}

std::optional<wire::Orders> Core::build_orders(Nanoseconds now) {
  copy_budget_.pass(now);
  order_canary(now);
  if (is_poisoned() || !gate_.is_serving()) {
    steps_.void_pending_loads();
    drop_saves(steps_.drop_pending_saves(), context_.counters.drop_unfilled);
  }
  if (!steps_.is_due()) {
    steps_.skip();
    return std::nullopt;
  }
  steps_.set_beside(
      static_cast<std::size_t>(std::ranges::count_if(requests_, [](const auto& entry) {
        return !entry.second->is_prefilling &&
               entry.second->computed >= entry.second->ledger.prompt;
      })));
  const Nanoseconds charged =
      copy_budget_.order(context_.groups.most_shard_bytes() * steps_.pending_saves());
  Steps::Built built = steps_.build(gate_.epochs(), context_.host.get(), charged, now);
  if (built.over) finish(std::move(*built.over), now);
  return std::move(built.orders);
}

std::vector<Event> Core::take_events() {
  context_.note_disk_evictions();
  return context_.events.take();
}

void Core::reset() {
  steps_.void_pending_loads();
  drop_saves(steps_.drop_pending_saves(), context_.counters.drop_unfilled);
  for (auto& [id, request] : requests_) {
    look_ups_.drop(*request);
    shadows_.release(*request);
    request->look_up.reason.reset();
    // What it computed so far may be of the old weights, and what follows builds on it; of less
    // than a block nobody tells.
    if (request->has_begun) request->can_store = false;
  }
  context_.renew_name_space();
  ended_.clear();
  writes_.forget_stale();
  sightings_.clear();
  packs_.forget_stale();
  was_reset_ = true;
  if (context_.lower != nullptr) context_.lower->forget_all();
  if (context_.objects != nullptr) context_.objects->forget_all();
  has_signal_ = context_.options.has_events;
}

bool Core::set_mode(Mode mode) {
  if (context_.mode == mode || is_closing_ || context_.mode == Mode::kObserve) return false;
  context_.mode = mode;
  context_.counters.mode.set(static_cast<std::int64_t>(mode));
  context_.answers.revoke_all();
  if (mode != Mode::kOn) drop_saves(steps_.drop_pending_saves(), context_.counters.drop_mode);
  if (mode != Mode::kOn) context_.keep_what_only_host_has();
  if (mode == Mode::kPaused) cancel_reads();
  return true;
}

void Core::cancel_reads() {
  for (const Waiter& waiter : reads_.cancel_queued()) {
    if (Request* request = find(waiter.request); request != nullptr) {
      look_ups_.on_block(*request, waiter.group, waiter.block, MissReason::kPaused);
    }
    has_signal_ = true;
  }
}

std::optional<Status> Core::drop_outcome() const {
  if (!was_reset_) return Status();
  if (context_.lower != nullptr && context_.lower->is_drop_pending()) return std::nullopt;
  if (context_.objects != nullptr && context_.objects->is_drop_pending()) return std::nullopt;
  if (context_.lower == nullptr && !is_lower_settled_) return std::nullopt;
  if (wants_objects() && !has_no_objects_ && context_.objects == nullptr) return std::nullopt;
  return undropped();
}

Status Core::undropped() const {
  if (!was_reset_) return {};
  std::vector<std::string> undropped;
  if (context_.objects != nullptr) undropped = context_.objects->undropped();
  if (!undropped.empty()) return {Code::kUnavailable, fmt::format("reset: {}", undropped.front())};
  if (wants_objects() && context_.objects == nullptr && !is_closing_) {
    return {Code::kUnavailable,
            fmt::format("reset: the shared store is not open, so what lies there would match after "
                        "a restart: remove it before the next start, or put this right: {}",
                        objects_problem_.empty() ? "it is opening" : objects_problem_)};
  }
  if (context_.options.disk.paths.empty()) return {};
  if (context_.lower == nullptr) {
    if (!has_lower_remains_) return {};
    return {Code::kUnavailable,
            fmt::format("reset: the disk tier is not open, so what lies in disk.paths would match "
                        "after a restart: delete it before the next start, or put this right: {}",
                        lower_problem_.empty() ? "it is opening" : lower_problem_)};
  }
  undropped = context_.lower->undropped();
  if (undropped.empty()) return {};
  return {Code::kUnavailable, fmt::format("reset: {}", fmt::join(undropped, "; "))};
}

void Core::poison(const std::string& reason) {
  poison_at_once();
  if (poison_reason_.empty()) poison_reason_ = reason.empty() ? "unknown" : reason;
}

void Core::poison_at_once() noexcept {
  is_poisoned_ = true;
  context_.answers.revoke_all();
  context_.counters.poisoned.set(1);
}

void Core::begin_close() {
  is_closing_ = true;
  context_.answers.revoke_all();
  // What waits for another mode never begins; what is of after a reset nobody would find.
  if (context_.mode == Mode::kOn && !was_reset_) return;
  writes_.stop();
  packs_.stop();
}

}  // namespace terrace::manager
