// Blocks on their way from host slots to disk: offered when sealed (`through`), or when they are
// about to be evicted. Chooses ahead of need who is evicted, so that victims can be written first:
// a few, or as many as slots were taken at once of late. Threading: thread-compatible; the
// manager's lock guards it. The I/O thread takes jobs, performs them without the lock and comes
// back with finish().  Waits: never. Bounds: disk.queue_blocks writes, and never more than a
// quarter of the host slots.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "terrace/catalog/free_ahead.h"
#include "terrace/manager/context_internal.h"

namespace terrace::manager {

struct WriteJob {
  std::uint64_t token = 0;
  GroupId group{};
  SequenceHash hash{};
  SlotIndex slot{};
  std::uint64_t alias = 0;
  std::uint32_t resets = 0;  // The lower tier's, when the job was taken.
  std::vector<Checksum> checksums{};
};

class Writes {
 public:
  struct Candidate {
    BlockKey key{};
    std::optional<Event> stored{};  // Told once the block is on disk.
  };
  explicit Writes(Context& context) : context_(context) {}

  // Blocks of one request were sealed; `pins` in chain order. They are let go together, deepest
  // first, when the last write is over: else the roots would be evicted before the leaves.
  void offer(catalog::PinRun pins, std::vector<Candidate> blocks, Nanoseconds now);
  // Blocks of one chain that host holds and the filter wants by now, in chain order.
  void offer_wanted(std::span<const BlockKey> keys);
  // Chooses ahead which blocks leave host next; those that the disk lacks and admits are written.
  void drive_eviction(Nanoseconds now);
  // None in a mode that stores nothing: what is queued waits for the next one that does.
  void take(std::size_t limit, std::vector<WriteJob>& jobs);
  // The disk has no room for it now. What a reset came in between for is dropped.
  void put_back(std::uint64_t token);
  void finish(std::uint64_t token, const Status& status);
  // Nothing more is accepted, what has not begun is dropped.
  void stop();
  // What belongs to a namespace that was left is not written any more.
  void forget_stale();

  [[nodiscard]] std::size_t size() const { return writes_.size(); }
  [[nodiscard]] bool has_jobs() const { return !queue_.empty() && may_begin(); }
  // Fewer blocks are chosen to leave than wanted, and the next one can be.
  [[nodiscard]] bool is_behind() const;

 private:
  struct Write {
    BlockKey key{};
    SlotRef place{};
    std::shared_ptr<const catalog::PinRun> pins{};  // Of its group; null for a victim.
    catalog::EvictingSlot victim{};
    std::optional<catalog::LastUse> last_use{};  // A victim's, of before it was one.
    std::optional<Event> stored{};
    bool is_begun = false;
  };
  static constexpr std::uint32_t kAtOnce = 64;  // Victims looked at under the lock.
  void tell_last_use(const Write& write);
  [[nodiscard]] bool may_begin() const { return context_.mode == Mode::kOn; }
  [[nodiscard]] std::size_t limit() const;
  [[nodiscard]] std::uint32_t free_ahead() const;
  [[nodiscard]] bool needs_write(const BlockKey& key) const;
  // What is sealed is not written at once: much of host is not on disk.
  [[nodiscard]] bool is_written_late() const {
    return context_.options.disk.is_demote || context_.admission->counts();
  }
  // Free, or about to be.
  [[nodiscard]] std::uint32_t free_soon() const;
  void enqueue(Write write);
  [[nodiscard]] bool is_queued(const BlockKey& key) const {
    return queued_.contains({.group = key.group, .hash = key.hash});
  }
  void forget_queued(const Write& write) {
    queued_.erase({.group = write.key.group, .hash = write.key.hash});
  }
  // Of a namespace that was left: nobody finds it here, and the disk must not take it for new.
  [[nodiscard]] bool is_stale(const Write& write) const {
    return write.key.name_space != context_.name_space;
  }
  using Queued = std::unordered_map<std::uint64_t, Write>;  // By token.
  void drop_stale(Queued::iterator write);
  // Pins and slots go with it.
  void forget(Queued::iterator write);
  void release(Write& write);
  void drop(std::uint64_t token);

  Context& context_;
  bool is_stopped_ = false;
  catalog::FreeAhead ahead_;
  std::uint64_t last_token_ = 0;
  Queued writes_;
  std::unordered_set<ShardGroup, HashOfShardGroup> queued_;  // Of writes_.
  std::deque<std::uint64_t> queue_;
};

}  // namespace terrace::manager
