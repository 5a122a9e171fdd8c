// Of some leaves of the prefix tree, drawn at random, the one that is least likely to be asked for
// again in the time that it would take: `returns` says how likely. Blocks whose chain nobody has
// told of are leaves of the root's class, as old as their last touch.
// Source: sampling in place of order, as in Psounis and Prabhakar, A randomized web-cache
// replacement scheme, INFOCOM 2001.
#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <numeric>
#include <utility>

#include "terrace/base/check.h"
#include "terrace/base/rng.h"
#include "terrace/index/zeroed_array.h"
#include "terrace/policy/eviction/eviction.h"

namespace terrace::policy {

namespace {

constexpr std::size_t kDrawn = 64;
constexpr std::uint32_t kNoSlot = std::numeric_limits<std::uint32_t>::max();

// 12 bytes a slot, all zero at first. A choice asks 64 of them for tick and class: the tick lies in
// one piece.
struct Node {
  // The slot + 1 of the block before it in its chain, when that is known and here.
  std::uint32_t parent : 28;
  std::uint32_t priority : 2;
  std::uint32_t is_evictable : 1;
  std::uint32_t has_children : 1;
  // If it has children: how many slots call it their parent. Else its place + 1 among the leaves
  // that can be evicted, 0 if it cannot. A slot given up keeps its count: its children still call
  // it so, whatever block it holds next.
  std::uint32_t count : 28;
  std::uint32_t of_high : 4;
  std::uint32_t tick : 27;  // Of the last use, modulo 24 days; see kOldest.
  std::uint32_t of_low : 5;

  [[nodiscard]] ReturnClass of() const {
    return ReturnClass(static_cast<std::uint16_t>(of_high << 5U | of_low));
  }
  void set_of(ReturnClass of) {
    of_low = of.value() & 31U;
    of_high = of.value() >> 5U & 15U;
  }
};
static_assert(sizeof(Node) == 12);

static_assert(ReturnModel::kMostClasses <= 512);

// A hit in one block for so many in others: [Priority]. Steps that a client who lies gains little
// by.
constexpr std::array<float, 4> kWeights = {1, 4, 0.25F, 1};

// A leaf, and when it is to go: of two the one with less rank goes first.
struct Ranked {
  std::uint32_t slot = kNoSlot;
  std::uint64_t rank = std::numeric_limits<std::uint64_t>::max();
};

// By what keeping a block is worth now, of equals the oldest first. No worth is below 0, so the
// bits of two are in the order of their values.
std::uint64_t rank_of(float worth, std::uint32_t age) {
  return (std::uint64_t{std::bit_cast<std::uint32_t>(worth)} << 32U) | ~age;
}

class Hazard final : public EvictionPolicy {
 public:
  Hazard(index::ZeroedArray<Node> nodes, index::ZeroedArray<std::uint32_t> leaves,
         std::shared_ptr<const ReturnModel> returns)
      : nodes_(std::move(nodes)), leaves_(std::move(leaves)), returns_(std::move(returns)) {}

  void touch(SlotIndex slot) override { touch_now(slot); }

  // Found at start, and nothing is known of their age but their order: a tick passes for each few,
  // and the first use that is told of comes right after the last of them.
  void touch_all(std::span<const SlotIndex> slots) override {
    constexpr std::size_t kPerTick = 16;
    for (std::size_t i = 0; i < slots.size(); ++i) {
      if (!has_clock_ && i % kPerTick == 0) now_ = (now_ + 1) & kTickMask;
      touch_now(slots[i]);
    }
  }

  void note_use(std::span<const std::optional<SlotIndex>> chain, const Use& use) override {
    const std::uint64_t tick = ticks_of(use.at);
    if (has_clock_ && tick > told_tick_) pass(tick - told_tick_);
    if (has_clock_ && tick < told_tick_) step_back(told_tick_ - tick);
    has_clock_ = true;
    told_tick_ = tick;
    victim_.reset();
    second_ = kNoSlot;
    for (std::size_t i = 0; i < chain.size(); ++i) {
      if (!chain[i]) continue;
      const std::uint32_t slot = chain[i]->value();
      TERRACE_CHECK(slot < nodes_.size());
      set_use(nodes_[slot], now_, use);
      if (i > 0) set_parent(slot, chain[i - 1]);
    }
  }

