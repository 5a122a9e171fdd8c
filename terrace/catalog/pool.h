// One pool of equal slots in one tier: reserve -> fill -> seal -> pin -> evict. Moves no bytes.
//
// A handle is the state of its slot: reserve() gives a ReservedSlot, begin_fill() makes it a
// FillingSlot, seal() a Pin, begin_evict() gives an EvictingSlot; each step consumes the handle
// before it. What dropping a handle does stands at its class. Handles must not outlive their pool.
// Only sealed slots without pins are in the eviction order; the last pin that drops puts its slot
// at the recent end. So a request that drops its pins deepest block first leaves its leaves to be
// evicted before its roots, which on a prefix tree is leaf-first: touch_chain() and PinRun keep to
// that, and so must whoever holds the pins of a request by other means.
// Handles are dropped in destructors, where nothing can be thrown: an invariant that a drop finds
// broken is thrown by the pool's next call instead.
// Threading: thread-compatible; the tier's lock guards it, and handles are dropped under it.
// Owns: slot states, key index, eviction order.  Waits: never.
// Memory: 53 bytes per slot with index and `lru`, 61 with `hazard`, all from create().  Source:
// docs/adr/0005-evicting-blocks-can-be-taken-back.md.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terrace/base/status.h"
#include "terrace/block/key.h"
#include "terrace/block/location.h"
#include "terrace/catalog/free_set.h"
#include "terrace/catalog/used_run.h"
#include "terrace/index/block_index.h"
#include "terrace/policy/eviction/eviction.h"

namespace terrace::catalog {

enum class SlotState : std::uint8_t {
  kFree = 0,
  kReserved = 1,
  kFilling = 2,
  kSealed = 3,
  kEvicting = 4,
  kQuarantined = 5
};
inline constexpr int kSlotStateCount = 6;
[[nodiscard]] std::string_view to_string(SlotState state);

class Pool;

// Holds a sealed block in place. Dropping the last pin makes the slot evictable (as if just used).
class [[nodiscard]] Pin {
 public:
  Pin() = default;
  Pin(Pin&& other) noexcept : pool_(std::exchange(other.pool_, nullptr)), slot_(other.slot_) {}
  Pin& operator=(Pin&& other) noexcept;
  ~Pin() { reset(); }
  void reset();
  [[nodiscard]] bool holds() const { return pool_ != nullptr; }
  [[nodiscard]] SlotRef slot() const { return slot_; }

 private:
  friend class Pool;
  Pin(Pool* pool, SlotRef slot) : pool_(pool), slot_(slot) {}
  Pool* pool_ = nullptr;
  SlotRef slot_;
};

// The pins of one request's blocks, in chain order. Drops them deepest first, which a vector would
// not.
class [[nodiscard]] PinRun {
 public:
  PinRun() = default;
  PinRun(PinRun&&) noexcept = default;
  PinRun& operator=(PinRun&& other) noexcept;
  ~PinRun() { shrink(0); }
  void reserve(std::size_t pins) { pins_.reserve(pins); }
  // Deeper than all before.
  void add(Pin pin) { pins_.push_back(std::move(pin)); }
  // Drops the deepest until `count` are left.
  void shrink(std::size_t count) {
    while (pins_.size() > count) pins_.pop_back();
  }
  [[nodiscard]] std::size_t size() const { return pins_.size(); }
  [[nodiscard]] bool empty() const { return pins_.empty(); }
  [[nodiscard]] SlotRef slot(std::size_t i) const { return pins_[i].slot(); }

 private:
  std::vector<Pin> pins_;
};

// A slot being filled. Dropped = abandoned: the slot is free again. If a writer may still be at
// work on it, quarantine() instead of dropping.
class [[nodiscard]] FillingSlot {
 public:
  FillingSlot() = default;
  FillingSlot(FillingSlot&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)), slot_(other.slot_) {}
  FillingSlot& operator=(FillingSlot&& other) noexcept;
  ~FillingSlot();
  [[nodiscard]] bool holds() const { return pool_ != nullptr; }
  [[nodiscard]] SlotRef slot() const { return slot_; }
  // Makes the block findable and returns a pin. Nothing if the key was sealed by somebody else
  // meanwhile (first writer stays; this slot is freed).
  [[nodiscard]] std::optional<Pin> seal() &&;
  // The slot stays out of use until Pool::release_quarantined(slot()).
  void quarantine() &&;

 private:
  friend class Pool;
  friend class ReservedSlot;
  FillingSlot(Pool* pool, SlotRef slot) : pool_(pool), slot_(slot) {}
  Pool* pool_ = nullptr;
  SlotRef slot_;
};

// A slot taken for a key. Dropped = freed.
class [[nodiscard]] ReservedSlot {
 public:
  ReservedSlot(ReservedSlot&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)), slot_(other.slot_) {}
  ReservedSlot& operator=(ReservedSlot&& other) noexcept;
  ~ReservedSlot();
  [[nodiscard]] SlotRef slot() const { return slot_; }
  [[nodiscard]] FillingSlot begin_fill() &&;

 private:
  friend class Pool;
  ReservedSlot(Pool* pool, SlotRef slot) : pool_(pool), slot_(slot) {}
  Pool* pool_ = nullptr;
  SlotRef slot_;
};

