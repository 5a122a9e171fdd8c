// The core with a shared store that comes later, is chosen for, or gives to the disk.
// One claim a test, with virtual time and made-up engines (core_rig_internal.h).
#include <gtest/gtest.h>

#include "terrace/manager/core_rig_internal.h"

namespace terrace::manager {
namespace {

using rig::Rig;
using rig::RigOptions;

class CoreObjectLaterTest : public ::testing::Test {
 protected:
  std::unique_ptr<Rig> node(RigOptions given = {}) {
    given.store = place_;
    given.host_blocks = 64;
    return std::make_unique<Rig>(given);
  }
  static std::unique_ptr<policy::AdmissionFilter> second_sighting() {
    return policy::make_frequency(
        {.threshold = 2, .decay_interval = seconds(3600), .entries = 1024});
  }
  std::size_t packs() const {
    return static_cast<std::size_t>(std::ranges::count_if(
        place_->objects, [](const auto& item) { return item.first.ends_with(".pack"); }));
  }
  std::size_t asked(const std::string& op) const {
    return static_cast<std::size_t>(std::ranges::count_if(
        place_->asked, [&](const std::string& text) { return text.starts_with(op + " "); }));
  }
  // A request that finds all of it and computes nothing.
  static void run_warm(Rig& rig, std::span<const std::uint32_t> tokens, bool can_store = true) {
    const RequestId id = rig.begin(tokens);
    rig.core.find(id)->can_store = can_store;
    const std::uint64_t blocks = tokens.size() / rig::kBlockTokens;
    ASSERT_EQ(rig.look_up(id), blocks);
    ASSERT_TRUE(rig.accept(id, 0, blocks, Rig::make_table(blocks)).is_ok());
    rig.step();
    (void)rig.end(id);
    rig.settle();
  }
  void fail_all() {
    place_->fault = [](const auto&) { return Status(Code::kUnavailable, "connection refused"); };
  }
  // Until the store is asked again, and has answered.
  static void recover(Rig& rig) {
    for (int i = 0; i < 40; ++i) {
      rig.clock.advance(seconds(1));
      rig.settle();
    }
  }

