// Packs of the core on their way into a shared store: what is held, offered, dropped and counted.
// One claim a test, with virtual time and made-up engines (core_rig_internal.h).
#include <gtest/gtest.h>

#include "terrace/manager/core_rig_internal.h"

namespace terrace::manager {
namespace {

using rig::Rig;
using rig::RigOptions;

class CorePacksTest : public ::testing::Test {
 protected:
  std::unique_ptr<Rig> node(RigOptions given = {}) {
    given.store = place_;
    if (given.host_blocks == 16) given.host_blocks = 64;
    given.tune = [tune = given.tune](Options& options) {
      options.lookup_deadline = milliseconds(50);
      if (tune) tune(options);
    };
    return std::make_unique<Rig>(given);
  }
  std::ptrdiff_t puts() const {
    return std::ranges::count_if(
        place_->asked, [](const std::string& text) { return text.starts_with("put v1/"); });
  }
  // A request that finds all of it and computes nothing.
  static void run_warm(Rig& rig, std::span<const std::uint32_t> tokens) {
    const RequestId id = rig.begin(tokens);
    const std::uint64_t blocks = tokens.size() / rig::kBlockTokens;
    ASSERT_EQ(rig.look_up(id), blocks);
    ASSERT_TRUE(rig.accept(id, 0, blocks, Rig::make_table(blocks)).is_ok());
    rig.step();
    (void)rig.end(id);
    rig.settle();
  }
  void release(Rig& rig) {
    place_->is_held = false;
    for (int i = 0; i < 10; ++i) rig.settle();
  }

  std::shared_ptr<testing::MemoryPlace> place_ = std::make_shared<testing::MemoryPlace>();
};

TEST_F(CorePacksTest, APackUnderWayIsNotOfferedAgain) {
  const auto first = node();
  const auto tokens = Rig::make_tokens(4, 1);
  place_->is_held = true;
  first->run_cold(tokens);
  ASSERT_EQ(first->core.packs().size(), 1U);
  run_warm(*first, tokens);
  EXPECT_EQ(first->core.packs().size(), 1U);
  release(*first);
  EXPECT_EQ(puts(), 1);
}

TEST_F(CorePacksTest, APackThatIsPutKeepsItsBlocksThoughAResetForgetsThem) {
  const auto first = node();
  place_->is_held = true;
  first->run_cold(Rig::make_tokens(4, 1));
  ASSERT_EQ(first->core.context().pool().pinned(), 4U);
  first->core.reset();
  EXPECT_EQ(first->core.context().pool().pinned(), 4U) << "the store may read them still";
  release(*first);
  EXPECT_EQ(first->core.context().pool().pinned(), 0U);
}

TEST_F(CorePacksTest, APackThatWaitsIsGivenUpByAReset) {
  const auto first = node();
  first->core.set_mode(Mode::kOn);
  place_->is_held = true;
  for (std::uint32_t seed = 1; seed <= 4; ++seed) first->run_cold(Rig::make_tokens(4, seed));
  first->core.put_back_pack(1);  // As if the store had no room for it.
  const std::size_t before = first->core.packs().size();
  first->core.reset();
  EXPECT_EQ(first->core.packs().size(), before - 1);
}

TEST_F(CorePacksTest, APackThatComesBackOnceNothingIsStoredAnyMoreIsLetGo) {
  const auto first = node();
  place_->is_held = true;
  first->run_cold(Rig::make_tokens(4, 1));
  ASSERT_EQ(first->core.packs().size(), 1U);
  first->core.stop_writes();
  EXPECT_EQ(first->core.packs().size(), 1U) << "it is under way";
  first->core.put_back_pack(1);
  EXPECT_EQ(first->core.packs().size(), 0U);
  EXPECT_EQ(first->core.context().pool().pinned(), 0U);
}

TEST_F(CorePacksTest, APackThatAnotherNodePutFirstIsNoDrop) {
  const auto first = node();
  const auto second = node();
  const auto tokens = Rig::make_tokens(4, 1);
  place_->is_held = true;
  first->run_cold(tokens);
  second->run_cold(tokens);
  place_->is_held = false;
  for (int i = 0; i < 10; ++i) {
    first->settle();
    second->settle();
  }
  EXPECT_EQ(first->counters.pack_blocks.value() + second->counters.pack_blocks.value(), 4U);
  EXPECT_EQ(first->counters.drop_pack.value() + second->counters.drop_pack.value(), 0U);
}

TEST_F(CorePacksTest, WhatIsFoundWhileNoRoomIsForItIsNoDrop) {
  const auto first = node({.host_blocks = 32});
  place_->is_held = true;
  for (std::uint32_t seed = 1; seed <= 3; ++seed) first->run_cold(Rig::make_tokens(4, seed));
  ASSERT_EQ(first->counters.drop_pack.value(), 4U) << "of those that were computed";
  run_warm(*first, Rig::make_tokens(4, 3));
  EXPECT_EQ(first->counters.drop_pack.value(), 4U);
  release(*first);
  run_warm(*first, Rig::make_tokens(4, 3));
  release(*first);
  EXPECT_EQ(puts(), 3);
}

TEST_F(CorePacksTest, WhoStoresNothingWritesNothingOfTheStoreToHisDiskEither) {
  const auto tokens = Rig::make_tokens(8, 1);
  node()->run_cold(tokens);
  const auto second = node({.has_disk = true});
  const std::size_t before = second->disk.blocks.size();
  second->core.set_mode(Mode::kReadOnly);
  run_warm(*second, tokens);
  second->core.set_mode(Mode::kOn);
  second->settle();
  EXPECT_EQ(second->disk.blocks.size(), before);
}

}  // namespace
}  // namespace terrace::manager
