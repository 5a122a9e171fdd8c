// The slots of a pool by the sequence of their records, for the eviction order after a start.
// Threading: a pure function; its crew shares the work.  Waits: for its crew.
// Memory: 4 B per slot and 4 to 8 B per block, given back.
#pragma once

#include <span>

#include "terrace/base/crew.h"
#include "terrace/index/zeroed_array.h"

namespace terrace::tier::disk {

struct LoadOrder {
  index::ZeroedArray<SlotIndex> memory;
  std::size_t count = 0;
  [[nodiscard]] std::span<const SlotIndex> slots() const { return memory.all().first(count); }
};

// The slots whose sequence is not 0, by rising sequence, equal ones by slot. Linear in time for the
// sequences a cache writes. Errors: kExhausted if memory is refused.
[[nodiscard]] Result<LoadOrder> order_by_sequence(std::span<const std::uint64_t> sequences,
                                                  const Crew& crew);

}  // namespace terrace::tier::disk
