#include <gtest/gtest.h>

#include <map>
#include <utility>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/policy/returns/class_tree_internal.h"
#include "terrace/testing/property.h"

namespace terrace::policy {
namespace {

using Place = ClassTree::Place;
constexpr Place kRoot = ClassTree::kRoot;

Trait trait_of(std::uint64_t number) {
  return {static_cast<Level>(1 + number % 5), static_cast<std::uint8_t>(number / 5)};
}

class ClassTreeTest : public ::testing::Test {
 protected:
  // Below `parent`, in a place that nobody has.
  Place add(Place parent, Trait trait, std::uint32_t request = 0) {
    const Place place = tree_.vacant(parent, trait).value();
    tree_.begin(place, parent, trait, {request, 0});
    return place;
  }
  // One branch, of which 254 have used none twice.
  void fill(std::uint32_t request = 0) {
    for (std::uint64_t i = 0; tree_.size() < ClassTree::kMost; ++i) {
      if (i % 250 == 0) branch_ = add(kRoot, {Level::kTurn, static_cast<std::uint8_t>(i / 250)});
      leaves_.push_back(add(branch_, trait_of(i % 250), request));
    }
    for (const Place leaf : leaves_) tree_.note_use(leaf);
  }
  ClassTree tree_;
  Place branch_ = kRoot;
  std::vector<Place> leaves_;
  const Trait other_{Level::kEnding, 200};
};

TEST_F(ClassTreeTest, TheLeafThatWasUsedLeastGivesItsPlace) {
  fill();
  for (const Place leaf : leaves_) {
    if (leaf != leaves_[7]) tree_.note_use(leaf);
  }
  EXPECT_FALSE(tree_.vacant(kRoot, other_));
  const auto place = tree_.least_used(kRoot, other_, {10'000, 0});
  ASSERT_EQ(place, leaves_[7]);
  const Trait before = tree_.trait(*place);
  const Place parent = tree_.parent(*place);
  tree_.begin(*place, kRoot, other_, {10'000, 0});
  EXPECT_EQ(tree_.find(kRoot, other_), place);
  EXPECT_FALSE(tree_.find(parent, before));
  EXPECT_EQ(tree_.size(), ClassTree::kMost);
}

// What was used often before the traffic changed gives way to what is used now.
TEST_F(ClassTreeTest, UsesOfLongAgoCountLess) {
  fill();
  for (int i = 0; i < 100; ++i) tree_.note_use(leaves_[3]);
  for (std::uint32_t round = 0; round < 10 * 4; ++round) {
    for (Place place = 0; place < ClassTree::kMost; ++place) tree_.fade(place);
  }
  for (const Place leaf : leaves_) {
    if (leaf != leaves_[3]) tree_.note_use(leaf);
  }
  EXPECT_EQ(tree_.least_used(kRoot, other_, {10'000, 0}), leaves_[3]);
}

TEST_F(ClassTreeTest, WhatHadNoTimeToBeUsedKeepsItsPlace) {
  fill(1000);
  EXPECT_FALSE(tree_.least_used(kRoot, other_, {1000 + ClassTree::kLeastLife - 1, 0}));
  EXPECT_TRUE(tree_.least_used(kRoot, other_, {1000 + 2 * ClassTree::kLeastLife, 0}));
}

TEST_F(ClassTreeTest, OneRequestInEightTakesAPlace) {
  fill();
  const auto take = [&](std::uint32_t request, std::uint8_t value) {
    const auto place = tree_.least_used(kRoot, {Level::kSize, value}, {request, 0});
    if (place) tree_.begin(*place, kRoot, {Level::kSize, value}, {request, 0});
    return place.has_value();
  };
  EXPECT_TRUE(take(10'000, 1));
  EXPECT_FALSE(take(10'000, 2));
  EXPECT_FALSE(take(10'007, 2));
  EXPECT_TRUE(take(10'008, 2));
}

TEST_F(ClassTreeTest, AClassIsNotReplacedByOneBelowIt) {
  fill();
  for (const Place leaf : leaves_) {
    if (leaf != leaves_[7]) tree_.note_use(leaf);
  }
  EXPECT_NE(tree_.least_used(leaves_[7], other_, {10'000, 0}), leaves_[7]);
}

TEST_F(ClassTreeTest, PromisesKeepTheirPlacesAndAtMostHalfOfAll) {
  const Trait promise{Level::kPromise, 1};
  const Trait kept{Level::kPromise, 2};
  const Place promised = add(kRoot, promise);
  add(kRoot, kept);
  std::vector<Place> below;
  for (std::uint64_t i = 0; tree_.vacant(promised, trait_of(i)); ++i) {
    below.push_back(add(promised, trait_of(i)));
  }
  EXPECT_EQ(tree_.size(), 1 + ClassTree::kMostPromised);
  fill();
  for (const Place place : below) tree_.note_use(place);
  for (const Place place : below) tree_.note_use(place);
  // Others are used less, but are not theirs to take.
  const auto place = tree_.least_used(promised, other_, {10'000, 0});
  ASSERT_TRUE(place);
  EXPECT_EQ(tree_.parent(*place), promised);
  EXPECT_EQ(tree_.least_used(kRoot, other_, {10'000, 0}), leaves_.front());
}

TEST_F(ClassTreeTest, WhoeverBearsAClassOfBeforeBearsNoneOfItsPlace) {
  fill();
  const Place place = leaves_.front();
  const Place parent = tree_.parent(place);
  const ReturnClass before = tree_.class_at(place);
  ASSERT_EQ(tree_.place_of(before), place);
  EXPECT_EQ(tree_.tenancy(place).heir, place);
  tree_.begin(place, kRoot, other_, {10'000, 77});
  EXPECT_EQ(tree_.place_of(before), kRoot);
  EXPECT_EQ(tree_.place_of(tree_.class_at(place)), place);
  EXPECT_EQ(tree_.tenancy(place).heir, parent);
  EXPECT_EQ(tree_.tenancy(place).since, 77U);
}

// Against a map: what began is found, below its parent, until another has its place.
TEST(ClassTreeProperty, FindsWhatHasAPlaceAndNothingElse) {
  const auto [seed, steps] = testing::property(31, 20'000);
  Rng rng(seed);
  ClassTree tree;
  std::map<std::pair<Place, std::pair<int, int>>, Place> known;
  std::map<Place, std::pair<Place, Trait>> places;
  const auto name = [](Place parent, Trait trait) {
    return std::pair(parent, std::pair(static_cast<int>(trait.level), int{trait.value}));
  };
  for (std::uint32_t i = 0; i < steps; ++i) {
    Place parent = kRoot;
    if (!places.empty() && rng.chance(70)) {
      parent =
          std::next(places.begin(), static_cast<std::ptrdiff_t>(rng.below(places.size())))->first;
    }
    const Trait trait = trait_of(rng.below(30));
    const auto expected = known.find(name(parent, trait));
    const auto found = tree.find(parent, trait);
    ASSERT_EQ(found.has_value(), expected != known.end());
    if (found) {
      ASSERT_EQ(*found, expected->second);
      tree.note_use(*found);
      continue;
    }
    auto place = tree.vacant(parent, trait);
    if (!place) place = tree.least_used(parent, trait, {i, 0});
    if (!place) continue;
    if (const auto before = places.find(*place); before != places.end()) {
      for (const auto& [other, of] : places) ASSERT_NE(of.first, *place) << "not a leaf";
      known.erase(name(before->second.first, before->second.second));
    }
    tree.begin(*place, parent, trait, {i, 0});
    known[name(parent, trait)] = *place;
    places[*place] = {parent, trait};
    tree.fade(static_cast<Place>(rng.below(tree.size())));
  }
  ASSERT_EQ(tree.size(), ClassTree::kMost);
  for (const auto& [place, of] : places) ASSERT_EQ(tree.find(of.first, of.second), place);
}

}  // namespace
}  // namespace terrace::policy
