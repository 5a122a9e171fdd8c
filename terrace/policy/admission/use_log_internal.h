// The blocks used last, in the order of their last use, and which of them an `lru` tier of a given
// size that admits everything would hold: the most recent ones, exactly.
// Threading: thread-compatible.  Waits: never.  Memory: 32 bytes for each of `entries` and the
// index, from create().  Source: Mattson et al., Evaluation techniques for storage hierarchies,
// 1970 (stack distance).
#pragma once

#include <cstdint>
#include <optional>

#include "terrace/base/status.h"
#include "terrace/index/block_index.h"
#include "terrace/index/zeroed_array.h"

namespace terrace::policy {

class UseLog {
 public:
  struct Entry {
    std::uint32_t at;        // Of the last use, in seconds.
    std::uint32_t since;     // First use of those that followed each other within the tier's time.
    std::uint32_t run;       // Whoever keeps the log gives it a meaning; 0 at first.
    std::uint32_t previous;  // Older; entry + 1, as next: 0 = none.
    std::uint32_t next;
    index::Home home;
    std::uint32_t cell;  // As run.
    std::uint8_t step;
    std::uint8_t flags;
    std::uint8_t is_near;  // An lru tier would hold it.
    std::uint8_t mark;     // As run.
  };
  static_assert(sizeof(Entry) == 32);
  // Errors: kInvalid for no entries or too many; kExhausted if memory is refused.
  // `near`: of so many blocks used last an entry says so; 0 = of all.
  static Result<UseLog> create(std::uint64_t entries, std::uint64_t near);

  [[nodiscard]] std::optional<std::uint32_t> find(const BlockKey& key) const;
  [[nodiscard]] Entry& operator[](std::uint32_t number) { return entries_[number]; }
  // In place of the oldest one when there is no room; use() is to follow.
  std::uint32_t add(const BlockKey& key);
  // It is forgotten.
  void remove(std::uint32_t number);
  // It becomes the most recent. Returns what is not near any more for that.
  std::optional<std::uint32_t> use(std::uint32_t number, std::uint32_t at);
  // For how long the tier holds what is not used again, in seconds; nothing while it has room.
  [[nodiscard]] std::optional<std::uint32_t> residence(std::uint32_t now) const;
  [[nodiscard]] Bytes memory() const { return index_.memory() + entries_.memory(); }

 private:
  UseLog(std::uint64_t near, index::BlockIndex index, index::ZeroedArray<Entry> entries)
      : most_near_(near), index_(std::move(index)), entries_(std::move(entries)) {}
  void link(std::uint32_t number);
  void unlink(std::uint32_t number);

  std::uint64_t most_near_;
  index::BlockIndex index_;
  index::ZeroedArray<Entry> entries_;
  std::uint64_t fresh_ = 0;  // Entries from here on were never used.
  std::uint32_t free_ = 0;   // Entry + 1, as the others; 0 = none. Of those before, by `next`.
  std::uint32_t oldest_ = 0;
  std::uint32_t newest_ = 0;
  std::uint32_t last_near_ = 0;
  std::uint64_t near_ = 0;
};

}  // namespace terrace::policy
