// The core's rules of switching: what a pause and read-only stop, what goes on, what comes back.
// One claim a test, with virtual time and a made-up engine (core_rig_internal.h).
#include <gtest/gtest.h>

#include "terrace/manager/core_rig_internal.h"

namespace terrace::manager {
namespace {

using rig::Rig;

constexpr Mode kSwitchedOff[] = {Mode::kReadOnly, Mode::kPaused};

TEST(ModeTest, TextsAreThoseOfTheCommands) {
  for (const Mode mode : {Mode::kOn, Mode::kReadOnly, Mode::kPaused}) {
    EXPECT_EQ(mode_of(to_string(mode)), mode);
  }
  EXPECT_EQ(to_string(Mode::kReadOnly), "readonly");
  EXPECT_FALSE(mode_of("Paused").has_value());
  EXPECT_FALSE(mode_of("").has_value());
}

TEST(CoreModeTest, PausedLookUpsMissForThatReasonAndHitAgainAfterwards) {
  Rig rig;
  const auto tokens = Rig::make_tokens(3, 1);
  rig.run_cold(tokens);
  EXPECT_TRUE(rig.core.set_mode(Mode::kPaused));
  const RequestId id = rig.begin(tokens);
  EXPECT_EQ(rig.offered(id), 0U);
  ASSERT_TRUE(rig.accept(id, 0, 0, {}).is_ok());
  EXPECT_EQ(rig.end(id).first_miss, MissReason::kPaused);
  EXPECT_EQ(Rig::miss(rig.counters, MissReason::kPaused), 3U);
  EXPECT_EQ(rig.counters.mode.value(), 2);
  EXPECT_TRUE(rig.core.set_mode(Mode::kOn));
  const RequestId again = rig.begin(tokens);
  EXPECT_EQ(rig.look_up(again), 3U);
  ASSERT_TRUE(rig.accept(again, 0, 3, Rig::make_table(3, 30)).is_ok());
  rig.step();
  EXPECT_TRUE(rig.is_right(again, 2, 32));
  EXPECT_EQ(rig.counters.mode.value(), 0);
}

TEST(CoreModeTest, WhoObservesMissesAndStoresNothingAndLearnsTheSpeedOfSteps) {
  Rig rig({.tune = [](Options& options) { options.observed.emplace(); }});
  const auto tokens = Rig::make_tokens(6, 1);
  rig.run_cold(tokens);
  EXPECT_FALSE(rig.core.set_mode(Mode::kOn));
  EXPECT_EQ(rig.counters.mode.value(), 3);
  const RequestId id = rig.begin(tokens);
  EXPECT_EQ(rig.offered(id), 0U);
  ASSERT_TRUE(rig.accept(id, 0, 0, {}).is_ok());
  EXPECT_FALSE(rig.end(id).first_miss);
  EXPECT_EQ(rig.counters.offload_blocks.value(), 0U);
  EXPECT_EQ(rig.counters.prompt_tokens.value(), 2 * tokens.size());

  const RequestId timed = rig.begin(tokens);
  ASSERT_TRUE(rig.accept(timed, 0, 0, {}).is_ok());
  rig.advance(timed, 6, Rig::make_table(6));
  const auto orders = rig.core.build_orders(rig.clock.now());
  ASSERT_TRUE(orders.has_value());
  EXPECT_TRUE(orders->loads.empty());
  EXPECT_TRUE(orders->saves.empty());
}

TEST(CoreModeTest, WhatWasPromisedBeforeThePauseIsLoaded) {
  Rig rig;
  const auto tokens = Rig::make_tokens(3, 1);
  rig.run_cold(tokens);
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), 3U);
  rig.core.set_mode(Mode::kPaused);
  ASSERT_TRUE(rig.accept(id, 0, 3, Rig::make_table(3, 30)).is_ok());
  const auto orders = rig.step();
  ASSERT_TRUE(orders.has_value());
  EXPECT_EQ(orders->loads.size(), 3U);
  EXPECT_TRUE(rig.is_right(id, 2, 32));
  EXPECT_EQ(rig.end(id).hit[static_cast<std::size_t>(Tier::kHost)], Tokens(12));
  EXPECT_EQ(rig.counters.failed_loads.value(), 0U);
}

