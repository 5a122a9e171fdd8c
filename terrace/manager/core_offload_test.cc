// The core's rules of offloads: what becomes visible when, and what goes.
// One claim a test, with virtual time and a made-up engine (core_rig_internal.h).
#include <gtest/gtest.h>

#include "terrace/manager/core_rig_internal.h"

namespace terrace::manager {
namespace {

using rig::Rig;

// One block that the engine computed, and what its ranks are ordered to do about it.
struct Offered {
  explicit Offered(Rig& rig)
      : tokens(Rig::make_tokens(1, 1)), id(rig.begin(tokens)), orders(computed(rig, id)) {}

  const std::vector<std::uint32_t> tokens;
  const RequestId id;
  const wire::Orders orders;

 private:
  static wire::Orders computed(Rig& rig, RequestId id) {
    rig.compute(id, 0, 7);
    rig.advance(id, 1, Rig::make_table(1, 7));
    return rig.build().value();
  }
};

TEST(CoreOffloadTest, ABlockIsVisibleOnlyWhenEveryRankHasReportedIt) {
  Rig rig({.ranks = 2});
  const Offered offered(rig);
  ASSERT_TRUE(rig.core.take_report(rig.obey(1, offered.orders), rig.clock.now()).is_ok());
  EXPECT_EQ(rig.look_up(rig.begin(offered.tokens)), 0U);
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, offered.orders), rig.clock.now()).is_ok());
  EXPECT_EQ(rig.look_up(rig.begin(offered.tokens)), 1U);
}

TEST(CoreOffloadTest, ARankThatFilledNothingKeepsTheBlockInvisibleAndItIsOfferedAgain) {
  Rig rig({.ranks = 2});
  const Offered offered(rig);
  auto report = rig.obey(0, offered.orders);
  report.saves[0].is_filled = false;
  ASSERT_TRUE(rig.core.take_report(report, rig.clock.now()).is_ok());
  ASSERT_TRUE(rig.core.take_report(rig.obey(1, offered.orders), rig.clock.now()).is_ok());
  EXPECT_EQ(rig.look_up(rig.begin(offered.tokens)), 0U);
  EXPECT_EQ(rig.counters.drop_unfilled.value(), 1U);
  rig.advance(offered.id, 1, Rig::make_table(1, 7));
  rig.step();
  EXPECT_EQ(rig.look_up(rig.begin(offered.tokens)), 1U);
}

TEST(CoreOffloadTest, ARankThatNamesASaveTwiceIsStillOneRank) {
  Rig rig({.ranks = 2});
  const Offered offered(rig);
  auto twice = rig.obey(0, offered.orders);
  twice.saves.push_back(twice.saves[0]);
  auto unfilled = rig.obey(1, offered.orders);
  unfilled.saves[0].is_filled = false;
  ASSERT_TRUE(rig.core.take_report(twice, rig.clock.now()).is_ok());
  ASSERT_TRUE(rig.core.take_report(unfilled, rig.clock.now()).is_ok());
  EXPECT_EQ(rig.look_up(rig.begin(offered.tokens)), 0U);
  EXPECT_EQ(rig.counters.drop_unfilled.value(), 1U);
}

TEST(CoreOffloadTest, ADeadRanksSlotsAreQuarantinedUntilTheOthersAreThrough) {
  Rig rig({.ranks = 2});
  const auto tokens = Rig::make_tokens(2, 1);
  const RequestId id = rig.begin(tokens);
  rig.advance(id, 2, Rig::make_table(2));
  const auto orders = rig.build();
  const auto from_living = rig.obey(0, *orders);
  rig.kill(1);
  EXPECT_EQ(rig.count(catalog::SlotState::kQuarantined), 2U);
  ASSERT_TRUE(rig.core.take_report(from_living, rig.clock.now()).is_ok());
  EXPECT_EQ(rig.count(catalog::SlotState::kQuarantined), 0U);
  EXPECT_EQ(rig.count(catalog::SlotState::kFree), 16U);
  EXPECT_FALSE(rig.poll(rig.begin(tokens)).is_ready);  // Until it is attached again.
  rig.attach(1);
  rig.step();  // The canary again.
  EXPECT_EQ(rig.look_up(rig.begin(tokens)), 0U);
  rig.compute(id, 0, 0);
  rig.compute(id, 1, 1);
  rig.advance(id, 2, Rig::make_table(2));
  rig.step();
  EXPECT_EQ(rig.look_up(rig.begin(tokens)), 2U);
}

