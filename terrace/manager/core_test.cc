// The core's rules, one claim a test, with virtual time and a made-up engine (core_rig_internal.h).
#include <gtest/gtest.h>

#include "terrace/manager/core_rig_internal.h"

namespace terrace::manager {
namespace {

using rig::Rig;
using rig::RigOptions;

TEST(CoreTest, SavedBlocksComeBackWithEqualBytes) {
  Rig rig;
  const auto tokens = Rig::make_tokens(5, 1);
  rig.run_cold(tokens);
  const RequestId id = rig.begin(tokens);
  EXPECT_EQ(rig.look_up(id), 5U);
  const auto table = Rig::make_table(5, 30);
  ASSERT_TRUE(rig.accept(id, 0, 5, table).is_ok());
  rig.step();
  for (std::uint64_t block = 0; block < 5; ++block)
    EXPECT_TRUE(rig.is_right(id, block, table[block]));
  const Ledger ledger = rig.end(id);
  EXPECT_EQ(ledger.hit[static_cast<std::size_t>(Tier::kHost)], Tokens(20));
  EXPECT_FALSE(ledger.first_miss.has_value());
  EXPECT_EQ(rig.counters.hit_tokens[static_cast<std::size_t>(Tier::kHost)].value(), 20U);
  EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
}

TEST(CoreTest, RestOfALongerPromptIsAMissThatWasNeverStored) {
  Rig rig;
  rig.run_cold(Rig::make_tokens(3, 1));
  const auto longer = Rig::make_tokens(5, 1);
  const RequestId id = rig.begin(longer);
  EXPECT_EQ(rig.look_up(id), 3U);
  ASSERT_TRUE(rig.accept(id, 0, 3, Rig::make_table(5)).is_ok());
  rig.step();
  EXPECT_EQ(rig.end(id).first_miss, MissReason::kNeverStored);
  EXPECT_EQ(Rig::miss(rig.counters, MissReason::kNeverStored), 3U + 2U);  // Of both requests.
}

TEST(CoreTest, AnswerCountsBlocksBeyondTheLocalOnesUpToTheLimit) {
  Rig rig;
  const auto tokens = Rig::make_tokens(6, 1);
  rig.run_cold(tokens);
  const RequestId id = rig.begin(tokens);
  EXPECT_EQ(rig.look_up(id, 2), 4U);
  EXPECT_EQ(rig.poll(id, 2, 6 * 4 - 1).external, Tokens(3 * 4));  // A token is left to compute.
  EXPECT_EQ(rig.poll(id, 2, 3 * 4).external, Tokens(4));
  EXPECT_EQ(rig.look_up(id, 2), 4U);  // The same answer as long as nobody took it.
  EXPECT_EQ(rig.look_up(id, 6), 0U);
  EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
}

TEST(CoreTest, NothingIsServedBeforeAllRanksAttachedAndTheCanaryPassed) {
  Rig rig({.ranks = 2, .opens = false});
  const RequestId id = rig.begin(Rig::make_tokens(2, 1));
  EXPECT_FALSE(rig.poll(id).is_ready);
  rig.attach(0);
  EXPECT_FALSE(rig.build().has_value());
  rig.attach(1);
  EXPECT_FALSE(rig.poll(id).is_ready);
  const auto orders = rig.build();
  ASSERT_TRUE(orders.has_value());
  EXPECT_NE(orders->canary_slot, UINT32_MAX);
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *orders), rig.clock.now()).is_ok());
  EXPECT_FALSE(rig.poll(id).is_ready);
  ASSERT_TRUE(rig.core.take_report(rig.obey(1, *orders), rig.clock.now()).is_ok());
  EXPECT_TRUE(rig.poll(id).is_ready);
}

