#include "terrace/trace/replay.h"

#include <algorithm>
#include <utility>

#include "terrace/base/rng.h"

namespace terrace::trace {
namespace {

BlockKey key_of(const SequenceHash& hash) { return {NamespaceId(1), GroupId(0), hash}; }

// Spread as real ones are, which are digests.
SequenceHash hash_of(std::uint32_t block) {
  Rng rng(block);
  const std::uint64_t high = rng.next();
  return {high, rng.next()};
}

}  // namespace

Result<Replay> Replay::create(const Options& options) {
  Replay replay(options);
  TERRACE_ASSIGN_OR_RETURN(replay.returns_, policy::ReturnModel::create());
  TERRACE_ASSIGN_OR_RETURN(replay.host_,
                           catalog::Pool::create({.slots = options.host_slots,
                                                  .eviction = options.eviction,
                                                  .returns = replay.returns_,
                                                  .evicted_limit = 0,
                                                  .make_policy = options.make_policy}));
  policy::AdmissionOptions admission;
  admission.reuse.tier_blocks = options.disk_slots;
  admission.expected.entries = options.admission_entries;
  admission.expected.most_lost = options.admission_loss;
  admission.expected.tier_blocks = options.disk_slots;
  admission.expected.upper_blocks = options.host_slots;
  TERRACE_ASSIGN_OR_RETURN(replay.filter_, policy::make_admission(options.admission, admission));
  if (options.disk_slots > 0) {
    TERRACE_ASSIGN_OR_RETURN(replay.disk_,
                             catalog::Pool::create({.slots = options.disk_slots,
                                                    .eviction = options.eviction,
                                                    .returns = replay.returns_,
                                                    .evicted_limit = 0,
                                                    .make_policy = options.make_policy}));
    replay.is_written_late_ = options.is_demote || replay.filter_->counts();
  }
  return replay;
}

Counts Replay::run(const Workload& workload) {
  constexpr std::uint32_t kUsualBlockTokens = 512;
  const std::uint32_t tokens = workload.block_tokens();
  engine_.emplace(cost_, tokens == 0 ? kUsualBlockTokens : tokens);
  std::vector<std::uint32_t> blocks;
  for (const Request& request : workload.requests()) {
    now_ = request.at;
    workload.chain(request, blocks);
    serve(workload, request, blocks);
    choose_leaving();
  }
  Counts all;
  for (const Counts& part : counts_) {
    all.requests += part.requests;
    all.blocks += part.blocks;
    all.host_hits += part.host_hits;
    all.disk_hits += part.disk_hits;
  }
  all.disk_writes = writes_;
  all.stores = stores_;
  return all;
}

// One more block of the chain lies there.
void Replay::note_found(Tier source) {
  if (found_.empty() || found_.back().source != source) found_.push_back({source, 0});
  ++found_.back().blocks;
}

void Replay::serve(const Workload& workload, const Request& request,
                   const std::vector<std::uint32_t>& blocks) {
  hashes_.clear();
  for (const std::uint32_t block : blocks) hashes_.push_back(hash_of(block));
  Counts& counts = counts_[static_cast<std::size_t>(request.part)];
  ++counts.requests;
  counts.blocks += hashes_.size();
  const policy::Hints& hints = request.hints;
  const policy::Visit visit = returns_->arrive(hashes_, now_, hints);
  note_use(visit.of, hints.priority);
  catalog::PinRun run;
  run.reserve(hashes_.size());
  const std::size_t loaded = load(run);
  choose_leaving();
  for (const policy::SourceRun& found : found_) {
    (found.source == Tier::kHost ? counts.host_hits : counts.disk_hits) += found.blocks;
  }
  const std::uint64_t block_tokens = engine_->block_tokens();
  engine_->serve(
      {.at = now_,
       .runs = found_,
       .tokens = request.prompt_tokens > 0 ? request.prompt_tokens : hashes_.size() * block_tokens,
       .is_counted = request.part == Part::kTrace});
  for (std::size_t i = 0; disk_ != nullptr && i < loaded; ++i) sight(key_of(hashes_[i]));
  compute(loaded, run);
  const std::size_t prompt = hashes_.size();
  answer(workload, request, run);
  note_use(
      returns_->leave(visit, hashes_, prompt, request.answer_tokens, request.ending, now_, hints),
      hints.priority);
}

void Replay::note_use(policy::ReturnClass of, policy::Priority priority) {
  const catalog::UsedRun used{.hashes = hashes_, .use = policy::Use{now_, of, priority}};
  host_->touch_chain(NamespaceId(1), GroupId(0), used);
  if (disk_ == nullptr) return;
  disk_->touch_chain(NamespaceId(1), GroupId(0), used);
  if (filter_->wants_uses()) {
    filter_->note_use(NamespaceId(1), GroupId(0), hashes_, {.at = now_, .of = of}, true);
  }
}

void Replay::compute(std::size_t from, catalog::PinRun& run) {
  const std::uint64_t step = step_tokens_ / engine_->block_tokens();
  for (std::size_t at = from; at < hashes_.size(); ++at) {
    const BlockKey key = key_of(hashes_[at]);
    if (auto pin = host_->pin(key)) {
      run.add(std::move(*pin));
      continue;
    }
    if (!store(key, run)) break;
    ++stores_;
    if (step_tokens_ > 0 && (at + 1 - from) % std::max<std::uint64_t>(1, step) == 0) {
      choose_leaving();
    }
    if (disk_ == nullptr || has_on_disk(key)) continue;
    // Where nothing is written before host evicts it, that is a sighting alone.
    const bool is_admitted = filter_->admit(key, now_);
    if (is_admitted && !is_demote_) write(key);
  }
  choose_leaving();
}

void Replay::answer(const Workload& workload, const Request& request, catalog::PinRun& run) {
  const bool is_whole = run.size() == hashes_.size();  // Nothing is stored behind what is not.
  if (is_prompt_only_ || !is_whole) return;
  std::vector<std::uint32_t> blocks;
  for (std::uint32_t tip = request.answer_tip; tip != request.tip && tip != 0;
       tip = workload.parent(tip - 1)) {
    blocks.push_back(tip - 1);
  }
  const std::size_t prompt = hashes_.size();
  for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) {
    hashes_.push_back(hash_of(*block));
  }
  compute(prompt, run);
}

