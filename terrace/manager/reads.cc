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

}  // namespace

bool Reads::want(const BlockKey& key, transfer::IoClass io_class, Nanoseconds deadline,
                 std::optional<Waiter> waiter, std::optional<Event> event) {
  if (const auto known = tokens_.find({.group = key.group, .hash = key.hash});
      known != tokens_.end()) {
    Read& read = reads_.at(known->second);
    if (read.key != key) return false;  // Of a namespace that was left.
    if (waiter) read.waiters.push_back(*waiter);
    if (io_class < read.io_class) {
      read.io_class = io_class;
      if (!read.is_begun) queue_of(io_class).push_back(known->second);
    }
    return true;
  }
  if (context_.pool().is_filling(key) || !context_.spare_what_only_host_has()) return false;
  auto slot = context_.reserve(key);
  if (!slot) return false;
  const std::uint64_t token = ++last_token_;
  Read read{.key = key,
            .slot = std::move(*slot),
            .io_class = io_class,
            .deadline = deadline,
            .waiters = {},
            .event = std::move(event)};
  if (waiter) read.waiters.push_back(*waiter);
  reads_.emplace(token, std::move(read));
  tokens_.emplace(ShardGroup{.group = key.group, .hash = key.hash}, token);
  queue_of(io_class).push_back(token);
  return true;
}

Bytes Reads::queued_beside(std::span<const SequenceHash> hashes) const {
  if (reads_.empty()) return Bytes(0);
  std::size_t own = 0;
  for (std::uint16_t group = 0; group < context_.groups.count(); ++group) {
    for (const SequenceHash& hash : hashes) {
      own += tokens_.count({.group = GroupId(group), .hash = hash});
    }
  }
  return context_.groups.most_bytes() * (reads_.size() - own);
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
      if (begun_++ == 0) window_start_ = now;
      jobs.push_back({.token = token,
                      .group = read.key.group,
                      .hash = read.key.hash,
                      .slot = read.slot.slot().index,
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
      tokens_.erase({.group = read.key.group, .hash = read.key.hash});
      reads_.erase(found);  // Its slot is free again.
    }
  }
  return waiters;
}

void Reads::put_back(std::uint64_t token) {
  const auto found = reads_.find(token);
  if (found == reads_.end()) return;
  found->second.is_begun = false;
  --begun_;
  queue_of(found->second.io_class).push_front(token);
}

std::optional<ReadOutcome> Reads::finish(std::uint64_t token, const Status& status,
                                         std::span<const Checksum> checksums, std::uint64_t alias,
                                         Nanoseconds now) {
  auto node = reads_.extract(token);
  if (node.empty()) return std::nullopt;
  Read& read = node.mapped();
  tokens_.erase({.group = read.key.group, .hash = read.key.hash});
  const bool is_whole = status.is_ok() && checksums.size() == context_.options.layout.ranks;
  observe(read.key.group, is_whole, now);
  ReadOutcome outcome{.key = read.key, .waiters = std::move(read.waiters), .pin = {}, .reason = {}};
  if (!is_whole) {
    outcome.reason = reason_of(status);
    context_.counters.read_failures.add();
    if (*outcome.reason == MissReason::kCorrupt) {
      context_.counters.corrupt_blocks[static_cast<std::size_t>(Tier::kDisk)].add();
    }
    context_.ghosts.remember(read.key.hash, *outcome.reason);
    // What does not verify, the disk lets go of.
    if (context_.lower != nullptr && !context_.lower->contains(read.key.group, read.key.hash)) {
      context_.note_disk_removal(read.key);
    }
    return outcome;  // The slot goes back: the disk promised that nothing writes to it any more.
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
  context_.counters.prefetch_bytes.add(context_.groups.bytes(read.key.group).value());
  outcome.pin = std::move(read.slot).seal();
  if (outcome.pin && read.event) context_.note_host_stored(std::move(*read.event));
  return outcome;
}

void Reads::observe(GroupId group, bool is_ok, Nanoseconds now) {
  --begun_;
  if (is_ok) window_bytes_ += context_.groups.bytes(group);
  if (begun_ > 0 && window_bytes_ < kWindow) return;
  context_.planner.observe_load(Tier::kDisk, window_bytes_, now - window_start_);
  window_start_ = now;
  window_bytes_ = Bytes(0);
}

}  // namespace terrace::manager