TEST(CoreModeTest, WhatWasAcceptedBeforeThePauseIsOrderedAndLoaded) {
  Rig rig;
  const auto tokens = Rig::make_tokens(2, 1);
  rig.run_cold(tokens);
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), 2U);
  ASSERT_TRUE(rig.accept(id, 0, 2, Rig::make_table(2, 30)).is_ok());
  rig.core.set_mode(Mode::kPaused);
  rig.step();
  EXPECT_TRUE(rig.is_right(id, 1, 31));
}

TEST(CoreModeTest, AnAnswerThatIsAskedForAgainInThePauseIsTakenBack) {
  Rig rig;
  const auto tokens = Rig::make_tokens(3, 1);
  rig.run_cold(tokens);
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), 3U);
  rig.core.set_mode(Mode::kPaused);
  EXPECT_EQ(rig.offered(id), 0U);
  EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
  rig.core.set_mode(Mode::kOn);
  EXPECT_EQ(rig.look_up(id), 3U);  // Nobody had taken the miss.
}

TEST(CoreModeTest, ReadsUnderWayEndAndQueuedOnesNeverBegin) {
  Rig rig({.host_blocks = 16, .has_disk = true});
  const auto tokens = Rig::make_tokens(4, 1);
  rig.run_cold(tokens);
  for (std::uint32_t seed = 2; seed < 6; ++seed) rig.run_cold(Rig::make_tokens(4, seed));
  rig.disk.depth = 1;
  rig.disk.latency = milliseconds(1);
  const std::uint64_t before = rig.disk.begun_reads;
  const RequestId id = rig.begin(tokens);
  EXPECT_FALSE(rig.offered(id).has_value());
  rig.driver.tick();  // One begins, the disk gives the others back.
  ASSERT_EQ(rig.disk.begun_reads, before + 1);
  ASSERT_GT(rig.core.reads(), 1U);
  rig.core.set_mode(Mode::kPaused);
  EXPECT_EQ(rig.core.reads(), 1U);
  EXPECT_TRUE(rig.core.take_signal());
  EXPECT_EQ(rig.offered(id), 0U);
  for (int i = 0; i < 10; ++i) {
    rig.clock.advance(milliseconds(1));
    rig.settle();
  }
  EXPECT_EQ(rig.disk.begun_reads, before + 1);
  EXPECT_EQ(rig.core.reads(), 0U);
  EXPECT_EQ(rig.count(catalog::SlotState::kFilling), 0U);
  EXPECT_FALSE(rig.core.has_jobs());
  ASSERT_TRUE(rig.accept(id, 0, 0, {}).is_ok());
  EXPECT_EQ(rig.end(id).first_miss, MissReason::kPaused);
  rig.core.set_mode(Mode::kOn);
  EXPECT_EQ(rig.look_up(rig.begin(tokens)), 4U);
}

TEST(CoreModeTest, ReadsThatTheDiskGivesBackInThePauseAreForgotten) {
  Rig rig({.host_blocks = 16, .has_disk = true});
  const auto tokens = Rig::make_tokens(4, 1);
  rig.run_cold(tokens);
  for (std::uint32_t seed = 2; seed < 6; ++seed) rig.run_cold(Rig::make_tokens(4, seed));
  const RequestId id = rig.begin(tokens);
  Jobs jobs;
  rig.core.take_jobs(16, rig.clock.now(), jobs);
  ASSERT_FALSE(jobs.reads.empty());
  const std::uint64_t before = rig.disk.begun_reads;
  rig.core.set_mode(Mode::kPaused);
  for (const ReadJob& job : jobs.reads) rig.core.put_back_read(job.token);
  rig.settle();
  EXPECT_EQ(rig.disk.begun_reads, before);
  EXPECT_EQ(rig.core.reads(), 0U);
  EXPECT_EQ(rig.count(catalog::SlotState::kFilling), 0U);
  rig.core.set_mode(Mode::kOn);
  EXPECT_EQ(rig.look_up(id), 4U);
}

