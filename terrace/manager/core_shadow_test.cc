// Hits that are checked: the request computes, and stored and computed blocks are compared. One
// claim a test, with virtual time and a made-up engine.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "terrace/manager/shadow_rig_internal.h"

namespace terrace::manager {
namespace {

using rig::Checked;
using rig::checking;
using rig::plant;
using rig::Rig;

TEST(CoreShadowTest, WithoutAShareEveryHitIsLoaded) {
  Rig rig;
  rig.run_cold(Rig::make_tokens(4, 1));
  const Checked checked(rig, 4);
  EXPECT_EQ(rig.look_up(checked.id), 4U);
  EXPECT_FALSE(rig.core.find(checked.id)->shadow.is_drawn);
  EXPECT_EQ(rig.counters.shadow_requests.value(), 0U);
}

TEST(CoreShadowTest, ACheckedHitIsComputedAndEqualBlocksAgree) {
  Rig rig(checking(1));
  rig.run_cold(Rig::make_tokens(4, 1));
  Checked checked(rig, 4);
  EXPECT_EQ(checked.compute(), 0U);
  EXPECT_EQ(rig.core.shadows().held(), 4U);
  checked.step();
  EXPECT_EQ(rig.counters.shadow_equal.value(), 4U);
  EXPECT_EQ(rig.counters.shadow_tokens.value(), 16U);
  EXPECT_EQ(rig.counters.shadow_bytes.value(), 4 * rig::kPieceBytes * rig::kPieces);
  EXPECT_EQ(rig.core.shadows().held(), 0U);
  EXPECT_EQ(rig.core.shadows().under_way(), 0U);
  EXPECT_EQ(rig.count(catalog::SlotState::kFilling), 0U);
  EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
  EXPECT_EQ(rig.counters.offload_blocks.value(), 4U);  // Stored once.
  EXPECT_EQ(rig.end(checked.id).first_miss, MissReason::kShadow);
  EXPECT_FALSE(rig.core.shadows().is_quarantined());
}

TEST(CoreShadowTest, WhatFollowsACheckedHitIsStoredAsEver) {
  Rig rig(checking(1));
  rig.run_cold(Rig::make_tokens(2, 1));
  Checked checked(rig, 5);
  EXPECT_EQ(checked.compute(), 0U);
  checked.step();
  EXPECT_EQ(rig.counters.shadow_equal.value(), 2U);
  EXPECT_EQ(rig.counters.offload_blocks.value(), 5U);
}

TEST(CoreShadowTest, TheLastBitsOfANumberAreNoReasonToStop) {
  Rig rig(checking(1));
  rig.run_cold(Rig::make_tokens(1, 1));
  Checked checked(rig, 1);
  (void)checked.compute();
  std::string& device = rig.ranks[0].device[checked.table[0]];
  bool has_changed = false;
  for (std::size_t at = 0; at < device.size() && !has_changed; at += 4) {
    float value = 0;
    std::memcpy(&value, device.data() + at, sizeof value);
    if (!std::isnormal(value)) continue;  // Made-up bytes hold all kinds of numbers.
    device[at] = static_cast<char>(device[at] ^ 1);
    has_changed = true;
  }
  ASSERT_TRUE(has_changed);
  checked.step();
  EXPECT_EQ(rig.counters.shadow_within.value(), 1U);
  EXPECT_FALSE(rig.core.shadows().is_quarantined());
}

TEST(CoreShadowTest, WhatIsBelowHostIsBroughtUpAndChecked) {
  Rig rig(checking(1, {.has_disk = true}));
  rig.run_cold(Rig::make_tokens(4, 1));
  Checked checked(rig, 4);
  for (const SequenceHash& hash : rig.hashes(checked.id)) {
    Context& context = rig.core.context();
    const auto slot = context.pool().find(context.key_of(GroupId(0), hash));
    ASSERT_TRUE(slot.has_value());
    ASSERT_TRUE(context.remove(*slot, MissReason::kEvicted));
  }
  const RequestId again = rig.begin(checked.tokens);
  EXPECT_EQ(rig.look_up(again), 0U);
  EXPECT_EQ(rig.core.shadows().held(), 4U);
  EXPECT_TRUE(rig.accept(again, 0, 0, checked.table).is_ok());
  for (std::uint64_t block = 0; block < 4; ++block) rig.compute(again, block, checked.table[block]);
  rig.advance(again, 4, checked.table);
  rig.step();
  EXPECT_EQ(rig.counters.shadow_equal.value(), 4U);
}

TEST(CoreShadowTest, TheShareHoldsAndFollowsFromTheSeedAlone) {
  const auto checked_hits = [](std::uint64_t seed) {
    Rig rig(checking(0.1));  // For its host.
    Shadows shadows(rig.core.context(), seed);
    std::vector<int> found;
    for (int hit = 0; hit < 10'000; ++hit) {
      Request request(RequestId(1), Tokens(4), {});
      if (shadows.wants(request)) found.push_back(hit);
    }
    return found;
  };
  const auto first = checked_hits(5);
  EXPECT_EQ(first, checked_hits(5));
  EXPECT_NE(first, checked_hits(6));
  EXPECT_NEAR(static_cast<double>(first.size()), 1000, 60);
}

TEST(CoreShadowTest, ARequestIsDrawnOnceHoweverOftenItIsAsked) {
  Rig rig(checking(0.5));
  rig.run_cold(Rig::make_tokens(2, 1));
  const RequestId id = rig.begin(Rig::make_tokens(2, 1));
  const std::uint64_t first = rig.look_up(id);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(rig.look_up(id), first);
}

TEST(CoreShadowTest, NoMoreThanAnEighthOfTheHostIsHeld) {
  Rig rig(checking(1));
  rig.run_cold(Rig::make_tokens(20, 1));
  const RequestId first = rig.begin(Rig::make_tokens(20, 1));
  EXPECT_EQ(rig.look_up(first), 0U);
  EXPECT_EQ(rig.core.shadows().held(), 8U);
  EXPECT_EQ(rig.counters.shadow_skipped.value(), 12U);
  // Nothing is left for another one: it is served.
  EXPECT_EQ(rig.look_up(rig.begin(Rig::make_tokens(20, 1))), 20U);
  EXPECT_EQ(rig.counters.shadow_skipped.value(), 32U);
}

TEST(CoreShadowTest, ARequestThatNeverComputesLetsGoAndIsAHitAgain) {
  Rig rig(checking(1));
  rig.run_cold(Rig::make_tokens(2, 1));
  const RequestId id = rig.begin(Rig::make_tokens(2, 1));
  EXPECT_EQ(rig.look_up(id), 0U);
  rig.clock.advance(rig.options.pin_time);
  rig.settle();
  EXPECT_EQ(rig.core.shadows().held(), 0U);
  EXPECT_EQ(rig.look_up(id), 2U);
}

TEST(CoreShadowTest, AnAbortedRequestLetsGoOfEverything) {
  Rig rig(checking(1));
  rig.run_cold(Rig::make_tokens(4, 1));
  Checked checked(rig, 4);
  (void)checked.compute();
  rig.advance(checked.id, 2, checked.table);
  (void)rig.end(checked.id);
  rig.step();
  rig.settle();
  EXPECT_EQ(rig.core.shadows().held(), 0U);
  EXPECT_EQ(rig.core.shadows().under_way(), 0U);
  EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
  EXPECT_EQ(rig.count(catalog::SlotState::kFilling), 0U);
  // Two were never ordered, two were and not copied.
  EXPECT_EQ(rig.counters.shadow_skipped.value(), 4U);
}

TEST(CoreShadowTest, AReportThatNeverComesFreesTheSlotsAndCounts) {
  Rig rig(checking(1));
  rig.run_cold(Rig::make_tokens(2, 1));
  Checked checked(rig, 2);
  (void)checked.compute();
  rig.advance(checked.id, 2, checked.table);
  const auto orders = rig.build();
  ASSERT_TRUE(orders);
  rig.clock.advance(rig.options.step_timeout);
  rig.settle();
  EXPECT_EQ(rig.count(catalog::SlotState::kQuarantined), 2U) << "a late write may land";
  EXPECT_EQ(rig.core.shadows().under_way(), 2U);
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *orders), rig.clock.now()).is_ok());
  rig.settle();
  EXPECT_EQ(rig.count(catalog::SlotState::kQuarantined), 0U);
  EXPECT_EQ(rig.core.shadows().under_way(), 0U);
  EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
  EXPECT_EQ(rig.counters.shadow_skipped.value(), 2U) << "nothing of it is believed";
}

