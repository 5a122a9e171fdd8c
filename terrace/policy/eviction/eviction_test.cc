#include "terrace/policy/eviction/eviction.h"

#include <gtest/gtest.h>

#include "contract/eviction_contract.h"

namespace terrace::policy {
namespace {

INSTANTIATE_TEST_SUITE_P(Lru, EvictionContract, ::testing::Values(EvictionMaker(make_lru)));

TEST(LruTest, VictimsComeInOrderOfTheLastTouch) {
  const auto lru = make_lru(4);
  for (const std::uint32_t slot : {2U, 0U, 3U, 1U, 0U}) lru->touch(SlotIndex(slot));
  lru->remove(SlotIndex(3));
  for (const std::uint32_t expected : {2U, 1U, 0U}) {
    ASSERT_EQ(lru->victim(), SlotIndex(expected));
    lru->remove(SlotIndex(expected));
  }
  EXPECT_FALSE(lru->victim());
}

TEST(EvictionRegistryTest, AnUnknownNameIsRefusedWithTheKnownOnes) {
  const auto unknown = make_eviction("arc", 4);
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code(), Code::kInvalid);
  EXPECT_EQ(unknown.error().message(), "eviction policy \"arc\" is unknown; known: hazard, lru");
  EXPECT_TRUE(make_eviction("lru", 4));
  EXPECT_EQ(make_eviction("lru", 0).error().code(), Code::kInvalid);
}

}  // namespace
}  // namespace terrace::policy