// It rose from prefetch to what a look-up waits for, and its token still stands in the first queue.
TEST(CoreModeTest, AReadThatHasBegunKeepsItsSlotInThePause) {
  Rig rig({.host_blocks = 16, .has_disk = true});
  const auto tokens = Rig::make_tokens(4, 1);
  rig.run_cold(tokens);
  for (std::uint32_t seed = 2; seed < 6; ++seed) rig.run_cold(Rig::make_tokens(4, seed));
  const RequestId id = rig.begin(tokens);
  EXPECT_FALSE(rig.poll(id).is_ready);
  Jobs jobs;
  rig.core.take_jobs(1, rig.clock.now(), jobs);
  ASSERT_EQ(jobs.reads.size(), 1U);
  const ReadJob job = jobs.reads.front();
  EXPECT_EQ(job.io_class, transfer::IoClass::kTtftRead);
  rig.core.set_mode(Mode::kPaused);
  EXPECT_EQ(rig.core.reads(), 1U);
  EXPECT_EQ(rig.core.context().pool().state(job.slot), catalog::SlotState::kFilling)
      << "the device may write into it until it has answered";
  rig.core.on_read(job.token, {Code::kIo, "EIO"}, {}, 0, rig.clock.now());
  EXPECT_EQ(rig.core.reads(), 0U);
  EXPECT_EQ(rig.count(catalog::SlotState::kFilling), 0U);
}

TEST(CoreModeTest, NothingIsPrefetchedInThePause) {
  Rig rig({.host_blocks = 16, .has_disk = true});
  const auto tokens = Rig::make_tokens(4, 1);
  rig.run_cold(tokens);
  for (std::uint32_t seed = 2; seed < 6; ++seed) rig.run_cold(Rig::make_tokens(4, seed));
  rig.core.set_mode(Mode::kPaused);
  (void)rig.begin(tokens);
  EXPECT_EQ(rig.core.reads(), 0U);
}

TEST(CoreModeTest, AStepThatIsOutIsSealedAndWrittenToDiskOnlyAfterResume) {
  for (const Mode mode : kSwitchedOff) {
    Rig rig({.has_disk = true});
    const auto tokens = Rig::make_tokens(3, 1);
    const RequestId id = rig.begin(tokens);
    for (std::uint32_t i = 0; i < 3; ++i) rig.compute(id, i, i);
    rig.advance(id, 3, Rig::make_table(3));
    const auto orders = rig.build();
    ASSERT_TRUE(orders.has_value());
    const std::uint64_t before = rig.disk.begun_writes;
    rig.core.set_mode(mode);
    ASSERT_TRUE(rig.core.take_report(rig.obey(0, *orders), rig.clock.now()).is_ok());
    rig.settle();
    EXPECT_TRUE(rig.in_host(rig.hashes(id)[2]));
    EXPECT_EQ(rig.disk.begun_writes, before);
    EXPECT_FALSE(rig.core.has_jobs());  // Or the I/O thread would never sleep.
    rig.core.set_mode(Mode::kOn);
    rig.settle();
    EXPECT_EQ(rig.disk.begun_writes, before + 3);
    EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
  }
}

TEST(CoreModeTest, CopiesNotYetOrderedAreDroppedAndOfferedAgainAfterResume) {
  for (const Mode mode : kSwitchedOff) {
    Rig rig;
    const auto tokens = Rig::make_tokens(3, 1);
    const RequestId id = rig.begin(tokens);
    for (std::uint32_t i = 0; i < 3; ++i) rig.compute(id, i, i);
    rig.advance(id, 3, Rig::make_table(3));
    rig.core.set_mode(mode);
    EXPECT_FALSE(rig.step().has_value());
    EXPECT_EQ(rig.counters.drop_mode.value(), 3U);
    EXPECT_EQ(rig.count(catalog::SlotState::kFilling), 0U);
    rig.advance(id, 3, Rig::make_table(3));
    EXPECT_FALSE(rig.step().has_value());
    rig.core.set_mode(Mode::kOn);
    rig.advance(id, 3, Rig::make_table(3));
    rig.step();
    EXPECT_EQ(rig.look_up(rig.begin(tokens)), 3U);
  }
}