TEST(CoreTest, LookUpGivesUpOnAnOwnerThatDoesNotOpen) {
  Rig rig({.opens = false});
  const RequestId id = rig.begin(Rig::make_tokens(2, 1));
  EXPECT_FALSE(rig.poll(id).is_ready);
  rig.clock.advance(rig.options.attach_lookup_wait);
  const MatchAnswer answer = rig.poll(id);
  EXPECT_TRUE(answer.is_ready);
  EXPECT_EQ(answer.external, Tokens(0));
  ASSERT_TRUE(rig.accept(id, 0, 0, {}).is_ok());
  EXPECT_EQ(rig.end(id).first_miss, MissReason::kLate);
}

TEST(CoreTest, WithoutAnAttachmentForLongLookUpsMissAtOnceUntilOneComes) {
  Rig rig({.opens = false});
  rig.clock.advance(rig.options.attach_timeout);
  const RequestId id = rig.begin(Rig::make_tokens(2, 1));
  EXPECT_TRUE(rig.poll(id).is_ready);
  EXPECT_NE(rig.core.gate().reason(rig.clock.now()), "");
  rig.open();
  rig.run_cold(Rig::make_tokens(2, 1), 8);
  EXPECT_EQ(rig.look_up(rig.begin(Rig::make_tokens(2, 1))), 2U);
}

TEST(CoreTest, AFailedCanaryMeansOnlyMissesAndSaysWhy) {
  Rig rig({.opens = false});
  rig.ranks[0].canary = wire::CanaryResult::kFailed;
  rig.open();
  const RequestId id = rig.begin(Rig::make_tokens(2, 1));
  EXPECT_EQ(rig.offered(id), 0U);
  rig.advance(id, 2, Rig::make_table(2));
  EXPECT_FALSE(rig.step().has_value());
  EXPECT_NE(rig.core.gate().reason(rig.clock.now()).find("canary"), std::string::npos);
  EXPECT_EQ(rig.counters.canaries_failed.value(), 1U);
}

TEST(CoreTest, SeveralKvGroupsOnlyMiss) {
  Rig rig({.opens = false, .tune = [](Options& options) {
             GroupLayout second;
             second.group = GroupId(1);
             second.piece_bytes = {Bytes(64)};
             options.layout.groups.push_back(second);
           }});
  const RequestId id = rig.begin(Rig::make_tokens(2, 1));
  EXPECT_EQ(rig.offered(id), 0U);
  EXPECT_NE(rig.core.gate().reason(rig.clock.now()).find("2 KV groups"), std::string::npos);
}

TEST(CoreTest, ABlockIsVisibleOnlyWhenEveryRankHasReportedIt) {
  Rig rig({.ranks = 2});
  const auto tokens = Rig::make_tokens(1, 1);
  const RequestId id = rig.begin(tokens);
  rig.compute(id, 0, 7);
  rig.advance(id, 1, Rig::make_table(1, 7));
  const auto orders = rig.build();
  ASSERT_TRUE(orders.has_value());
  ASSERT_TRUE(rig.core.take_report(rig.obey(1, *orders), rig.clock.now()).is_ok());
  EXPECT_EQ(rig.look_up(rig.begin(tokens)), 0U);
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *orders), rig.clock.now()).is_ok());
  EXPECT_EQ(rig.look_up(rig.begin(tokens)), 1U);
}

TEST(CoreTest, ARankThatFilledNothingKeepsTheBlockInvisibleAndItIsOfferedAgain) {
  Rig rig({.ranks = 2});
  const auto tokens = Rig::make_tokens(1, 1);
  const RequestId id = rig.begin(tokens);
  rig.compute(id, 0, 7);
  rig.advance(id, 1, Rig::make_table(1, 7));
  const auto orders = rig.build();
  auto report = rig.obey(0, *orders);
  report.saves[0].is_filled = false;
  ASSERT_TRUE(rig.core.take_report(report, rig.clock.now()).is_ok());
  ASSERT_TRUE(rig.core.take_report(rig.obey(1, *orders), rig.clock.now()).is_ok());
  EXPECT_EQ(rig.look_up(rig.begin(tokens)), 0U);
  EXPECT_EQ(rig.counters.drop_unfilled.value(), 1U);
  rig.advance(id, 1, Rig::make_table(1, 7));
  rig.step();
  EXPECT_EQ(rig.look_up(rig.begin(tokens)), 1U);
}

