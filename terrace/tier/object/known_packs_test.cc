#include <gtest/gtest.h>

#include <map>
#include <set>

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

TEST(KnownPacksTest, BehavesLikeAMapOverManyRandomSteps) {
  Rng rng(7);
  KnownPacks known = make(40);
  std::map<std::uint64_t, Nanoseconds> until;  // By pack.
  std::vector<std::uint64_t> order;
  Nanoseconds now = kNow;
  for (int step = 0; step < 20'000; ++step) {
    const std::uint64_t number = rng.below(30);
    const auto hashes = pack_of(number);
    now = now + milliseconds(static_cast<std::int64_t>(rng.below(3000)));
    switch (rng.below(3)) {
      case 0:
        known.add(hashes, now);
        std::erase(order, number);
        order.push_back(number);
        until[number] = now + seconds(60);
        if (order.size() > 10) {
          until.erase(order.front());
          order.erase(order.begin());
        }
        break;
      case 1:
        known.remove(hashes[3], now);
        std::erase(order, number);
        until.erase(number);
        break;
      default:
        const auto place = known.find(hashes[rng.below(4)], now);
        const auto wanted = until.find(number);
        EXPECT_EQ(place.has_value(), wanted != until.end() && now < wanted->second) << step;
    }
    ASSERT_LE(known.packs(), 10U);
  }
}

}  // namespace
}  // namespace terrace::tier::object