  [[nodiscard]] bool wants_uses() const override { return true; }

  [[nodiscard]] std::optional<KnownUse> last_use(SlotIndex slot) const override {
    TERRACE_CHECK(slot.value() < nodes_.size());
    if (!has_clock_) return std::nullopt;
    const Node& node = nodes_[slot.value()];
    const std::uint64_t age = age_of(node);
    KnownUse known{.use = {.at = time_of(told_tick_ - std::min(age, told_tick_)),
                           .of = node.of(),
                           .priority = static_cast<Priority>(node.priority)},
                   .before = {}};
    if (node.parent != 0) known.before = SlotIndex(node.parent - 1);
    return known;
  }

  void set_last_use(SlotIndex slot, const Use& use) override {
    TERRACE_CHECK(slot.value() < nodes_.size());
    if (!has_clock_) return;
    // Of a clock that is ahead of this one: now.
    const std::uint64_t age = told_tick_ - std::min(ticks_of(use.at), told_tick_);
    const auto known = static_cast<std::uint32_t>(std::min<std::uint64_t>(age, kOldest));
    set_use(nodes_[slot.value()], now_ - known, use);
    renounce(slot);
  }

  void set_before(SlotIndex slot, SlotIndex before) override {
    TERRACE_CHECK(slot.value() < nodes_.size() && before.value() < nodes_.size());
    set_parent(slot.value(), before);
  }

  void remove(SlotIndex slot) override {
    TERRACE_CHECK(slot.value() < nodes_.size());
    Node& node = nodes_[slot.value()];
    if (node.is_evictable == 0) return;
    node.is_evictable = 0;
    --evictable_;
    if (node.has_children == 0) leave_order(slot.value());
    renounce(slot);
  }

  void leave(SlotIndex slot) override {
    remove(slot);
    set_parent(slot.value(), std::nullopt);
  }

  void forget(SlotIndex slot) override {
    remove(slot);
    set_parent(slot.value(), std::nullopt);
    set_use(nodes_[slot.value()], 0, {});
  }

  [[nodiscard]] std::optional<SlotIndex> victim() const override {
    const bool is_inner = victim_ && nodes_[victim_->value()].has_children != 0;
    if (is_inner && leaf_count_ > 0) victim_.reset();
    if (!victim_ && second_ != kNoSlot) victim_ = SlotIndex(std::exchange(second_, kNoSlot));
    if (!victim_ && evictable_ > 0) victim_ = leaf_count_ > 0 ? worst_drawn() : any_evictable();
    return victim_;
  }

  [[nodiscard]] Bytes memory() const override { return nodes_.memory() + leaves_.memory(); }

 private:
  static constexpr std::uint32_t kTickMask = (1U << 27U) - 1;
  // Twelve days: what was used before that is taken for as old. Else it would be young again after
  // 24 days.
  static constexpr std::uint32_t kOldest = 1U << 26U;
  // In this time every node is looked at, three days: so none is older than kOldest and two rounds.
  static constexpr std::uint32_t kRound = 1U << 24U;
  static constexpr std::uint64_t kMostLooks = 1U << 16U;  // In one call: some 100 us.

  [[nodiscard]] std::uint32_t age_of(const Node& node) const {
    const std::uint32_t age = (now_ - node.tick) & kTickMask;
    // Ahead of `now_`: uses are not always told in order.
    return age > kOldest + 3 * kRound ? 0 : std::min(age, kOldest);
  }

