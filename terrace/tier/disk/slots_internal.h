// What the disk tier knows of its slots: one pool per group over all volumes, the engine's aliases,
// and which namespace's blocks may be seen. Blocks of other namespaces stand in the pool as foreign
// blocks, adopted first: so they are the oldest, and the pool's own eviction takes the space of the
// least recently used namespace before it takes ours.
// Threading: thread-safe.  Waits: never.  Memory: the pool's, and 8 B per slot for aliases.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "terrace/base/metric.h"
#include "terrace/base/mutex.h"
#include "terrace/block/layout.h"
#include "terrace/catalog/pool_load.h"
#include "terrace/index/zeroed_array.h"
#include "terrace/tier/disk/geometry_internal.h"
#include "terrace/tier/disk/spread_internal.h"

namespace terrace::tier::disk {

// Without events every alias is 0: what is not written takes no memory.
inline void set_alias(std::uint64_t& place, std::uint64_t alias) {
  if (place != alias) place = alias;
}

class Slots {
  static constexpr std::size_t kMostEvicted = 65'536;  // For take_evicted(); further ones are lost.

 public:
  struct Options {
    std::size_t groups = 0;
    std::uint32_t slots = 0;  // Of each group; at most the map's.
    std::string eviction;
    std::shared_ptr<const policy::ReturnModel> returns = {};
  };
  static Result<std::unique_ptr<Slots>> create(const Options& options, SlotMap map,
                                               std::size_t volumes);

  // ---- At start.
  void adopt_foreign(std::uint32_t volume, std::uint32_t first_slot, std::uint32_t count);
  // What the loader fills, without the lock: it may do so from several threads (PoolLoad says how),
  // as long as nobody else has the tier.
  struct Loading {
    catalog::PoolLoad pool;
    std::span<std::uint64_t> aliases;  // [slot]
  };
  // Errors: kExhausted if memory is refused.
  [[nodiscard]] Result<Loading> begin_load(std::size_t group, std::size_t parts);

  // What a block that cannot be read goes by, for want of a key: no look-up asks for it, it keeps
  // its age among ours, and its alias is kLockedAlias.
  static constexpr std::uint64_t kLockedAlias = 0x4c4f'434b'4544'0001ULL;
  [[nodiscard]] static SequenceHash locked(const SequenceHash& hash) {
    return {~hash.high, hash.low ^ kLockedAlias};
  }
  void add_locked(std::uint64_t count);

  // ---- Look-ups.
  [[nodiscard]] std::size_t match(std::size_t group, std::span<const SequenceHash> hashes) const;
  [[nodiscard]] bool contains(std::size_t group, const SequenceHash& hash) const;
  void touch(std::size_t group, const SequenceHash& hash);
  void touch_chain(std::size_t group, const catalog::UsedRun& run);
  void note_last_use(std::size_t group, const SequenceHash& hash, const catalog::LastUse& last);

  // The volume cannot be read for now: its blocks are in no answer above.
  void hide_volume(std::uint32_t volume, bool is_hidden);

  // ---- Writing.
  struct Reserved {
    catalog::FillingSlot slot;
    SlotMap::Place place;
    std::uint32_t epoch = 0;
  };
  // Where slots are free, the volumes take turns in proportion to their speeds; where none is, the
  // block takes the place of the one that goes. Not on volumes where `is_blocked`. Errors: kInvalid
  // = the block is there or being written; kExhausted = no slot; kNotFound = reset since
  // `wanted_epoch`.
  [[nodiscard]] Result<Reserved> reserve(std::size_t group, const SequenceHash& hash,
                                         const std::vector<bool>& is_blocked,
                                         std::optional<std::uint32_t> wanted_epoch);
  // New blocks go to the first `slots` of the volume's, until that is said otherwise: its file ends
  // there, and cannot grow now.
  void limit_volume(std::uint32_t volume, std::uint32_t slots);
  // [volume], bytes a second; 0 = not known.
  void set_speeds(std::span<const double> speeds);
  // Foreign blocks in these slots of the volume, any group, are gone.
  void drop_foreign(std::uint32_t volume, std::uint32_t first_slot, std::uint32_t count);
  // Makes the block findable. False if the cache was reset since `epoch`; the slot is then free.
  [[nodiscard]] bool seal(catalog::FillingSlot slot, std::size_t group, std::uint64_t alias,
                          std::uint32_t epoch);
  void abandon(catalog::FillingSlot slot);

  // ---- Reading.
  struct Pinned {
    catalog::Pin pin;
    SlotMap::Place place;
    std::uint32_t generation = 0;
    std::uint64_t alias = 0;
    std::uint32_t epoch = 0;
  };
  [[nodiscard]] std::optional<Pinned> pin(std::size_t group, const SequenceHash& hash);
  // Ends the read; with `is_removed` the block goes too. False if the cache was reset meanwhile.
  bool unpin(std::size_t group, Pinned pinned, bool is_removed);

  // ---- Looking without holding, for the scrubber: the eviction order stays as it is.
  struct Sight {
    SlotRef slot;
    SequenceHash hash;
    SlotMap::Place place;
    std::uint32_t epoch = 0;
  };
  // The first block of ours at `slot` or behind it, among at most `limit` slots; `slot` is then the
  // one to look on from.
  [[nodiscard]] std::optional<Sight> next_sealed(std::size_t group, std::uint32_t& slot,
                                                 std::uint32_t limit) const;
  // The block still lies there, as it did.
  [[nodiscard]] bool is_same(std::size_t group, const Sight& sight) const;
  // Drops it, to be told in take_evicted(). False if a read holds it, or it is not the same.
  bool drop(std::size_t group, const Sight& sight);

