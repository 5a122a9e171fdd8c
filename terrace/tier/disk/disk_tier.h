// The disk tier: preallocated slot files on one or more directories, found again after a crash.
// Threading: catalog calls (match, contains, touch, status) are thread-safe and never do I/O; the
// I/O calls (begin_*, poll, wait) belong to one thread, the manager's.  Waits: only wait(), with a
// limit. Source: docs/formats/disk.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/crew.h"
#include "terrace/base/log.h"
#include "terrace/base/metric.h"
#include "terrace/base/status.h"
#include "terrace/block/checksum.h"
#include "terrace/block/fingerprint.h"
#include "terrace/block/key.h"
#include "terrace/block/layout.h"
#include "terrace/block/location.h"
#include "terrace/catalog/pool.h"
#include "terrace/tier/crypt/frame_crypt.h"
#include "terrace/tier/first_look.h"
#include "terrace/tier/scrub_report.h"
#include "terrace/tier/shard_memory.h"
#include "terrace/transfer/backend.h"

namespace terrace::tier {

// A finished begin_write or begin_read.
struct DiskDone {
  std::uint64_t token = 0;
  bool is_read = false;
  // Read: kCorrupt (checksum, key, torn frame, not what our key sealed), kDeadline, kNotFound (the
  // cache was reset meanwhile, or the block needs another key), kIo. Write: kIo, kExhausted (the
  // medium is full), kRefused (it is read-only), kUnavailable, kClosed, kNotFound (reset). ok on a
  // write = sealed, and durable unless the tier was reset.
  Status status;
  std::vector<Checksum> checksums;  // Read, ok: verified payload checksums, one per rank.
  std::uint64_t alias = 0;          // The engine's own hash, as stored.
};

class DiskTier {
 public:
  struct Options {
    std::vector<std::string> paths;
    Bytes size;                    // Of this owner, over all paths.
    std::uint64_t blocks = 0;      // Beats size when not 0.
    std::string backend = "auto";  // auto, io_uring, threads, library
    transfer::Backend::Options io;
    bool is_direct = true;  // O_DIRECT
    bool is_direct_by_fcntl = false;
    std::string preallocate = "auto";  // auto, fallocate, zerofill
    std::string eviction = "lru";
    std::shared_ptr<const policy::ReturnModel> returns = {};  // For policies that ask one.
    std::uint32_t queue_blocks = 256;                         // Writes waiting; more is kExhausted.
    std::uint64_t scrub_bytes_per_second = 0;                 // 0 = only when asked.
    Nanoseconds scrub_interval{0};  // From the end of a pass to the next one.
    Nanoseconds scrub_first{0};     // From the start to the first one.
    // In 24 hours, and how often each device may be written over in that time; 0 = no bound.
    Bytes write_budget{0};
    double writes_per_day = 0;
    Layout layout;
    Fingerprint fingerprint;
    CryptOptions crypt;
    Crew crew;  // Reads slots.meta at start; alone when not given.
    // For each path a hand, for calls that its file server may keep for ever. None: such calls are
    // made by the opening and the I/O thread.
    MakeHand make_hand = {};
    // How long each path has to answer when the tier opens. One that does not costs its own blocks.
    Nanoseconds first_look_limit = kFirstLookLimit;
    // Of these paths, where somebody has looked already; else open() does.
    std::optional<FirstLook> first_look = {};
    // Wraps the backend, for faults in tests; empty = as is.
    std::function<std::unique_ptr<transfer::Backend>(std::unique_ptr<transfer::Backend>)> decorate;
  };
  // Locks an owner directory on each path (the free one that holds most of this namespace, else an
  // empty one, else one with others' blocks, else a new one), reads slots.meta, adopts what is
  // sealed. BLOCKS (file I/O): call from the opening thread. Slot files get their blocks
  // afterwards, while the tier serves. A path that is foreign, newer, read-only or broken is left
  // alone, reported in problems(), never overwritten; so is one that does not answer. Errors:
  // kIo/kRefused when no path is usable; kInvalid when two paths are one directory or one lies in
  // the other; kExhausted if memory is refused.
  static Result<std::unique_ptr<DiskTier>> open(Options options, const Clock& clock, LogSink& log);
  ~DiskTier();  // close() if that was not done, for at most two seconds.
  // The last call. Writes no more, and WAITS for what is under way, at most `limit` (a duration).
  // False = a device or a hand still was at work: blocks' memory, clock and log then have to stay
  // until the process ends, as what is the tier's does. Where only a look at a path does not come
  // back the tier's files and tables stay as well, its thread ends when it does, and true is
  // returned: nobody uses what is the caller's.
  [[nodiscard]] bool close(Nanoseconds limit);
  // False when certainly no block lies below the paths; those that did not answer are not asked.
  // BLOCKS (file I/O).
  [[nodiscard]] static bool may_hold_blocks(std::span<const std::string> paths,
                                            const FirstLook& first_look);

  // Reads what other namespaces have here, for is_foreign(). Once, by the opening thread, while the
  // tier serves. BLOCKS (file I/O), until `is_stopped`.
  void note_foreign(const std::function<bool()>& is_stopped);