TEST(CoreModeTest, ReadOnlyServesBothTiersAndStoresInNeither) {
  Rig rig({.host_blocks = 16, .has_disk = true});
  const auto below = Rig::make_tokens(4, 1);
  rig.run_cold(below);
  for (std::uint32_t seed = 2; seed < 6; ++seed) rig.run_cold(Rig::make_tokens(4, seed));
  rig.core.set_mode(Mode::kReadOnly);
  const auto on_disk = rig.disk.blocks.size();
  const std::uint64_t begun = rig.disk.begun_writes;
  EXPECT_EQ(rig.counters.mode.value(), 1);
  const RequestId from_disk = rig.begin(below);
  EXPECT_EQ(rig.look_up(from_disk), 4U);
  ASSERT_TRUE(rig.accept(from_disk, 0, 4, Rig::make_table(4, 30)).is_ok());
  rig.step();
  EXPECT_TRUE(rig.is_right(from_disk, 3, 33));
  EXPECT_EQ(rig.end(from_disk).hit[static_cast<std::size_t>(Tier::kDisk)], Tokens(16));
  EXPECT_EQ(rig.look_up(rig.begin(Rig::make_tokens(4, 5))), 4U);  // From host.
  const std::uint64_t sealed = rig.counters.offload_blocks.value();
  EXPECT_EQ(rig.run_cold(Rig::make_tokens(4, 9)).first_miss, MissReason::kNeverStored);
  EXPECT_EQ(rig.look_up(rig.begin(Rig::make_tokens(4, 9))), 0U);
  EXPECT_EQ(rig.counters.offload_blocks.value(), sealed);
  EXPECT_EQ(rig.disk.blocks.size(), on_disk);
  EXPECT_EQ(rig.disk.begun_writes, begun);
}

TEST(CoreModeTest, ReadOnlyGivesUpNoBlockThatOnlyHostHas) {
  Rig rig({.host_blocks = 32, .has_disk = true, .tune = [](Options& options) {
             options.disk.is_demote = true;
           }});
  // Two slots are kept free ahead: as many blocks go to disk as a prompt has.
  for (std::uint32_t seed = 1; seed <= 20; ++seed) rig.run_cold(Rig::make_tokens(2, seed));
  rig.core.set_mode(Mode::kReadOnly);
  std::vector<SequenceHash> only_in_host;
  for (std::uint32_t seed = 1; seed <= 20; ++seed) {
    const RequestId id = rig.begin(Rig::make_tokens(2, seed), false);
    for (const SequenceHash& hash : rig.hashes(id)) {
      if (!rig.disk.contains(GroupId(0), hash)) only_in_host.push_back(hash);
    }
    rig.end(id);
  }
  ASSERT_EQ(only_in_host.size(), 30U);
  for (std::uint32_t turn = 0; turn < 20; ++turn) {
    const RequestId id = rig.begin(Rig::make_tokens(2, 1 + turn % 5));
    EXPECT_EQ(rig.look_up(id), 2U);  // Always in the two slots that may be used.
    rig.end(id);
  }
  for (const SequenceHash& hash : only_in_host) EXPECT_TRUE(rig.in_host(hash));
}

