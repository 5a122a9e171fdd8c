// What the core needs of the tier below host. The product has one implementation, over
// tier::DiskTier; simulations and model-based tests give one in memory, with virtual time.
// Threading: catalog calls are thread-safe and do no I/O, so they may be made under the manager's
// lock; I/O calls belong to the thread that ticks the driver.  Waits: only wait(), with a limit.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "terrace/tier/disk/disk_tier.h"

namespace terrace::manager {

class LowerTier {
 public:
  virtual ~LowerTier() = default;

  // Catalog.
  [[nodiscard]] virtual std::size_t match(GroupId group,
                                          std::span<const SequenceHash> hashes) const = 0;
  [[nodiscard]] virtual bool contains(GroupId group, const SequenceHash& hash) const = 0;
  // Whether it seems to lie there under another namespace.
  [[nodiscard]] virtual bool is_foreign(const SequenceHash& hash) const = 0;
  // Deepest first, gaps skipped.
  virtual void touch_chain(GroupId group, const catalog::UsedRun& run) = 0;
  // Of a block that was written: how it was used before.
  virtual void note_last_use(GroupId group, const SequenceHash& hash,
                             const catalog::LastUse& last) = 0;
  // As tier::DiskTier has them.
  virtual void forget_all() = 0;
  [[nodiscard]] virtual std::uint32_t resets() const = 0;
  [[nodiscard]] virtual bool is_drop_pending() const = 0;
  [[nodiscard]] virtual std::vector<std::string> undropped() const = 0;
  [[nodiscard]] virtual std::vector<catalog::Eviction> take_evicted() = 0;
  [[nodiscard]] virtual std::vector<std::string> problems() const = 0;

  // I/O. `resets`: of when the job was taken; kNotFound if there was one since.
  [[nodiscard]] virtual Status begin_write(std::uint64_t token, GroupId group,
                                           const SequenceHash& hash, std::uint64_t alias,
                                           std::span<const tier::ShardMemory> ranks,
                                           std::span<const Checksum> checksums,
                                           std::uint32_t resets) = 0;
  [[nodiscard]] virtual Status begin_read(std::uint64_t token, GroupId group,
                                          const SequenceHash& hash,
                                          std::span<const tier::ShardMemory> ranks,
                                          transfer::IoClass io_class, Nanoseconds deadline) = 0;
  // Of those reads, the ones that are not at their device end as kClosed; the others go on.
  virtual void cancel_reads(std::span<const std::uint64_t> /*tokens*/) {}
  virtual void poll(std::vector<tier::DiskDone>& done) = 0;
  virtual void wait(Nanoseconds limit) = 0;
  virtual void wake() = 0;  // Thread-safe.
  [[nodiscard]] virtual bool is_idle() const = 0;
  virtual void stop_writes() = 0;
  // What eviction learned: of an earlier owner, and for the next one. As tier::DiskTier has them.
  [[nodiscard]] virtual std::string learned() const = 0;
  virtual void keep_learned(std::string bytes) = 0;
  // Work that nobody asked for (scrubbing) begins no I/O while it is held.
  virtual void hold_idle_work(bool /*is_held*/) {}
};

// Owns nothing: `disk` outlives it.
[[nodiscard]] std::unique_ptr<LowerTier> make_disk_lower(tier::DiskTier& disk);

}  // namespace terrace::manager