  // A pause counts as three days at most, less what is still to be looked at since the last one: of
  // what is older than that the model tells nothing but the order, and that is kept.
  void pass(std::uint64_t ticks) {
    const std::uint64_t behind = std::min<std::uint64_t>(aging_due_ / nodes_.size(), kRound);
    const std::uint64_t passed = std::min(ticks, kRound - behind);
    now_ = (now_ + passed) & kTickMask;
    aging_due_ += passed * nodes_.size();
    for (std::uint64_t looks = 0; aging_due_ >= kRound && looks < kMostLooks; ++looks) {
      aging_due_ -= kRound;
      Node& node = nodes_[aged_];
      aged_ = aged_ + 1 < nodes_.size() ? aged_ + 1 : 0;
      if (age_of(node) >= kOldest) node.tick = (now_ - kOldest) & kTickMask;
    }
  }

  // No further than marks ahead of `now_` are known for that.
  void step_back(std::uint64_t ticks) {
    now_ =
        (now_ - static_cast<std::uint32_t>(std::min<std::uint64_t>(ticks, kRound / 2))) & kTickMask;
  }

  static void set_use(Node& node, std::uint32_t tick, const Use& use) {
    node.tick = tick & kTickMask;
    node.set_of(use.of);
    node.priority = static_cast<std::uint32_t>(use.priority) & 3U;
  }

  // It is not what it was when it was chosen.
  void renounce(SlotIndex slot) {
    if (victim_ == slot) victim_.reset();
    if (second_ == slot.value()) second_ = kNoSlot;
  }

  void touch_now(SlotIndex slot) {
    TERRACE_CHECK(slot.value() < nodes_.size());
    Node& node = nodes_[slot.value()];
    node.tick = now_ & kTickMask;
    renounce(slot);
    if (node.is_evictable != 0) return;
    node.is_evictable = 1;
    ++evictable_;
    if (node.has_children == 0) enter_order(slot.value());
  }

  void enter_order(std::uint32_t slot) {
    leaves_[leaf_count_] = slot;
    nodes_[slot].count = ++leaf_count_ & kMostHazardSlots;
  }

  void leave_order(std::uint32_t slot) {
    const std::uint32_t place = nodes_[slot].count - 1;
    const std::uint32_t last = leaves_[--leaf_count_];
    leaves_[place] = last;
    nodes_[last].count = (place + 1) & kMostHazardSlots;
    nodes_[slot].count = 0;
  }

  void set_parent(std::uint32_t slot, std::optional<SlotIndex> parent) {
    const std::uint32_t wanted = parent && parent->value() != slot ? parent->value() + 1 : 0;
    Node& node = nodes_[slot];
    if (node.parent == wanted) return;
    if (node.parent != 0) drop_child(node.parent - 1);
    node.parent = wanted & kMostHazardSlots;
    if (wanted != 0) add_child(wanted - 1);
  }

  void add_child(std::uint32_t slot) {
    Node& node = nodes_[slot];
    if (node.has_children == 0) {
      if (node.is_evictable != 0) leave_order(slot);
      node.has_children = 1;
      node.count = 0;
      renounce(SlotIndex(slot));
    }
    ++node.count;
  }

  void drop_child(std::uint32_t slot) {
    Node& node = nodes_[slot];
    if (--node.count > 0) return;
    node.has_children = 0;
    if (node.is_evictable == 0) return;
    enter_order(slot);
    // Else one draw would take the ends of two chains, where one chain is worth less.
    if (second_ != kNoSlot && rank(slot) < rank(second_)) second_ = slot;
  }

  [[nodiscard]] std::uint64_t rank(std::uint32_t slot) const {
    const Node& node = nodes_[slot];
    const std::uint32_t age = age_of(node);
    if (returns_ == nullptr) return rank_of(0, age);
    return rank_of(returns_->worth(node.of(), age) * kWeights[node.priority], age);
  }

  // rank() of the first `count`.
  void rank_all(const std::array<std::uint32_t, kDrawn>& slots, std::size_t count,
                std::array<std::uint64_t, kDrawn>& ranks) const {
    std::array<std::uint32_t, kDrawn> ages;  // NOLINT: all of them are filled in below.
    std::array<ReturnClass, kDrawn> of;
    std::array<float, kDrawn> weights;  // NOLINT: likewise.
    if (count < kDrawn) {
      ages.fill(0);
      weights.fill(0);
    }
    for (std::size_t i = 0; i < count; ++i) {
      const Node& node = nodes_[slots[i]];
      ages[i] = age_of(node);
      of[i] = node.of();
      weights[i] = kWeights[node.priority];
    }
    std::array<float, kDrawn> worths{};
    if (returns_ != nullptr) returns_->worths(of, ages, worths);
    for (std::size_t i = 0; i < kDrawn; ++i) ranks[i] = rank_of(worths[i] * weights[i], ages[i]);
  }