TEST(CoreModeTest, ReadOnlyMissesOnDiskRatherThanGiveUpTheLastCopyOfAnother) {
  Rig rig({.host_blocks = 32, .has_disk = true, .tune = [](Options& options) {
             options.disk.is_demote = true;
           }});
  for (std::uint32_t seed = 1; seed <= 16; ++seed) rig.run_cold(Rig::make_tokens(2, seed));
  const RequestId last = rig.begin(Rig::make_tokens(2, 17));
  for (std::uint32_t i = 0; i < 2; ++i) rig.compute(last, i, i);
  rig.advance(last, 2, Rig::make_table(2));
  const auto orders = rig.build();
  rig.core.set_mode(Mode::kReadOnly);
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *orders), rig.clock.now()).is_ok());
  rig.settle();
  rig.end(last);
  ASSERT_EQ(rig.count(catalog::SlotState::kSealed), 32U);
  const auto below = Rig::make_tokens(2, 1);
  const RequestId id = rig.begin(below);
  EXPECT_EQ(rig.look_up(id), 0U);
  EXPECT_EQ(rig.end(id).first_miss, MissReason::kDropped);
  EXPECT_EQ(rig.look_up(rig.begin(Rig::make_tokens(2, 2))), 2U);  // The next to go, and in host.
  rig.core.set_mode(Mode::kOn);
  rig.settle();
  EXPECT_EQ(rig.look_up(rig.begin(below)), 2U);
}

// Nobody finds it any more, though the disk does not have it either: it goes before what is of now.
TEST(CoreModeTest, ReadOnlyGivesUpWhatIsOfBeforeAReset) {
  Rig rig({.host_blocks = 16, .has_disk = true});
  rig.run_cold(Rig::make_tokens(8, 1));
  rig.core.reset();
  const auto below = Rig::make_tokens(4, 2);
  rig.run_cold(below);
  const RequestId id = rig.begin(below);
  Context& context = rig.core.context();
  for (const SequenceHash& hash : rig.hashes(id)) {  // Its copies in host were damaged.
    const SlotRef slot = context.pool().pin(context.key_of(GroupId(0), hash))->slot();
    ASSERT_TRUE(context.remove(slot, MissReason::kCorrupt));
  }
  const auto beside = Rig::make_tokens(8, 3);
  rig.run_cold(beside);
  const auto of_a_step = context.reserve(context.key_of(GroupId(0), {.high = 1, .low = 2}));
  ASSERT_TRUE(of_a_step.has_value());
  ASSERT_LT(rig.count(catalog::SlotState::kFree), 4U);
  rig.core.set_mode(Mode::kReadOnly);
  EXPECT_EQ(rig.look_up(id), 4U);
  const RequestId other = rig.begin(beside, false);
  for (const SequenceHash& hash : rig.hashes(other)) EXPECT_TRUE(rig.in_host(hash));
}

TEST(CoreModeTest, APauseAgesNothingOut) {
  Rig rig({.host_blocks = 32, .has_disk = true, .tune = [](Options& options) {
             options.disk.is_demote = true;
           }});
  for (std::uint32_t seed = 1; seed <= 8; ++seed) rig.run_cold(Rig::make_tokens(4, seed));
  rig.core.set_mode(Mode::kPaused);
  const std::uint32_t sealed = rig.count(catalog::SlotState::kSealed);
  for (std::uint32_t i = 0; i < 50; ++i) {
    rig.run_cold(Rig::make_tokens(4, 100 + i));
    rig.clock.advance(seconds(60));
    rig.settle();
  }
  EXPECT_EQ(rig.count(catalog::SlotState::kSealed), sealed);
  EXPECT_FALSE(rig.core.has_jobs());
  rig.core.set_mode(Mode::kOn);
  std::uint64_t found = 0;
  for (std::uint32_t seed = 1; seed <= 8; ++seed) {
    const RequestId id = rig.begin(Rig::make_tokens(4, seed));
    found += rig.look_up(id);
    rig.end(id);
  }
  EXPECT_EQ(found, 32U);
}