TEST(CoreShadowTest, AHostWithoutRoomComparesNothingAndCounts) {
  Rig rig(checking(1));
  rig.run_cold(Rig::make_tokens(4, 1));
  Checked checked(rig, 4);
  EXPECT_EQ(checked.compute(), 0U);
  catalog::Pool& pool = rig.core.context().pool();
  std::vector<catalog::FillingSlot> others;
  for (std::uint64_t i = 1; i <= pool.slots(); ++i) {
    auto slot =
        rig.core.context().reserve({NamespaceId(0), GroupId(0), SequenceHash{.high = 9, .low = i}});
    if (slot) others.push_back(*std::move(slot));
  }
  checked.step();
  EXPECT_EQ(rig.counters.shadow_skipped.value(), 4U);
  EXPECT_EQ(rig.counters.shadow_equal.value(), 0U);
  EXPECT_EQ(rig.core.shadows().held(), 0U);
  EXPECT_EQ(rig.core.shadows().under_way(), 0U);
}

TEST(CoreShadowTest, APausedOwnerCopiesNothingOutToCompare) {
  Rig rig(checking(1));
  rig.run_cold(Rig::make_tokens(2, 1));
  Checked checked(rig, 2);
  (void)checked.compute();
  rig.core.set_mode(Mode::kPaused);
  rig.advance(checked.id, 2, checked.table);
  EXPECT_EQ(rig.build(), std::nullopt);
  (void)rig.end(checked.id);
  EXPECT_EQ(rig.counters.shadow_skipped.value(), 2U);
}