TEST(CoreOffloadTest, AStepWithoutReportsHoldsItsSlotsOnlyUntilTheTimeout) {
  Rig rig;
  const auto tokens = Rig::make_tokens(2, 1);
  rig.run_cold(tokens);
  const RequestId loading = rig.begin(tokens);
  (void)rig.look_up(loading);
  (void)rig.accept(loading, 0, 2, Rig::make_table(2, 30));
  const RequestId saving = rig.begin(Rig::make_tokens(2, 2));
  rig.advance(saving, 2, Rig::make_table(2, 40));
  const auto orders = rig.build();
  ASSERT_TRUE(orders.has_value());
  rig.clock.advance(rig.options.step_timeout);
  rig.settle();
  EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
  EXPECT_EQ(rig.count(catalog::SlotState::kQuarantined), 2U);
  // The report comes late after all: the slots are free, and nothing of it is believed.
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *orders), rig.clock.now()).is_ok());
  EXPECT_EQ(rig.count(catalog::SlotState::kQuarantined), 0U);
  EXPECT_EQ(rig.look_up(rig.begin(Rig::make_tokens(2, 2))), 0U);
  EXPECT_EQ(rig.counters.hit_tokens[static_cast<std::size_t>(Tier::kHost)].value(), 0U);
}

TEST(CoreOffloadTest, CopyOutOfAStepIsCappedAndTheRestFollowsWhileTheRequestLives) {
  Rig rig({.tune = [](Options& options) {
    options.offload_step_bytes = Bytes(2 * rig::kPieceBytes * rig::kPieces);
  }});
  const RequestId id = rig.begin(Rig::make_tokens(6, 1));
  const auto table = Rig::make_table(6);
  rig.advance(id, 6, table);
  EXPECT_EQ(rig.step()->saves.size(), 2U);
  rig.advance(id, 6, table);
  EXPECT_EQ(rig.step()->saves.size(), 2U);
  rig.end(id);
  EXPECT_EQ(rig.counters.drop_step_bytes.value(), 2U);
  EXPECT_EQ(rig.look_up(rig.begin(Rig::make_tokens(6, 1))), 4U);
}

// Copies that take long are fewer from then on, and more again when the engine has had its time.
TEST(CoreOffloadTest, CopiesOutTakeNoMoreThanTheirShareOfTheEnginesTime) {
  Rig rig({.host_blocks = 64, .tune = [](Options& options) { options.offload_time_share = 0.1; }});
  std::uint32_t seed = 0;
  // How many blocks of twelve a step takes, each of which takes `each` to copy.
  const auto saved = [&](Nanoseconds each) {
    const RequestId id = rig.begin(Rig::make_tokens(12, ++seed));
    rig.advance(id, 12, Rig::make_table(12));
    const auto orders = rig.build();
    const std::size_t count = orders->saves.size();
    auto report = rig.obey(0, *orders);
    report.save_ns = count * static_cast<std::uint64_t>(each.value());
    rig.clock.advance(each * static_cast<std::int64_t>(count));
    EXPECT_TRUE(rig.core.take_report(report, rig.clock.now()).is_ok());
    rig.end(id);
    return count;
  };
  EXPECT_EQ(saved(milliseconds(10)), 12U);
  EXPECT_EQ(saved(milliseconds(100)), 12U) << "within the burst";
  EXPECT_EQ(rig.counters.drop_copy_budget.value(), 0U);
  EXPECT_EQ(saved(milliseconds(100)), 1U) << "one always goes";
  EXPECT_EQ(rig.counters.drop_copy_budget.value(), 11U);
  EXPECT_EQ(rig.counters.drop_step_bytes.value(), 0U);
  rig.clock.advance(seconds(9));
  const std::size_t later = saved(milliseconds(100));
  EXPECT_GE(later, 5U);
  EXPECT_LE(later, 11U);
  rig.clock.advance(seconds(100));
  EXPECT_GE(saved(milliseconds(10)), 10U);
}

