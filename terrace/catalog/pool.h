// One pool of equal slots in one tier: reserve -> fill -> seal -> pin -> evict. Moves no bytes.
// Threading: thread-compatible; the tier's lock guards it, and handles are dropped under it.
// Owns: slot states, key index, eviction order.  Waits: never.
// Memory: <= 64 bytes per slot with index and policy, all from create().  Source: design.md section 5.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "terrace/base/status.h"
#include "terrace/block/key.h"
#include "terrace/block/location.h"

namespace terrace::catalog {

enum class SlotState : std::uint8_t {
  kFree, kReserved, kFilling, kSealed, kEvicting, kQuarantined
};
inline constexpr int kSlotStateCount = 6;
[[nodiscard]] std::string_view to_string(SlotState state);

class Pool;

// Holds a sealed block in place. Dropping the last pin makes the slot evictable (as if just used).
class Pin {
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

// A slot being filled. Dropped = abandoned: the slot is free again. If a writer may still be at work
// on it, quarantine() instead of dropping.
class FillingSlot {
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
class ReservedSlot {
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

struct Eviction {
  BlockKey key;
  SlotRef slot;
};

class Pool {
 public:
  struct Options {
    std::uint32_t slots = 0;
    std::string eviction = "lru";
  };
  // Errors: kInvalid for 0 slots or an unknown policy; kExhausted if memory is refused.
  static Result<std::unique_ptr<Pool>> create(const Options& options);
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool();

  // Takes a free slot for `key`, evicting the policy's victim if none is free; the victim is then in
  // take_evicted(). Errors: kExhausted = everything is pinned or in use: drop the offload, count it.
  [[nodiscard]] Result<ReservedSlot> reserve(const BlockKey& key);
  // Puts a block found on the medium at start into a given free slot, sealed and unpinned. Earlier
  // adopted = less recently used. False if the slot is not free or the key is there already.
  bool adopt(const BlockKey& key, SlotIndex slot, Generation generation);
  // Removes a sealed, unpinned block. False if it is pinned or gone.
  bool remove(SlotRef slot);
  bool release_quarantined(SlotRef slot);

  [[nodiscard]] std::optional<Pin> pin(const BlockKey& key);
  [[nodiscard]] std::optional<Pin> pin(SlotRef slot);
  // The block was used: touch it (pinned ones are touched when the pin drops).
  void touch(const BlockKey& key);
  // Length of the longest leading run that is sealed. Changes nothing.
  [[nodiscard]] std::size_t match(NamespaceId name_space, GroupId group,
                                  std::span<const SequenceHash> hashes) const;
  [[nodiscard]] bool contains(const BlockKey& key) const;
  // True while `key` is reserved or filling: do not offload it twice.
  [[nodiscard]] bool is_filling(const BlockKey& key) const;
  // What reserve() would evict; for drivers that demote first.
  [[nodiscard]] std::optional<Eviction> next_victim() const;
  [[nodiscard]] std::vector<Eviction> take_evicted();

  [[nodiscard]] std::uint32_t slots() const;
  [[nodiscard]] std::uint32_t count(SlotState state) const;
  [[nodiscard]] std::uint32_t pinned() const;
  [[nodiscard]] std::optional<BlockKey> key_of(SlotRef slot) const;
  [[nodiscard]] Bytes memory() const;

 private:
  friend class Pin;
  friend class FillingSlot;
  friend class ReservedSlot;
  struct State;
  explicit Pool(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace terrace::catalog
