#include "terrace/catalog/free_set.h"

#include <bit>

namespace terrace::catalog {

namespace {
constexpr std::uint64_t kFull = ~std::uint64_t{0};
constexpr std::uint64_t bit(std::uint64_t i) { return std::uint64_t{1} << (i % 64); }
}  // namespace

Result<FreeSet> FreeSet::create(std::uint32_t slots) {
  if (slots == 0) return fail(Code::kInvalid, "a pool needs at least one slot");
  std::array<std::uint64_t, kMaxLevels> starts{};
  std::array<std::uint64_t, kMaxLevels> bits{};
  int levels = 0;
  std::uint64_t words = 0;
  for (std::uint64_t count = slots;; count = (count + 63) / 64) {
    bits[static_cast<std::size_t>(levels)] = count;
    starts[static_cast<std::size_t>(levels)] = words;
    words += (count + 63) / 64;
    ++levels;
    if (count <= 64) break;
  }
  TERRACE_ASSIGN_OR_RETURN(auto array, index::ZeroedArray<std::uint64_t>::create(words));
  FreeSet set(std::move(array));
  set.starts_ = starts;
  set.levels_ = levels;
  // Bits past a level's end are taken for good.
  for (std::size_t level = 0; level < static_cast<std::size_t>(levels); ++level) {
    if (bits[level] % 64 == 0) continue;
    set.words_[starts[level] + bits[level] / 64] = kFull << (bits[level] % 64);
  }
  return set;
}

std::optional<SlotIndex> FreeSet::take_lowest() {
  std::uint64_t at = 0;
  for (int level = levels_ - 1; level >= 0; --level) {
    const std::uint64_t word = words_[starts_[static_cast<std::size_t>(level)] + at];
    if (word == kFull) return std::nullopt;  // Only ever at the top.
    at = at * 64 + static_cast<std::uint64_t>(std::countr_one(word));
  }
  const SlotIndex slot(static_cast<std::uint32_t>(at));
  take(slot);
  return slot;
}

std::uint64_t FreeSet::words_at(std::size_t level) const {
  return level + 1 == static_cast<std::size_t>(levels_) ? 1 : starts_[level + 1] - starts_[level];
}

std::optional<SlotIndex> FreeSet::lowest_in(SlotIndex first, SlotIndex end) const {
  // Up until a word has room at or behind `at`, then down along the lowest.
  std::uint64_t at = first.value();
  std::size_t level = 0;
  std::uint64_t word = 0;
  for (;; ++level) {
    if (level == static_cast<std::size_t>(levels_) || at / 64 >= words_at(level)) {
      return std::nullopt;
    }
    word = words_[starts_[level] + at / 64] | (bit(at) - 1);
    if (word != kFull) break;
    at = at / 64 + 1;
  }
  at = at / 64 * 64 + static_cast<std::uint64_t>(std::countr_one(word));
  while (level > 0) {
    --level;
    word = words_[starts_[level] + at];
    at = at * 64 + static_cast<std::uint64_t>(std::countr_one(word));
  }
  if (at >= end.value()) return std::nullopt;
  return SlotIndex(static_cast<std::uint32_t>(at));
}

bool FreeSet::take(SlotIndex slot) {
  if (!is_free(slot)) return false;
  std::uint64_t at = slot.value();
  for (int level = 0; level < levels_; ++level, at /= 64) {
    std::uint64_t& word = words_[starts_[static_cast<std::size_t>(level)] + at / 64];
    word |= bit(at);
    if (word != kFull) break;
  }
  return true;
}

void FreeSet::take_many(SlotIndex first, std::uint64_t mask) {
  std::uint64_t at = first.value() / 64;
  words_[at] |= mask;
  bool is_full = words_[at] == kFull;
  for (int level = 1; level < levels_ && is_full; ++level, at /= 64) {
    std::uint64_t& word = words_[starts_[static_cast<std::size_t>(level)] + at / 64];
    word |= bit(at);
    is_full = word == kFull;
  }
}

void FreeSet::put(SlotIndex slot) {
  std::uint64_t at = slot.value();
  for (int level = 0; level < levels_; ++level, at /= 64) {
    std::uint64_t& word = words_[starts_[static_cast<std::size_t>(level)] + at / 64];
    const bool was_full = word == kFull;
    word &= ~bit(at);
    if (!was_full) break;
  }
}

bool FreeSet::is_free(SlotIndex slot) const {
  return (words_[slot.value() / 64] & bit(slot.value())) == 0;
}

}  // namespace terrace::catalog
