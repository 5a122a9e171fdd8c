#include "terrace/index/block_index.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <set>
#include <vector>

#include "terrace/base/check.h"
#include "terrace/base/rng.h"
#include "terrace/testing/keys.h"
#include "terrace/testing/property.h"

namespace terrace::index {
namespace {

using testing::chain;
using testing::key;

TEST(BlockIndexTest, RefusesSizesItCannotAddress) {
  EXPECT_EQ(BlockIndex::create(0).error().code(), Code::kInvalid);
  EXPECT_EQ(BlockIndex::create(std::uint64_t{1} << 31U).error().code(), Code::kInvalid);
}

TEST(BlockIndexTest, FirstWriterOfAKeyStays) {
  auto index = BlockIndex::create(4).value();
  EXPECT_TRUE(index.insert(key(1), SlotIndex(3)));
  EXPECT_FALSE(index.insert(key(1), SlotIndex(2)));
  EXPECT_EQ(index.find(key(1)), SlotIndex(3));
  EXPECT_EQ(index.size(), 1U);
}

TEST(BlockIndexTest, EqualHashesOfOtherNamespacesAndGroupsAreOtherKeys) {
  auto index = BlockIndex::create(4).value();
  ASSERT_TRUE(index.insert(key(1, 1, 0), SlotIndex(0)));
  EXPECT_FALSE(index.find(key(1, 2, 0)));
  EXPECT_FALSE(index.find(key(1, 1, 1)));
  EXPECT_FALSE(index.erase(key(1, 2, 0)));
  EXPECT_TRUE(index.insert(key(1, 2, 0), SlotIndex(1)));
  EXPECT_EQ(index.find(key(1, 1, 0)), SlotIndex(0));
  EXPECT_EQ(index.find(key(1, 2, 0)), SlotIndex(1));
}

TEST(BlockIndexTest, OneHalfOfTheHashIsNotEnough) {
  auto index = BlockIndex::create(4).value();
  BlockKey stored = key(1);
  ASSERT_TRUE(index.insert(stored, SlotIndex(0)));
  stored.hash.low ^= 1;
  EXPECT_FALSE(index.find(stored));
  stored.hash.low ^= 1;
  stored.hash.high ^= 1;
  EXPECT_FALSE(index.find(stored));
}

TEST(BlockIndexTest, MatchEndsAtTheFirstGap) {
  auto index = BlockIndex::create(100).value();
  const auto hashes = chain(0, 60);
  for (std::uint32_t i = 0; i < 60; ++i) {
    if (i == 37) continue;
    ASSERT_TRUE(index.insert(key(i), SlotIndex(i)));
  }
  std::vector<SlotIndex> slots(hashes.size());
  ASSERT_EQ(index.match(NamespaceId(1), GroupId(0), hashes, slots), 37U);
  for (std::uint32_t i = 0; i < 37; ++i) EXPECT_EQ(slots[i], SlotIndex(i));
  EXPECT_EQ(index.match(NamespaceId(1), GroupId(0), hashes, {}), 37U);
  EXPECT_EQ(index.match(NamespaceId(2), GroupId(0), hashes, {}), 0U);
  EXPECT_EQ(index.match(NamespaceId(1), GroupId(0), {}, {}), 0U);
}

TEST(BlockIndexTest, HiddenEntriesAreNotFoundUntilPublished) {
  auto index = BlockIndex::create(4).value();
  const Home home = index.insert_hidden(key(1), SlotIndex(2));
  EXPECT_EQ(home, index.home_of(key(1)));
  EXPECT_FALSE(index.find(key(1)));
  EXPECT_TRUE(index.has_hidden(key(1)));
  EXPECT_EQ(index.match(NamespaceId(1), GroupId(0), chain(1, 1), {}), 0U);
  EXPECT_EQ(index.key_of(home, SlotIndex(2)), key(1));
  EXPECT_TRUE(index.publish(home, SlotIndex(2)));
  EXPECT_EQ(index.find(key(1)), SlotIndex(2));
  EXPECT_FALSE(index.has_hidden(key(1)));
}

TEST(BlockIndexTest, OfTwoHiddenEntriesOfAKeyTheFirstPublishedStays) {
  auto index = BlockIndex::create(4).value();
  const Home home = index.insert_hidden(key(1), SlotIndex(0));
  EXPECT_EQ(index.insert_hidden(key(1), SlotIndex(1)), home);
  EXPECT_TRUE(index.publish(home, SlotIndex(1)));
  EXPECT_FALSE(index.publish(home, SlotIndex(0)));
  EXPECT_TRUE(index.erase(home, SlotIndex(0)));
  EXPECT_FALSE(index.erase(home, SlotIndex(0)));
  EXPECT_EQ(index.find(key(1)), SlotIndex(1));
}

TEST(BlockIndexTest, AFullIndexStillAnswersAndRefusesMore) {
  for (const std::uint32_t capacity : {1U, 2U, 3U, 4U, 5U, 1000U}) {
    auto index = BlockIndex::create(capacity).value();
    for (std::uint32_t i = 0; i < capacity; ++i) ASSERT_TRUE(index.insert(key(i), SlotIndex(i)));
    for (std::uint32_t i = 0; i < capacity; ++i) EXPECT_EQ(index.find(key(i)), SlotIndex(i));
    EXPECT_FALSE(index.find(key(capacity)));
    EXPECT_THROW(index.insert(key(capacity), SlotIndex(0)), base::Breach);
  }
}

TEST(BlockIndexTest, TakesThirtyTwoBytesPerBlock) {
  const auto index = BlockIndex::create(10'000'000).value();
  EXPECT_LE(index.memory(), Bytes(32 * 10'000'000ULL) + 32_KiB);
}

// A chain of every namespace and group with the same hash must not pile up in one run.
TEST(BlockIndexTest, EqualHashesOfManyGroupsHaveDifferentHomes) {
  const auto index = BlockIndex::create(100'000).value();
  std::set<std::uint32_t> homes;
  for (std::uint16_t group = 0; group < 1000; ++group) {
    homes.insert(index.home_of(key(7, 1, group)).value());
  }
  EXPECT_GT(homes.size(), 980U);
}

// More pairs of namespace and group than the table has numbers for.
TEST(BlockIndexTest, AnyNumberOfNamespacesIsKeptApart) {
  auto index = BlockIndex::create(6000).value();
  for (std::uint16_t n = 0; n < 3000; ++n) {
    ASSERT_TRUE(index.insert(key(7, n), SlotIndex(n)));
    ASSERT_TRUE(index.insert(key(8, n), SlotIndex(3000U + n)));
  }
  const auto hashes = chain(7, 3);
  for (std::uint16_t n = 0; n < 3000; ++n) {
    ASSERT_FALSE(index.insert(key(7, n), SlotIndex(0)));
    ASSERT_EQ(index.find(key(7, n)), SlotIndex(n));
    ASSERT_EQ(index.key_of(index.home_of(key(7, n)), SlotIndex(n)), key(7, n));
    ASSERT_FALSE(index.find(key(9, n)));
    std::array<SlotIndex, 3> slots;
    ASSERT_EQ(index.match(NamespaceId(n), GroupId(0), hashes, slots), 2U);
    ASSERT_EQ(slots[1], SlotIndex(3000U + n));
  }
  for (std::uint16_t n = 0; n < 3000; n += 2) ASSERT_TRUE(index.erase(key(7, n)));
  for (std::uint16_t n = 0; n < 3000; ++n) {
    ASSERT_EQ(index.find(key(7, n)).has_value(), n % 2 == 1);
    ASSERT_EQ(index.find(key(8, n)), SlotIndex(3000U + n));
  }
}

TEST(BlockIndexTest, MatchesLongerThanOneWindow) {
  auto index = BlockIndex::create(5000).value();
  for (std::uint32_t n = 0; n < 5000; ++n) ASSERT_TRUE(index.insert(key(n), SlotIndex(n)));
  const auto hashes = chain(0, 5000);
  std::vector<SlotIndex> slots(hashes.size());
  ASSERT_EQ(index.match(NamespaceId(1), GroupId(0), hashes, slots), 5000U);
  for (std::uint32_t n = 0; n < 5000; ++n) ASSERT_EQ(slots[n], SlotIndex(n));
  for (const std::uint32_t gap : {4999U, 577U, 576U, 575U, 64U, 63U, 0U}) {
    ASSERT_TRUE(index.erase(key(gap)));
    EXPECT_EQ(index.match(NamespaceId(1), GroupId(0), hashes, slots), gap);
  }
}

// The naive twin: entries by slot, and by (key, visible).
class IndexModel {
 public:
  IndexModel(std::uint32_t capacity, std::uint64_t seed)
      : index_(BlockIndex::create(capacity).value()), capacity_(capacity), rng_(seed) {}

  void step() {
    const BlockKey k = random_key();
    switch (rng_.below(8)) {
      case 0:
      case 1:
        insert(k);
        break;
      case 2:
        insert_hidden(k);
        break;
      case 3:
        publish();
        break;
      case 4:
        erase_slot();
        break;
      case 5:
        ASSERT_EQ(index_.erase(k), erase_visible(k));
        break;
      case 6:
        match(k);
        break;
      default:
        look(k);
        break;
    }
    ASSERT_EQ(index_.size(), slots_.size());
  }
  void sweep() {
    for (const auto& [slot, entry] : slots_) {
      ASSERT_EQ(index_.key_of(index_.home_of(entry.first), SlotIndex(slot)), entry.first);
    }
    for (std::uint64_t n = 0; n < capacity_ * 2; ++n) look(numbered(n));
  }

 private:
  // Few keys, so that they collide; neighbours in a chain, so that runs are matched.
  BlockKey numbered(std::uint64_t n) const {
    return key(n / 4, static_cast<std::uint16_t>(1 + n % 2), static_cast<std::uint16_t>(n / 2 % 2));
  }
  BlockKey random_key() { return numbered(rng_.below(capacity_ * 2)); }
  std::optional<std::uint32_t> free_slot() {
    if (slots_.size() == capacity_) return std::nullopt;
    auto slot = static_cast<std::uint32_t>(rng_.below(capacity_));
    while (slots_.contains(slot)) slot = (slot + 1) % capacity_;
    return slot;
  }
  void insert(const BlockKey& k) {
    const auto slot = free_slot();
    if (!slot) return;
    const bool is_new = !visible_.contains(k);
    ASSERT_EQ(index_.insert(k, SlotIndex(*slot)), is_new);
    if (!is_new) return;
    visible_[k] = *slot;
    slots_[*slot] = {k, true};
  }
  void insert_hidden(const BlockKey& k) {
    const auto slot = free_slot();
    if (!slot) return;
    ASSERT_EQ(index_.insert_hidden(k, SlotIndex(*slot)), index_.home_of(k));
    slots_[*slot] = {k, false};
    ++hidden_[k];
  }
  std::map<std::uint32_t, std::pair<BlockKey, bool>>::iterator some_slot() {
    auto found = slots_.lower_bound(static_cast<std::uint32_t>(rng_.below(capacity_)));
    return found == slots_.end() ? slots_.begin() : found;
  }
  void publish() {
    if (slots_.empty()) return;
    auto& [slot, entry] = *some_slot();
    const bool can = !entry.second && !visible_.contains(entry.first);
    ASSERT_EQ(index_.publish(index_.home_of(entry.first), SlotIndex(slot)), can);
    if (!can) return;
    entry.second = true;
    --hidden_[entry.first];
    visible_[entry.first] = slot;
  }
  void erase_slot() {
    if (slots_.empty()) return;
    const auto found = some_slot();
    const auto [k, is_visible] = found->second;
    ASSERT_TRUE(index_.erase(index_.home_of(k), SlotIndex(found->first)));
    if (is_visible) {
      visible_.erase(k);
    } else {
      --hidden_[k];
    }
    slots_.erase(found);
  }
  bool erase_visible(const BlockKey& k) {
    const auto found = visible_.find(k);
    if (found == visible_.end()) return false;
    slots_.erase(found->second);
    visible_.erase(found);
    return true;
  }
  void look(const BlockKey& k) {
    const auto found = visible_.find(k);
    const auto answer = index_.find(k);
    ASSERT_EQ(answer.has_value(), found != visible_.end());
    if (answer) {
      ASSERT_EQ(answer->value(), found->second);
    }
    const auto count = hidden_.find(k);
    ASSERT_EQ(index_.has_hidden(k), count != hidden_.end() && count->second > 0);
  }
  void match(const BlockKey& k) {
    const auto hashes = chain(rng_.below(capacity_ / 2 + 1), rng_.below(40));
    std::size_t expected = 0;
    while (expected < hashes.size() &&
           visible_.contains({k.name_space, k.group, hashes[expected]})) {
      ++expected;
    }
    std::vector<SlotIndex> slots(hashes.size());
    ASSERT_EQ(index_.match(k.name_space, k.group, hashes, slots), expected);
    for (std::size_t i = 0; i < expected; ++i) {
      ASSERT_EQ(slots[i].value(), visible_.at({k.name_space, k.group, hashes[i]}));
    }
    std::vector<std::optional<SlotIndex>> each(hashes.size(), SlotIndex(capacity_));
    index_.find_each(k.name_space, k.group, hashes, each);
    for (std::size_t i = 0; i < hashes.size(); ++i) {
      ASSERT_EQ(each[i], index_.find({k.name_space, k.group, hashes[i]}));
    }
  }

  BlockIndex index_;
  std::uint32_t capacity_;
  Rng rng_;
  std::map<std::uint32_t, std::pair<BlockKey, bool>> slots_;
  std::map<BlockKey, std::uint32_t> visible_;
  std::map<BlockKey, int> hidden_;
};

TEST(BlockIndexProperty, AgreesWithAMapAfterEachStep) {
  const auto [seed, steps] = testing::property(20261122, 3'000'000);
  Rng seeds(seed);
  for (const std::uint32_t capacity : {1U, 3U, 7U, 64U, 1000U}) {
    IndexModel model(capacity, seeds.next());
    for (std::uint64_t i = 0; i < steps / 5; ++i) {
      model.step();
      if (i % 50'000 == 0) model.sweep();
      if (::testing::Test::HasFatalFailure()) FAIL() << "capacity " << capacity << " step " << i;
    }
    model.sweep();
  }
}

}  // namespace
}  // namespace terrace::index
