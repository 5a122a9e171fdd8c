// Test support: a disk tier in memory, with virtual time. Nothing of it is part of the product.
// Threading: one thread.  Waits: never.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <iterator>
#include <map>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "terrace/block/checksum.h"
#include "terrace/manager/lower_tier_internal.h"

namespace terrace::manager::rig {

// Of group 0 where no group is named.
struct DiskKey {
  SequenceHash hash;
  GroupId group{0};
  DiskKey(const SequenceHash& its_hash) : hash(its_hash) {}  // NOLINT(google-explicit-constructor)
  DiskKey(GroupId its_group, const SequenceHash& its_hash) : hash(its_hash), group(its_group) {}
  friend auto operator<=>(const DiskKey& a, const DiskKey& b) {
    return std::pair(a.hash, a.group) <=> std::pair(b.hash, b.group);
  }
  friend bool operator==(const DiskKey&, const DiskKey&) = default;
};

// A disk without a disk: what was written stays until more than `capacity` blocks are there, then
// the oldest goes. Operations finish `latency` after they began, unless a fault says otherwise.
class MemoryDisk final : public LowerTier {
 public:
  struct Block {
    std::vector<std::string> payloads;  // [rank]
    std::vector<Checksum> checksums;
    std::uint64_t alias = 0;
    std::uint64_t age = 0;
  };
  explicit MemoryDisk(const Clock& clock) : clock_(clock) {}

  std::size_t capacity = 1'000'000;
  std::size_t depth = 16;  // Reads, and as many writes, at a time.
  Nanoseconds latency{0};
  // What a token bucket of `burst` bytes lets reads have; 0 = all they want. The latency comes on
  // top.
  double read_bytes_per_second = 0;
  double burst = 0;
  std::function<Status(const SequenceHash&, bool is_read)>
      fault;              // Ok, or what the operation ends as.
  bool is_stuck = false;  // Nothing finishes.
  // Of reads under way, the oldest that have the device; others wait for it, and can be cancelled.
  std::size_t at_device = 1'000'000;
  std::map<DiskKey, Block> blocks;
  std::map<DiskKey, catalog::LastUse> last_uses;  // As told after the write.
  std::set<SequenceHash> foreign;
  std::string known;              // What eviction learned before,
  std::vector<std::string> kept;  // and what it was told to keep since.
  std::uint64_t reads = 0;        // That ended.
  std::uint64_t writes = 0;
  std::uint64_t begun_reads = 0;
  std::uint64_t begun_writes = 0;

  std::size_t match(GroupId group, std::span<const SequenceHash> hashes) const override {
    std::size_t count = 0;
    while (count < hashes.size() && blocks.contains({group, hashes[count]})) ++count;
    return count;
  }
  bool contains(GroupId group, const SequenceHash& hash) const override {
    return blocks.contains({group, hash});
  }
  bool is_foreign(const SequenceHash& hash) const override { return foreign.contains(hash); }
  void touch_chain(GroupId group, const catalog::UsedRun& run) override {
    for (std::size_t i = run.hashes.size(); i > 0; --i) {
      const auto it = blocks.find({group, run.hashes[i - 1]});
      if (it != blocks.end()) it->second.age = ++age_;
    }
  }
  void note_last_use(GroupId group, const SequenceHash& hash,
                     const catalog::LastUse& last) override {
    last_uses.insert_or_assign({group, hash}, last);
  }
  void forget_all() override {
    blocks.clear();
    ++generation_;
  }
  std::uint32_t resets() const override { return static_cast<std::uint32_t>(generation_); }
  bool is_drop_pending() const override { return is_stuck && generation_ > 0; }
  std::vector<std::string> undropped() const override {
    return is_drop_pending() ? std::vector<std::string>{"/kv"} : std::vector<std::string>{};
  }
  std::vector<catalog::Eviction> take_evicted() override { return std::exchange(evicted_, {}); }
  std::vector<std::string> problems() const override { return {}; }
  std::string learned() const override { return known; }
  void keep_learned(std::string bytes) override { kept.push_back(std::move(bytes)); }

