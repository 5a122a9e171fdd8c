// What the parts of the owner's core share: the tiers, the namespace, what is known of blocks that
// are gone, the events. The parts themselves know each other only through Core. Threading:
// thread-compatible; the manager's lock guards it.  Waits: never.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "terrace/base/log.h"
#include "terrace/catalog/leaving.h"
#include "terrace/manager/answer_board_internal.h"
#include "terrace/manager/counters_internal.h"
#include "terrace/manager/event_queue_internal.h"
#include "terrace/manager/ghosts_internal.h"
#include "terrace/manager/groups_internal.h"
#include "terrace/manager/lower_tier_internal.h"
#include "terrace/manager/mode.h"
#include "terrace/manager/options.h"
#include "terrace/policy/admission/admission.h"
#include "terrace/policy/planner/planner.h"
#include "terrace/tier/host/host_tier.h"
#include "terrace/tier/object/object_tier.h"

namespace terrace::manager {

// One block's part in one KV group, in whatever namespace is the present one.
struct ShardGroup {
  GroupId group;
  SequenceHash hash;
  friend bool operator==(const ShardGroup&, const ShardGroup&) = default;
};

struct HashOfShardGroup {
  std::size_t operator()(const ShardGroup& key) const noexcept {
    return key.hash.low + key.group.value();
  }
};

struct Note {
  LogLevel level;
  std::string line;
};

class Context {
 public:
  Context(const Options& manager_options, Counters& cells, AnswerBoard& board);

  [[nodiscard]] BlockKey key_of(GroupId group, const SequenceHash& hash) const {
    return {name_space, group, hash};
  }
  [[nodiscard]] catalog::Pool& pool() { return host->pool(); }
  // Takes a host slot; what had to go for it is announced first. Errors: kExhausted.
  [[nodiscard]] Result<catalog::FillingSlot> reserve(const BlockKey& key);
  // The block of an evicting slot needs no write any more: the slot is the next that reserve()
  // takes where none is free.
  void let_leave(const BlockKey& key, catalog::EvictingSlot slot, bool is_refused);
  // Of those, blocks that somebody used meanwhile are ordinary ones again.
  void let_stay() { leaving_.let_go(); }
  // From now on nothing may give way that no other tier has.
  void keep_what_only_host_has() { leaving_.keep_refused(); }
  [[nodiscard]] std::size_t leaving() const { return leaving_.size(); }
  // Slots reserved so far.
  [[nodiscard]] std::uint64_t reserved() const { return reserved_; }
  // To be asked before a slot is reserved for a read: where nothing is stored, a block may give way
  // only if the disk has it, too. Others at the end of the eviction order are passed over, and
  // count as just used. False if all of those looked at were such.
  bool spare_what_only_host_has();
  // Where a block that is not in host can be read from; nothing = nowhere.
  [[nodiscard]] std::optional<Tier> source_of(GroupId group, const SequenceHash& hash) const;
  // The block of `key` came from the shared store, and the disk is not to have it.
  void leave_to_store(const BlockKey& key);
  // It was left to the store, which still has it: the disk needs no copy.
  [[nodiscard]] bool is_left_to_store(const BlockKey& key) const;
  [[nodiscard]] std::size_t left_to_store() const { return left_to_store_.size(); }
  // Removes a block that nobody pins. False if somebody does.
  bool remove(SlotRef slot, MissReason reason);
  // The block of `key`, aliased `alias`, left the host tier.
  void note_host_removal(const BlockKey& key, std::uint64_t alias, MissReason reason);
  void note_host_stored(Event event);
  // Announced once per block and session.
  void note_disk_stored(Event event);
  void note_disk_evictions();
  // The block of `key` left the disk tier; told if it was announced.
  void note_disk_removal(const BlockKey& key);
  // Why is a block that no tier offers not there?
  [[nodiscard]] MissReason why_missing(const SequenceHash& hash) const;
  void note(LogLevel level, std::string line);
  // The chain was used, in host and on disk: deepest first. Long chains are touched by
  // touch_some(), slice by slice, so that nobody holds the lock for long.
  void touch(std::span<const SequenceHash> chain, const policy::Use& use) {
    touch(chain, use, false);
  }
  // The same, and the filter of the disk is told: when a request comes, and when it has ended.
  void note_use(std::span<const SequenceHash> chain, const policy::Use& use) {
    touch(chain, use, true);
  }
  // True when more is left to do.
  bool touch_some();
  // Everything stored so far belongs to another namespace from now on.
  void renew_name_space();

  const Options& options;
  Counters& counters;
  AnswerBoard& answers;
  const Groups groups;
  std::unique_ptr<tier::HostTier> host;  // Null until opened.
  LowerTier* lower = nullptr;            // Null: no disk, or not opened yet.
  bool is_lower_readable = false;        // The disk leg of the canary came back right.
  tier::ObjectTier* objects = nullptr;   // Null: none, or not made yet.
  NamespaceId name_space{1};
  Mode mode;
  [[nodiscard]] bool is_paused() const { return mode == Mode::kPaused || mode == Mode::kObserve; }
  Ghosts ghosts;
  EventQueue events;
  policy::Planner planner;
  const std::shared_ptr<policy::ReturnModel> returns;  // Null: no tier asks for it.
  std::unique_ptr<policy::AdmissionFilter> admission;
  std::unique_ptr<policy::AdmissionFilter> pack_admission;
  std::vector<Note> notes;  // Log lines to be written outside the lock.

 private:
  static constexpr std::size_t kMaxNotes = 256;
  static constexpr std::size_t kTouchAtOnce = 512;  // Shard groups; some 50 us.
  // Of several groups: a root of one must not age before the leaves of another.
  static constexpr std::size_t kTouchInTurn = 16;
  // Looked at under the lock for one read.
  static constexpr std::uint32_t kMostSpared = 64;
  static constexpr std::size_t kMaxChains = 256;
  static constexpr std::size_t kMaxSpareChains = 4;
  [[nodiscard]] std::size_t touch_at_once() const { return kTouchAtOnce / groups.count(); }
  struct Touch {
    std::vector<SequenceHash> chain;
    policy::Use use;
    bool is_told;
  };
  void touch(std::span<const SequenceHash> chain, const policy::Use& use, bool is_told);
  void touch_now(catalog::UsedRun run, bool is_told);
  void note_host_evictions();

  void make_room();

  std::uint64_t reserved_ = 0;
  catalog::Leaving leaving_;
  // Blocks in host that are left to the store; an evicted block leaves it.
  std::unordered_set<ShardGroup, HashOfShardGroup> left_to_store_;
  std::deque<Touch> to_touch_;
  std::vector<std::vector<SequenceHash>> spare_chains_;  // Empty, kept for their memory.
  // Disk blocks that were announced, with their aliases; only kept when somebody wants events.
  // Bounded by the disk's slots: an evicted block leaves it.
  std::unordered_map<ShardGroup, std::uint64_t, HashOfShardGroup> announced_;
};

}  // namespace terrace::manager
