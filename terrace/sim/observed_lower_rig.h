// The tier below host as the core sees it, watched: what it acknowledges, what it hands out, what
// it lets go. Changes nothing. Threading: one thread.  Waits: never.
#pragma once

#include <functional>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "terrace/manager/core_rig.h"
#include "terrace/sim/oracle_rig.h"

namespace terrace::sim {

class ObservedLower final : public manager::LowerTier {
 public:
  struct Watch {
    Truth& truth;
    Stored& stored;
    Verdict& verdict;
    const std::uint32_t& weights;  // That the engine computes with now.
  };
  ObservedLower(std::unique_ptr<manager::LowerTier> inner, Watch watch)
      : inner_(std::move(inner)), watch_(watch) {}

  std::size_t match(GroupId group, std::span<const SequenceHash> hashes) const override {
    return inner_->match(group, hashes);
  }
  bool contains(GroupId group, const SequenceHash& hash) const override {
    return inner_->contains(group, hash);
  }
  bool is_foreign(const SequenceHash& hash) const override { return inner_->is_foreign(hash); }
  void touch_chain(GroupId group, const catalog::UsedRun& run) override {
    inner_->touch_chain(group, run);
  }
  void note_last_use(GroupId group, const SequenceHash& hash,
                     const catalog::LastUse& last) override {
    inner_->note_last_use(group, hash, last);
  }
  void forget_all() override {
    inner_->forget_all();
    watch_.stored.forget_all();
  }
  std::uint32_t resets() const override { return inner_->resets(); }
  bool is_drop_pending() const override { return inner_->is_drop_pending(); }
  std::vector<std::string> undropped() const override { return inner_->undropped(); }
  std::vector<catalog::Eviction> take_evicted() override {
    note_evicted();
    return std::exchange(evicted_, {});
  }
  std::vector<std::string> problems() const override { return inner_->problems(); }
  std::string learned() const override { return inner_->learned(); }
  void keep_learned(std::string bytes) override { inner_->keep_learned(std::move(bytes)); }
  Status begin_write(std::uint64_t token, GroupId group, const SequenceHash& hash,
                     std::uint64_t alias, std::span<const tier::ShardMemory> ranks,
                     std::span<const Checksum> checksums, std::uint32_t resets) override;
  Status begin_read(std::uint64_t token, GroupId group, const SequenceHash& hash,
                    std::span<const tier::ShardMemory> ranks, transfer::IoClass io_class,
                    Nanoseconds deadline) override;
  void poll(std::vector<tier::DiskDone>& done) override;
  void wait(Nanoseconds limit) override { inner_->wait(limit); }
  void wake() override { inner_->wake(); }
  bool is_idle() const override { return inner_->is_idle(); }
  void stop_writes() override { inner_->stop_writes(); }

  // Of this life.
  [[nodiscard]] std::uint64_t sealed() const { return sealed_; }
  [[nodiscard]] std::uint64_t reads() const { return reads_; }

 private:
  struct Operation {
    GroupId group;
    SequenceHash hash;
    std::vector<tier::ShardMemory> ranks;
    std::uint32_t resets = 0;
  };
  void note_evicted();
  void check_read(const Operation& operation, const tier::DiskDone& done);

  std::unique_ptr<manager::LowerTier> inner_;
  Watch watch_;
  std::unordered_map<std::uint64_t, Operation> operations_;  // By token.
  std::vector<catalog::Eviction> evicted_;
  std::uint64_t sealed_ = 0;
  std::uint64_t reads_ = 0;
};

}  // namespace terrace::sim