// A victim on its way out, held in place while somebody copies it to another tier. It can still be
// found; a pin or touch meanwhile takes it back to sealed. Dropped = the slot is freed, unless the
// block was taken back. Such an eviction is not in take_evicted(): who drops it knows is_rescued().
class [[nodiscard]] EvictingSlot {
 public:
  EvictingSlot() = default;
  EvictingSlot(EvictingSlot&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)), slot_(other.slot_) {}
  EvictingSlot& operator=(EvictingSlot&& other) noexcept;
  ~EvictingSlot() { reset(); }
  void reset();
  [[nodiscard]] bool holds() const { return pool_ != nullptr; }
  [[nodiscard]] SlotRef slot() const { return slot_; }
  // Somebody used the block meanwhile: dropping the handle will not free it.
  [[nodiscard]] bool is_rescued() const;
  // Nothing is freed: the block is sealed again, as if just used.
  void keep() &&;

 private:
  friend class Pool;
  EvictingSlot(Pool* pool, SlotRef slot) : pool_(pool), slot_(slot) {}
  Pool* pool_ = nullptr;
  SlotRef slot_;
};

struct Eviction {
  BlockKey key;
  SlotRef slot;
};

struct Adoption {
  BlockKey key;
  SlotIndex slot;
  Generation generation;
};

class Pool {
 public:
  struct Options {
    std::uint32_t slots = 0;
    std::string eviction = "lru";
    std::shared_ptr<const policy::ReturnModel> returns = {};  // For those that ask one.
    // Evictions kept for take_evicted(); beyond it the oldest are forgotten and counted.
    std::uint32_t evicted_limit = 65'536;
    // Makes the policy in place of `eviction`, for faults in tests; empty = as is.
    std::function<std::unique_ptr<policy::EvictionPolicy>(std::uint32_t slots)> make_policy = {};
  };
  // Instant for any size: nothing is touched. Errors: kInvalid for 0 or over 2^31 - 1 slots or an
  // unknown policy; kExhausted if memory is refused.
  static Result<std::unique_ptr<Pool>> create(const Options& options);
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() = default;

  // Takes the lowest free slot for `key`, evicting the policy's victim if none is free; the victim
  // is then in take_evicted(). The slot has a new generation. Errors: kExhausted = everything is
  // pinned or in use: drop the offload, count it.
  [[nodiscard]] Result<ReservedSlot> reserve(const BlockKey& key);
  // The same at a free slot of [first, end), evicting nothing. Errors: kExhausted = none is free.
  [[nodiscard]] Result<ReservedSlot> reserve_in(const BlockKey& key, SlotIndex first,
                                                SlotIndex end);
  [[nodiscard]] bool has_free_in(SlotIndex first, SlotIndex end) const {
    return free_.lowest_in(first, end).has_value();
  }
  // Takes the policy's victim to evict it, for drivers that demote first or keep slots free ahead.
  // Nothing if no slot is evictable. Its last_use() is to be asked for before.
  [[nodiscard]] std::optional<EvictingSlot> begin_evict();
  // Puts a block found on the medium at start into a given free slot, sealed and unpinned. Earlier
  // adopted = less recently used. False if the slot is not free or the key is there already.
  bool adopt(const BlockKey& key, SlotIndex index, Generation generation);
  // The same for many, in order, several times as fast. Returns how many were adopted. For millions
  // and several threads: PoolLoad.
  std::size_t adopt(std::span<const Adoption> blocks);
  // The slot's next block will have a generation after this one: for slots whose old content on the
  // medium is not adopted. No-op unless the slot is free.
  void age(SlotIndex index, Generation generation);
  // Removes a sealed, unpinned block. False if it is pinned or gone.
  bool remove(SlotRef ref);
  bool release_quarantined(SlotRef ref);

  [[nodiscard]] std::optional<Pin> pin(const BlockKey& key);
  [[nodiscard]] std::optional<Pin> pin(SlotRef ref);
  // Pins the longest leading run that is sealed.
  PinRun pin_run(NamespaceId name_space, GroupId group, std::span<const SequenceHash> hashes);
  // The block was used: touch it (pinned ones are touched when the pin drops).
  void touch(const BlockKey& key);
  // Touches every block of the run that is here, deepest first, gaps skipped: each look-up does,
  // for its whole chain, or the engine's own hits would let a hot prompt age out here.
  void touch_chain(NamespaceId name_space, GroupId group, const UsedRun& run);
  // What the policy knows of a block's last use, for the pool that it goes to; of a sealed slot.
  // Nothing where the policy keeps nothing of that.
  [[nodiscard]] std::optional<LastUse> last_use(SlotRef ref) const;
  // `key` came here from a pool that knew this of it. Blocks of one chain may come in any order: of
  // those whose block before them comes later, the last ones are remembered.
  void note_last_use(const BlockKey& key, const LastUse& last);
  // Length of the longest leading run that is sealed. Changes nothing.
  [[nodiscard]] std::size_t match(NamespaceId name_space, GroupId group,
                                  std::span<const SequenceHash> hashes) const;
  [[nodiscard]] bool contains(const BlockKey& key) const;
  // Where it lies, sealed. Changes nothing.
  [[nodiscard]] std::optional<SlotRef> find(const BlockKey& key) const;
  // True while `key` is reserved or filling: do not offload it twice.
  [[nodiscard]] bool is_filling(const BlockKey& key) const;
  // What reserve() would evict if no slot were free.
  [[nodiscard]] std::optional<Eviction> next_victim() const;
  [[nodiscard]] std::vector<Eviction> take_evicted();
  // Evictions that take_evicted() no longer tells because nobody took them in time.
  [[nodiscard]] std::uint64_t evicted_forgotten() const { return evicted_forgotten_; }

