#include <algorithm>

#include "terrace/policy/returns/class_tree_internal.h"

namespace terrace::policy {

namespace {

constexpr std::uint32_t kReplaceEvery = 8;  // Requests.
constexpr std::uint8_t kMostChildren = 255;

}  // namespace

std::size_t ClassTree::cell_of(Place parent, Trait trait) const {
  std::size_t at = home(parent, trait);
  for (; children_[at] != 0; at = (at + 1) % kCells) {
    const Node& known = nodes_[children_[at]];
    if (known.parent == parent && known.trait == trait) break;
  }
  return at;
}

std::optional<ClassTree::Place> ClassTree::find(Place parent, Trait trait) const {
  const Place found = children_[cell_of(parent, trait)];
  return found == 0 ? std::nullopt : std::optional(found);
}

std::optional<ClassTree::Place> ClassTree::vacant(Place parent, Trait trait) const {
  if (size_ == kMost || nodes_[parent].children == kMostChildren) return std::nullopt;
  if (promised_ == kMostPromised && is_promise(parent, trait)) return std::nullopt;
  return static_cast<Place>(size_);
}

std::optional<ClassTree::Place> ClassTree::least_used(Place parent, Trait trait, Moment now) const {
  if (now.request - replaced_ < kReplaceEvery) return std::nullopt;
  if (nodes_[parent].children == kMostChildren) return std::nullopt;
  const bool is_full = promised_ == kMostPromised && is_promise(parent, trait);
  const std::uint32_t unit = now.request / kBornUnit;
  std::optional<Place> least;
  for (Place place = 1; place < size_; ++place) {
    const Node& node = nodes_[place];
    if (least && node.uses >= nodes_[*least].uses) continue;
    if (node.children > 0 || place == parent) continue;
    // Promises keep theirs: who promises later would not be believed.
    if (node.trait.level == Level::kPromise || (is_full && node.is_promised == 0)) continue;
    const auto life = static_cast<std::uint16_t>(unit - node.born);
    if (life > kLeastLife / kBornUnit) least = place;
  }
  return least;
}

void ClassTree::begin(Place place, Place parent, Trait trait, Moment now) {
  Node& node = nodes_[place];
  if (place == size_) {
    ++size_;
    node.heir = place;
  } else {
    end(place);
    node.heir = node.parent;
    node.since = now.second;
    node.generation = (node.generation + 1U) & 127U;
    replaced_ = now.request;
  }
  children_[cell_of(parent, trait)] = place;
  ++nodes_[parent].children;
  node.parent = parent;
  node.trait = trait;
  node.children = 0;
  node.uses = 0;
  node.born = static_cast<std::uint16_t>(now.request / kBornUnit);
  node.is_promised = is_promise(parent, trait) ? 1 : 0;
  promised_ += node.is_promised;
}

// Those behind its cell move up to where they are found without it.
void ClassTree::end(Place place) {
  const Node& node = nodes_[place];
  std::size_t hole = cell_of(node.parent, node.trait);
  for (std::size_t at = (hole + 1) % kCells; children_[at] != 0; at = (at + 1) % kCells) {
    const Node& next = nodes_[children_[at]];
    const std::size_t from_home = (at - home(next.parent, next.trait)) % kCells;
    if (from_home < (at - hole) % kCells) continue;
    children_[hole] = children_[at];
    hole = at;
  }
  children_[hole] = 0;
  --nodes_[node.parent].children;
  promised_ -= node.is_promised;
}

void ClassTree::note_use(Place place) {
  Node& node = nodes_[place];
  node.uses = static_cast<std::uint16_t>(std::min<std::uint32_t>(node.uses + kOneUse, UINT16_MAX));
}

void ClassTree::fade(Place place) {
  constexpr std::uint32_t kKept = 215;  // 256 * 2^(-1/4).
  Node& node = nodes_[place];
  node.uses = static_cast<std::uint16_t>(node.uses * kKept / 256);
}

void ClassTree::set_uses(Place place, float uses) {
  nodes_[place].uses = static_cast<std::uint16_t>(
      std::min(uses * static_cast<float>(kOneUse), static_cast<float>(UINT16_MAX)));
}

}  // namespace terrace::policy
