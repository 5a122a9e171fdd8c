// The least recently used of some blocks drawn at random: no list to keep in order, and nearly the
// hits of `lru`. The complete example of docs/adding-a-policy.md.
// Threading: thread-compatible.  Waits: never.  Memory: 12 bytes per slot, from make_sampled().
// Source: Psounis and Prabhakar, A randomized web-cache replacement scheme, INFOCOM 2001.
#pragma once

#include <algorithm>
#include <utility>

#include "terrace/base/check.h"
#include "terrace/base/rng.h"
#include "terrace/index/zeroed_array.h"
#include "terrace/policy/eviction/eviction.h"

namespace terrace::policy {

class Sampled final : public EvictionPolicy {
 public:
  struct Node {
    std::uint32_t used;   // Number of the last touch.
    std::uint32_t place;  // In order_, + 1; 0 = not evictable.
  };
  Sampled(index::ZeroedArray<Node> nodes, index::ZeroedArray<std::uint32_t> order)
      : nodes_(std::move(nodes)), order_(std::move(order)) {}

  void touch(SlotIndex slot) override {
    TERRACE_CHECK(slot.value() < nodes_.size());
    Node& node = nodes_[slot.value()];
    node.used = ++touches_;
    if (victim_ == slot) victim_.reset();
    if (node.place != 0) return;
    order_[count_] = slot.value();
    node.place = ++count_;
  }

  void remove(SlotIndex slot) override {
    TERRACE_CHECK(slot.value() < nodes_.size());
    const std::uint32_t place = nodes_[slot.value()].place;
    if (place == 0) return;
    const std::uint32_t last = order_[--count_];  // Takes the place that is left.
    order_[place - 1] = last;
    nodes_[last].place = place;
    nodes_[slot.value()].place = 0;
    if (victim_ == slot) victim_.reset();
  }

  [[nodiscard]] std::optional<SlotIndex> victim() const override {
    constexpr std::uint32_t kDrawn = 256;
    if (victim_ || count_ == 0) return victim_;
    std::uint32_t oldest = order_[0];
    for (std::uint32_t i = 0; i < std::min(kDrawn, count_); ++i) {
      const std::uint32_t drawn = order_[count_ <= kDrawn ? i : rng_.below(count_)];
      if (touches_ - nodes_[drawn].used > touches_ - nodes_[oldest].used) oldest = drawn;
    }
    return victim_ = SlotIndex(oldest);
  }

  [[nodiscard]] Bytes memory() const override { return nodes_.memory() + order_.memory(); }

 private:
  index::ZeroedArray<Node> nodes_;
  index::ZeroedArray<std::uint32_t> order_;  // Evictable slots, in no order.
  std::uint32_t count_ = 0;
  std::uint32_t touches_ = 0;                // Wraps around.
  mutable std::optional<SlotIndex> victim_;  // Stays until it is touched or removed.
  mutable Rng rng_{1};
};

inline std::unique_ptr<EvictionPolicy> make_sampled(std::uint32_t slots) {
  auto nodes = index::ZeroedArray<Sampled::Node>::create(slots);
  auto order = index::ZeroedArray<std::uint32_t>::create(slots);
  if (!nodes || !order) return nullptr;
  return std::make_unique<Sampled>(std::move(*nodes), std::move(*order));
}

}  // namespace terrace::policy
