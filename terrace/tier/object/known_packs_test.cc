#include <gtest/gtest.h>

#include <algorithm>
#include <span>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/tier/object/known_packs_internal.h"

namespace terrace::tier::object {
namespace {

constexpr Nanoseconds kNow = seconds(100);

std::vector<SequenceHash> pack_of(std::uint64_t number, std::uint32_t blocks = 4) {
  std::vector<SequenceHash> hashes;
  hashes.reserve(blocks);
  for (std::uint64_t i = 0; i < blocks; ++i) {
    hashes.push_back({(number * blocks + i) * 0x9E3779B97F4A7C15ULL, number});
  }
  return hashes;
}

// A pack whose first `shared` blocks are those of all other packs with this head.
std::vector<SequenceHash> pack_with_head(std::uint64_t head, std::uint64_t shared,
                                         std::uint64_t number) {
  std::vector<SequenceHash> hashes = pack_of(number);
  const std::vector<SequenceHash> heads = pack_of(1'000'000 + head);
  std::ranges::copy(std::span(heads).first(shared), hashes.begin());
  return hashes;
}

KnownPacks make(std::uint64_t blocks = 400) {
  return KnownPacks(
      {.pack_blocks = 4, .blocks = blocks, .present_for = seconds(60), .absent_for = seconds(2)});
}

TEST(KnownPacksTest, EachBlockOfAPackIsFoundAtItsPlaceUntilItIsTooOld) {
  KnownPacks known = make();
  const auto hashes = pack_of(1);
  known.add(hashes, kNow);
  for (std::uint32_t block = 0; block < 4; ++block) {
    const auto place = known.find(hashes[block], kNow + seconds(59));
    ASSERT_TRUE(place.has_value());
    EXPECT_EQ(*place, (PackPlace{hashes[3], block}));
    EXPECT_FALSE(known.find(hashes[block], kNow + seconds(60)));
  }
  known.add(hashes, kNow + seconds(50));
  EXPECT_TRUE(known.find(hashes[0], kNow + seconds(100)));
  EXPECT_EQ(known.packs(), 1U);
}

TEST(KnownPacksTest, MatchIsTheLeadingRun) {
  KnownPacks known = make();
  auto chain = pack_of(1);
  known.add(chain, kNow);
  const auto second = pack_of(2);
  known.add(second, kNow);
  chain.insert(chain.end(), second.begin(), second.end());
  EXPECT_EQ(known.match(chain, kNow), 8U);
  EXPECT_EQ(known.match(std::span(chain).subspan(3), kNow), 5U);
  known.remove(chain[3], kNow);
  EXPECT_EQ(known.match(chain, kNow), 0U);
  EXPECT_EQ(known.match(std::span(chain).subspan(4), kNow), 4U);
}

TEST(KnownPacksTest, WhatIsRemovedIsAbsentForAWhileAndComesBackWhenItIsSeen) {
  KnownPacks known = make();
  const auto hashes = pack_of(1);
  known.add(hashes, kNow);
  EXPECT_FALSE(known.is_absent(hashes[3], kNow));
  known.remove(hashes[3], kNow);
  EXPECT_TRUE(known.is_absent(hashes[3], kNow + seconds(1)));
  EXPECT_FALSE(known.is_absent(hashes[3], kNow + seconds(2)));
  known.add(hashes, kNow);
  EXPECT_FALSE(known.is_absent(hashes[3], kNow));
  known.clear();
  EXPECT_FALSE(known.find(hashes[0], kNow));
}

TEST(KnownPacksTest, TheOldestGoFirstAndTheBoundHolds) {
  KnownPacks known = make(12);
  for (std::uint64_t number = 1; number <= 3; ++number) known.add(pack_of(number), kNow);
  known.add(pack_of(1), kNow);  // Seen again.
  known.add(pack_of(4), kNow);
  EXPECT_EQ(known.packs(), 3U);
  EXPECT_TRUE(known.find(pack_of(1)[0], kNow));
  EXPECT_FALSE(known.find(pack_of(2)[0], kNow));
  for (std::uint64_t number = 0; number < 100; ++number) {
    known.add_absent(pack_of(number)[3], kNow);
  }
  EXPECT_FALSE(known.is_absent(pack_of(96)[3], kNow));
  EXPECT_TRUE(known.is_absent(pack_of(99)[3], kNow));
}

TEST(KnownPacksTest, APackIsToBeTouchedOnceInItsTime) {
  KnownPacks known = make();
  const auto hashes = pack_of(1);
  EXPECT_FALSE(known.take_touch(hashes[3], kNow, seconds(10))) << "nothing is known of it";
  known.add(hashes, kNow);
  EXPECT_TRUE(known.take_touch(hashes[3], kNow, seconds(10)));
  EXPECT_FALSE(known.take_touch(hashes[3], kNow + seconds(9), seconds(10)));
  EXPECT_TRUE(known.take_touch(hashes[3], kNow + seconds(10), seconds(10)));
}

TEST(KnownPacksTest, ATouchIsRememberedForLongerThanThePack) {
  KnownPacks known = make(12);
  const auto touched_anew = [&](Nanoseconds now) {
    std::uint64_t count = 0;
    for (std::uint64_t number = 0; number < 6; ++number) {
      known.add(pack_of(number), now);
      count += known.take_touch(pack_of(number)[3], now, seconds(100)) ? 1 : 0;
    }
    return count;
  };
  EXPECT_EQ(touched_anew(kNow), 6U);
  EXPECT_EQ(known.packs(), 3U);
  EXPECT_TRUE(known.remembers(pack_of(0)[3], kNow));
  EXPECT_EQ(touched_anew(kNow + seconds(50)), 0U);
  EXPECT_EQ(touched_anew(kNow + seconds(100)), 6U);
}

TEST(KnownPacksTest, OfAPackThatIsGoneNoTouchIsRemembered) {
  KnownPacks known = make(12);
  const auto hashes = pack_of(1);
  known.add(hashes, kNow);
  ASSERT_TRUE(known.take_touch(hashes[3], kNow, seconds(100)));
  known.add(pack_of(2), kNow);
  known.add(pack_of(3), kNow);
  known.add(pack_of(4), kNow);
  known.add_absent(hashes[3], kNow);
  EXPECT_FALSE(known.remembers(hashes[3], kNow));
}

TEST(KnownPacksTest, AGuessOfAPacksNameDoesNotReplaceTheNameItWasSeenUnder) {
  KnownPacks known = make();
  const auto hashes = pack_of(1);
  known.add(hashes, kNow, 2, false);
  known.add(hashes, kNow, 0, true);
  ASSERT_TRUE(known.find(hashes[0], kNow));
  EXPECT_EQ(known.find(hashes[0], kNow)->variant, 2);
  known.add(hashes, kNow, 1, false);
  EXPECT_EQ(known.find(hashes[0], kNow)->variant, 1);
}

TEST(KnownPacksTest, WhatIsFoundAbsentAgainAndAgainPushesNothingElseOut) {
  KnownPacks known = make(12);
  known.add_absent(pack_of(1)[3], kNow);
  for (int i = 0; i < 10; ++i) known.add_absent(pack_of(2)[3], kNow);
  EXPECT_TRUE(known.is_absent(pack_of(1)[3], kNow));
  EXPECT_TRUE(known.is_absent(pack_of(2)[3], kNow));
}

TEST(KnownPacksTest, WhatIsDamagedIsAbsentUnderThatNameUntilItIsPutAnewOrAnHourHasPassed) {
  KnownPacks known({.pack_blocks = 4, .blocks = 12, .variants = 2});
  const auto hashes = pack_of(1);
  known.add(hashes, kNow, 0);
  known.add_damaged({hashes[3], 0}, kNow);
  known.add(hashes, kNow, 0);
  EXPECT_FALSE(known.find(hashes[0], kNow));
  EXPECT_FALSE(known.is_absent(hashes[3], kNow)) << "it has another name";
  known.add(hashes, kNow, 1);
  EXPECT_TRUE(known.find(hashes[0], kNow));
  known.add_damaged({hashes[3], 1}, kNow);
  EXPECT_FALSE(known.find(hashes[0], kNow));
  EXPECT_TRUE(known.is_absent(hashes[3], kNow + seconds(3599)));
  EXPECT_FALSE(known.is_absent(hashes[3], kNow + seconds(3600)));
  known.repair({hashes[3], 0});
  known.add(hashes, kNow, 0);
  EXPECT_TRUE(known.find(hashes[0], kNow));
  for (std::uint64_t number = 2; number < 10; ++number) {
    known.add_damaged({pack_of(number)[3], 0}, kNow);
  }
  EXPECT_FALSE(known.is_damaged({hashes[3], 1}, kNow)) << "the bound";
}

TEST(KnownPacksTest, AHeadThatTwoPacksShareIsFoundAsLongAsOneOfThemIsFresh) {
  KnownPacks known = make();
  const auto one = pack_with_head(0, 2, 1);
  const auto other = pack_with_head(0, 2, 2);
  known.add(one, kNow);
  known.add(other, kNow);
  known.add(one, kNow + seconds(50));
  ASSERT_EQ(known.match(one, kNow + seconds(70)), 4U);
  EXPECT_EQ(known.find(one[0], kNow + seconds(70))->pack, one[3]);
  EXPECT_EQ(known.match(other, kNow + seconds(70)), 2U) << "and no more of the other";
}

TEST(KnownPacksTest, APackThatGoesTakesNothingOfTheOneThatSharesItsHead) {
  KnownPacks known = make();
  const auto one = pack_with_head(0, 2, 1);
  const auto other = pack_with_head(0, 2, 2);
  known.add(one, kNow);
  known.add(other, kNow);
  known.remove(one[3], kNow);
  EXPECT_EQ(known.match(other, kNow), 4U);
  EXPECT_EQ(known.match(one, kNow), 2U);
  EXPECT_FALSE(known.remembers(one[2], kNow));
  known.remove(other[3], kNow);
  EXPECT_EQ(known.match(one, kNow), 0U);
  EXPECT_FALSE(known.remembers(one[0], kNow));
}

// Of 40 packs ten have nothing in common with others, the rest share one to three blocks.
struct RandomPacks {
  std::vector<std::vector<SequenceHash>> all;
  RandomPacks() {
    for (std::uint64_t number = 0; number < 40; ++number) {
      all.push_back(pack_with_head(number % 3, number % 4, number));
    }
  }
};

// The same, naively: what is known, oldest first.
struct Oracle {
  struct Item {
    std::size_t pack = 0;
    Nanoseconds until;
  };
  std::vector<Item> items;
  void remove(std::size_t pack) {
    std::erase_if(items, [&](const Item& item) { return item.pack == pack; });
  }
  void add(std::size_t pack, Nanoseconds until) {
    remove(pack);
    items.push_back({pack, until});
    if (items.size() > 10) items.erase(items.begin());
  }
  // Last blocks of the packs that have this one.
  [[nodiscard]] std::vector<SequenceHash> find(const RandomPacks& packs, const SequenceHash& hash,
                                               Nanoseconds now) const {
    std::vector<SequenceHash> found;
    for (const Item& item : items) {
      const auto& hashes = packs.all[item.pack];
      if (now < item.until && std::ranges::count(hashes, hash) > 0) found.push_back(hashes.back());
    }
    return found;
  }
};

TEST(KnownPacksTest, BehavesLikeAListOverManyRandomSteps) {
  const RandomPacks packs;
  Rng rng(7);
  KnownPacks known = make(40);
  Oracle oracle;
  Nanoseconds now = kNow;
  for (int step = 0; step < 20'000; ++step) {
    const std::size_t number = rng.below(packs.all.size());
    const auto& hashes = packs.all[number];
    now = now + milliseconds(static_cast<std::int64_t>(rng.below(6000)));
    switch (rng.below(3)) {
      case 0:
        known.add(hashes, now);
        oracle.add(number, now + seconds(60));
        break;
      case 1:
        known.remove(hashes[3], now);
        oracle.remove(number);
        break;
      default:
        break;
    }
    ASSERT_EQ(known.packs(), oracle.items.size()) << step;
    std::size_t leading = 0;
    for (std::uint32_t block = 0; block < 4; ++block) {
      const auto place = known.find(hashes[block], now);
      const auto wanted = oracle.find(packs, hashes[block], now);
      ASSERT_EQ(place.has_value(), !wanted.empty()) << step;
      if (!place) continue;
      ASSERT_EQ(std::ranges::count(wanted, place->pack), 1) << step;
      ASSERT_EQ(place->block, block) << step;
      if (leading == block) ++leading;
    }
    ASSERT_EQ(known.match(hashes, now), leading) << step;
  }
}

}  // namespace
}  // namespace terrace::tier::object
