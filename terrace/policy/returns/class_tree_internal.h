// The classes of a ReturnModel as a tree: a class is one more thing known than its parent. There
// are places for a few hundred. When all are taken, a class that begins takes the place of the one
// that was used least of late, so that the tree follows its traffic; at most every eighth request,
// and never from one that has had no time to be used: of what comes once and not again there is
// more than of anything else.
//
// Whoever bears a class of before means none of those that have its place now: place_of() tells the
// two apart for 2^7 classes of a place, each of which has it for kLeastLife requests at least.
// Blocks in pools bear the place alone, and the time of their use: see Tenancy.
// Threading: thread-compatible.  Waits: never.  Memory: 10 KiB.
// Source: Metwally, Agrawal and El Abbadi, Efficient computation of frequent and top-k elements in
// data streams, 2005 (few places for many, by use).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "terrace/policy/returns/use.h"

namespace terrace::policy {

// What sets a class apart from its parent.
enum class Level : std::uint8_t { kAll, kTurn, kGap, kSize, kEnding, kAnswer, kPromise };
inline constexpr std::size_t kLevelCount = 7;

struct Trait {
  Level level = Level::kAll;
  std::uint8_t value = 0;
  friend bool operator==(const Trait&, const Trait&) = default;
};

class ClassTree {
 public:
  using Place = std::uint16_t;
  static constexpr std::size_t kMost = 512;
  static constexpr std::size_t kMostPromised = kMost / 2;
  static constexpr Place kRoot = 0;
  static constexpr std::uint32_t kLeastLife = 512;   // Requests.
  static constexpr std::uint32_t kUsesHalf = 1'024;  // Requests that halve what uses count.

  // Of whom the blocks are that bear a place: used before `since`, of a class of before, and worth
  // what its parent's are.
  struct Tenancy {
    std::uint32_t since = 0;  // Seconds.
    Place heir = 0;           // The place itself if there was none before.
  };
  // When something happens.
  struct Moment {
    std::uint32_t request = 0;  // Number; wraps around.
    std::uint32_t second = 0;
  };

  [[nodiscard]] std::optional<Place> find(Place parent, Trait trait) const;
  // Where a class below `parent` may begin without another's end. Nothing if no place is left, or
  // its share has none: whatever is promised, half are left for those who promise nothing.
  [[nodiscard]] std::optional<Place> vacant(Place parent, Trait trait) const;
  // Whose place it may take otherwise: of the leaves the one that was used least. O(kMost).
  [[nodiscard]] std::optional<Place> least_used(Place parent, Trait trait, Moment now) const;
  // A class begins, at what one of these two said.
  void begin(Place place, Place parent, Trait trait, Moment now);

  void note_use(Place place);
  // To be called for all in turn, once for so many requests.
  void fade(Place place);
  static constexpr std::uint32_t kFadeEvery = kUsesHalf / 4;
  // Of one that has been used before.
  void set_uses(Place place, float uses);

  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] Place parent(Place place) const { return nodes_[place].parent; }
  [[nodiscard]] Trait trait(Place place) const { return nodes_[place].trait; }
  [[nodiscard]] Tenancy tenancy(Place place) const {
    return {nodes_[place].since, nodes_[place].heir};
  }
  [[nodiscard]] ReturnClass class_at(Place place) const {
    const unsigned generation = nodes_[place].generation;
    return ReturnClass(static_cast<std::uint16_t>(generation * kMost + place));
  }
  // The root's if its place is another's now.
  [[nodiscard]] Place place_of(ReturnClass of) const {
    const auto place = static_cast<Place>(of.value() % kMost);
    return class_at(place) == of ? place : kRoot;
  }

 private:
  static constexpr std::size_t kCells = 2 * kMost;
  static constexpr std::uint32_t kBornUnit = 64;  // Requests.
  static constexpr std::uint32_t kOneUse = 64;

  struct Node {
    std::uint32_t since = 0;
    Place parent = 0;  // The root's is itself.
    Place heir = 0;
    std::uint16_t born = 0;  // In kBornUnit, and wraps around: one more short life in millions.
    std::uint16_t uses = 0;  // In parts of one.
    Trait trait{};
    std::uint8_t children = 0;
    std::uint8_t generation : 7 = 0;
    std::uint8_t is_promised : 1 = 0;  // Below a promise, or one itself.
  };
  static_assert(sizeof(Node) == 16);

  [[nodiscard]] bool is_promise(Place parent, Trait trait) const {
    return nodes_[parent].is_promised != 0 || trait.level == Level::kPromise;
  }
  [[nodiscard]] static std::size_t home(Place parent, Trait trait) {
    const auto name = (static_cast<std::size_t>(trait.level) << 8U) | trait.value;
    return (parent * 0x9E37U + name * 0x85EBU) % kCells;
  }
  // Where it is in the table, or the empty cell where it would be.
  [[nodiscard]] std::size_t cell_of(Place parent, Trait trait) const;
  void end(Place place);

  std::array<Node, kMost> nodes_{};
  std::array<Place, kCells> children_{};  // Open addressing by parent and trait; place, 0 = empty.
  std::size_t size_ = 1;
  std::size_t promised_ = 0;    // Of them.
  std::uint32_t replaced_ = 0;  // Number of the request that replaced a class last.
};

}  // namespace terrace::policy
