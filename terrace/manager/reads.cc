#include <algorithm>
#include <utility>

#include "terrace/manager/reads_internal.h"

namespace terrace::manager {

namespace {

MissReason reason_of(const Status& status) {
  switch (status.code()) {
    case Code::kNotFound:
      return MissReason::kEvicted;
    case Code::kDeadline:
      return MissReason::kLate;
    case Code::kExhausted:
    case Code::kUnavailable:
    case Code::kClosed:
      return MissReason::kDropped;
    case Code::kOk:
    case Code::kInvalid:
    case Code::kCorrupt:
    case Code::kIo:
    case Code::kRefused:
    case Code::kInternal:
      return MissReason::kCorrupt;  // Bytes that could not be verified.
  }
  return MissReason::kCorrupt;
}

// Thousands of requests may want one block, and each ends on its own: so both are kept in their
// order, in which most of them come.
void add(std::vector<Waiter>& waiters, const Waiter& waiter) {
  waiters.insert(std::ranges::upper_bound(waiters, waiter.request, {}, &Waiter::request), waiter);
}

void remove(std::vector<Waiter>& waiters, RequestId request) {
  const auto [first, last] = std::ranges::equal_range(waiters, request, {}, &Waiter::request);
  waiters.erase(first, last);
}

// False if it was there.
bool add(std::vector<RequestId>& askers, RequestId request) {
  const auto at = std::ranges::lower_bound(askers, request);
  if (at != askers.end() && *at == request) return false;
  askers.insert(at, request);
  return true;
}

// False if it was not there.
bool remove(std::vector<RequestId>& askers, RequestId request) {
  const auto at = std::ranges::lower_bound(askers, request);
  if (at == askers.end() || *at != request) return false;
  askers.erase(at);
  return true;
}

}  // namespace

std::optional<Tier> Reads::want(const BlockKey& key, transfer::IoClass io_class,
                                Nanoseconds deadline, std::optional<RequestId> asker,
                                std::optional<Waiter> waiter, std::optional<Event> event) {
  if (const auto known = tokens_.find({.group = key.group, .hash = key.hash});
      known != tokens_.end()) {
    Read& read = reads_.at(known->second);
    if (read.key != key) return std::nullopt;  // Of a namespace that was left.
    if (waiter) add(read.waiters, *waiter);
    read.deadline = std::max(read.deadline, deadline);  // Of one that is begun, should it be anew.
    note_asker(known->second, asker);
    if (io_class < read.io_class) {
      read.io_class = io_class;
      if (!read.is_begun) queue_of(io_class).push_back(known->second);
    }
    return read.source;
  }
  const auto source = context_.source_of(key.group, key.hash);
  if (!source || context_.pool().is_filling(key) || !context_.spare_what_only_host_has()) {
    return std::nullopt;
  }
  auto slot = context_.reserve(key);
  if (!slot) return std::nullopt;
  const std::uint64_t token = ++last_token_;
  Read read{.key = key,
            .slot = std::move(*slot),
            .source = *source,
            .io_class = io_class,
            .deadline = deadline,
            .waiters = {},
            .event = std::move(event)};
  if (waiter) read.waiters.push_back(*waiter);
  reads_.emplace(token, std::move(read));
  tokens_.emplace(ShardGroup{.group = key.group, .hash = key.hash}, token);
  note_asker(token, asker);
  queue_of(io_class).push_back(token);
  ++busy(*source).waiting;
  return source;
}

void Reads::note_asker(std::uint64_t token, std::optional<RequestId> asker) {
  Read& read = reads_.at(token);
  if (!asker) {
    read.is_kept = true;
    return;
  }
  if (!add(read.askers, *asker)) return;
  std::vector<std::uint64_t>& asked = asked_[*asker];
  if (asked.size() == asked.capacity()) {  // No longer than twice what is under way.
    std::erase_if(asked, [&](std::uint64_t one) { return !reads_.contains(one); });
    asked.reserve(std::max<std::size_t>(16, 2 * asked.size()));
  }
  asked.push_back(token);
}

std::array<Bytes, kTierCount> Reads::queued_beside(std::span<const SequenceHash> hashes) const {
  std::array<Bytes, kTierCount> queued{};
  if (reads_.empty()) return queued;
  std::array<std::uint64_t, kTierCount> own{};
  for (std::uint16_t group = 0; group < context_.groups.count(); ++group) {
    for (const SequenceHash& hash : hashes) {
      const auto found = tokens_.find({.group = GroupId(group), .hash = hash});
      if (found == tokens_.end()) continue;
      ++own[static_cast<std::size_t>(reads_.at(found->second).source)];
    }
  }
  for (std::size_t tier = 0; tier < queued.size(); ++tier) {
    queued[tier] = context_.groups.most_bytes() * (busy_[tier].waiting - own[tier]);
  }
  return queued;
}

void Reads::take(std::size_t limit, Nanoseconds now, std::vector<ReadJob>& jobs) {
  for (auto& queue : queues_) {
    while (!queue.empty() && limit > 0) {
      const std::uint64_t token = queue.front();
      queue.pop_front();
      const auto found = reads_.find(token);
      // A read that rose to a higher class stands in both queues: the first to come takes it.
      if (found == reads_.end() || found->second.is_begun) continue;
      Read& read = found->second;
      read.is_begun = true;
      if (busy(read.source).begun++ == 0) busy(read.source).window_start = now;
      jobs.push_back({.token = token,
                      .group = read.key.group,
                      .hash = read.key.hash,
                      .slot = read.slot.slot().index,
                      .source = read.source,
                      .io_class = read.io_class,
                      .deadline = read.deadline});
      --limit;
    }
  }
}

std::vector<Waiter> Reads::cancel_queued() {
  std::vector<Waiter> waiters;
  for (auto& queue : queues_) {
    for (const std::uint64_t token : std::exchange(queue, {})) {
      const auto found = reads_.find(token);
      if (found == reads_.end() || found->second.is_begun) continue;
      const Read& read = found->second;
      waiters.insert(waiters.end(), read.waiters.begin(), read.waiters.end());
      drop(found);
    }
  }
  return waiters;
}

void Reads::leave(const ShardGroup& block, RequestId request) {
  const auto known = tokens_.find(block);
  if (known == tokens_.end()) return;
  const auto found = reads_.find(known->second);
  Read& read = found->second;
  remove(read.waiters, request);
  if (!read.is_begun && read.waiters.empty()) drop(found);
}

void Reads::drop(Entry read) {
  const BlockKey& key = read->second.key;
  --busy(read->second.source).waiting;
  tokens_.erase({.group = key.group, .hash = key.hash});
  reads_.erase(read);
}

void Reads::release(RequestId request) {
  const auto asked = asked_.extract(request);
  if (asked.empty()) return;
  for (const std::uint64_t token : asked.mapped()) {
    const auto found = reads_.find(token);
    if (found == reads_.end() || !remove(found->second.askers, request)) continue;
    Read& read = found->second;
    remove(read.waiters, request);
    if (read.is_wanted()) continue;
    if (!read.is_begun) {
      context_.counters.cancel_blocks[static_cast<std::size_t>(read.source)].add();
      drop(found);
    } else if (!std::exchange(read.is_cancelled, true)) {
      to_cancel_.push_back(token);
    }
  }
}

void Reads::take_cancels(std::vector<std::uint64_t>& tokens) {
  for (const std::uint64_t token : std::exchange(to_cancel_, {})) {
    const auto found = reads_.find(token);
    if (found == reads_.end()) continue;
    Read& read = found->second;
    read.is_cancelled = read.is_begun && !read.is_wanted();
    if (read.is_cancelled) tokens.push_back(token);
  }
}

void Reads::put_back(std::uint64_t token) {
  const auto found = reads_.find(token);
  if (found == reads_.end()) return;
  Read& read = found->second;
  read.is_begun = false;
  --busy(read.source).begun;
  if (std::exchange(read.is_cancelled, false) && !read.is_wanted()) {
    context_.counters.cancel_blocks[static_cast<std::size_t>(read.source)].add();
    return drop(found);
  }
  queue_of(read.io_class).push_front(token);
}

void Reads::end_cancelled(Entry read, Nanoseconds now) {
  observe(read->second, false, now);
  ++busy(read->second.source).waiting;  // Until it is dropped, or read after all.
  read->second.is_begun = read->second.is_cancelled = false;
  if (read->second.is_wanted()) {
    queue_of(read->second.io_class).push_front(read->first);
    return;
  }
  context_.counters.cancel_blocks[static_cast<std::size_t>(read->second.source)].add();
  drop(read);
}

std::optional<ReadOutcome> Reads::finish(std::uint64_t token, const Status& status,
                                         std::span<const Checksum> checksums, std::uint64_t alias,
                                         Nanoseconds now) {
  const auto found = reads_.find(token);
  if (found == reads_.end()) return std::nullopt;
  if (found->second.is_cancelled && status.code() == Code::kClosed) {
    end_cancelled(found, now);
    return std::nullopt;
  }
  auto node = reads_.extract(found);
  Read& read = node.mapped();
  tokens_.erase({.group = read.key.group, .hash = read.key.hash});
  const bool is_whole = status.is_ok() && checksums.size() == context_.options.layout.ranks;
  observe(read, is_whole, now);
  ReadOutcome outcome{.key = read.key,
                      .source = read.source,
                      .waiters = std::move(read.waiters),
                      .pin = {},
                      .reason = {}};
  if (!is_whole) {
    fail(read, status, outcome);
    return outcome;  // The slot goes back: the tier promised that nothing writes to it any more.
  }
  if (read.key.name_space != context_.name_space) {
    outcome.reason = MissReason::kEvicted;
    return outcome;
  }
  const SlotIndex slot = read.slot.slot().index;
  const auto ranks = static_cast<std::uint16_t>(checksums.size());
  for (std::uint16_t rank = 0; rank < ranks; ++rank) {
    context_.host->set_checksum(slot, RankId(rank), checksums[rank]);
  }
  const std::uint64_t known = read.event && read.event->alias != 0 ? read.event->alias : alias;
  context_.host->set_alias(slot, known);
  context_.counters.prefetch_bytes[static_cast<std::size_t>(read.source)].add(
      context_.groups.bytes(read.key.group).value());
  outcome.pin = std::move(read.slot).seal();
  if (outcome.pin && read.event) context_.note_host_stored(std::move(*read.event));
  return outcome;
}

void Reads::fail(const Read& read, const Status& status, ReadOutcome& outcome) {
  outcome.reason = reason_of(status);
  context_.counters.read_failures.add();
  if (*outcome.reason == MissReason::kCorrupt) {
    context_.counters.corrupt_blocks[static_cast<std::size_t>(read.source)].add();
  }
  context_.ghosts.remember(read.key.hash, *outcome.reason);
  // What does not verify, the disk lets go of.
  if (context_.lower != nullptr && !context_.lower->contains(read.key.group, read.key.hash)) {
    context_.note_disk_removal(read.key);
  }
}

void Reads::observe(const Read& read, bool is_ok, Nanoseconds now) {
  Busy& busy = this->busy(read.source);
  --busy.begun;
  --busy.waiting;
  if (is_ok) busy.window_bytes += context_.groups.bytes(read.key.group);
  if (busy.begun > 0 && busy.window_bytes < kWindow) return;
  context_.planner.observe_load(read.source, busy.window_bytes, now - busy.window_start);
  busy.window_start = now;
  busy.window_bytes = Bytes(0);
}

}  // namespace terrace::manager
