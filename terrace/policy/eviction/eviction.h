// Which unpinned sealed slot of a pool goes next. One object per pool, sized at creation.
// Threading: thread-compatible; the tier's lock guards it.  Waits: never.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "terrace/base/clock.h"
#include "terrace/base/status.h"
#include "terrace/policy/returns/return_model.h"
#include "terrace/policy/returns/use.h"

namespace terrace::policy {

// What a policy knows of a slot's last use.
struct KnownUse {
  Use use;
  std::optional<SlotIndex> before;  // In the chain, if it is here.
};

// The pool calls its verbs with slots below the policy's size, each O(1) or
// O(log n). Must pass tests/contract/eviction_contract.h.
class EvictionPolicy {
 public:
  virtual ~EvictionPolicy() = default;
  // The slot became evictable (sealed and unpinned) or was used again while evictable.
  virtual void touch(SlotIndex slot) = 0;
  // touch() for each, in this order; none of them twice.
  virtual void touch_all(std::span<const SlotIndex> slots) {
    for (const SlotIndex slot : slots) touch(slot);
  }
  // A request used these blocks, which follow each other in its chain; nothing stands for one that
  // is not here. Changes nothing about which are evictable. Time does not go back.
  virtual void note_use(std::span<const std::optional<SlotIndex>> /*chain*/, const Use& /*use*/) {}
  // Whether it learns from note_use(), which costs a look-up for each block.
  [[nodiscard]] virtual bool wants_uses() const { return false; }
  // What it knows of a slot's last use, whether it is evictable or not; nothing before any use was
  // noted.
  [[nodiscard]] virtual std::optional<KnownUse> last_use(SlotIndex /*slot*/) const {
    return std::nullopt;
  }
  // The block came from another pool, where this was its last use. Changes nothing about which are
  // evictable.
  virtual void set_last_use(SlotIndex /*slot*/, const Use& /*use*/) {}
  // `before` comes before it in its chain.
  virtual void set_before(SlotIndex /*slot*/, SlotIndex /*before*/) {}
  // The slot is no longer evictable (pinned, removed). No-op if it was not.
  virtual void remove(SlotIndex slot) = 0;
  // The victim is on its way out, one of several perhaps: what it stood in the way of may go next.
  // If it is touched after all, what was known of its chain is known no more.
  virtual void leave(SlotIndex slot) { remove(slot); }
  // The slot is no longer evictable, and its block is gone.
  virtual void forget(SlotIndex slot) { remove(slot); }
  // The best victim, which stays until it is touched or removed or a use is noted; nothing when
  // none is evictable.
  [[nodiscard]] virtual std::optional<SlotIndex> victim() const = 0;
  [[nodiscard]] virtual Bytes memory() const = 0;
};

// Least recently touched first. 8 bytes per slot. Null if the memory is refused.
[[nodiscard]] std::unique_ptr<EvictionPolicy> make_lru(std::uint32_t slots);
// What is least likely to be used again soon, by `returns`, leaves of the prefix tree only. 16
// bytes per slot, of which there are kMostHazardSlots at most. Without a model: of 64 leaves the
// least recently used. Null if the memory is refused.
inline constexpr std::uint32_t kMostHazardSlots = (1U << 28U) - 1;
[[nodiscard]] std::unique_ptr<EvictionPolicy> make_hazard(
    std::uint32_t slots, std::shared_ptr<const ReturnModel> returns);

// By the name used in settings: "lru", "hazard". Errors: kInvalid names the known ones; kExhausted
// if the memory is refused.
[[nodiscard]] Result<std::unique_ptr<EvictionPolicy>> make_eviction(
    std::string_view name, std::uint32_t slots,
    std::shared_ptr<const ReturnModel> returns = nullptr);

}  // namespace terrace::policy
