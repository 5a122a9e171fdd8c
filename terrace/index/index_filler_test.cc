#include "terrace/index/index_filler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "terrace/base/rng.h"
#include "terrace/testing/keys.h"

namespace terrace::index {
namespace {

using testing::key;

// Blocks with few different keys, in slots of their own, entered part by part in pieces.
class FillRound {
 public:
  FillRound(std::uint64_t seed, std::uint32_t capacity, std::size_t parts)
      : rng_(seed),
        index_(BlockIndex::create(capacity).value()),
        parts_(parts),
        precedence_(capacity, 0),
        pieces_(parts) {
    // One block of another namespace and one of ours are there before.
    index_.insert(key(0, 9), SlotIndex(0));
    index_.insert(key(1), SlotIndex(1));
    winners_[1] = 1;
  }

  void fill() {
    IndexFiller filler(index_, NamespaceId(1), GroupId(0), parts_);
    const std::uint64_t keys = 1 + rng_.below(2 * precedence_.size());
    for (std::uint32_t slot = 2; slot < precedence_.size(); ++slot) {
      if (rng_.chance(10)) continue;
      const std::uint64_t number = rng_.below(keys);
      precedence_[slot] = 1 + rng_.below(precedence_.size());
      const Home home = filler.home_of(key(number).hash);
      ASSERT_EQ(home, index_.home_of(key(number)));
      pieces_[filler.part_of(home)].push_back({key(number).hash, home, SlotIndex(slot)});
      const auto [held, is_new] = winners_.try_emplace(number, slot);
      if (is_new) continue;
      ++losers_;
      const bool was_there_before = held->second == 1;
      if (!was_there_before && precedence_[held->second] < precedence_[slot]) held->second = slot;
    }
    // Parts in any order, each in several pieces.
    std::vector<std::size_t> at(parts_, 0);
    std::vector<SlotIndex> lost;
    for (bool is_more = true; is_more;) {
      is_more = false;
      for (std::size_t part = parts_; part > 0; --part) {
        const auto& piece = pieces_[part - 1];
        const std::size_t count = std::min(piece.size() - at[part - 1], 1 + rng_.below(100));
        filler.enter(part - 1, std::span(piece).subspan(at[part - 1], count), precedence_, lost);
        at[part - 1] += count;
        is_more = is_more || at[part - 1] < piece.size();
      }
    }
    filler.finish(precedence_, lost);
    EXPECT_EQ(lost.size(), losers_);
    for (const SlotIndex slot : lost) {
      for (const auto& [number, winner] : winners_) ASSERT_NE(winner, slot.value());
    }
  }

  void check() {
    EXPECT_EQ(index_.size(), winners_.size() + 1);
    EXPECT_EQ(index_.find(key(0, 9)), SlotIndex(0));
    for (const auto& [number, slot] : winners_) {
      ASSERT_EQ(index_.find(key(number)), SlotIndex(slot)) << number;
      ASSERT_EQ(index_.key_of(index_.home_of(key(number)), SlotIndex(slot)), key(number));
    }
    // Whole also for those who take entries out again.
    for (const auto& [number, slot] : winners_) ASSERT_TRUE(index_.erase(key(number)));
    EXPECT_EQ(index_.size(), 1U);
  }

 private:
  Rng rng_;
  BlockIndex index_;
  std::size_t parts_;
  std::vector<std::uint64_t> precedence_;
  std::vector<std::vector<IndexFiller::Entry>> pieces_;
  std::map<std::uint64_t, std::uint32_t> winners_;
  std::size_t losers_ = 0;
};

TEST(IndexFillerTest, AgreesWithAMapWhateverThePartsAndTheirOrder) {
  const std::uint64_t seed = random_u64();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng seeds(seed);
  for (int round = 0; round < 300; ++round) {
    for (const std::size_t parts : {1U, 2U, 3U, 8U}) {
      FillRound fill(seeds.next(), static_cast<std::uint32_t>(2 + seeds.below(600)), parts);
      fill.fill();
      if (::testing::Test::HasFatalFailure()) return;
      fill.check();
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

// More pairs of namespace and group than the table has numbers for.
TEST(IndexFillerTest, PairsWithoutANumberAreFilledToo) {
  auto index = BlockIndex::create(3000).value();
  for (std::uint16_t n = 0; n < 1100; ++n) index.insert(key(7, n), SlotIndex(n));
  IndexFiller filler(index, NamespaceId(2000), GroupId(0), 2);
  std::vector<std::uint64_t> precedence(3000, 0);
  std::vector<SlotIndex> losers;
  for (std::uint32_t n = 0; n < 1000; ++n) {
    const SlotIndex slot(2000 + n);
    precedence[slot.value()] = 1;
    const IndexFiller::Entry entry{key(n).hash, filler.home_of(key(n).hash), slot};
    filler.enter(filler.part_of(entry.home), std::span(&entry, 1), precedence, losers);
  }
  filler.finish(precedence, losers);
  EXPECT_TRUE(losers.empty());
  for (std::uint32_t n = 0; n < 1000; ++n) {
    ASSERT_EQ(index.find(key(n, 2000)), SlotIndex(2000 + n));
  }
  EXPECT_EQ(index.find(key(7, 1099)), SlotIndex(1099));
}

}  // namespace
}  // namespace terrace::index
