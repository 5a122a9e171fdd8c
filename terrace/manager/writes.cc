#include <algorithm>
#include <utility>

#include "terrace/manager/writes_internal.h"

namespace terrace::manager {

std::size_t Writes::limit() const {
  const std::size_t slots = context_.host->geometry().slots;
  return std::min<std::size_t>(context_.options.disk.queue_blocks,
                               std::max<std::size_t>(1, slots / 4));
}

std::uint32_t Writes::free_ahead() const { return ahead_.wanted(context_.host->geometry().slots); }

std::uint32_t Writes::free_soon() const {
  const catalog::Pool& pool = context_.host->pool();
  return pool.count(catalog::SlotState::kFree) + pool.count(catalog::SlotState::kEvicting);
}

bool Writes::needs_write(const BlockKey& key) const {
  return !context_.lower->contains(key.group, key.hash) && !context_.is_left_to_store(key);
}

bool Writes::is_behind() const {
  if (context_.host == nullptr || context_.lower == nullptr || is_stopped_ || !may_begin() ||
      free_soon() >= free_ahead()) {
    return false;
  }
  const auto victim = context_.host->pool().next_victim();
  if (!victim) return false;
  if (victim->key.name_space != context_.name_space) return true;
  return needs_write(victim->key) ? writes_.size() < limit() : is_written_late();
}

void Writes::offer(catalog::PinRun pins, std::vector<Candidate> blocks, Nanoseconds now) {
  if (context_.lower == nullptr || is_stopped_) return;
  const bool is_demote = context_.options.disk.is_demote;
  if (is_demote && !context_.admission->counts()) return;
  const auto group = std::make_shared<const catalog::PinRun>(std::move(pins));
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    Candidate& block = blocks[i];
    if (context_.lower->contains(block.key.group, block.key.hash)) continue;
    const bool is_admitted = context_.admission->admit(block.key, now);
    if (is_demote) continue;  // A sighting; what host evicts is asked about then.
    if (!is_admitted) {
      context_.counters.drop_admission.add();
    } else if (writes_.size() >= limit()) {  // Offered again when it is about to be evicted.
      context_.counters.drop_disk_write.add();
    } else {
      enqueue({.key = block.key,
               .place = group->slot(i),
               .pins = group,
               .victim = {},
               .stored = std::move(block.stored)});
    }
  }
}

void Writes::offer_wanted(std::span<const BlockKey> keys) {
  if (context_.lower == nullptr || is_stopped_ || !may_begin()) return;
  catalog::PinRun pins;
  std::vector<BlockKey> held;
  for (const BlockKey& key : keys) {
    if (is_queued(key) || context_.lower->contains(key.group, key.hash)) continue;
    if (writes_.size() + held.size() >= limit()) {  // Wanted still when it is evicted.
      context_.counters.drop_disk_write.add();
      continue;
    }
    auto pin = context_.pool().pin(key);
    if (!pin) continue;
    pins.add(std::move(*pin));
    held.push_back(key);
  }
  const auto group = std::make_shared<const catalog::PinRun>(std::move(pins));
  for (std::size_t i = 0; i < held.size(); ++i) {
    enqueue({.key = held[i],
             .place = group->slot(i),
             .pins = group,
             .victim = {},
             .stored = std::nullopt});
  }
}

void Writes::enqueue(Write write) {
  const std::uint64_t token = ++last_token_;
  queued_.insert({.group = write.key.group, .hash = write.key.hash});
  writes_.emplace(token, std::move(write));
  queue_.push_back(token);
}

void Writes::drive_eviction(Nanoseconds now) {
  ahead_.note_turn(context_.reserved(), now);
  if (!may_begin()) return;  // What lies in host stays, as long as nobody needs its slot.
  context_.let_stay();
  catalog::Pool& pool = context_.pool();
  // Each turn frees a slot, chooses one that may leave, or starts a write.
  for (std::uint32_t turn = 0; turn < kAtOnce; ++turn) {
    if (free_soon() >= free_ahead()) return;
    const auto victim = pool.next_victim();
    if (!victim) return;
    const BlockKey& key = victim->key;
    if (key.name_space != context_.name_space) {
      pool.remove(victim->slot);
      continue;
    }
    if (context_.lower == nullptr || is_stopped_) return;
    const bool is_dirty = needs_write(key);
    // Where blocks are written as they are sealed, hardly one is dirty: those to come may stay.
    if (is_dirty ? writes_.size() >= limit() : !is_written_late()) return;
    // It was sighted when it was sealed; that it has to go now is no use of it.
    const bool is_refused = is_dirty && !context_.admission->admit_leaving(key, now);
    if (!is_dirty) context_.admission->note_leaving(key);
    const auto last_use = pool.last_use(victim->slot);
    auto evicting = pool.begin_evict();
    if (!evicting) return;
    if (!is_dirty || is_refused) {
      context_.let_leave(key, std::move(*evicting), is_refused);
      continue;
    }
    enqueue({.key = key,
             .place = victim->slot,
             .pins = nullptr,
             .victim = std::move(*evicting),
             .last_use = last_use,
             .stored = std::nullopt});
  }
}