TEST(CoreShadowTest, AfterAPreemptionItIsStillComputed) {
  Rig rig(checking(1));
  rig.run_cold(Rig::make_tokens(4, 1));
  Checked checked(rig, 4);
  (void)checked.compute();
  rig.advance(checked.id, 2, checked.table);
  rig.step();
  EXPECT_EQ(rig.look_up(checked.id), 0U);
  checked.step();
  EXPECT_EQ(rig.counters.shadow_equal.value(), 4U);
}

TEST(CoreShadowTest, AStepBesideAFailedLoadJudgesNothing) {
  Rig rig(checking(1));
  rig.run_cold(Rig::make_tokens(2, 1));
  Checked checked(rig, 2);
  plant(rig, rig.hashes(checked.id)[0]);
  (void)checked.compute();
  rig.advance(checked.id, 2, checked.table);
  const auto orders = rig.build();
  ASSERT_TRUE(orders);
  auto report = rig.obey(0, *orders);
  report.failures.push_back({});
  ASSERT_TRUE(rig.core.take_report(report, rig.clock.now()).is_ok());
  rig.settle();
  EXPECT_FALSE(rig.core.shadows().is_quarantined());
  EXPECT_EQ(rig.counters.shadow_skipped.value(), 2U);
  EXPECT_EQ(rig.core.shadows().under_way(), 0U);
}

