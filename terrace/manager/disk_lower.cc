#include "terrace/manager/lower_tier_internal.h"

namespace terrace::manager {
namespace {

class DiskLower final : public LowerTier {
 public:
  explicit DiskLower(tier::DiskTier& disk) : disk_(disk) {}

  std::size_t match(GroupId group, std::span<const SequenceHash> hashes) const override {
    return disk_.match(group, hashes);
  }
  bool contains(GroupId group, const SequenceHash& hash) const override {
    return disk_.contains(group, hash);
  }
  bool is_foreign(const SequenceHash& hash) const override { return disk_.is_foreign(hash); }
  void touch_chain(GroupId group, const catalog::UsedRun& run) override {
    disk_.touch_chain(group, run);
  }
  void note_last_use(GroupId group, const SequenceHash& hash,
                     const catalog::LastUse& last) override {
    disk_.note_last_use(group, hash, last);
  }
  void forget_all() override { disk_.forget_all(); }
  std::uint32_t resets() const override { return disk_.resets(); }
  bool is_drop_pending() const override { return disk_.is_drop_pending(); }
  std::vector<std::string> undropped() const override { return disk_.undropped(); }
  std::vector<catalog::Eviction> take_evicted() override { return disk_.take_evicted(); }
  std::vector<std::string> problems() const override { return disk_.problems(); }

  Status begin_write(std::uint64_t token, GroupId group, const SequenceHash& hash,
                     std::uint64_t alias, std::span<const tier::ShardMemory> ranks,
                     std::span<const Checksum> checksums, std::uint32_t resets) override {
    return disk_.begin_write(token, group, hash, alias, ranks, checksums, resets);
  }
  Status begin_read(std::uint64_t token, GroupId group, const SequenceHash& hash,
                    std::span<const tier::ShardMemory> ranks, transfer::IoClass io_class,
                    Nanoseconds deadline) override {
    return disk_.begin_read(token, group, hash, ranks, io_class, deadline);
  }
  void cancel_reads(std::span<const std::uint64_t> tokens) override { disk_.cancel_reads(tokens); }
  void poll(std::vector<tier::DiskDone>& done) override { disk_.poll(done); }
  void wait(Nanoseconds limit) override { disk_.wait(limit); }
  void wake() override { disk_.wake(); }
  bool is_idle() const override { return disk_.is_idle(); }
  void stop_writes() override { disk_.stop_writes(); }
  std::string learned() const override { return disk_.learned(); }
  void keep_learned(std::string bytes) override { disk_.keep_learned(std::move(bytes)); }
  void hold_idle_work(bool is_held) override { disk_.hold_scrub(is_held); }

 private:
  tier::DiskTier& disk_;
};

}  // namespace

std::unique_ptr<LowerTier> make_disk_lower(tier::DiskTier& disk) {
  return std::make_unique<DiskLower>(disk);
}

}  // namespace terrace::manager