std::size_t Replay::load(catalog::PinRun& run) {
  std::size_t at = 0;
  found_.clear();
  for (; at < hashes_.size(); ++at) {
    const BlockKey key = key_of(hashes_[at]);
    auto pin = host_->pin(key);
    if (pin) {
      note_found(Tier::kHost);
      run.add(std::move(*pin));
    } else if (has_on_disk(key) && store(key, run)) {
      note_found(Tier::kDisk);
    } else {
      break;
    }
  }
  return at;
}

void Replay::sight(const BlockKey& key) {
  if (disk_->contains(key)) return;
  filter_->on_hit(key, now_);
  if (filter_->is_wanted(key, now_)) write(key);
}

bool Replay::store(const BlockKey& key, catalog::PinRun& run) {
  make_room();
  auto reserved = host_->reserve(key);
  if (!reserved) return false;
  ++taken_;
  auto pin = std::move(*reserved).begin_fill().seal();
  if (!pin) return false;
  run.add(std::move(*pin));
  return true;
}

void Replay::make_room() {
  if (host_->count(catalog::SlotState::kFree) > 0) return;
  // Of more at once than were chosen nobody has time to write any.
  if (is_written_late_) {
    (void)leaving_.take();
    return;
  }
  if (const auto victim = host_->next_victim()) (void)evict(*victim);
}

void Replay::choose_leaving() {
  if (!is_written_late_) return;
  ahead_.note_turn(taken_, now_);
  leaving_.let_go();
  const std::uint32_t wanted = ahead_.wanted(host_->slots());
  while (host_->count(catalog::SlotState::kFree) + host_->count(catalog::SlotState::kEvicting) <
         wanted) {
    const auto victim = host_->next_victim();
    if (!victim) return;
    leaving_.add({.key = victim->key, .slot = evict(*victim)});
  }
}

catalog::EvictingSlot Replay::evict(const catalog::Eviction& victim) {
  const BlockKey& key = victim.key;
  const bool is_on_disk = has_on_disk(key);
  if (is_on_disk) filter_->note_leaving(key);
  const bool goes_down = disk_ != nullptr && !is_on_disk && filter_->admit_leaving(key, now_);
  const auto last = goes_down ? host_->last_use(victim.slot) : std::nullopt;
  auto evicting = host_->begin_evict();
  if (goes_down) write(key);
  if (last) disk_->note_last_use(key, *last);
  return evicting ? std::move(*evicting) : catalog::EvictingSlot();
}

void Replay::write(const BlockKey& key) {
  auto reserved = disk_->reserve(key);
  if (!reserved) return;
  if (std::move(*reserved).begin_fill().seal()) ++writes_;
}

}  // namespace terrace::trace
