// Blocks that were chosen to leave a pool next, in that order, and need no write any more: the tier
// below has them, or is not to. Until their slots are wanted they are hit like any others, and
// whoever uses one takes it back. Threading: thread-compatible; the lock of the pool guards it.
// Waits: never.  Memory: 48 bytes a block; FreeAhead says how many.
#pragma once

#include <algorithm>
#include <deque>
#include <optional>
#include <utility>

#include "terrace/catalog/pool.h"

namespace terrace::catalog {

class Leaving {
 public:
  struct Block {
    BlockKey key{};
    bool is_refused = false;  // By the filter of the tier below.
    EvictingSlot slot{};
  };

  void add(Block block) {
    if (block.slot.holds()) blocks_.push_back(std::move(block));
  }
  // The one that goes first; dropping its slot frees it. Nothing if all were taken back.
  [[nodiscard]] std::optional<Block> take() {
    if (!has_any()) return std::nullopt;
    Block block = std::move(blocks_.front());
    blocks_.pop_front();
    return block;
  }
  // Whether take() would give one.
  [[nodiscard]] bool has_any() {
    while (!blocks_.empty()) {
      const EvictingSlot& slot = blocks_.front().slot;
      if (!slot.holds()) {
        --empty_;
      } else if (!slot.is_rescued()) {
        return true;
      }
      blocks_.pop_front();
    }
    return false;
  }
  // Lets go of some that were taken back: until then they count as pinned.
  void let_go() {
    for (std::size_t i = 0; i < std::min(kAtOnce, blocks_.size()); ++i) {
      next_ = next_ + 1 < blocks_.size() ? next_ + 1 : 0;
      EvictingSlot& slot = blocks_[next_].slot;
      if (!slot.is_rescued()) continue;
      slot.reset();
      ++empty_;
    }
    // All of them are passed over for it: not for a few of many.
    if (empty_ < std::max(kAtOnce, blocks_.size() / 4)) return;
    std::erase_if(blocks_, [](const Block& block) { return !block.slot.holds(); });
    empty_ = 0;
  }
  // What the tier below is not to have stays after all.
  void keep_refused() {
    for (Block& block : blocks_) {
      if (!block.is_refused || !block.slot.holds()) continue;
      std::move(block.slot).keep();
      ++empty_;
    }
  }
  void clear() {
    blocks_.clear();
    empty_ = 0;
  }
  // With those that were taken back and are not let go yet.
  [[nodiscard]] std::size_t size() const { return blocks_.size() - empty_; }

 private:
  static constexpr std::size_t kAtOnce = 64;
  std::deque<Block> blocks_;
  std::size_t next_ = 0;
  std::size_t empty_ = 0;  // That were let go and are still in `blocks_`.
};

}  // namespace terrace::catalog
