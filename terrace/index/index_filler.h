// Fills an index at start with the many blocks of one namespace and group, by several threads: the
// buckets are divided in equal parts, and each part is entered by one thread. What would lie across
// a part's end is kept for finish(). Of two blocks with one key the one of higher precedence stays,
// of equal ones that of the lower slot: so what is visible at the end does not depend on the order
// of entering. Threading: different parts may be entered at the same time; all else by one thread,
// and nobody uses the index before finish().  Owns: nothing.  Waits: never.  Memory: what lies
// across ends, few entries each.
#pragma once

#include <vector>

#include "terrace/index/block_index.h"

namespace terrace::index {

class IndexFiller {
 public:
  struct Entry {
    SequenceHash hash;
    Home home;  // home_of(hash), which the caller needs anyway to find the part.
    SlotIndex slot;
  };
  // The index outlives the filler. Slots are below its capacity and each is entered once.
  IndexFiller(BlockIndex& index, NamespaceId name_space, GroupId group, std::size_t parts);

  [[nodiscard]] Home home_of(const SequenceHash& hash) const;
  [[nodiscard]] std::size_t part_of(Home home) const;
  // `precedence` is [slot], 0 for slots that are not filled here; a block that was in the index
  // before stays. Appends the slots of blocks that gave way to another with their key.
  void enter(std::size_t part, std::span<const Entry> entries,
             std::span<const std::uint64_t> precedence, std::vector<SlotIndex>& losers);
  // After the last enter(); the index is then whole.
  void finish(std::span<const std::uint64_t> precedence, std::vector<SlotIndex>& losers);

 private:
  struct alignas(64) Part {
    std::uint64_t end = 0;  // Bucket.
    std::uint64_t entered = 0;
    std::vector<Entry> across;
  };
  enum class Outcome : std::uint8_t { kEntered, kSameKey, kFull };
  [[nodiscard]] Outcome try_bucket(std::uint64_t at, const Entry& entry,
                                   std::span<const std::uint64_t> precedence,
                                   std::vector<SlotIndex>& losers);

  BlockIndex& index_;
  NamespaceId name_space_;
  GroupId group_;
  std::uint32_t pair_;
  std::uint32_t domain_;
  std::vector<Part> parts_;
};

}  // namespace terrace::index
