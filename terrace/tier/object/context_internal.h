// What the parts of the object tier share.
// Threading: the I/O thread's, but for what `mutex` guards and the atomics.  Waits: never.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "terrace/base/log_limit.h"
#include "terrace/base/mutex.h"
#include "terrace/tier/object/collector.h"
#include "terrace/tier/object/damaged_packs_internal.h"
#include "terrace/tier/object/known_packs_internal.h"
#include "terrace/tier/object/object_tier.h"
#include "terrace/wire/frame.h"
#include "terrace/wire/pack.h"

namespace terrace::tier::object {

// Which part an answer of the store belongs to: the highest byte of its token.
// kSealed and kOpened: not the store's but that of others' hands.
enum class Part : std::uint8_t {
  kOpening,
  kProbe,
  kRead,
  kWrite,
  kReset,
  kCollect,
  kTouch,
  kCheck,
  kRepair,
  kSealed,
  kOpened
};

struct Counters {
  Counter probes;
  Counter heads;          // Names asked for.
  Counter read_blocks;    // Shard groups that were delivered.
  Counter read_bytes;     // Of verified payloads.
  Counter gets;           // Ranged reads, each of one or more shard groups.
  Counter corrupt;        // Shard groups that did not verify.
  Counter lost_packs;     // Thought to be there, and gone when read.
  Counter written_packs;  // Put by us.
  Counter written_bytes;
  Counter needless_packs;  // There already.
  Counter failed_writes;
  Counter touches;  // Packs that are in use, made young again.
  Counter failed_touches;
  Counter collected_packs;  // Removed as too old, or as too many.
  Counter rounds;           // Of collecting, that came to their end.
  Counter failed_rounds;
  Gauge store_packs;  // As the last whole round counted them.
  Gauge store_bytes;
};

// What the last whole round of collecting saw.
struct LastRound {
  PackTotals found;
  std::uint64_t gone = 0;
  Nanoseconds at{0};
};

struct Context {
  Context(ObjectTier::Options given, std::unique_ptr<transfer::ObjectStore> given_store,
          std::unique_ptr<FrameCrypt> given_crypt, const Clock& given_clock, LogSink& given_log);

  [[nodiscard]] wire::FrameHeader header(GroupId group, const SequenceHash& hash,
                                         std::uint16_t rank) const;
  // Errors: kInvalid.
  [[nodiscard]] Status check(GroupId group, std::span<const ShardMemory> shards) const;
  [[nodiscard]] std::uint64_t token(Part part, std::uint64_t number) const {
    return static_cast<std::uint64_t>(part) << 56U | number;
  }
  // Asked with the I/O thread's requests; nothing before the tier is open.
  [[nodiscard]] std::string name_of(const SequenceHash& pack, std::size_t variant = 0) const {
    return names.pack(generation.value_or(0), geometry.blocks(), pack, variants[variant]);
  }

  // How often a pack that is in use is touched; 0 = never. Well before it would be too old.
  [[nodiscard]] Nanoseconds touch_every() const;

  // A pack that is not what its name says: told, and left alone for KnownPacks' damaged_for.
  void note_damage(DamagedPack pack, const std::string& what);
  // It is no more, or another one.
  void mend(const PackName& name);
  // It is not there any more, or no good.
  void forget(const SequenceHash& pack);

  ObjectTier::Options options;
  wire::PackGeometry geometry;
  std::array<std::uint8_t, 32> content_digest;
  std::array<std::uint8_t, 32> layout_digest;
  wire::PackNames names;
  const Clock& clock;
  LogSink& log;
  LogLimit damage_log;  // A store that rots has many damaged packs.
  std::unique_ptr<transfer::ObjectStore> store;
  std::unique_ptr<FrameCrypt> crypt;
  // The same pack has a name for each key: their ids, that of the one which writes first. Empty =
  // not encrypted.
  std::vector<std::string> variants;
  transfer::ObjectQueue queue;
  std::optional<std::uint64_t> generation;  // Known once the store has answered.
  bool is_stopped = false;                  // No more writes.
  bool is_upkeep_allowed = true;            // Nobody has switched storing off.
  Counters counters;

  std::atomic<bool> is_open = false;
  std::atomic<bool> is_settled = false;
  // After a reset what lies there is another generation's: nothing is read or written any more
  // until the owner starts again.
  std::atomic<bool> is_reset = false;
  std::atomic<bool> is_reset_told = false;
  std::atomic<bool> is_replacing = false;  // The store replaces what has the name of a put.
  mutable Mutex mutex;
  KnownPacks known TERRACE_GUARDED_BY(mutex);
  std::string problem TERRACE_GUARDED_BY(mutex);  // Of the store; empty = it answers.
  // What it will not do though it answers, see refusals_internal.h; empty = nothing.
  std::string refused TERRACE_GUARDED_BY(mutex);
  std::string unreadable TERRACE_GUARDED_BY(mutex);
  std::string full TERRACE_GUARDED_BY(mutex);
  std::string refused_puts TERRACE_GUARDED_BY(mutex);
  std::string reset_failure TERRACE_GUARDED_BY(mutex);  // Of the last try; empty = none failed.
  DamagedPacks damaged TERRACE_GUARDED_BY(mutex);
  std::string upkeep_problem TERRACE_GUARDED_BY(mutex);  // Of the last round of collecting.
  std::optional<LastRound> last_round TERRACE_GUARDED_BY(mutex);
};

}  // namespace terrace::tier::object