TEST(CoreModeTest, HostSlotsAreMadeFreeAheadOnlyAfterResume) {
  Rig rig({.host_blocks = 32, .has_disk = true, .tune = [](Options& options) {
             options.disk.is_demote = true;
           }});
  for (std::uint32_t seed = 1; seed <= 7; ++seed) rig.run_cold(Rig::make_tokens(4, seed));
  const RequestId id = rig.begin(Rig::make_tokens(4, 8));
  rig.advance(id, 4, Rig::make_table(4));
  const auto orders = rig.build();
  const std::uint64_t before = rig.disk.begun_writes;
  rig.core.set_mode(Mode::kReadOnly);
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *orders), rig.clock.now()).is_ok());
  rig.settle();
  EXPECT_EQ(rig.count(catalog::SlotState::kSealed), 32U);  // Full, and nothing is made free ahead.
  EXPECT_EQ(rig.count(catalog::SlotState::kEvicting), 0U);
  EXPECT_FALSE(rig.core.has_jobs());
  EXPECT_EQ(rig.disk.begun_writes, before);
  rig.core.set_mode(Mode::kOn);
  rig.settle();
  EXPECT_GT(rig.disk.begun_writes, before);
}

TEST(CoreModeTest, ClosingInAPauseWaitsForNoQueuedWrite) {
  Rig rig({.has_disk = true});
  const RequestId id = rig.begin(Rig::make_tokens(2, 1));
  rig.advance(id, 2, Rig::make_table(2));
  const auto orders = rig.build();
  rig.core.set_mode(Mode::kPaused);
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *orders), rig.clock.now()).is_ok());
  EXPECT_TRUE(rig.core.has_queued_writes());
  rig.core.begin_close();
  EXPECT_FALSE(rig.core.has_queued_writes());
  EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
  EXPECT_FALSE(rig.core.set_mode(Mode::kOn));  // Too late for that.
}

TEST(CoreModeTest, AWriteGivenBackAfterTheCloseIsDropped) {
  Rig rig({.has_disk = true});
  const RequestId id = rig.begin(Rig::make_tokens(1, 1));
  rig.advance(id, 1, Rig::make_table(1));
  rig.step();
  Jobs jobs;
  rig.core.take_jobs(16, rig.clock.now(), jobs);
  ASSERT_EQ(jobs.writes.size(), 1U);
  rig.core.set_mode(Mode::kPaused);
  rig.core.begin_close();
  rig.core.put_back_write(jobs.writes[0].token);
  EXPECT_FALSE(rig.core.has_queued_writes());
}

TEST(CoreModeTest, APauseDuringTheStartMissesAtOnceAndIsOverWithResume) {
  Rig rig({.opens = false});
  rig.core.set_mode(Mode::kPaused);
  const RequestId id = rig.begin(Rig::make_tokens(2, 1));
  EXPECT_EQ(rig.offered(id), 0U);
  EXPECT_EQ(rig.end(id).first_miss, MissReason::kPaused);
  rig.open();
  EXPECT_TRUE(rig.core.gate().is_serving());
  rig.core.set_mode(Mode::kOn);
  rig.run_cold(Rig::make_tokens(2, 2));
  EXPECT_EQ(rig.look_up(rig.begin(Rig::make_tokens(2, 2))), 2U);
}

TEST(CoreModeTest, ARequestThatLoadsNothingMissesNothingInThePause) {
  Rig rig;
  rig.core.set_mode(Mode::kPaused);
  const RequestId id = rig.begin(Rig::make_tokens(2, 1), /*can_load=*/false);
  EXPECT_EQ(rig.offered(id), 0U);
  ASSERT_TRUE(rig.accept(id, 0, 0, {}).is_ok());
  EXPECT_EQ(rig.end(id).first_miss, std::nullopt);
  EXPECT_EQ(Rig::miss(rig.counters, MissReason::kPaused), 0U);
}

TEST(CoreModeTest, TheSameModeTwiceIsNoChange) {
  Rig rig;
  EXPECT_FALSE(rig.core.set_mode(Mode::kOn));
  EXPECT_TRUE(rig.core.set_mode(Mode::kReadOnly));
  EXPECT_FALSE(rig.core.set_mode(Mode::kReadOnly));
  EXPECT_TRUE(rig.core.set_mode(Mode::kPaused));
}

}  // namespace
}  // namespace terrace::manager
