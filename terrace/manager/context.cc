#include <algorithm>

#include "terrace/manager/context_internal.h"

namespace terrace::manager {

namespace {

// Null if no tier asks for it, or without memory: the tiers then go by age alone.
std::shared_ptr<policy::ReturnModel> make_returns(const Options& options) {
  const bool host_asks = options.host.eviction == "hazard";
  const bool disk_asks = !options.disk.paths.empty() && (options.disk.eviction == "hazard" ||
                                                         options.disk.admission == "expected");
  if (!host_asks && !disk_asks) return nullptr;
  auto made = policy::ReturnModel::create();
  return made ? std::move(*made) : nullptr;
}

// As many as fit into host and disk together, roughly; 0 of a size that is not known.
std::uint64_t tier_blocks(const Options& options, Bytes block) {
  const auto count = [&](std::uint64_t blocks, Bytes size) {
    if (blocks > 0 || block == Bytes(0)) return blocks;
    return size / block;
  };
  const std::uint64_t most = Ghosts::kMostCells;  // More make no difference, and cannot overflow.
  std::uint64_t sum = std::min(count(options.host.blocks, options.host.size), most);
  if (!options.disk.paths.empty()) {
    sum += std::min(count(options.disk.blocks, options.disk.size), most);
  }
  return sum;
}

}  // namespace

Context::Context(const Options& manager_options, Counters& cells, AnswerBoard& board)
    : options(manager_options),
      counters(cells),
      answers(board),
      groups(options.layout, options.group_rules),
      mode(options.observed ? Mode::kObserve : Mode::kOn),
      ghosts(Ghosts::cells_for(tier_blocks(options, groups.most_bytes()))),
      planner(policy::Planner::Options{.block_bytes = groups.load_bytes(),
                                       .block_tokens = options.layout.block_tokens,
                                       .is_enabled = options.has_planner}),
      returns(make_returns(options)),
      admission(policy::make_admit_all()),
      pack_admission(policy::make_admit_all()) {}

Result<catalog::FillingSlot> Context::reserve(const BlockKey& key) {
  make_room();
  auto slot = pool().reserve(key);
  note_host_evictions();
  if (!slot) return fail(std::move(slot).error());
  ++reserved_;
  return std::move(*slot).begin_fill();
}

void Context::let_leave(const BlockKey& key, catalog::EvictingSlot slot, bool is_refused) {
  leaving_.add({.key = key, .is_refused = is_refused, .slot = std::move(slot)});
}

void Context::make_room() {
  if (pool().count(catalog::SlotState::kFree) > 0) return;
  const auto gone = leaving_.take();
  if (!gone) return;
  if (gone->is_refused) counters.drop_admission.add();
  note_host_removal(gone->key, host->alias(gone->slot.slot().index), MissReason::kEvicted);
}

bool Context::spare_what_only_host_has() {
  if (mode == Mode::kOn) return true;
  for (std::uint32_t turn = 0; turn < kMostSpared; ++turn) {
    const auto victim = pool().next_victim();
    if (pool().count(catalog::SlotState::kFree) > 0 || leaving_.has_any() || !victim) return true;
    const auto& [group, hash] = std::pair(victim->key.group, victim->key.hash);
    if (victim->key.name_space != name_space ||
        (lower != nullptr && lower->contains(group, hash)) ||
        (objects != nullptr && objects->contains(group, hash))) {
      return true;
    }
    pool().touch(victim->key);
  }
  return false;
}

void Context::leave_to_store(const BlockKey& key) {
  if (key.name_space != name_space) return;
  left_to_store_.insert({.group = key.group, .hash = key.hash});
}

bool Context::is_left_to_store(const BlockKey& key) const {
  return key.name_space == name_space && objects != nullptr &&
         left_to_store_.contains({.group = key.group, .hash = key.hash}) &&
         objects->contains(key.group, key.hash);
}

bool Context::remove(SlotRef slot, MissReason reason) {
  const auto key = pool().key_of(slot);
  if (!key) return true;
  const std::uint64_t alias = host->alias(slot.index);
  if (!pool().remove(slot)) return false;
  note_host_removal(*key, alias, reason);
  return true;
}

void Context::note_host_evictions() {
  for (const catalog::Eviction& gone : pool().take_evicted()) {
    const bool is_left = is_left_to_store(gone.key);
    note_host_removal(gone.key, host->alias(gone.slot.index), MissReason::kEvicted);
    if (lower != nullptr && gone.key.name_space == name_space &&
        !lower->contains(gone.key.group, gone.key.hash) && !is_left) {
      counters.drop_demote.add();
    }
  }
}

void Context::note_host_removal(const BlockKey& key, std::uint64_t alias, MissReason reason) {
  if (key.name_space != name_space) return;
  left_to_store_.erase({.group = key.group, .hash = key.hash});
  ghosts.remember(key.hash, reason);
  if (!options.has_events) return;
  events.push({.kind = Event::Kind::kRemoved,
               .tier = Tier::kHost,
               .group = key.group,
               .hash = key.hash,
               .alias = alias});
}

void Context::note_host_stored(Event event) {
  if (!options.has_events) return;
  event.tier = Tier::kHost;
  events.push(std::move(event));
}

void Context::note_disk_stored(Event event) {
  if (!options.has_events) return;
  const ShardGroup key{.group = event.group, .hash = event.hash};
  if (!announced_.emplace(key, event.alias).second) return;
  event.tier = Tier::kDisk;
  events.push(std::move(event));
}

void Context::note_disk_evictions() {
  if (lower == nullptr) return;
  for (const catalog::Eviction& gone : lower->take_evicted()) {
    if (host != nullptr && !pool().contains(key_of(gone.key.group, gone.key.hash))) {
      ghosts.remember(gone.key.hash, MissReason::kEvicted);
    }
    note_disk_removal(gone.key);
  }
}

void Context::note_disk_removal(const BlockKey& key) {
  const auto known = announced_.find({.group = key.group, .hash = key.hash});
  if (known == announced_.end()) return;
  events.push({.kind = Event::Kind::kRemoved,
               .tier = Tier::kDisk,
               .group = key.group,
               .hash = key.hash,
               .alias = known->second});
  announced_.erase(known);
}

std::optional<Tier> Context::source_of(GroupId group, const SequenceHash& hash) const {
  if (lower != nullptr && is_lower_readable && lower->contains(group, hash)) return Tier::kDisk;
  if (objects != nullptr && objects->contains(group, hash)) return Tier::kObject;
  return std::nullopt;
}

MissReason Context::why_missing(const SequenceHash& hash) const {
  if (const auto reason = ghosts.recall(hash)) return *reason;
  const bool is_foreign = lower != nullptr && lower->is_foreign(hash);
  return is_foreign ? MissReason::kOtherNamespace : MissReason::kNeverStored;
}

void Context::note(LogLevel level, std::string line) {
  if (notes.size() < kMaxNotes) notes.push_back({level, std::move(line)});
}

void Context::touch(std::span<const SequenceHash> chain, const policy::Use& use, bool is_told) {
  if (host == nullptr || chain.empty()) return;
  if (chain.size() <= touch_at_once() || to_touch_.size() >= kMaxChains) {
    touch_now({.hashes = chain, .use = use}, is_told);
  } else {
    // In memory that was used before: fresh pages for half a megabyte cost as much as hashing a
    // tenth of its blocks.
    std::vector<SequenceHash> copy;
    if (!spare_chains_.empty()) {
      copy.swap(spare_chains_.back());
      spare_chains_.pop_back();
    }
    copy.assign(chain.begin(), chain.end());
    to_touch_.push_back({std::move(copy), use, is_told});
  }
}

bool Context::touch_some() {
  if (to_touch_.empty()) return false;
  auto& [chain, use, is_told] = to_touch_.front();
  const std::size_t left = chain.size() - std::min(chain.size(), touch_at_once());
  catalog::UsedRun run{.hashes = std::span(chain).subspan(left), .use = use};
  if (left > 0) run.before = chain[left - 1];
  touch_now(run, is_told);
  chain.resize(left);
  if (chain.empty()) {
    if (spare_chains_.size() < kMaxSpareChains) spare_chains_.push_back(std::move(chain));
    to_touch_.pop_front();
  }
  return !to_touch_.empty();
}

void Context::touch_now(catalog::UsedRun run, bool is_told) {
  auto& chain = run.hashes;
  is_told = is_told && lower != nullptr && run.use && admission->wants_uses();
  const std::size_t slice = groups.count() == 1 ? chain.size() : kTouchInTurn;
  while (!chain.empty()) {
    catalog::UsedRun deepest = run;
    deepest.hashes = chain.last(std::min(slice, chain.size()));
    const std::size_t above = chain.size() - deepest.hashes.size();
    if (above > 0) deepest.before = chain[above - 1];
    for (std::uint16_t group = 0; group < groups.count(); ++group) {
      pool().touch_chain(name_space, GroupId(group), deepest);
      if (lower != nullptr) lower->touch_chain(GroupId(group), deepest);
      if (!is_told) continue;
      admission->note_use(name_space, GroupId(group), deepest.hashes, *run.use, !deepest.before);
    }
    chain = chain.first(above);
  }
}

void Context::renew_name_space() {
  leaving_.clear();
  std::uint16_t next = static_cast<std::uint16_t>(name_space.value() + 1);
  if (next == 0) {  // 0 is nobody's. From here on numbers come back: no old block may have one.
    next = 1;
    while (host != nullptr) {
      const auto victim = pool().next_victim();
      if (!victim || !pool().remove(victim->slot)) break;
    }
  }
  name_space = NamespaceId(next);
  ghosts.clear();
  announced_.clear();
  left_to_store_.clear();
  to_touch_.clear();
  if (options.has_events) events.push({.kind = Event::Kind::kCleared});
}

}  // namespace terrace::manager