TEST(CoreTest, ForeignOldAndRepeatedReportsAreRefusedAndCounted) {
  Rig rig;
  const RequestId id = rig.begin(Rig::make_tokens(1, 1));
  rig.advance(id, 1, Rig::make_table(1));
  const auto orders = rig.build();
  const wire::Report good = rig.obey(0, *orders);
  auto refused = [&](auto change) {
    wire::Report report = good;
    change(report);
    const auto before = rig.counters.reports_refused.value();
    EXPECT_FALSE(rig.core.take_report(report, rig.clock.now()).is_ok());
    EXPECT_EQ(rig.counters.reports_refused.value(), before + 1);
  };
  refused([](wire::Report& report) { report.owner = 1; });
  refused([](wire::Report& report) { report.rank = RankId(1); });
  refused([](wire::Report& report) { report.epoch = Epoch(999); });
  refused([](wire::Report& report) { report.step = StepId(999); });
  refused([](wire::Report& report) { report.step = StepId(1); });
  EXPECT_TRUE(rig.core.take_report(good, rig.clock.now()).is_ok());
  refused([](wire::Report&) {});
}

// Loads block 0 of `tokens` into device block 40 with its host bytes broken; returns the orders.
wire::Orders order_bad_load(Rig& rig, RequestId id) {
  EXPECT_EQ(rig.look_up(id), 1U);
  EXPECT_TRUE(rig.accept(id, 0, 1, Rig::make_table(8, 40)).is_ok());
  auto orders = rig.build();
  EXPECT_TRUE(orders.has_value());
  rig.shard(orders->loads[0].slot.index, 0)[3] ^= std::byte{1};
  return std::move(*orders);
}

TEST(CoreTest, ACorruptHostBlockIsReportedCountedRemovedAndNeverOfferedAgain) {
  Rig rig;
  const auto tokens = Rig::make_tokens(1, 1);
  rig.run_cold(tokens);
  const RequestId id = rig.begin(tokens);
  const wire::Orders orders = order_bad_load(rig, id);
  const wire::Report report = rig.obey(0, orders);
  ASSERT_EQ(report.failures.size(), 1U);
  ASSERT_TRUE(rig.core.take_report(report, rig.clock.now()).is_ok());
  EXPECT_EQ(rig.look_up(rig.begin(tokens)), 0U);  // Questioned: not offered meanwhile.
  rig.settle();
  EXPECT_FALSE(rig.in_host(rig.hashes(id)[0]));
  EXPECT_EQ(rig.counters.corrupt_blocks[static_cast<std::size_t>(Tier::kHost)].value(), 1U);
  const Ledger ledger = rig.end(id);
  EXPECT_EQ(ledger.first_miss, MissReason::kCorrupt);
  EXPECT_EQ(ledger.failed, Tokens(4));
  EXPECT_EQ(ledger.hit[static_cast<std::size_t>(Tier::kHost)], Tokens(0));
  const RequestId after = rig.begin(tokens);
  EXPECT_EQ(rig.look_up(after), 0U);
  EXPECT_EQ(rig.end(after).first_miss, MissReason::kCorrupt);
}