  std::shared_ptr<testing::MemoryPlace> place_ = std::make_shared<testing::MemoryPlace>();
};

TEST_F(CoreObjectLaterTest, WhatWasComputedWhileTheStoreWasAwayIsPutWhenItIsFound) {
  fail_all();
  const auto first = node();
  recover(*first);
  const auto tokens = Rig::make_tokens(9, 1);
  first->run_cold(tokens);
  place_->fault = nullptr;
  recover(*first);
  EXPECT_EQ(packs(), 0U);
  run_warm(*first, tokens);
  EXPECT_EQ(packs(), 2U);
  const auto second = node();
  EXPECT_EQ(second->look_up(second->begin(tokens)), 8U);
}

TEST_F(CoreObjectLaterTest, WhatIsThereIsNotAskedAboutAtEveryHit) {
  const auto first = node();
  const auto tokens = Rig::make_tokens(8, 1);
  first->run_cold(tokens);
  const std::size_t asked_before = place_->asked.size();
  for (int i = 0; i < 20; ++i) {
    run_warm(*first, tokens);
    first->clock.advance(seconds(60));  // Beyond the time for which it is counted on.
  }
  EXPECT_EQ(place_->asked.size(), asked_before);
}

TEST_F(CoreObjectLaterTest, APackThatWasDroppedIsPutAtALaterHit) {
  const auto first = node();
  const auto tokens = Rig::make_tokens(8, 1);
  place_->fault = [](const transfer::ObjectRequest& request) {
    return request.op == transfer::ObjectOp::kPut ? Status(Code::kExhausted, "full") : Status();
  };
  first->run_cold(tokens);
  EXPECT_EQ(first->counters.drop_pack.value(), 8U);
  place_->fault = nullptr;
  run_warm(*first, tokens);
  EXPECT_EQ(packs(), 2U);
}

TEST_F(CoreObjectLaterTest, WhoMayNotStorePutsNothingThatHeFinds) {
  fail_all();
  const auto first = node();
  recover(*first);
  const auto tokens = Rig::make_tokens(8, 1);
  first->run_cold(tokens);
  place_->fault = nullptr;
  recover(*first);
  run_warm(*first, tokens, false);
  first->core.set_mode(Mode::kReadOnly);
  run_warm(*first, tokens);
  EXPECT_EQ(packs(), 0U);
  first->core.set_mode(Mode::kOn);
  run_warm(*first, tokens);
  EXPECT_EQ(packs(), 2U);
}

TEST_F(CoreObjectLaterTest, AStoreThatOpensLaterIsUsedAndNobodyWaitedForIt) {
  const auto tokens = Rig::make_tokens(8, 1);
  const auto late = node({.is_store_late = true});
  late->core.close_objects("no such mount");
  const RequestId early = late->begin(Rig::make_tokens(4, 9));
  EXPECT_EQ(late->offered(early), 0U) << "at once";
  late->run_cold(tokens);
  EXPECT_EQ(late->core.objects_problem(), "no such mount");
  late->open_store({.store = place_});
  EXPECT_EQ(late->core.objects_problem(), "");
  place_->is_held = true;
  EXPECT_EQ(late->offered(late->begin(Rig::make_tokens(4, 8))), 0U) << "nor now";
  place_->is_held = false;
  late->settle();
  run_warm(*late, tokens);
  EXPECT_EQ(packs(), 2U);
  node()->run_cold(Rig::make_tokens(4, 2));
  EXPECT_EQ(late->look_up(late->begin(Rig::make_tokens(4, 2))), 4U);
}

TEST_F(CoreObjectLaterTest, AResetBeforeItOpensReachesItAfterwards) {
  const auto tokens = Rig::make_tokens(4, 1);
  node()->run_cold(tokens);
  const auto late = node({.is_store_late = true});
  late->core.close_objects("no such mount");
  late->core.reset();
  ASSERT_TRUE(late->core.drop_outcome().has_value());
  EXPECT_FALSE(late->core.drop_outcome()->is_ok());
  late->open_store({.store = place_});
  late->settle();
  ASSERT_TRUE(late->core.drop_outcome().has_value());
  EXPECT_TRUE(late->core.drop_outcome()->is_ok());
  const auto other = node();
  EXPECT_EQ(other->look_up(other->begin(tokens)), 0U);
}

TEST_F(CoreObjectLaterTest, WithTheFilterAPackIsPutWhenASecondRequestHasItsBlocks) {
  const auto first = node();
  first->core.context().pack_admission = second_sighting();
  const auto tokens = Rig::make_tokens(8, 1);
  first->run_cold(tokens);
  EXPECT_EQ(packs(), 0U);
  EXPECT_EQ(first->counters.drop_pack_admission.value(), 8U);
  EXPECT_EQ(first->core.context().pool().pinned(), 0U);
  run_warm(*first, tokens);
  EXPECT_EQ(packs(), 2U);
  // One request that computes it in two steps is one sighting.
  const auto other = Rig::make_tokens(8, 2);
  const RequestId id = first->begin(other);
  (void)first->look_up(id);
  const auto table = Rig::make_table(8);
  ASSERT_TRUE(first->accept(id, 0, 0, table).is_ok());
  for (const std::uint64_t end : {3U, 8U}) {
    for (std::uint64_t block = 0; block < end; ++block) first->compute(id, block, table[block]);
    first->advance(id, end, table);
    first->step();
    first->settle();
  }
  (void)first->end(id);
  first->settle();
  EXPECT_EQ(packs(), 2U);
}

TEST_F(CoreObjectLaterTest, WhatCameFromTheStoreGoesToTheDiskToo) {
  const auto tokens = Rig::make_tokens(8, 1);
  node()->run_cold(tokens);
  const auto second = node({.has_disk = true});
  run_warm(*second, tokens);
  const RequestId id = second->begin(tokens);
  for (const SequenceHash& hash : second->hashes(id)) {
    EXPECT_TRUE(second->disk.contains(GroupId(0), hash));
  }
}

TEST_F(CoreObjectLaterTest, TheDisksFilterChoosesAmongThem) {
  const auto tokens = Rig::make_tokens(8, 1);
  node()->run_cold(tokens);
  const auto second = node({.has_disk = true});
  second->core.context().admission = second_sighting();
  const std::size_t before = second->disk.blocks.size();
  run_warm(*second, tokens);
  EXPECT_EQ(second->disk.blocks.size(), before);
  EXPECT_EQ(second->counters.drop_admission.value(), 8U);
}

TEST_F(CoreObjectLaterTest, WithoutPromotionTheDiskNeverGetsThem) {
  const auto tokens = Rig::make_tokens(8, 1);
  node()->run_cold(tokens);
  const auto second = node(
      {.has_disk = true, .tune = [](Options& options) { options.object.is_promoted = false; }});
  run_warm(*second, tokens);
  const auto hashes = second->hashes(second->begin(tokens));
  // Others push them out of host.
  for (std::uint32_t seed = 2; seed < 30; ++seed) second->run_cold(Rig::make_tokens(5, seed));
  EXPECT_FALSE(second->in_host(hashes[0]));
  for (const SequenceHash& hash : hashes) {
    EXPECT_FALSE(second->disk.contains(GroupId(0), hash));
  }
  EXPECT_EQ(second->counters.drop_demote.value(), 0U);
  EXPECT_EQ(second->core.context().left_to_store(), 0U) << "only what is in host is remembered";
  EXPECT_EQ(second->look_up(second->begin(tokens)), 8U) << "out of the store again";
}

TEST_F(CoreObjectLaterTest, WithoutPromotionWhatTheStoreHasLostMeanwhileIsStillWrittenAtEviction) {
  const auto tokens = Rig::make_tokens(8, 1);
  node()->run_cold(tokens);
  const auto second = node(
      {.has_disk = true, .tune = [](Options& options) { options.object.is_promoted = false; }});
  run_warm(*second, tokens);
  const auto hashes = second->hashes(second->begin(tokens));
  second->clock.advance(seconds(601));  // What was found there is not counted on any more.
  for (std::uint32_t seed = 2; seed < 30; ++seed) second->run_cold(Rig::make_tokens(5, seed));
  EXPECT_TRUE(second->disk.contains(GroupId(0), hashes[0]));
}

TEST_F(CoreObjectLaterTest, OldPacksAreRemovedOnlyWhileStoringIsOn) {
  const auto tune = [](tier::ObjectTier::Options& options) {
    options.collect.bounds.max_age = seconds(86'400);
    options.collect.requests_per_second = 1'000'000;
  };
  place_->wall_seconds = [] { return std::int64_t{1'700'000'000}; };  // When the packs are put.
  node()->run_cold(Rig::make_tokens(8, 1));
  const auto owner = node({.tune_objects = tune, .opens = false});
  place_->wall_seconds = [&] { return owner->clock.wall_seconds(); };
  owner->core.set_mode(Mode::kReadOnly);
  owner->open();
  recover(*owner);
  EXPECT_EQ(asked("remove"), 0U);
  owner->core.set_mode(Mode::kOn);
  recover(*owner);
  EXPECT_EQ(asked("remove"), 2U);
}

}  // namespace
}  // namespace terrace::manager
