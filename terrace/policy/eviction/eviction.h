// Which unpinned sealed slot of a pool goes next. One object per pool, sized at creation.
// Threading: thread-compatible; the tier's lock guards it.  Waits: never.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "terrace/base/clock.h"
#include "terrace/base/status.h"

namespace terrace::policy {

// The pool calls touch() and remove() with slots below the policy's size, each O(1) or O(log n).
// Must pass tests/contract/eviction_contract.h.
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;
  // The slot became evictable (sealed and unpinned) or was used again while evictable.
  virtual void touch(SlotIndex slot) = 0;
  // touch() for each, in this order; none of them twice.
  virtual void touch_all(std::span<const SlotIndex> slots) {
    for (const SlotIndex slot : slots) touch(slot);
  }
  // The slot is no longer evictable (pinned, removed). No-op if it was not.
  virtual void remove(SlotIndex slot) = 0;
  // The best victim, which stays until remove(); nothing when none is evictable.
  [[nodiscard]] virtual std::optional<SlotIndex> victim() const = 0;
  [[nodiscard]] virtual Bytes memory() const = 0;
};

// Least recently touched first. 8 bytes per slot. Null if the memory is refused.
[[nodiscard]] std::unique_ptr<EvictionPolicy> make_lru(std::uint32_t slots);

// By the name used in settings: "lru". Errors: kInvalid names the known ones; kExhausted if the
// memory is refused.
[[nodiscard]] Result<std::unique_ptr<EvictionPolicy>> make_eviction(std::string_view name,
                                                                    std::uint32_t slots);

}  // namespace terrace::policy
