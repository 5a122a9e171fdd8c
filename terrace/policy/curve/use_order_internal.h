// The last blocks that were used, in the order of their last use, and how many of them were used
// since a given one was.
// Threading: thread-compatible.  Waits: never.  Memory: memory(), from create().
// Source: Bennett and Kruskal, LRU stack processing, 1975; the tree is Fenwick's (1994).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "terrace/base/status.h"
#include "terrace/index/block_index.h"

namespace terrace::policy {

class UseOrder {
 public:
  // Of the last `capacity` blocks.
  static Result<UseOrder> create(std::uint32_t capacity);

  // How many blocks were used since this one was; nothing if it is not among the last.
  [[nodiscard]] std::optional<std::uint32_t> newer_than(const SequenceHash& hash) const;
  // It is the newest now; who is one too many goes.
  void use(const SequenceHash& hash);
  [[nodiscard]] Bytes memory() const;

 private:
  static constexpr std::uint32_t kNone = UINT32_MAX;
  UseOrder(std::uint32_t capacity, index::BlockIndex index);
  void forget_oldest();
  void place(std::uint32_t block);
  void close_gaps();
  // Of the positions up to and with `position`, those that hold a block.
  [[nodiscard]] std::uint32_t held_up_to(std::uint32_t position) const;
  void add(std::uint32_t position, std::int32_t change);

  index::BlockIndex index_;
  std::vector<std::uint32_t> positions_;  // [block]; kNone = unused.
  std::vector<index::Home> homes_;        // [block]
  std::vector<std::uint32_t> at_;         // [position] -> block, in the order of last use.
  std::vector<std::uint32_t> held_;       // Fenwick tree over positions.
  std::vector<std::uint32_t> free_;
  std::uint32_t next_ = 0;    // Position.
  std::uint32_t oldest_ = 0;  // No block lies before it.
  std::uint32_t count_ = 0;
};

}  // namespace terrace::policy
