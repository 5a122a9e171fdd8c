// Which blocks a pool of so many slots would hold by an eviction policy; it has no bytes.
// Threading: thread-compatible.  Waits: never.  Memory: memory(), from create().
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "terrace/base/status.h"
#include "terrace/index/block_index.h"
#include "terrace/policy/eviction/eviction.h"

namespace terrace::policy {

class GhostPool {
 public:
  // Errors: those of make_eviction().
  static Result<GhostPool> create(std::uint32_t slots, std::string_view eviction,
                                  std::shared_ptr<const ReturnModel> returns);

  // A request's chain comes: add() for each of its blocks, the first one first, then end().
  // `is_stored`: what is not here is stored, as far as there is room beside the chain itself.
  void begin(Nanoseconds now, bool is_stored);
  // Held until end(). O(log n).
  void add(const SequenceHash& hash);
  // Lets go, the deepest first. Returns how many blocks led the chain that were here before.
  std::uint32_t end(const Use& use);
  [[nodiscard]] Bytes memory() const;

 private:
  GhostPool(index::BlockIndex index, std::unique_ptr<EvictionPolicy> policy, std::uint32_t slots);
  [[nodiscard]] std::optional<SlotIndex> take();

  index::BlockIndex index_;
  std::unique_ptr<EvictionPolicy> policy_;
  std::vector<index::Home> homes_;  // [slot]
  std::uint32_t taken_ = 0;         // Slots before it have a block.
  // Of the chain that comes.
  std::vector<std::optional<SlotIndex>> held_;  // In chain order; nothing = a gap.
  std::uint32_t leading_ = 0;
  bool is_leading_ = false;
  bool is_stored_ = false;
};

}  // namespace terrace::policy
