// The object tier: packs of blocks in a store that nodes share, found again by anybody who has the
// hashes. It has no slots and no index of its own: what it knows to be there comes from asking.
// Threading: catalog calls (match, contains, may_hold_more, status) are thread-safe and never do
// I/O; the I/O calls (begin_*, poll, wait) belong to one thread, the manager's.  Waits: only
// wait() and close(), with a limit. Bounds: Options. Source:
// docs/formats/pack.md.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/log.h"
#include "terrace/base/metric.h"
#include "terrace/base/status.h"
#include "terrace/block/checksum.h"
#include "terrace/block/fingerprint.h"
#include "terrace/block/key.h"
#include "terrace/block/layout.h"
#include "terrace/tier/crypt/frame_crypt.h"
#include "terrace/tier/object/collector.h"
#include "terrace/tier/shard_memory.h"
#include "terrace/transfer/object_queue.h"
#include "terrace/transfer/object_store.h"

namespace terrace::tier {

// One shard group that becomes part of a pack: a shard and its checksum for each rank.
struct PackShards {
  std::vector<ShardMemory> ranks;
  std::vector<Checksum> checksums;
};

// A finished begin_*.
struct ObjectDone {
  enum class Kind : std::uint8_t { kProbe, kRead, kWrite };
  Kind kind = Kind::kProbe;
  std::uint64_t token = 0;
  // Read: kCorrupt, kDeadline, kNotFound (gone since), kUnavailable, kIo, kRefused, kExhausted (too
  // much waits for the store). Write: the same, kExhausted (the store is full), kClosed; kInvalid =
  // the pack is there already. Probe: ok, or why the store did not answer.
  Status status;
  std::uint64_t blocks = 0;         // Probe: leading blocks that lie there, as far as is known.
  std::vector<Checksum> checksums;  // Read, ok: verified payload checksums, one per rank.
};

// How a store is kept from filling up.
struct CollectOptions {
  ObjectBounds bounds;  // Of all packs in the store, whosever they are. Without any: never.
  Nanoseconds every = seconds(3600);
  unsigned requests_per_second = 100;
  // A pack that is in use is touched when it was not for so long; 0 = never.
  Nanoseconds touch_every = seconds(86'400);
};

class ObjectTier {
 public:
  struct Options {
    Layout layout;
    Fingerprint fingerprint;
    std::uint32_t pack_blocks = 16;
    std::uint64_t known_blocks = 65'536;
    Nanoseconds present_for = seconds(600);
    Nanoseconds absent_for = seconds(2);
    std::uint32_t most_reads = 1024;  // Shard groups under way; more is kExhausted.
    std::uint32_t most_probes = 256;
    std::uint32_t most_writes = 4;           // Packs under way.
    std::uint64_t get_bytes = 16ULL << 20U;  // Neighbours are read together up to this.
    Nanoseconds write_time = seconds(60);    // For one pack, retries included.
    CollectOptions collect;
    transfer::ObjectQueue::Options queue;
    CryptOptions crypt;
    // Thread-safe; called when the next poll() has something to do that the store does not know of.
    // Empty = the store is woken.
    std::function<void()> wake;
  };
  // Nothing is asked of the store yet: poll() begins with it. Whoever waits elsewhere sets the
  // store's listener before. Errors: kInvalid.
  static Result<std::unique_ptr<ObjectTier>> create(Options options,
                                                    std::unique_ptr<transfer::ObjectStore> store,
                                                    const Clock& clock, LogSink& log);
  ~ObjectTier();  // close() if that was not done, for at most two seconds.
  // The last call. Gives up what waits, and WAITS for what is under way, at most `limit` (a
  // duration). False = a store or a hand still was at work: blocks' memory, clock, log, the store's
  // listener and Options::wake then have to stay until the process ends, as what is the tier's
  // does.
  [[nodiscard]] bool close(Nanoseconds limit);

  // ---- Catalog side, thread-safe.
  [[nodiscard]] std::size_t match(GroupId group, std::span<const SequenceHash> hashes) const;
  [[nodiscard]] bool contains(GroupId group, const SequenceHash& hash) const;
  // Whether a probe of this chain could find blocks after the first `known`.
  [[nodiscard]] bool may_hold_more(std::span<const SequenceHash> chain, std::uint64_t known) const;
  // Nothing stored before matches from now on, and nothing is stored any more until the owner
  // starts anew. The next polls tell the store, so that nobody who starts later matches it either.
  void forget_all();
  // The next polls can bring that about, and have not yet.
  [[nodiscard]] bool is_drop_pending() const;
  // What would match after a restart, and why; empty = nothing.
  [[nodiscard]] std::vector<std::string> undropped() const;
  // Whether a pack that is in host is worth offering: it was never seen in the store, or not for
  // so long that somebody may have removed it.
  [[nodiscard]] bool wants(const SequenceHash& pack) const;
  [[nodiscard]] std::uint32_t pack_blocks() const;

  // ---- I/O side, one thread.
  // How much of the chain (its full blocks, from the first) lies here; afterwards match() knows it.
  // Errors at once: kExhausted, kUnavailable (not open yet, or the store is left alone).
  [[nodiscard]] Status begin_probe(std::uint64_t token, std::span<const SequenceHash> chain,
                                   Nanoseconds deadline);
  // Reads and verifies all ranks' shards into memory, which may be written until the ObjectDone.
  // Errors at once: kNotFound, kExhausted, kInvalid (not the layout's sizes), kUnavailable.
  [[nodiscard]] Status begin_read(std::uint64_t token, GroupId group, const SequenceHash& hash,
                                  std::span<const ShardMemory> ranks, transfer::IoClass io_class,
                                  Nanoseconds deadline);
  // `hashes`: the pack's blocks, pack_blocks of them; `shards`: by block, then by group. The memory
  // stays untouched by the caller until the ObjectDone. Errors at once: kInvalid (known to be
  // there, or not the layout's sizes), kExhausted, kUnavailable, kClosed.
  [[nodiscard]] Status begin_write(std::uint64_t token, std::span<const SequenceHash> hashes,
                                   std::vector<PackShards> shards);
  // Whether packs may be touched and removed; not while somebody has switched storing off.
  void allow_upkeep(bool is_allowed);
  void poll(std::vector<ObjectDone>& done);
  void wait(Nanoseconds limit);
  void wake();  // Thread-safe.
  // Nothing is under way but what nobody waits for: whether a store that was left alone is back,
  // and whether a damaged pack still lies there.
  [[nodiscard]] bool is_idle() const;
  // For shutdown: no new writes; those that wait end as kClosed.
  void stop_writes();

  // ---- Facts, thread-safe.
  // The store has answered: what lies there can be found.
  [[nodiscard]] bool is_open() const;
  // It has answered, or failed to once: nobody needs to wait for it any more.
  [[nodiscard]] bool is_settled() const;
  [[nodiscard]] std::vector<std::string> problems() const;  // Empty = healthy.
  // What lies there, as it was last counted, for people; empty = nobody has here.
  [[nodiscard]] std::string summary() const;
  [[nodiscard]] const std::string& place() const;
  // Of the keys, the one that writes first; empty = nothing is encrypted.
  [[nodiscard]] std::string key_ids() const;
  void visit_metrics(MetricVisitor& visitor) const;

 private:
  struct State;
  explicit ObjectTier(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace terrace::tier
