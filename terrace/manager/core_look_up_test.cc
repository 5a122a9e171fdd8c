// The core's rules of look-ups: what is offered, for how long, and what it may hold.
// One claim a test, with virtual time and a made-up engine (core_rig_internal.h).
#include <gtest/gtest.h>

#include "terrace/manager/core_rig_internal.h"

namespace terrace::manager {
namespace {

using rig::Rig;

TEST(CoreLookUpTest, RestOfALongerPromptIsAMissThatWasNeverStored) {
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

TEST(CoreLookUpTest, AnswerCountsBlocksBeyondTheLocalOnesUpToTheLimit) {
  Rig rig;
  const auto tokens = Rig::make_tokens(6, 1);
  rig.run_cold(tokens);
  const RequestId id = rig.begin(tokens);
  EXPECT_EQ(rig.look_up(id, 2), 4U);
  EXPECT_EQ(rig.poll(id, 2, 23).external, Tokens(12));  // A token is left to compute.
  EXPECT_EQ(rig.poll(id, 2, 12).external, Tokens(4));
  EXPECT_EQ(rig.look_up(id, 2), 4U);  // The same answer as long as nobody took it.
  EXPECT_EQ(rig.look_up(id, 6), 0U);
  EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
}

TEST(CoreLookUpTest, WhatLiesUnderAnotherNamespaceIsMissedForThatReason) {
  Rig rig({.has_disk = true});
  const auto tokens = Rig::make_tokens(2, 1);
  const RequestId id = rig.begin(tokens);
  rig.disk.foreign.insert(rig.hashes(id)[0]);
  EXPECT_EQ(rig.look_up(id), 0U);
  EXPECT_EQ(rig.end(id).first_miss, MissReason::kOtherNamespace);
  EXPECT_EQ(Rig::miss(rig.counters, MissReason::kOtherNamespace), 2U);
}

TEST(CoreLookUpTest, WhatLiesOnDiskIsLateForALookUpWithoutTime) {
  Rig rig({.host_blocks = 4, .has_disk = true, .tune = [](Options& options) {
             options.lookup_deadline = Nanoseconds(0);
           }});
  for (std::uint32_t seed = 1; seed < 4; ++seed) rig.run_cold(Rig::make_tokens(2, seed), 2 * seed);
  const RequestId id = rig.begin(Rig::make_tokens(2, 1));
  EXPECT_EQ(rig.offered(id), 0U);
  EXPECT_EQ(rig.offered(id), 0U);  // Asked again, counted once.
  ASSERT_TRUE(rig.accept(id, 0, 0, {}).is_ok());
  EXPECT_EQ(rig.end(id).first_miss, MissReason::kLate);
  EXPECT_EQ(rig.counters.late_look_ups.value(), 1U);
  EXPECT_EQ(Rig::miss(rig.counters, MissReason::kLate), 2U);
}

TEST(CoreLookUpTest, OnlyTheFirstRequestWaitsForTiersThatDoNotOpen) {
  Rig rig({.opens = false});
  const RequestId first = rig.begin(Rig::make_tokens(1, 1));
  EXPECT_FALSE(rig.poll(first).is_ready);
  rig.clock.advance(rig.options.attach_lookup_wait);
  EXPECT_TRUE(rig.poll(first).is_ready);
  const RequestId next = rig.begin(Rig::make_tokens(1, 2));
  EXPECT_TRUE(rig.poll(next).is_ready);
  rig.open();
  rig.run_cold(Rig::make_tokens(1, 3));
  EXPECT_EQ(rig.look_up(rig.begin(Rig::make_tokens(1, 3))), 1U);
}

TEST(CoreLookUpTest, ABlockThatComesWhileTheChainGrowsCountsAsNotWaitedFor) {
  Rig rig({.host_blocks = 16, .has_disk = true});
  const auto tokens = Rig::make_tokens(4, 1);
  rig.run_cold(tokens);
  for (std::uint32_t seed = 2; seed < 6; ++seed) rig.run_cold(Rig::make_tokens(4, seed));
  const RequestId id = rig.begin(tokens);
  ASSERT_FALSE(rig.offered(id).has_value());
  Request* request = rig.core.find_to_grow(id);
  rig.settle();
  request->is_growing = false;
  EXPECT_EQ(rig.offered(id), 0U);
  EXPECT_EQ(rig.offered(id), 4U) << "in host by now";
}

TEST(CoreLookUpTest, NobodyWaitsForADiskThatIsStuckUntilItBringsSomething) {
  Rig rig({.host_blocks = 16, .has_disk = true});
  for (std::uint32_t seed = 1; seed < 8; ++seed) rig.run_cold(Rig::make_tokens(4, seed));
  rig.disk.is_stuck = true;
  const RequestId first = rig.begin(Rig::make_tokens(2, 1));
  EXPECT_FALSE(rig.poll(first).is_ready);
  rig.settle();
  rig.clock.advance(rig.options.lookup_deadline);
  EXPECT_EQ(rig.offered(first), 0U);
  (void)rig.end(first);
  const RequestId next = rig.begin(Rig::make_tokens(2, 2));
  EXPECT_EQ(rig.offered(next), 0U);
  ASSERT_TRUE(rig.accept(next, 0, 0, {}).is_ok());
  EXPECT_EQ(rig.end(next).first_miss, MissReason::kLate);
  rig.disk.is_stuck = false;
  rig.settle();  // What was asked for as a prefetch comes.
  EXPECT_EQ(rig.look_up(rig.begin(Rig::make_tokens(2, 2))), 2U);
  EXPECT_EQ(rig.look_up(rig.begin(Rig::make_tokens(2, 3))), 2U);
}

TEST(CoreLookUpTest, APrefetchDoesNotPushOutWhatTheRequestHasInHost) {
  Rig rig({.host_blocks = 16, .has_disk = true});
  const auto tokens = Rig::make_tokens(8, 1);
  rig.run_cold(tokens);
  for (std::uint32_t seed = 2; seed < 6; ++seed) rig.run_cold(Rig::make_tokens(4, seed));
  // What leads comes back to host, before newer prompts; all that follows lies on disk alone.
  const auto leading = std::span(tokens).first(4 * rig::kBlockTokens);
  const RequestId first = rig.begin(leading);
  ASSERT_EQ(rig.look_up(first), 4U);
  (void)rig.end(first);
  for (std::uint32_t seed = 6; seed < 9; ++seed) rig.run_cold(Rig::make_tokens(4, seed));
  const std::uint64_t read_before = rig.disk.reads;
  const RequestId id = rig.begin(tokens);
  ASSERT_TRUE(rig.in_host(rig.hashes(id)[0]));
  rig.settle();
  EXPECT_EQ(rig.disk.reads - read_before, 4U);
  for (std::size_t block = 0; block < 8; ++block) {
    EXPECT_TRUE(rig.in_host(rig.hashes(id)[block])) << block;
  }
  EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
}

TEST(CoreLookUpTest, ARequestsOwnPrefetchIsNoQueueBeforeIt) {
  Rig rig({.host_blocks = 32, .has_disk = true, .tune = [](Options& options) {
             options.has_planner = true;
           }});
  const auto tokens = Rig::make_tokens(4, 1);
  rig.run_cold(tokens);
  rig.run_cold(Rig::make_tokens(32, 2));  // Pushes them out of host.
  policy::Planner& planner = rig.core.context().planner;
  for (int i = 0; i < 20; ++i) {
    planner.observe_load(Tier::kDisk, rig.core.context().groups.most_bytes(), Nanoseconds(70'000));
    planner.observe_prefill(Tokens(rig::kBlockTokens), Nanoseconds(100'000));
  }
  rig.disk.is_stuck = true;
  const RequestId id = rig.begin(tokens);
  rig.settle();
  EXPECT_FALSE(rig.poll(id).is_ready);  // Worth loading, as long as it is counted once.
  rig.disk.is_stuck = false;
  EXPECT_EQ(rig.look_up(id), 4U);
}

TEST(CoreLookUpTest, ATierOfOneBlockServesIt) {
  Rig rig({.host_blocks = 1});
  const auto tokens = Rig::make_tokens(1, 1);
  rig.run_cold(tokens);
  EXPECT_EQ(rig.look_up(rig.begin(tokens)), 1U);
}

TEST(CoreLookUpTest, PinsOfAnAnswerNotTakenExpireAndTheLoadIsThenVoid) {
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

TEST(CoreLookUpTest, ALoadWhoseAnswerExpiredIsCountedOnceAndAsLate) {
  Rig rig;
  rig.run_cold(Rig::make_tokens(2, 1));
  const RequestId id = rig.begin(Rig::make_tokens(3, 1));
  const std::uint64_t never = Rig::miss(rig.counters, MissReason::kNeverStored);
  ASSERT_EQ(rig.look_up(id), 2U);
  rig.clock.advance(rig.options.pin_time);
  rig.settle();
  ASSERT_TRUE(rig.accept(id, 0, 2, Rig::make_table(3, 30)).is_ok());
  rig.step();
  EXPECT_EQ(Rig::miss(rig.counters, MissReason::kNeverStored), never + 1);
  EXPECT_EQ(Rig::miss(rig.counters, MissReason::kLate), 2U);
  EXPECT_EQ(rig.counters.match_tokens.value(), 8U);
  EXPECT_EQ(rig.counters.failed_tokens.value(), 8U);
  EXPECT_EQ(rig.end(id).first_miss, MissReason::kLate);
}

TEST(CoreLookUpTest, AnAnswerLeftAloneIsProbedAnewAfterItExpired) {
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

TEST(CoreLookUpTest, WaitingRequestsPinAtMostTheirShare) {
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

TEST(CoreLookUpTest, RefusingAnAnswerOrAcceptingItTwiceIsHarmless) {
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

TEST(CoreLookUpTest, ShortBlockTablesAndCrookedLengthsAreRefused) {
  Rig rig;
  const auto tokens = Rig::make_tokens(3, 1);
  rig.run_cold(tokens);
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), 3U);
  EXPECT_EQ(rig.accept(id, 0, 3, Rig::make_table(2)).code(), Code::kInvalid);
  const std::vector<std::uint32_t> table = Rig::make_table(3);
  const std::span<const std::uint32_t> tables[] = {table};
  EXPECT_EQ(
      rig.core.accept(*rig.core.find(id), Tokens(0), Tokens(5), tables, rig.clock.now()).code(),
      Code::kInvalid);
  EXPECT_FALSE(rig.build().has_value());
  EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
}

TEST(CoreLookUpTest, EndingARequestAtAnyStateLeavesNothingPinned) {
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

}  // namespace
}  // namespace terrace::manager