  Status begin_write(std::uint64_t token, GroupId group, const SequenceHash& hash,
                     std::uint64_t alias, std::span<const tier::ShardMemory> ranks,
                     std::span<const Checksum> checksums, std::uint32_t resets) override {
    if (is_stopped_) return {Code::kUnavailable, "stopped"};
    if (resets != generation_) return {Code::kNotFound, "reset"};
    if (blocks.contains({group, hash})) return {Code::kInvalid, "there already"};
    if (in_flight(false) >= depth) return {Code::kExhausted, "queue full"};
    ++begun_writes;
    ops_.push_back({token,
                    false,
                    {group, hash},
                    clock_.now() + latency,
                    {ranks.begin(), ranks.end()},
                    {checksums.begin(), checksums.end()},
                    alias,
                    generation_});
    return {};
  }
  Status begin_read(std::uint64_t token, GroupId group, const SequenceHash& hash,
                    std::span<const tier::ShardMemory> ranks, transfer::IoClass,
                    Nanoseconds deadline) override {
    if (!blocks.contains({group, hash})) return {Code::kNotFound, "not there"};
    if (in_flight(true) >= depth) return {Code::kExhausted, "queue full"};
    ++begun_reads;
    std::size_t bytes = 0;
    for (const tier::ShardMemory& shard : ranks) bytes += shard.payload_bytes;
    ops_.push_back({token,
                    true,
                    {group, hash},
                    std::min(paid_at(bytes) + latency, deadline),
                    {ranks.begin(), ranks.end()},
                    {},
                    0,
                    generation_});
    return {};
  }
  void cancel_reads(std::span<const std::uint64_t> tokens) override {
    std::size_t seen = 0;
    std::erase_if(ops_, [&](const Op& op) {
      if (!op.is_read || ++seen <= at_device) return false;
      if (std::ranges::find(tokens, op.token) == tokens.end()) return false;
      cancelled_.push_back({.token = op.token,
                            .is_read = true,
                            .status = {Code::kClosed, "cancelled"},
                            .checksums = {},
                            .alias = 0});
      return true;
    });
  }
  void poll(std::vector<tier::DiskDone>& done) override {
    std::ranges::move(std::exchange(cancelled_, {}), std::back_inserter(done));
    std::vector<Op> later;
    std::size_t seen = 0;
    for (Op& op : ops_) {
      const bool is_waiting = op.is_read && ++seen > at_device;
      if (is_stuck || is_waiting || op.due > clock_.now()) {
        later.push_back(std::move(op));
      } else {
        done.push_back(op.is_read ? read(op) : write(op));
      }
    }
    ops_ = std::move(later);
  }
  void wait(Nanoseconds) override {}
  void wake() override {}
  bool is_idle() const override { return ops_.empty() && cancelled_.empty(); }
  void stop_writes() override { is_stopped_ = true; }

 private:
  struct Op {
    std::uint64_t token;
    bool is_read;
    DiskKey key;
    Nanoseconds due;
    std::vector<tier::ShardMemory> ranks;
    std::vector<Checksum> checksums;
    std::uint64_t alias;
    std::uint64_t generation;
  };
  [[nodiscard]] std::size_t in_flight(bool is_read) const {
    std::size_t count = 0;
    for (const Op& op : ops_) count += op.is_read == is_read ? 1 : 0;
    return count;
  }
  // When the bucket has let so many bytes go.
  Nanoseconds paid_at(std::size_t bytes) {
    const Nanoseconds now = clock_.now();
    if (read_bytes_per_second <= 0) return now;
    const auto in_time = [&](double count) {
      return Nanoseconds(static_cast<std::int64_t>(count / read_bytes_per_second * 1e9));
    };
    paid_until_ = std::max(paid_until_, now - in_time(burst)) + in_time(static_cast<double>(bytes));
    return std::max(now, paid_until_);
  }
  [[nodiscard]] Status fault_of(const Op& op) const {
    return fault ? fault(op.key.hash, op.is_read) : Status();
  }
  tier::DiskDone read(const Op& op) {
    ++reads;
    tier::DiskDone done{
        .token = op.token, .is_read = true, .status = fault_of(op), .checksums = {}, .alias = 0};
    const auto found = blocks.find(op.key);
    if (done.status.is_ok() && found == blocks.end()) done.status = {Code::kNotFound, "evicted"};
    if (!done.status.is_ok()) {
      if (done.status.code() == Code::kCorrupt) blocks.erase(op.key);
      return done;
    }
    const Block& block = found->second;
    for (std::size_t rank = 0; rank < op.ranks.size(); ++rank) {
      const std::string& payload = block.payloads[rank];
      std::memcpy(op.ranks[rank].payload, payload.data(), payload.size());
      if (checksum_of(std::as_bytes(std::span(payload))) != block.checksums[rank]) {
        done.status = {Code::kCorrupt, "checksum"};
        blocks.erase(op.key);
        return done;
      }
    }
    done.checksums = block.checksums;
    done.alias = block.alias;
    return done;
  }
  tier::DiskDone write(const Op& op) {
    ++writes;
    tier::DiskDone done{
        .token = op.token, .is_read = false, .status = fault_of(op), .checksums = {}, .alias = 0};
    if (!done.status.is_ok() || op.generation != generation_) return done;
    Block block{.payloads = {}, .checksums = op.checksums, .alias = op.alias, .age = ++age_};
    for (const tier::ShardMemory& shard : op.ranks) {
      block.payloads.emplace_back(reinterpret_cast<const char*>(shard.payload),
                                  shard.payload_bytes);
    }
    while (blocks.size() >= capacity) {
      auto oldest = blocks.begin();
      for (auto it = blocks.begin(); it != blocks.end(); ++it) {
        if (it->second.age < oldest->second.age) oldest = it;
      }
      catalog::Eviction gone;
      gone.key = {NamespaceId(1), oldest->first.group, oldest->first.hash};
      evicted_.push_back(gone);
      blocks.erase(oldest);
    }
    blocks.emplace(op.key, std::move(block));
    return done;
  }

  const Clock& clock_;
  std::vector<Op> ops_;
  std::vector<tier::DiskDone> cancelled_;
  std::vector<catalog::Eviction> evicted_;
  bool is_stopped_ = false;
  std::uint64_t age_ = 0;
  std::uint64_t generation_ = 0;
  Nanoseconds paid_until_{0};
};

}  // namespace terrace::manager::rig
