// Key -> slot, and the longest stored prefix of a chain. A table of one-cache-line buckets of three
// entries, probed bucket by bucket; the key is held in the entry, so a look-up that ends in its
// home bucket (seven of eight do when the index is full) is one cache miss. The misses of one match
// are taken together, round by round.
//
// An entry is visible (found by find and match) or hidden: entered for a slot that is still being
// filled. There is at most one visible entry per key, any number of hidden ones, and at most one
// entry per slot. An entry's home is the bucket its key hashes to; it lies there or after it with
// only full buckets between, so (home, slot) names an entry without its key: who keeps the 4-byte
// home need not keep the 20-byte key. Three keys fit into a line because namespace and group take
// 10 bits: the first 1022 pairs that an index meets are numbered. Later pairs are kept beside the
// table, 4 bytes per slot, and match slower. Threading: thread-compatible; the tier's lock guards
// it.  Waits: never. Memory: 32 bytes per slot of capacity (buckets two thirds full at most), from
// create(); pages that no entry was put into take none. Source: Knuth, TAOCP vol. 3, 6.4 (linear
// probing with buckets, algorithm R for deletion).
#pragma once

#include <array>
#include <memory>
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

  // Enters a visible entry for a slot below capacity. False if the key is visible already (the
  // first writer stays). Breach when over capacity.
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
  // find() of each hash of a chain, several times as fast. `slots` is as long as `hashes`.
  void find_each(NamespaceId name_space, GroupId group, std::span<const SequenceHash> hashes,
                 std::span<std::optional<SlotIndex>> slots) const;
  [[nodiscard]] bool has_hidden(const BlockKey& key) const;
  // Writes the slots of the longest leading run of `hashes` that is visible; returns its length.
  // `slots` is at least as long as `hashes`, or empty when only the length is wanted.
  std::size_t match(NamespaceId name_space, GroupId group, std::span<const SequenceHash> hashes,
                    std::span<SlotIndex> slots) const;
  // Entries of both kinds.
  [[nodiscard]] std::uint64_t size() const { return size_; }
  [[nodiscard]] std::uint64_t capacity() const { return capacity_; }
  // The table; `wide_` counts only when it is used.
  [[nodiscard]] Bytes memory() const;

 private:
  static constexpr std::size_t kWays = 3;
  struct alignas(64) Bucket {
    std::array<std::uint64_t, kWays> low;
    std::array<std::uint64_t, kWays> high;
    std::array<std::uint32_t, kWays>
        place;              // 0 = empty, after the used ones; else slot + 1, kHidden.
    std::uint32_t domains;  // 10 bits per entry, 0 for empty ones.
    [[nodiscard]] bool is_full() const { return place[kWays - 1] != 0; }
    [[nodiscard]] std::uint32_t domain(std::size_t way) const {
      return (domains >> (kDomainBits * way)) & kWideDomain;
    }
  };
  static_assert(sizeof(Bucket) == 64);
  static constexpr std::uint32_t kHidden = 1U << 31U;
  static constexpr unsigned kDomainBits = 10;
  // Entries of pairs that came after the numbers ran out: the pair is in wide_[slot].
  static constexpr std::uint32_t kWideDomain = (1U << kDomainBits) - 1;
  // Numbers 1 .. kWideDomain - 1, for good: a pair that moved between number and wide_ would have
  // its entries in two guises.
  struct Domains {
    static constexpr std::size_t kPlaces = std::size_t{2} * (kWideDomain + 1);
    std::array<std::uint32_t, kPlaces> pairs{};  // Open addressing, half full at most.
    std::array<std::uint16_t, kPlaces> numbers{};
    std::array<std::uint32_t, kWideDomain + 1> pair_of{};
    std::uint32_t count = 0;
    // 0 = not met yet and numbers are left.
    [[nodiscard]] std::uint32_t find(std::uint32_t pair) const;
    std::uint32_t add(std::uint32_t pair);
  };
  struct Entry {
    SequenceHash hash;
    std::uint32_t pair;    // Namespace and group.
    std::uint32_t domain;  // Of the pair.
  };
  struct Position {
    std::uint64_t bucket;
    std::size_t way;  // kWays = not there; `bucket` is then where the probe ended.
  };

  friend class IndexFiller;

  BlockIndex(ZeroedArray<Bucket> buckets, ZeroedArray<std::uint32_t> wide, std::uint64_t capacity);

  [[nodiscard]] std::uint64_t home(const SequenceHash& hash, std::uint32_t pair) const;
  [[nodiscard]] std::uint64_t after(std::uint64_t bucket) const {
    return bucket + 1 == buckets_.size() ? 0 : bucket + 1;
  }
  [[nodiscard]] std::uint32_t pair_at(const Bucket& bucket, std::size_t way) const;
  [[nodiscard]] bool is_at(const Bucket& bucket, std::size_t way, const Entry& wanted) const;
  // The way of the visible (hidden) entry with this key in one bucket, or kWays.
  [[nodiscard]] std::size_t way_of(const Bucket& bucket, const Entry& wanted, bool is_hidden) const;
  [[nodiscard]] Position seek(std::uint64_t from, const Entry& wanted, bool is_hidden) const;
  [[nodiscard]] Position seek_slot(Home home, SlotIndex slot) const;
  // For look-ups; nothing if no entry can have the key.
  [[nodiscard]] std::optional<Entry> wanted(const BlockKey& key) const;
  void put(std::uint64_t home, const BlockKey& key, std::uint32_t place);
  void take(Position at);
  void copy(Position from, Position to);
  void vacate(Position at);
  [[nodiscard]] static std::uint32_t glance(const Bucket& bucket, const SequenceHash& hash,
                                            std::uint32_t domain);
  [[nodiscard]] std::size_t glance_behind(std::span<const SequenceHash> hashes,
                                          std::uint32_t domain,
                                          std::span<const std::uint32_t> homes,
                                          std::span<std::uint16_t> pending,
                                          std::span<std::uint32_t> places) const;
  // One step of match(): writes the places of the leading run and returns its length. `next` are
  // the hashes of the step after it.
  [[nodiscard]] std::size_t match_window(std::span<const SequenceHash> hashes,
                                         std::span<const SequenceHash> next, std::uint32_t pair,
                                         std::uint32_t domain,
                                         std::span<std::uint32_t> places) const;

  ZeroedArray<Bucket> buckets_;
  ZeroedArray<std::uint32_t> wide_;
  std::unique_ptr<Domains> domains_;
  std::uint64_t capacity_;
  std::uint64_t size_ = 0;
};

}  // namespace terrace::index
