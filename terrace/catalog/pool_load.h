// Adopts into a pool at start, by several threads, the many blocks of one namespace and group that
// a medium holds, read in any order. Each block goes through take(), then enter(); when all have,
// finish() puts them into the eviction order. What is there at the end does not depend on the
// order, nor on the number of parts: of two blocks with one key the one written later stays.
// Threading: take() by any thread, each slot by one, while nobody enters; enter() by one thread for
// each part, while nobody takes; the rest by one thread. Nobody else uses the pool meanwhile.
// Owns: nothing of the pool.  Waits: never.  Memory: 8 B per slot, from create(), until it goes.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "terrace/catalog/pool.h"
#include "terrace/index/index_filler.h"

namespace terrace::catalog {

class PoolLoad {
 public:
  using Entry = index::IndexFiller::Entry;
  struct Found {
    SequenceHash hash;
    SlotIndex slot;
    Generation generation;
    std::uint64_t sequence = 0;  // Of writing, over all slots; not 0.
  };
  // The pool outlives the load. Errors: kExhausted if memory is refused.
  static Result<PoolLoad> create(Pool& pool, NamespaceId name_space, GroupId group,
                                 std::size_t parts);

  // Nothing if the slot is not free, was loaded before or has had the generation.
  [[nodiscard]] std::optional<Entry> take(const Found& block);
  [[nodiscard]] std::size_t part_of(const Entry& entry) const {
    return filler_.part_of(entry.home);
  }
  void enter(std::size_t part, std::span<const Entry> entries);
  // After the last enter(): makes the index whole and returns [slot] the sequences of what is in
  // it, 0 elsewhere.
  std::span<const std::uint64_t> sequences();
  // The slots whose sequence is not 0, least recently used first. The pool may then be used.
  // Returns how many were adopted. Breach when the slots are not those.
  std::uint32_t finish(std::span<const SlotIndex> oldest_first);

 private:
  PoolLoad(Pool& pool, index::IndexFiller filler, index::ZeroedArray<std::uint64_t> sequences)
      : pool_(pool), filler_(std::move(filler)), sequences_(std::move(sequences)) {}
  void give_back(std::span<const SlotIndex> slots);

  Pool& pool_;
  index::IndexFiller filler_;
  index::ZeroedArray<std::uint64_t> sequences_;
};

}  // namespace terrace::catalog