  // ---- Catalog side, thread-safe.
  [[nodiscard]] std::size_t match(GroupId group, std::span<const SequenceHash> hashes) const;
  [[nodiscard]] bool contains(GroupId group, const SequenceHash& hash) const;
  // Whether the block seems to lie here under another namespace. "No" until note_foreign() has
  // ended; a "yes" is wrong for one block in fifty.
  [[nodiscard]] bool is_foreign(const SequenceHash& hash) const;
  void touch(GroupId group, const SequenceHash& hash);
  // The whole chain, deepest first, gaps skipped.
  void touch_chain(GroupId group, const catalog::UsedRun& run);
  // Of a block that was written: how it was used before, as the tier above knows it.
  void note_last_use(GroupId group, const SequenceHash& hash, const catalog::LastUse& last);
  // Drops every block of this namespace: nothing stored before, or being stored, matches from now
  // on. No I/O wait: the next polls see to it that no later owner finds it either; see undropped().
  // What is stored from here on is served by this tier alone, and found by nobody after it.
  void forget_all();
  // How often that was done.
  [[nodiscard]] std::uint32_t resets() const;
  // The next polls can make a reset durable that is not yet.
  [[nodiscard]] bool is_drop_pending() const;
  // Of which directories the next owner would find blocks of before the last reset, and what to do.
  [[nodiscard]] std::vector<std::string> undropped() const;

  // ---- I/O side, one thread.
  // Writes all ranks' shards of a block; the memory stays untouched by the caller until the
  // DiskDone. `resets`: of when the bytes were read, if they may be older than a reset. Errors at
  // once: kExhausted (queue full or no slot), kUnavailable (tier unhealthy), kInvalid (already
  // stored or being stored: nothing to do; or not the layout's sizes), kClosed, kNotFound (reset
  // since), kRefused (over the write budget: drop it).
  [[nodiscard]] Status begin_write(std::uint64_t token, GroupId group, const SequenceHash& hash,
                                   std::uint64_t alias, std::span<const ShardMemory> ranks,
                                   std::span<const Checksum> checksums,
                                   std::optional<std::uint32_t> resets = {});
  // Reads and verifies all ranks' shards into memory. The memory may be written until the DiskDone,
  // which can come after the deadline: a read that waits in the queue ends as kDeadline on time,
  // one that the device has ends when the device lets go, as ok if its bytes are right. Who cannot
  // wait gives up by its own clock and keeps the memory until then. Errors at once: kNotFound,
  // kExhausted (too many reads), kUnavailable (its path is failing, or
  // silent while many reads of it are under way).
  [[nodiscard]] Status begin_read(std::uint64_t token, GroupId group, const SequenceHash& hash,
                                  std::span<const ShardMemory> ranks, transfer::IoClass io_class,
                                  Nanoseconds deadline);
  // Of the reads of these tokens, those of which nothing is at its device yet end as kClosed, and
  // take none of its time; others go on. Tokens that are under way no more are passed over.
  void cancel_reads(std::span<const std::uint64_t> tokens);
  void poll(std::vector<DiskDone>& done);
  void wait(Nanoseconds limit);
  void wake();  // Thread-safe.
  [[nodiscard]] bool is_idle() const;
  // For shutdown: no new writes; those that have not reached the device end as kClosed. Durability
  // of what was reported does not need it.
  void stop_writes();

  // What keep_learned() was given by an earlier owner of this namespace, found when the tier
  // opened; empty = nothing. Thread-safe: it does not change.
  [[nodiscard]] const std::string& learned() const;
  // Has the next owner find `bytes`, at most 252 KiB, soon; what was given before goes. Only where
  // `returns` was given. Failure costs nothing but that: it is logged, and the next call tries
  // again. I/O thread.
  void keep_learned(std::string bytes);

  // ---- Scrubbing, thread-safe: the next polls read what is sealed, in idle time.
  // Begins a pass now, or hastens the one that runs. 0 = at the rate of the options, else at one of
  // its own. Returns its number in scrub_report().
  std::uint64_t start_scrub(std::uint64_t bytes_per_second);
  // While held no read of it begins.
  void hold_scrub(bool is_held);
  [[nodiscard]] ScrubReport scrub_report() const;

  // ---- Facts.
  [[nodiscard]] std::vector<std::string> problems() const;  // Empty = healthy. Thread-safe.
  [[nodiscard]] std::string_view backend_name() const;
  // Of the keys, the one that writes first; empty = nothing is encrypted.
  [[nodiscard]] std::string key_ids() const;
  // Of each group.
  [[nodiscard]] std::uint32_t slots() const;
  // Of all groups. Slots that hold other namespaces' blocks are in no state.
  [[nodiscard]] std::uint32_t count(catalog::SlotState state) const;  // Thread-safe.
  [[nodiscard]] std::vector<catalog::Eviction> take_evicted();        // For events. Thread-safe.
  void visit_metrics(MetricVisitor& visitor) const;                   // Thread-safe.
  struct Flow {
    std::uint64_t written_bytes = 0;  // To the medium, everything.
    std::uint64_t served_bytes = 0;   // Of blocks, verified.
    std::uint64_t budget_bytes = 0;   // Of 24 hours; 0 = no bound.
    std::int64_t budget_left = 0;     // Now; below 0 = debt.
  };
  [[nodiscard]] Flow flow() const;  // Thread-safe.
  // Index, eviction order, slot states and aliases.
  [[nodiscard]] Bytes memory() const;
  // The slot files have all their blocks on the medium.
  [[nodiscard]] bool is_allocated() const;

 private:
  struct State;
  explicit DiskTier(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace terrace::tier
