// Which slots of a pool are free: a tree of bitmaps, 64 children a word. Free is a zero bit, so a
// new set is all free without touching its memory, and any slot can be taken in any order.
// Threading: thread-compatible.  Waits: never.  Memory: 1.02 bits per slot.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "terrace/base/status.h"
#include "terrace/index/zeroed_array.h"

namespace terrace::catalog {

class FreeSet {
 public:
  // Errors: kInvalid for 0 slots; kExhausted if memory is refused.
  static Result<FreeSet> create(std::uint32_t slots);

  // Takes the lowest free slot. O(log64 slots).
  std::optional<SlotIndex> take_lowest();
  // The lowest free slot of [first, end), which stays free. O(log64 slots).
  [[nodiscard]] std::optional<SlotIndex> lowest_in(SlotIndex first, SlotIndex end) const;
  // False if it is taken already.
  bool take(SlotIndex slot);
  // Takes `first`, a multiple of 64, and the 63 after it where `mask` has a bit, free or not.
  void take_many(SlotIndex first, std::uint64_t mask);
  // The slot must be taken.
  void put(SlotIndex slot);
  [[nodiscard]] bool is_free(SlotIndex slot) const;
  [[nodiscard]] Bytes memory() const { return words_.memory(); }

 private:
  static constexpr int kMaxLevels = 6;  // 64^6 > 2^32.
  explicit FreeSet(index::ZeroedArray<std::uint64_t> words) : words_(std::move(words)) {}

  [[nodiscard]] std::uint64_t words_at(std::size_t level) const;

  index::ZeroedArray<std::uint64_t> words_;
  // Where each level's words start; level 0 has a bit per slot, level k + 1 a bit per word of level
  // k that is set when that word is full. The last level is one word.
  std::array<std::uint64_t, kMaxLevels> starts_{};
  int levels_ = 0;
};

}  // namespace terrace::catalog