TEST(CoreTest, ALoadThatFailedOnTheWayLeavesAGoodHostBlockInPlace) {
  Rig rig;
  const auto tokens = Rig::make_tokens(1, 1);
  rig.run_cold(tokens);
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), 1U);
  ASSERT_TRUE(rig.accept(id, 0, 1, Rig::make_table(1, 40)).is_ok());
  const auto orders = rig.build();
  auto report = rig.obey(0, *orders);
  report.failures.push_back({orders->loads[0].slot, orders->loads[0].group, 40});
  ASSERT_TRUE(rig.core.take_report(report, rig.clock.now()).is_ok());
  rig.settle();
  EXPECT_EQ(rig.look_up(id), 0U);  // This request never again.
  EXPECT_EQ(rig.look_up(rig.begin(tokens)), 1U);
  EXPECT_EQ(rig.counters.corrupt_blocks[static_cast<std::size_t>(Tier::kHost)].value(), 0U);
}

TEST(CoreTest, AFailedLoadTaintsSavesOfItsStepAndOfStepsOrderedBeforeItWasKnown) {
  Rig rig;
  const auto shared_tokens = Rig::make_tokens(1, 1);
  rig.run_cold(shared_tokens);
  const auto others = Rig::make_tokens(2, 9);
  const RequestId id = rig.begin(shared_tokens);
  const RequestId other = rig.begin(others);
  rig.compute(other, 0, 20);
  rig.compute(other, 1, 21);
  rig.advance(other, 1, Rig::make_table(2, 20));  // Saved in the step of the bad load,
  const wire::Orders first = order_bad_load(rig, id);
  rig.advance(other, 2, Rig::make_table(2, 20));  // and in the next one, ordered before the report.
  const auto second = rig.build();
  ASSERT_TRUE(second.has_value());
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, first), rig.clock.now()).is_ok());
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *second), rig.clock.now()).is_ok());
  EXPECT_EQ(rig.look_up(rig.begin(others)), 0U);
  EXPECT_EQ(rig.counters.drop_tainted.value(), 2U);
  rig.advance(other, 2, Rig::make_table(2, 20));  // Offered again while the request lives.
  rig.step();
  EXPECT_EQ(rig.look_up(rig.begin(others)), 2U);
}

TEST(CoreTest, ALostReportOfALoadTaintsTheStepWhoseReportShowsIt) {
  Rig rig;
  const auto tokens = Rig::make_tokens(1, 1);
  rig.run_cold(tokens);
  const auto others = Rig::make_tokens(1, 9);
  const RequestId id = rig.begin(tokens);
  const RequestId other = rig.begin(others);
  const wire::Orders lost = order_bad_load(rig, id);
  rig.compute(other, 0, 20);
  rig.advance(other, 1, Rig::make_table(1, 20));
  const auto second = rig.build();
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *second), rig.clock.now()).is_ok());
  EXPECT_EQ(rig.look_up(rig.begin(others)), 0U);
  EXPECT_EQ(rig.counters.steps_lost.value(), 1U);
  EXPECT_EQ(rig.core.steps().in_flight(), 0U);
  EXPECT_EQ(rig.counters.hit_tokens[static_cast<std::size_t>(Tier::kHost)].value(), 0U);
}

TEST(CoreTest, PinsOfAnAnswerNotTakenExpireAndTheLoadIsThenVoid) {
  Rig rig;
  const auto tokens = Rig::make_tokens(2, 1);
  rig.run_cold(tokens);
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), 2U);
  EXPECT_EQ(rig.core.context().pool().pinned(), 2U);
  rig.clock.advance(rig.options.pin_time);
  rig.settle();
  EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
  ASSERT_TRUE(rig.accept(id, 0, 2, Rig::make_table(2, 30)).is_ok());
  const auto orders = rig.step();
  ASSERT_TRUE(orders.has_value());
  ASSERT_EQ(orders->loads.size(), 2U);
  EXPECT_TRUE(orders->loads[0].is_void && orders->loads[1].is_void);
  EXPECT_EQ(rig.offered(id), 0U);  // A failed load is not tried again.
  EXPECT_EQ(rig.end(id).failed, Tokens(8));
}