TEST(CoreShadowTest, ARankThatDiesLeavesNothingBehind) {
  Rig rig(checking(1, {.ranks = 2}));
  rig.run_cold(Rig::make_tokens(2, 1));
  Checked checked(rig, 2);
  (void)checked.compute();
  rig.advance(checked.id, 2, checked.table);
  const auto orders = rig.build();
  ASSERT_TRUE(orders);
  rig.kill(1);
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *orders), rig.clock.now()).is_ok());
  rig.settle();
  EXPECT_EQ(rig.count(catalog::SlotState::kQuarantined), 0U);
  EXPECT_EQ(rig.core.shadows().under_way(), 0U);
  EXPECT_EQ(rig.counters.shadow_equal.value(), 0U);
  EXPECT_FALSE(rig.core.shadows().is_quarantined());
}

TEST(CoreShadowTest, AResetMeanwhileMeansOtherWeightsPerhaps) {
  Rig rig(checking(1));
  rig.run_cold(Rig::make_tokens(2, 1));
  Checked checked(rig, 2);
  plant(rig, rig.hashes(checked.id)[0]);
  (void)checked.compute();
  rig.advance(checked.id, 2, checked.table);
  const auto orders = rig.build();
  ASSERT_TRUE(orders);
  rig.core.reset();
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *orders), rig.clock.now()).is_ok());
  rig.settle();
  EXPECT_EQ(rig.counters.shadow_skipped.value(), 2U);
  EXPECT_FALSE(rig.core.shadows().is_quarantined());
  EXPECT_EQ(rig.core.shadows().under_way(), 0U);
}

TEST(CoreShadowTest, AResetWhileTwoVersionsAreComparedCountsForNothing) {
  Rig rig(checking(1));
  rig.run_cold(Rig::make_tokens(2, 1));
  Checked checked(rig, 2);
  plant(rig, rig.hashes(checked.id)[0]);
  (void)checked.compute();
  rig.advance(checked.id, 2, checked.table);
  rig.step();
  EXPECT_EQ(rig.core.shadows().under_way(), 1U);
  rig.core.reset();
  rig.settle();
  EXPECT_FALSE(rig.core.shadows().is_quarantined());
  EXPECT_EQ(rig.core.shadows().under_way(), 0U);
}

TEST(CoreShadowTest, ATypeThatCannotBeComparedIsNeverChecked) {
  Rig rig(checking(1, {.tune = [](Options& options) { options.shadow.element.reset(); }}));
  rig.run_cold(Rig::make_tokens(2, 1));
  EXPECT_EQ(rig.look_up(rig.begin(Rig::make_tokens(2, 1))), 2U);
}

TEST(CoreShadowTest, WithWindowsEachGroupComparesWhatItHolds) {
  Rig rig(checking(1, {.tune = [](Options& options) {
                     options.layout.groups.push_back(options.layout.groups.front());
                     options.layout.groups.back().group = GroupId(1);
                     options.group_rules = {{.window = Tokens(0), .null_block = 0},
                                            {.window = Tokens(8), .null_block = 0}};
                   }}));
  const auto tokens = Rig::make_tokens(4, 1);
  const auto full = Rig::make_table(4, 1);
  const auto windowed = Rig::make_table(4, 11);
  const auto run = [&](RequestId id) {
    EXPECT_EQ(rig.look_up(id), 0U);
    EXPECT_TRUE(rig.accept_all(id, 0, 0, Rig::Tables{full, windowed}).is_ok());
    for (std::uint64_t block = 0; block < 4; ++block) {
      rig.compute(id, block, full[block], GroupId(0));
      rig.compute(id, block, windowed[block], GroupId(1));
    }
    rig.advance_all(id, 4, Rig::Tables{full, windowed});
    rig.step();
    rig.settle();
    (void)rig.end(id);
  };
  run(rig.begin(tokens));
  EXPECT_EQ(rig.counters.shadow_requests.value(), 0U);
  run(rig.begin(tokens));
  EXPECT_EQ(rig.counters.shadow_requests.value(), 1U);
  EXPECT_GE(rig.counters.shadow_equal.value(), 4U + 2U);  // The window's last two.
  EXPECT_EQ(rig.core.shadows().held(), 0U);
}

}  // namespace
}  // namespace terrace::manager
