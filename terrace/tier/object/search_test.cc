#include <gtest/gtest.h>

#include "terrace/base/rng.h"
#include "terrace/tier/object/search_internal.h"

namespace terrace::tier::object {
namespace {

struct Outcome {
  std::uint64_t found = 0;
  int rounds = 0;
  int asked = 0;
};

Outcome search(std::uint64_t known, std::uint64_t packs, std::uint64_t there) {
  Search search(known, packs);
  Outcome outcome;
  for (auto names = search.next(); !names.empty(); names = search.next()) {
    EXPECT_LE(names.size(), Search::kAtOnce);
    ++outcome.rounds;
    for (const std::uint64_t pack : names) {
      EXPECT_LT(pack, packs);
      ++outcome.asked;
      search.answer(pack, pack < there);
    }
    if (outcome.rounds > 100) break;
  }
  outcome.found = search.found();
  return outcome;
}

TEST(SearchTest, FindsHowManyPacksLeadTheChain) {
  for (std::uint64_t packs = 0; packs < 40; ++packs) {
    for (std::uint64_t there = 0; there <= packs; ++there) {
      for (std::uint64_t known = 0; known <= there; ++known) {
        EXPECT_EQ(search(known, packs, there).found, there) << packs << " " << known;
      }
    }
  }
}

TEST(SearchTest, FewRoundsAndNamesAreEnough) {
  Rng rng(1);
  for (int round = 0; round < 500; ++round) {
    const std::uint64_t packs = 1 + rng.below(2048);
    const Outcome outcome = search(0, packs, rng.below(packs + 1));
    EXPECT_LE(outcome.rounds, 4);
    EXPECT_LE(outcome.asked, 32);
  }
  EXPECT_EQ(search(0, 1, 1).asked, 1);
  EXPECT_EQ(search(5, 5, 5).asked, 0);
  EXPECT_EQ(search(0, 0, 0).asked, 0);
}

TEST(SearchTest, AHoleEndsTheSearchAndNeverMakesItLonger) {
  Search search(0, 8);
  for (const std::uint64_t pack : search.next()) search.answer(pack, pack != 3);
  EXPECT_TRUE(search.next().empty());
  EXPECT_EQ(search.found(), 3U);
}

}  // namespace
}  // namespace terrace::tier::object