TEST(CoreTest, AnAnswerLeftAloneIsProbedAnewAfterItExpired) {
  Rig rig;
  const auto tokens = Rig::make_tokens(2, 1);
  rig.run_cold(tokens);
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), 2U);
  rig.clock.advance(rig.options.pin_time);
  rig.settle();
  EXPECT_EQ(rig.look_up(id), 2U);
  ASSERT_TRUE(rig.accept(id, 0, 2, Rig::make_table(2, 30)).is_ok());
  rig.step();
  EXPECT_TRUE(rig.is_right(id, 1, 31));
}

TEST(CoreTest, WaitingRequestsPinAtMostTheirShare) {
  Rig rig({.host_blocks = 16});
  const auto a = Rig::make_tokens(6, 1);
  const auto b = Rig::make_tokens(6, 2);
  rig.run_cold(a);
  rig.run_cold(b);
  const RequestId first = rig.begin(a);
  const RequestId second = rig.begin(b);
  EXPECT_EQ(rig.look_up(first), 6U);
  EXPECT_EQ(rig.look_up(second), 2U);  // 8 of 16 slots.
  EXPECT_EQ(rig.core.context().pool().pinned(), 8U);
  EXPECT_EQ(rig.end(second).first_miss, MissReason::kDropped);
  const RequestId third = rig.begin(b);
  ASSERT_TRUE(rig.accept(first, 0, 6, Rig::make_table(6)).is_ok());
  EXPECT_EQ(rig.look_up(third), 6U);  // An accepted load does not wait any more.
}

TEST(CoreTest, RefusingAnAnswerOrAcceptingItTwiceIsHarmless) {
  Rig rig;
  const auto tokens = Rig::make_tokens(3, 1);
  rig.run_cold(tokens);
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), 3U);
  const auto table = Rig::make_table(3, 30);
  ASSERT_TRUE(rig.accept(id, 0, 3, table).is_ok());
  ASSERT_TRUE(rig.accept(id, 0, 3, table).is_ok());
  const auto orders = rig.step();
  EXPECT_EQ(orders->loads.size(), 3U);
  ASSERT_TRUE(rig.accept(id, 0, 0, table).is_ok());
  const RequestId other = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(other), 3U);
  ASSERT_TRUE(rig.accept(other, 0, 0, {}).is_ok());
  EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
}

TEST(CoreTest, ShortBlockTablesAndCrookedLengthsAreRefused) {
  Rig rig;
  const auto tokens = Rig::make_tokens(3, 1);
  rig.run_cold(tokens);
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), 3U);
  EXPECT_EQ(rig.accept(id, 0, 3, Rig::make_table(2)).code(), Code::kInvalid);
  const std::vector<std::uint32_t> table = Rig::make_table(3);
  const std::span<const std::uint32_t> tables[] = {table};
  EXPECT_EQ(rig.core.accept(*rig.core.find(id), Tokens(0), Tokens(5), tables).code(),
            Code::kInvalid);
  EXPECT_FALSE(rig.build().has_value());
  EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
}

TEST(CoreTest, EndingARequestAtAnyStateLeavesNothingPinned) {
  Rig rig({.has_disk = true});
  const auto tokens = Rig::make_tokens(4, 1);
  rig.run_cold(tokens);
  const auto check = [&](const char* state) {
    for (int i = 0; i < 3; ++i) rig.step();
    rig.settle();
    EXPECT_EQ(rig.core.context().pool().pinned(), 0U) << state;
    EXPECT_EQ(rig.count(catalog::SlotState::kFilling), 0U) << state;
    EXPECT_EQ(rig.core.requests(), 0U) << state;
  };
  rig.end(rig.begin(tokens));
  check("begun");
  RequestId id = rig.begin(tokens);
  (void)rig.poll(id);
  rig.end(id);
  check("polled");
  id = rig.begin(tokens);
  (void)rig.look_up(id);
  (void)rig.accept(id, 0, 4, Rig::make_table(4, 30));
  rig.end(id);
  check("accepted");
  id = rig.begin(tokens);
  (void)rig.look_up(id);
  (void)rig.accept(id, 0, 4, Rig::make_table(4, 30));
  const auto orders = rig.build();
  rig.end(id);
  EXPECT_EQ(rig.core.context().pool().pinned(), 4U);  // Until the rank is through with the load.
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *orders), rig.clock.now()).is_ok());
  check("loading");
  const auto fresh = Rig::make_tokens(3, 2);
  id = rig.begin(fresh);
  rig.advance(id, 3, Rig::make_table(3, 30));
  rig.end(id);
  check("advanced");
}