  // ---- Forgetting.
  void forget_all();
  // How often that was done.
  [[nodiscard]] std::uint32_t epoch() const;
  // What is on the volume's medium from before `epoch` cannot be found by any later owner.
  void note_dropped(std::uint32_t volume, std::uint32_t epoch);
  [[nodiscard]] bool is_dropped(std::uint32_t volume) const;
  void forget_volume(std::uint32_t volume);
  // Frees forgotten blocks, looking at no more than `limit` slots. True when there is nothing left.
  bool sweep(std::uint32_t limit);

  // ---- Facts.
  [[nodiscard]] const SlotMap& map() const { return map_; }
  [[nodiscard]] std::uint32_t size() const { return size_; }
  [[nodiscard]] bool is_free(std::size_t group, std::uint32_t slot) const;
  [[nodiscard]] std::uint32_t count(catalog::SlotState state) const;  // All groups.
  [[nodiscard]] std::uint64_t foreign() const;
  [[nodiscard]] std::uint64_t locked() const;
  // For metrics, which take no lock that look-ups take: the same as of the last tell().
  void tell();
  [[nodiscard]] std::int64_t told(catalog::SlotState state) const;
  [[nodiscard]] std::int64_t told_foreign() const { return told_foreign_.value(); }
  [[nodiscard]] std::int64_t told_locked() const { return told_locked_.value(); }
  [[nodiscard]] std::int64_t told_memory() const { return told_memory_.value(); }
  [[nodiscard]] std::vector<catalog::Eviction> take_evicted();
  [[nodiscard]] Bytes memory() const;

 private:
  Slots(SlotMap map, std::uint32_t size, std::size_t volumes)
      : map_(std::move(map)),
        size_(size),
        limits_(volumes, UINT32_MAX),
        is_forgotten_(volumes, false),
        is_hidden_(volumes, false),
        dropped_(volumes, 0) {}
  // At a free slot of the volume whose turn it is. Nothing if none of those not blocked has one.
  [[nodiscard]] std::optional<catalog::ReservedSlot> reserve_free(
      std::size_t group, const BlockKey& wanted, const std::vector<bool>& is_blocked)
      TERRACE_REQUIRES(mutex_);
  // At the place of a block that goes for it. Nothing if those that come next make no room.
  [[nodiscard]] std::optional<catalog::ReservedSlot> reserve_victims(
      std::size_t group, const BlockKey& wanted, const std::vector<bool>& is_blocked)
      TERRACE_REQUIRES(mutex_);
  // Where the volume's slots end that a new block may get.
  [[nodiscard]] SlotIndex end_of(std::uint32_t volume) const TERRACE_REQUIRES(mutex_);
  [[nodiscard]] BlockKey key(std::size_t group, const SequenceHash& hash) const
      TERRACE_REQUIRES(mutex_);
  // Where it lies on a volume that is not hidden.
  [[nodiscard]] bool is_seen(std::size_t group, const SequenceHash& hash) const
      TERRACE_REQUIRES(mutex_);
  void note_gone(std::size_t group, const catalog::Eviction& gone) TERRACE_REQUIRES(mutex_);
  [[nodiscard]] bool is_locked(std::size_t group, std::uint32_t slot) const
      TERRACE_REQUIRES(mutex_);
  // Takes the mark off the slot; false if it held none.
  bool unlock(std::size_t group, std::uint32_t slot) TERRACE_REQUIRES(mutex_);
  bool sweep_slot(std::size_t group, std::uint32_t slot) TERRACE_REQUIRES(mutex_);
  [[nodiscard]] Bytes memory_of_all() const TERRACE_REQUIRES(mutex_);

  const SlotMap map_;
  const std::uint32_t size_;
  std::array<Gauge, catalog::kSlotStateCount> told_;
  Gauge told_foreign_;
  Gauge told_locked_;
  Gauge told_memory_;
  mutable Mutex mutex_;
  std::vector<std::unique_ptr<catalog::Pool>> pools_ TERRACE_GUARDED_BY(mutex_);
  std::vector<index::ZeroedArray<std::uint64_t>> aliases_ TERRACE_GUARDED_BY(mutex_);
  NamespaceId current_ TERRACE_GUARDED_BY(mutex_){1};
  std::uint32_t epoch_ TERRACE_GUARDED_BY(mutex_) = 0;
  std::uint64_t foreign_ TERRACE_GUARDED_BY(mutex_) = 0;
  std::uint64_t locked_ TERRACE_GUARDED_BY(mutex_) = 0;
  std::vector<Spread> spreads_ TERRACE_GUARDED_BY(mutex_);         // [group]
  std::vector<std::uint32_t> limits_ TERRACE_GUARDED_BY(mutex_);   // [volume]
  std::vector<bool> is_forgotten_ TERRACE_GUARDED_BY(mutex_);      // [volume]
  std::vector<bool> is_hidden_ TERRACE_GUARDED_BY(mutex_);         // [volume]
  std::size_t hidden_ TERRACE_GUARDED_BY(mutex_) = 0;              // Of the volumes.
  std::vector<std::uint32_t> dropped_ TERRACE_GUARDED_BY(mutex_);  // [volume]; epochs.
  std::uint64_t sweep_at_ TERRACE_GUARDED_BY(mutex_) = UINT64_MAX;
  std::vector<catalog::Eviction> evicted_ TERRACE_GUARDED_BY(mutex_);
};

}  // namespace terrace::tier::disk
