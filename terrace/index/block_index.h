// Key -> slot, and the longest stored prefix of a chain. Open addressing with linear probing, the
// key held in the entry: a probe is one cache miss, and the probes of one look-up are prefetched
// together.
//
// An entry is visible (found by find and match) or hidden: entered for a slot that is still being
// filled. There is at most one visible entry per key, any number of hidden ones, and at most one
// entry per slot. An entry's home is the bucket its key hashes to; it lies there or after it
// without a gap, so (home, slot) names an entry without its key: who keeps the 4-byte home need not
// keep the 20-byte key. Threading: thread-compatible; the tier's lock guards it.  Waits: never.
// Memory: 30 bytes per slot of capacity (24-byte entries, 80 % full at most), from create().
// Source: Knuth, TAOCP vol. 3, 6.4 algorithms L and R (linear probing, deletion by moving back).
#pragma once

#include <array>
#include <optional>
#include <span>

#include "terrace/base/status.h"
#include "terrace/block/key.h"
#include "terrace/index/zeroed_array.h"

namespace terrace::index {

using Home = Id<struct HomeTag, std::uint32_t>;

class BlockIndex {
 public:
  // Errors: kInvalid for capacity 0 or over 2^31 - 1; kExhausted if memory is refused.
  static Result<BlockIndex> create(std::uint64_t capacity);

  // Enters a visible entry. False if the key is visible already (the first writer stays).
  // Breach when over capacity.
  bool insert(const BlockKey& key, SlotIndex slot);
  // Removes the visible entry. False if there is none.
  bool erase(const BlockKey& key);

  // Enters an entry that is not found yet. The slot must have none. Breach when over capacity.
  Home insert_hidden(const BlockKey& key, SlotIndex slot);
  // Makes the slot's hidden entry visible. False if it is not there or its key is visible already.
  bool publish(Home home, SlotIndex slot);
  // Removes the slot's entry, visible or hidden. False if there is none.
  bool erase(Home home, SlotIndex slot);
  [[nodiscard]] std::optional<BlockKey> key_of(Home home, SlotIndex slot) const;
  [[nodiscard]] Home home_of(const BlockKey& key) const;
  // Asks the CPU to load the key's home, for callers that work on many keys.
  void prefetch(Home home) const;

  [[nodiscard]] std::optional<SlotIndex> find(const BlockKey& key) const;
  [[nodiscard]] bool has_hidden(const BlockKey& key) const;
  // Writes the slots of the longest leading run of `hashes` that is visible; returns its length.
  // `slots` is at least as long as `hashes`, or empty when only the length is wanted.
  std::size_t match(NamespaceId name_space, GroupId group, std::span<const SequenceHash> hashes,
                    std::span<SlotIndex> slots) const;
  // Entries of both kinds.
  [[nodiscard]] std::uint64_t size() const { return size_; }
  [[nodiscard]] std::uint64_t capacity() const { return capacity_; }
  [[nodiscard]] Bytes memory() const { return entries_.memory(); }

 private:
  struct Entry {
    std::uint64_t high;
    std::uint64_t low;
    std::uint32_t place;  // 0 = empty bucket; else slot + 1, and kHidden.
    std::uint16_t name_space;
    std::uint16_t group;
  };
  static_assert(sizeof(Entry) == 24);
  static constexpr std::uint32_t kHidden = 1U << 31U;

  BlockIndex(ZeroedArray<Entry> entries, std::uint64_t capacity)
      : entries_(std::move(entries)), capacity_(capacity) {}

  static Entry make_entry(const BlockKey& key, std::uint32_t place);
  static bool same_key(const Entry& a, const Entry& b);
  [[nodiscard]] std::uint64_t home(const Entry& entry) const;
  [[nodiscard]] std::uint64_t after(std::uint64_t bucket) const {
    return bucket + 1 == entries_.size() ? 0 : bucket + 1;
  }
  // The bucket of the visible entry with this key, or the empty one that ends its run.
  [[nodiscard]] std::uint64_t seek(std::uint64_t from, const Entry& wanted) const;
  // The bucket of the slot's entry, or the empty one that ends its run.
  [[nodiscard]] std::uint64_t seek_slot(Home home, SlotIndex slot) const;
  void put(std::uint64_t bucket, const Entry& entry);
  void take(std::uint64_t bucket);

  ZeroedArray<Entry> entries_;
  std::uint64_t capacity_;
  std::uint64_t size_ = 0;
};

}  // namespace terrace::index