TEST(CoreTest, ADeadRanksSlotsAreQuarantinedUntilTheOthersAreThrough) {
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

TEST(CoreTest, AStepWithoutReportsHoldsItsSlotsOnlyUntilTheTimeout) {
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

TEST(CoreTest, CopyOutOfAStepIsCappedAndTheRestFollowsWhileTheRequestLives) {
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

TEST(CoreTest, WithNoSlotLeftTheOffloadIsDroppedAndCountedAndKnownAsDropped) {
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

TEST(CoreTest, ALocallyHitBlockThatNoTierHoldsIsOffloadedOnce) {
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

TEST(CoreTest, AHotPromptThatTheEngineHitsItselfNeverAgesOut) {
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

TEST(CoreTest, WithoutThatTouchTheSamePromptWouldHaveGone) {
  Rig rig({.host_blocks = 16});
  const auto prompt = Rig::make_tokens(4, 1);
  rig.run_cold(prompt);
  for (std::uint32_t i = 2; i < 8; ++i) rig.run_cold(Rig::make_tokens(5, i), 8);
  const RequestId id = rig.begin(prompt);
  EXPECT_EQ(rig.look_up(id), 0U);
  EXPECT_EQ(rig.end(id).first_miss, MissReason::kEvicted);
}

TEST(CoreTest, LeavesGoBeforeRoots) {
  Rig rig({.host_blocks = 16});
  rig.run_cold(Rig::make_tokens(8, 1));
  rig.run_cold(Rig::make_tokens(12, 2), 8);  // Needs four slots of the first chain.
  EXPECT_EQ(rig.look_up(rig.begin(Rig::make_tokens(8, 1))), 4U);
}

TEST(CoreTest, TwoRequestsOfOneStepSaveASharedPrefixOnce) {
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

TEST(CoreTest, TwoRequestsOfOneStepLoadASharedPrefixTwice) {
  Rig rig;
  const auto tokens = Rig::make_tokens(3, 1);
  rig.run_cold(tokens);
  const RequestId a = rig.begin(tokens);
  const RequestId b = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(a), 3U);
  ASSERT_EQ(rig.look_up(b), 3U);
  ASSERT_TRUE(rig.accept(a, 0, 3, Rig::make_table(3, 20)).is_ok());
  ASSERT_TRUE(rig.accept(b, 0, 3, Rig::make_table(3, 30)).is_ok());
  rig.step();
  EXPECT_TRUE(rig.is_right(a, 2, 22));
  EXPECT_TRUE(rig.is_right(b, 2, 32));
}

TEST(CoreTest, APreemptedRequestLooksUpAndLoadsAgain) {
  Rig rig;
  const auto tokens = Rig::make_tokens(4, 1);
  const RequestId id = rig.begin(tokens);
  EXPECT_EQ(rig.look_up(id), 0U);
  ASSERT_TRUE(rig.accept(id, 0, 0, {}).is_ok());
  for (std::uint32_t i = 0; i < 4; ++i) rig.compute(id, i, i);
  rig.advance(id, 4, Rig::make_table(4));
  rig.step();
  // Preempted: its blocks go to somebody else; back with one local block in other places.
  EXPECT_EQ(rig.look_up(id, 1), 3U);
  const auto table = Rig::make_table(4, 20);
  ASSERT_TRUE(rig.accept(id, 1, 3, table).is_ok());
  rig.step();
  for (std::uint32_t i = 1; i < 4; ++i) EXPECT_TRUE(rig.is_right(id, i, table[i]));
}

TEST(CoreTest, PromptOnlyScopeLeavesGeneratedBlocksAlone) {
  Rig rig({.tune = [](Options& options) { options.is_prompt_only = true; }});
  const RequestId id = rig.begin(Rig::make_tokens(2, 1));
  rig.core.find(id)->chain.append(Rig::make_tokens(2, 5));
  rig.advance(id, 4, Rig::make_table(4));
  EXPECT_EQ(rig.step()->saves.size(), 2U);
}

TEST(CoreTest, ProducersOnlyStoreAndConsumersOnlyLoad) {
  Rig producer({.tune = [](Options& options) { options.can_load = false; }});
  producer.run_cold(Rig::make_tokens(2, 1));
  EXPECT_EQ(producer.offered(producer.begin(Rig::make_tokens(2, 1))), 0U);
  Rig consumer({.tune = [](Options& options) { options.can_store = false; }});
  const RequestId id = consumer.begin(Rig::make_tokens(2, 1));
  consumer.advance(id, 2, Rig::make_table(2));
  EXPECT_FALSE(consumer.build().has_value());
}

TEST(CoreTest, AfterAResetNothingOldMatchesAndRunningRequestsStoreNoMore) {
  Rig rig({.has_disk = true});
  const auto tokens = Rig::make_tokens(3, 1);
  rig.run_cold(tokens);
  ASSERT_FALSE(rig.disk.blocks.empty());
  const RequestId waiting = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(waiting), 3U);
  const auto others = Rig::make_tokens(4, 2);
  const RequestId running = rig.begin(others);
  rig.advance(running, 2, Rig::make_table(4, 30));
  const auto orders = rig.build();  // Under way when the reset comes.
  rig.core.reset();
  EXPECT_EQ(rig.look_up(waiting), 0U);
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *orders), rig.clock.now()).is_ok());
  rig.advance(running, 4, Rig::make_table(4, 30));
  EXPECT_FALSE(rig.step().has_value());
  rig.settle();
  EXPECT_EQ(rig.look_up(rig.begin(others)), 0U);
  rig.run_cold(tokens);
  EXPECT_EQ(rig.look_up(rig.begin(tokens)), 3U);
}

TEST(CoreTest, NoOldBlockMatchesWhenTheNamespaceNumberComesRound) {
  Rig rig;
  const auto tokens = Rig::make_tokens(3, 1);
  rig.run_cold(tokens);  // Under number 1.
  rig.core.context().name_space = NamespaceId(65'535);
  rig.core.reset();
  EXPECT_EQ(rig.core.context().name_space, NamespaceId(1));
  EXPECT_EQ(rig.look_up(rig.begin(tokens)), 0U);
}

TEST(CoreTest, PoisonedItOnlyMissesAndAcceptedLoadsFail) {
  Rig rig;
  const auto tokens = Rig::make_tokens(3, 1);
  rig.run_cold(tokens);
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), 3U);
  ASSERT_TRUE(rig.accept(id, 0, 3, Rig::make_table(3)).is_ok());
  rig.core.poison("test");
  const auto orders = rig.build();
  ASSERT_TRUE(orders.has_value());
  for (const wire::LoadOrder& load : orders->loads) EXPECT_TRUE(load.is_void);
  const RequestId other = rig.begin(tokens);
  EXPECT_EQ(rig.offered(other), 0U);
  rig.advance(other, 3, Rig::make_table(3));
  EXPECT_FALSE(rig.build().has_value());
  EXPECT_EQ(rig.counters.poisoned.value(), 1);
}

}  // namespace
}  // namespace terrace::manager
