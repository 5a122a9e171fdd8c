#include "terrace/catalog/leaving.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "terrace/testing/keys.h"

namespace terrace::catalog {
namespace {

using testing::key;

class LeavingTest : public ::testing::Test {
 protected:
  static constexpr std::uint32_t kBlocks = 1000;

  // All blocks are chosen to leave, in the order of their numbers.
  void SetUp() override {
    for (std::uint32_t number = 0; number < kBlocks; ++number) {
      auto slot = pool_->reserve(key(number)).value();
      (void)std::move(slot).begin_fill().seal();
    }
    for (std::uint32_t number = 0; number < kBlocks; ++number) {
      const BlockKey victim = pool_->next_victim()->key;
      leaving_.add({.key = victim, .slot = pool_->begin_evict().value()});
    }
  }
  void use(std::uint32_t number) { pool_->touch(key(number)); }
  // A turn looks at some of them.
  void let_all_go() {
    for (std::uint32_t turn = 0; turn <= 2 * kBlocks / 64; ++turn) leaving_.let_go();
  }
  std::vector<BlockKey> take_all() {
    std::vector<BlockKey> keys;
    while (auto block = leaving_.take()) keys.push_back(block->key);
    return keys;
  }

  std::unique_ptr<Pool> pool_ = Pool::create({.slots = kBlocks}).value();
  Leaving leaving_;
};

TEST_F(LeavingTest, ThoseNobodyUsedGoInTheOrderInWhichTheyWereChosen) {
  for (const std::uint32_t number : {0U, 3U, 998U}) use(number);
  EXPECT_EQ(leaving_.size(), kBlocks);
  std::vector<BlockKey> expected;
  for (std::uint32_t number = 0; number < kBlocks; ++number) {
    if (number != 0 && number != 3 && number != 998) expected.push_back(key(number));
  }
  EXPECT_EQ(take_all(), expected);
  EXPECT_FALSE(leaving_.has_any());
  EXPECT_EQ(leaving_.size(), 0U);
  EXPECT_EQ(pool_->count(SlotState::kSealed), 3U);
}

TEST_F(LeavingTest, WhatWasLetGoIsNotCountedAnyMoreAndNeverComes) {
  std::uint32_t used = 0;
  for (std::uint32_t number = 0; number < kBlocks; number += 7, ++used) use(number);
  let_all_go();
  EXPECT_EQ(leaving_.size(), kBlocks - used);
  EXPECT_EQ(pool_->pinned(), 0U);
  EXPECT_EQ(take_all().size(), kBlocks - used);
  EXPECT_EQ(leaving_.size(), 0U);
}

TEST_F(LeavingTest, TheCountStaysRightWhileSomeAreTakenAndOthersComeBack) {
  std::uint32_t used = 0;
  std::uint32_t taken = 0;
  for (std::uint32_t number = 0; number < kBlocks; number += 2) {
    if (pool_->contains(key(number))) ++used;
    use(number);
    if (number % 8 == 0) taken += leaving_.take().has_value() ? 1 : 0;
    leaving_.let_go();
  }
  let_all_go();
  EXPECT_EQ(leaving_.size(), kBlocks - used - taken);
  EXPECT_EQ(pool_->count(SlotState::kEvicting), leaving_.size());
  EXPECT_EQ(take_all().size(), kBlocks - used - taken);
}

TEST_F(LeavingTest, AllThatAreLeftCanBeForgottenAtOnce) {
  for (std::uint32_t number = 0; number < kBlocks; number += 3) use(number);
  let_all_go();
  leaving_.clear();
  EXPECT_EQ(leaving_.size(), 0U);
  EXPECT_FALSE(leaving_.take().has_value());
  EXPECT_EQ(pool_->count(SlotState::kEvicting), 0U);
}

}  // namespace
}  // namespace terrace::catalog
