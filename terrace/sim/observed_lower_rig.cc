#include "terrace/sim/observed_lower_rig.h"

#include <fmt/format.h>

#include <cstring>

namespace terrace::sim {

namespace {
// The driver's own block, whose bytes are a pattern.
bool is_canary(const SequenceHash& hash) { return ~hash.low == 0 && ~hash.high == 0; }
}  // namespace

void ObservedLower::note_evicted() {
  for (catalog::Eviction& eviction : inner_->take_evicted()) {
    watch_.stored.doubt(eviction.key.group, eviction.key.hash);
    evicted_.push_back(eviction);
  }
}

Status ObservedLower::begin_write(std::uint64_t token, GroupId group, const SequenceHash& hash,
                                  std::uint64_t alias, std::span<const tier::ShardMemory> ranks,
                                  std::span<const Checksum> checksums, std::uint32_t resets) {
  Status status = inner_->begin_write(token, group, hash, alias, ranks, checksums, resets);
  note_evicted();
  if (!status.is_ok()) return status;
  operations_[token] = {group, hash, {}, inner_->resets()};
  if (is_canary(hash)) return status;
  watch_.stored.renew(group, hash);
  watch_.stored.begin(group, hash);
  return status;
}

Status ObservedLower::begin_read(std::uint64_t token, GroupId group, const SequenceHash& hash,
                                 std::span<const tier::ShardMemory> ranks,
                                 transfer::IoClass io_class, Nanoseconds deadline) {
  Status status = inner_->begin_read(token, group, hash, ranks, io_class, deadline);
  if (status.is_ok()) {
    operations_[token] = {group, hash, {ranks.begin(), ranks.end()}, inner_->resets()};
  }
  return status;
}

void ObservedLower::poll(std::vector<tier::DiskDone>& done) {
  const std::size_t before = done.size();
  inner_->poll(done);
  note_evicted();
  for (std::size_t i = before; i < done.size(); ++i) {
    const auto found = operations_.find(done[i].token);
    if (found == operations_.end()) {
      watch_.verdict.found(Wrong::kLeak, "the disk answered what nobody had asked");
      continue;
    }
    const Operation operation = std::move(found->second);
    operations_.erase(found);
    if (done[i].is_read) {
      check_read(operation, done[i]);
    } else if (done[i].status.is_ok() && inner_->resets() == 0) {
      ++sealed_;
      watch_.stored.seal(operation.group, operation.hash);
    }
  }
}

void ObservedLower::check_read(const Operation& operation, const tier::DiskDone& done) {
  if (is_canary(operation.hash)) return;
  if (done.status.is_ok()) {
    ++reads_;
    const auto& right = watch_.truth.of(operation.group, operation.hash, watch_.weights);
    for (std::size_t rank = 0; rank < operation.ranks.size(); ++rank) {
      if (std::memcmp(operation.ranks[rank].payload, right[rank].data(), kPayloadBytes) == 0) {
        continue;
      }
      watch_.verdict.found(Wrong::kBytes,
                           fmt::format("a read from disk gave rank {} other bytes as right", rank));
    }
  } else if (done.status.code() == Code::kCorrupt) {
    if (watch_.stored.is_sealed(operation.group, operation.hash)) {
      watch_.verdict.found(Wrong::kLostSealed, "a sealed block that nobody harmed is corrupt: " +
                                                   done.status.message());
    }
    watch_.stored.doubt(operation.group, operation.hash);
  }
}

}  // namespace terrace::sim