TEST(CoreOffloadTest, WithNoSlotLeftTheOffloadIsDroppedAndCountedAndKnownAsDropped) {
  Rig rig({.host_blocks = 8, .tune = [](Options& options) { options.pin_share = 1.0; }});
  const auto tokens = Rig::make_tokens(8, 1);
  rig.run_cold(tokens);
  const RequestId holder = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(holder), 8U);
  const auto others = Rig::make_tokens(2, 2);
  const RequestId id = rig.begin(others);
  rig.advance(id, 2, Rig::make_table(2, 30));
  EXPECT_FALSE(rig.build().has_value());
  EXPECT_EQ(rig.counters.drop_no_slot.value(), 2U);
  rig.end(holder);
  const RequestId later = rig.begin(others);
  EXPECT_EQ(rig.look_up(later), 0U);
  EXPECT_EQ(rig.end(later).first_miss, MissReason::kDropped);
}

TEST(CoreOffloadTest, ALocallyHitBlockThatNoTierHoldsIsOffloadedOnce) {
  Rig rig;
  const auto tokens = Rig::make_tokens(3, 1);
  const RequestId id = rig.begin(tokens);
  EXPECT_EQ(rig.look_up(id, 2), 0U);  // Two blocks are the engine's own hit.
  for (std::uint32_t i = 0; i < 3; ++i) rig.compute(id, i, i);
  ASSERT_TRUE(rig.accept(id, 2, 0, {}).is_ok());
  rig.advance(id, 3, Rig::make_table(3));
  EXPECT_EQ(rig.step()->saves.size(), 3U);
  rig.advance(id, 3, Rig::make_table(3));
  EXPECT_FALSE(rig.step().has_value());
}

TEST(CoreOffloadTest, AHotPromptThatTheEngineHitsItselfNeverAgesOut) {
  Rig rig({.host_blocks = 16});
  const auto prompt = Rig::make_tokens(4, 1);
  rig.run_cold(prompt);
  for (std::uint32_t i = 2; i < 40; ++i) {
    const RequestId hot = rig.begin(prompt);
    EXPECT_EQ(rig.look_up(hot, 4), 0U);  // All of it is in the engine's own cache.
    rig.end(hot);
    rig.run_cold(Rig::make_tokens(5, i), 8);
  }
  EXPECT_EQ(rig.look_up(rig.begin(prompt)), 4U);
}

TEST(CoreOffloadTest, WithoutThatTouchTheSamePromptWouldHaveGone) {
  Rig rig({.host_blocks = 16});
  const auto prompt = Rig::make_tokens(4, 1);
  rig.run_cold(prompt);
  for (std::uint32_t i = 2; i < 8; ++i) rig.run_cold(Rig::make_tokens(5, i), 8);
  const RequestId id = rig.begin(prompt);
  EXPECT_EQ(rig.look_up(id), 0U);
  EXPECT_EQ(rig.end(id).first_miss, MissReason::kEvicted);
}

TEST(CoreOffloadTest, LeavesGoBeforeRoots) {
  Rig rig({.host_blocks = 16});
  rig.run_cold(Rig::make_tokens(8, 1));
  rig.run_cold(Rig::make_tokens(12, 2), 8);  // Needs four slots of the first chain.
  EXPECT_EQ(rig.look_up(rig.begin(Rig::make_tokens(8, 1))), 4U);
}

TEST(CoreOffloadTest, TwoRequestsOfOneStepSaveASharedPrefixOnce) {
  Rig rig;
  const auto tokens = Rig::make_tokens(3, 1);
  const RequestId a = rig.begin(tokens);
  const RequestId b = rig.begin(tokens);
  for (std::uint32_t i = 0; i < 3; ++i) {
    rig.compute(a, i, i);
    rig.compute(b, i, 10 + i);
  }
  rig.advance(a, 3, Rig::make_table(3));
  rig.advance(b, 3, Rig::make_table(3, 10));
  EXPECT_EQ(rig.step()->saves.size(), 3U);
  EXPECT_EQ(rig.look_up(rig.begin(tokens)), 3U);
}

TEST(CoreOffloadTest, PromptOnlyScopeLeavesGeneratedBlocksAlone) {
  Rig rig({.tune = [](Options& options) { options.is_prompt_only = true; }});
  const RequestId id = rig.begin(Rig::make_tokens(2, 1));
  rig.core.find(id)->chain.append(Rig::make_tokens(2, 5));
  rig.advance(id, 4, Rig::make_table(4));
  EXPECT_EQ(rig.step()->saves.size(), 2U);
}

}  // namespace
}  // namespace terrace::manager