void Writes::take(std::size_t limit, std::vector<WriteJob>& jobs) {
  while (!queue_.empty() && limit > 0 && may_begin()) {
    const std::uint64_t token = queue_.front();
    queue_.pop_front();
    const auto found = writes_.find(token);
    if (found == writes_.end()) continue;
    Write& write = found->second;
    if (is_stale(write)) {  // The resets that it would be stamped with are not those of its bytes.
      drop_stale(found);
      continue;
    }
    write.is_begun = true;
    WriteJob job{.token = token,
                 .group = write.key.group,
                 .hash = write.key.hash,
                 .slot = write.place.index,
                 .alias = context_.host->alias(write.place.index),
                 .resets = context_.lower == nullptr ? 0 : context_.lower->resets()};
    for (std::uint16_t rank = 0; rank < context_.options.layout.ranks; ++rank) {
      job.checksums.push_back(context_.host->checksum(write.place.index, RankId(rank)));
    }
    jobs.push_back(std::move(job));
    --limit;
  }
}

void Writes::put_back(std::uint64_t token) {
  const auto found = writes_.find(token);
  if (found == writes_.end()) return;
  // A reset since it was taken passed it over, as one that the disk would refuse by itself.
  if (is_stale(found->second)) return drop_stale(found);
  if (is_stopped_) return drop(token);
  found->second.is_begun = false;
  queue_.push_front(token);
}

void Writes::finish(std::uint64_t token, const Status& status) {
  auto node = writes_.extract(token);
  if (node.empty()) return;
  Write& write = node.mapped();
  forget_queued(write);
  // kInvalid: the block is there already, which is what was wanted.
  const bool is_on_disk = status.is_ok() || status.code() == Code::kInvalid;
  if (status.is_ok()) {
    context_.counters.write_blocks.add();
    context_.counters.write_bytes.add(context_.groups.bytes(write.key.group).value());
    tell_last_use(write);
    if (write.key.name_space == context_.name_space && context_.options.has_events) {
      Event event = write.stored ? std::move(*write.stored)
                                 : Event{.group = write.key.group,
                                         .hash = write.key.hash,
                                         .alias = context_.host->alias(write.place.index)};
      context_.note_disk_stored(std::move(event));
    }
  } else if (status.code() == Code::kRefused) {
    context_.counters.drop_write_budget.add();
  } else if (!is_on_disk) {
    context_.counters.drop_disk_write.add();
    if (status.code() == Code::kIo) context_.counters.write_failures.add();
  }
  release(write);
}

// What host knows of it: else it would be on disk as if used by anybody just now, and in no chain,
// until it is used again.
void Writes::tell_last_use(const Write& write) {
  if (context_.lower == nullptr || write.key.name_space != context_.name_space) return;
  const auto last = write.last_use ? write.last_use : context_.pool().last_use(write.place);
  if (last) context_.lower->note_last_use(write.key.group, write.key.hash, *last);
}

void Writes::release(Write& write) {
  if (!write.victim.holds() || write.victim.is_rescued()) return;
  if (write.key.name_space != context_.name_space) return;  // Its slot is free as it goes.
  context_.let_leave(write.key, std::move(write.victim), false);
}

void Writes::stop() {
  is_stopped_ = true;
  for (const std::uint64_t token : std::exchange(queue_, {})) drop(token);
}

void Writes::drop(std::uint64_t token) {
  auto node = writes_.extract(token);
  if (node.empty()) return;
  forget_queued(node.mapped());
  context_.counters.drop_disk_write.add();
  std::move(node.mapped().victim).keep();
}

void Writes::drop_stale(Queued::iterator write) {
  context_.counters.drop_disk_write.add();
  forget(write);
}

void Writes::forget(Queued::iterator write) {
  forget_queued(write->second);
  writes_.erase(write);
}

void Writes::forget_stale() {
  for (auto it = writes_.begin(); it != writes_.end();) {
    const auto current = it++;
    if (!current->second.is_begun && is_stale(current->second)) forget(current);
  }
}

}  // namespace terrace::manager