  [[nodiscard]] std::uint32_t slots() const { return slots_; }
  // Slots per state; they sum to slots().
  [[nodiscard]] std::uint32_t count(SlotState state) const {
    return counts_[static_cast<std::size_t>(state)];
  }
  // Sealed slots with at least one pin.
  [[nodiscard]] std::uint32_t pinned() const { return pinned_; }
  [[nodiscard]] SlotState state(SlotIndex slot) const;
  // The slot's present reference; its generation says nothing while it is free.
  [[nodiscard]] SlotRef ref_of(SlotIndex slot) const;
  // Of a reserved, filling, sealed or evicting slot. Nothing if the reference is stale.
  [[nodiscard]] std::optional<BlockKey> key_of(SlotRef ref) const;
  // Index, eviction order and slot states.
  [[nodiscard]] Bytes memory() const;

 private:
  friend class Pin;
  friend class FillingSlot;
  friend class ReservedSlot;
  friend class EvictingSlot;
  friend class PoolLoad;

  struct Slot {
    index::Home home;  // With the slot's number it names the index entry, which holds the key.
    Generation generation;
    std::uint32_t state : 3;
    std::uint32_t pins : 29;  // Of sealed and evicting slots; the evictor's hold is one.
  };
  static_assert(sizeof(Slot) == 12);
  static constexpr std::uint32_t kMaxPins = (1U << 29U) - 1;
  struct Orphan {  // A block whose block before it is not here.
    BlockKey before;
    SequenceHash hash;
  };
  static constexpr std::size_t kOrphans = 1024;

  Pool(const Options& options, index::BlockIndex index, FreeSet free,
       index::ZeroedArray<Slot> table, std::unique_ptr<policy::EvictionPolicy> policy);

  // Null if the reference is stale or not in `state`.
  [[nodiscard]] Slot* resolve(SlotRef ref, SlotState state);
  [[nodiscard]] static SlotState state_of(const Slot& slot) {
    return static_cast<SlotState>(slot.state);
  }
  void set_state(Slot& slot, SlotState state);
  void free_slot(SlotIndex index);
  // Its slot is taken.
  ReservedSlot enter_reserved(const BlockKey& key, SlotIndex index);
  bool enter(const BlockKey& key, SlotIndex index, Generation generation);
  void prefetch(const Adoption& block) const;
  void evict(SlotIndex index);
  Pin add_pin(SlotIndex index);
  void touch_slot(SlotIndex index);
  void touch_all(std::span<const std::optional<SlotIndex>> slots);

  // The handles' verbs. Those of drops do not throw: a handle may be dropped while a Breach
  // unwinds, and where nothing can be thrown. What they find broken is kept for
  // throw_kept_breach().
  void start_filling(SlotRef ref);
  void abandon(SlotRef ref, SlotState state) noexcept;
  void quarantine(SlotRef ref);
  [[nodiscard]] std::optional<Pin> seal(SlotRef ref);
  void unpin(SlotRef ref) noexcept;
  void end_evict(SlotRef ref, bool keeps) noexcept;
  template <typename Verb>
  void keep_breach(Verb&& verb) noexcept;
  // Throws what a drop found broken, once. In every call that looks up or takes a slot.
  void throw_kept_breach() const {
    if (has_kept_breach_) [[unlikely]]
      throw_breach();
  }
  [[noreturn]] void throw_breach() const;

  const std::uint32_t slots_;
  const std::uint32_t evicted_limit_;
  index::BlockIndex index_;
  FreeSet free_;
  index::ZeroedArray<Slot> table_;
  std::unique_ptr<policy::EvictionPolicy> policy_;
  std::vector<Orphan> orphans_;  // By `before`; empty until there is one.
  std::array<std::uint32_t, kSlotStateCount> counts_{};
  std::uint32_t pinned_ = 0;
  std::deque<Eviction> evicted_;
  std::uint64_t evicted_forgotten_ = 0;
  mutable bool has_kept_breach_ = false;
  std::array<char, 160> kept_breach_{};
};

}  // namespace terrace::catalog
