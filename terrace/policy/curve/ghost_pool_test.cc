#include <gtest/gtest.h>

#include <algorithm>

#include "terrace/base/rng.h"
#include "terrace/policy/curve/ghost_pool_internal.h"
#include "terrace/testing/keys.h"

namespace terrace::policy {
namespace {

std::uint32_t ask(GhostPool& pool, std::span<const SequenceHash> chain, bool is_stored = true) {
  pool.begin(Nanoseconds(0), is_stored);
  for (const SequenceHash& hash : chain) pool.add(hash);
  return pool.end({});
}

// What was used last, newest first; a chain's own blocks stay.
class Naive {
 public:
  explicit Naive(std::size_t slots) : slots_(slots) {}
  std::uint32_t ask(const std::vector<SequenceHash>& chain, bool is_stored) {
    std::uint32_t leading = 0;
    bool is_leading = true;
    std::vector<SequenceHash> held;
    for (const SequenceHash& hash : chain) {
      if (std::erase(others_, hash) > 0) {
        held.push_back(hash);
        leading += is_leading ? 1 : 0;
        continue;
      }
      is_leading = false;
      if (others_.size() + held.size() == slots_ && others_.empty()) is_stored = false;
      if (!is_stored) continue;
      if (others_.size() + held.size() == slots_) others_.pop_back();
      held.push_back(hash);
    }
    others_.insert(others_.begin(), held.begin(), held.end());
    return leading;
  }

 private:
  std::size_t slots_;
  std::vector<SequenceHash> others_;
};

TEST(GhostPoolTest, ByLruItHoldsWhatWasUsedLast) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    Rng rng(seed);
    GhostPool pool = GhostPool::create(20, "lru", nullptr).value();
    Naive naive(20);
    for (int i = 0; i < 2000; ++i) {
      const auto chain = testing::chain(100 * rng.below(6), 1 + rng.below(i % 50 == 0 ? 30 : 9));
      const bool is_stored = rng.below(8) > 0;
      ASSERT_EQ(ask(pool, chain, is_stored), naive.ask(chain, is_stored))
          << "seed " << seed << ", request " << i;
    }
  }
}

TEST(GhostPoolTest, AChainThatIsTooLongIsHeldFromItsFrontOn) {
  for (const char* eviction : {"lru", "hazard"}) {
    GhostPool pool = GhostPool::create(10, eviction, nullptr).value();
    EXPECT_EQ(ask(pool, testing::chain(1, 25)), 0U);
    EXPECT_EQ(ask(pool, testing::chain(1, 25)), 10U);
    EXPECT_EQ(ask(pool, testing::chain(1000, 4)), 0U);
    EXPECT_EQ(ask(pool, testing::chain(1, 25)), 6U);  // The deepest went.
  }
}

TEST(GhostPoolTest, WhatIsNotStoredIsNotHeld) {
  GhostPool pool = GhostPool::create(10, "hazard", nullptr).value();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ask(pool, testing::chain(1, 4), false), 0U);
  EXPECT_EQ(ask(pool, testing::chain(1, 2)), 0U);
  EXPECT_EQ(ask(pool, testing::chain(1, 4), false), 2U);
  EXPECT_EQ(ask(pool, testing::chain(1, 4), false), 2U);
}

}  // namespace
}  // namespace terrace::policy