  // Every draw is two cache misses in a large pool: all are asked for before any is waited for.
  [[nodiscard]] SlotIndex worst_drawn() const {
    std::array<std::uint32_t, kDrawn> drawn;  // NOLINT: the first `count` are filled in below.
    const std::size_t count = draw(drawn);
    for (std::size_t i = 0; i < count; ++i) {
      drawn[i] = leaves_[drawn[i]];
      __builtin_prefetch(nodes_.data() + drawn[i]);
    }
    std::array<std::uint64_t, kDrawn> ranks;  // NOLINT: likewise.
    rank_all(drawn, count, ranks);
    Ranked worst{.slot = drawn[0], .rank = ranks[0]};
    Ranked second;
    for (std::size_t i = 1; i < count; ++i) {
      const Ranked one{.slot = drawn[i], .rank = ranks[i]};
      if (one.rank >= second.rank || one.slot == worst.slot) continue;
      second = one;
      if (second.rank < worst.rank) std::swap(worst, second);
    }
    if (leaf_count_ > kDrawn) second_ = second.slot;
    return SlotIndex(worst.slot);
  }

  // Places among the leaves: all of them where there are few. How many.
  std::size_t draw(std::array<std::uint32_t, kDrawn>& places) const {
    const std::uint32_t leaves = leaf_count_;
    if (leaves <= kDrawn) {
      std::iota(places.begin(), places.begin() + leaves, 0U);
      return leaves;
    }
    Rng rng = rng_;  // Here it stays in a register.
    for (std::uint32_t& place : places) {
      place = static_cast<std::uint32_t>(rng.below(leaves));
      __builtin_prefetch(leaves_.data() + place);
    }
    rng_ = rng;
    return kDrawn;
  }

  // Only inner blocks can go, while what hangs below them is in use: rare, so it may take a search,
  // which goes on where the last one ended.
  [[nodiscard]] SlotIndex any_evictable() const {
    for (std::uint64_t i = 0; i < nodes_.size(); ++i) {
      search_ = (search_ + 1) % nodes_.size();
      if (nodes_[search_].is_evictable != 0) break;
    }
    return SlotIndex(static_cast<std::uint32_t>(search_));
  }

  index::ZeroedArray<Node> nodes_;
  index::ZeroedArray<std::uint32_t> leaves_;  // Evictable ones, in no order.
  std::uint32_t leaf_count_ = 0;
  std::uint32_t evictable_ = 0;  // Leaves and others.
  std::uint32_t now_ = 0;        // Of the last use, in ticks of its own modulo 24 days.
  std::uint64_t told_tick_ = 0;  // The same, as it was told.
  bool has_clock_ = false;
  std::uint64_t aged_ = 0;       // The next node that is to be looked at.
  std::uint64_t aging_due_ = 0;  // Ticks, times nodes.
  mutable std::optional<SlotIndex> victim_;
  // The next victim but one, where a draw gave two and nothing was used since.
  mutable std::uint32_t second_ = kNoSlot;
  mutable std::uint64_t search_ = 0;
  mutable Rng rng_{1};
  std::shared_ptr<const ReturnModel> returns_;
};

}  // namespace

std::unique_ptr<EvictionPolicy> make_hazard(std::uint32_t slots,
                                            std::shared_ptr<const ReturnModel> returns) {
  if (slots > kMostHazardSlots) return nullptr;
  auto nodes = index::ZeroedArray<Node>::create(slots);
  auto leaves = index::ZeroedArray<std::uint32_t>::create(slots);
  if (!nodes || !leaves) return nullptr;
  return std::make_unique<Hazard>(std::move(*nodes), std::move(*leaves), std::move(returns));
}

}  // namespace terrace::policy
