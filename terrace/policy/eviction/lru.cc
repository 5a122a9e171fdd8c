// The reference policy: a doubly linked list through the slots, oldest at the head.
#include "terrace/base/check.h"
#include "terrace/index/zeroed_array.h"
#include "terrace/policy/eviction/eviction.h"

namespace terrace::policy {

namespace {

class Lru final : public EvictionPolicy {
 public:
  Lru(index::ZeroedArray<std::uint64_t> links, std::uint32_t slots)
      : links_(std::move(links)), slots_(slots) {}

  void touch(SlotIndex slot) override {
    TERRACE_CHECK(slot.value() < slots_);
    const std::uint32_t node = slot.value() + 1;
    if (next(node) != 0) unlink(node);
    const std::uint32_t newest = last_;
    set(node, newest, kRing);
    if (newest == kRing)
      first_ = node;
    else
      set_next(newest, node);
    last_ = node;
  }

  // Slots in an order of their own: each is a cache miss, so they are asked for ahead.
  void touch_all(std::span<const SlotIndex> slots) override {
    constexpr std::size_t kAhead = 32;
    for (std::size_t i = 0; i < slots.size(); ++i) {
      if (i + kAhead < slots.size()) {
        __builtin_prefetch(links_.data() + slots[i + kAhead].value(), 1);
      }
      Lru::touch(slots[i]);
    }
  }

  void remove(SlotIndex slot) override {
    TERRACE_CHECK(slot.value() < slots_);
    const std::uint32_t node = slot.value() + 1;
    if (next(node) == 0) return;
    unlink(node);
    links_[slot.value()] = 0;
  }

  [[nodiscard]] std::optional<SlotIndex> victim() const override {
    if (first_ == kRing) return std::nullopt;
    return SlotIndex(first_ - 1);
  }

  [[nodiscard]] Bytes memory() const override { return links_.memory(); }

 private:
  // Nodes are slot + 1, so that untouched (zero) memory reads "not in the list"; both ends of the
  // list point to kRing, which no slot can be.
  static constexpr std::uint32_t kRing = UINT32_MAX;

  // A node's links in one word, previous in the upper half.
  [[nodiscard]] std::uint32_t next(std::uint32_t node) const {
    return static_cast<std::uint32_t>(links_[node - 1]);
  }
  [[nodiscard]] std::uint32_t previous(std::uint32_t node) const {
    return static_cast<std::uint32_t>(links_[node - 1] >> 32U);
  }
  void set(std::uint32_t node, std::uint32_t before, std::uint32_t after) {
    links_[node - 1] = (std::uint64_t{before} << 32U) | after;
  }
  void set_next(std::uint32_t node, std::uint32_t after) { set(node, previous(node), after); }
  void set_previous(std::uint32_t node, std::uint32_t before) { set(node, before, next(node)); }
  void unlink(std::uint32_t node) {
    const std::uint32_t before = previous(node);
    const std::uint32_t after = next(node);
    if (before == kRing)
      first_ = after;
    else
      set_next(before, after);
    if (after == kRing)
      last_ = before;
    else
      set_previous(after, before);
  }

  index::ZeroedArray<std::uint64_t> links_;
  std::uint32_t slots_;
  std::uint32_t first_ = kRing;
  std::uint32_t last_ = kRing;
};

}  // namespace

std::unique_ptr<EvictionPolicy> make_lru(std::uint32_t slots) {
  auto links = index::ZeroedArray<std::uint64_t>::create(slots);
  if (!links) return nullptr;
  return std::make_unique<Lru>(std::move(*links), slots);
}

}  // namespace terrace::policy
