// The core's rules of opening, reports and resets.
// One claim a test, with virtual time and a made-up engine (core_rig_internal.h).
#include <gtest/gtest.h>

#include "terrace/manager/core_rig_internal.h"

namespace terrace::manager {
namespace {

using rig::Rig;

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

// The attachment server has told who was refused and why; it may have been nobody with a rank.
TEST(CoreTest, ARefusalAtTheSocketIsNotToldTwiceAndChangesNothing) {
  Rig rig;
  rig.core.context().notes.clear();
  const std::string before = rig.core.gate().reason(rig.clock.now());
  rig.core.on_attach({.change = attach::AttachChange::kRefused,
                      .rank = RankId(0),
                      .epoch = Epoch(0),
                      .detail = "a stranger",
                      .process = 0},
                     rig.clock.now());
  EXPECT_TRUE(rig.core.context().notes.empty());
  EXPECT_EQ(rig.core.gate().reason(rig.clock.now()), before);
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

TEST(CoreTest, ProducersOnlyStoreAndConsumersOnlyLoad) {
  Rig producer({.tune = [](Options& options) { options.can_load = false; }});
  producer.run_cold(Rig::make_tokens(2, 1));
  EXPECT_EQ(producer.offered(producer.begin(Rig::make_tokens(2, 1))), 0U);
  Rig consumer({.tune = [](Options& options) { options.can_store = false; }});
  const RequestId id = consumer.begin(Rig::make_tokens(2, 1));
  consumer.advance(id, 2, Rig::make_table(2));
  EXPECT_FALSE(consumer.build().has_value());
}

TEST(CoreTest, AProducersFirstRequestWaitsForTheRanksToo) {
  Rig rig({.opens = false, .tune = [](Options& options) { options.can_load = false; }});
  const RequestId id = rig.begin(Rig::make_tokens(2, 1));
  EXPECT_FALSE(rig.poll(id).is_ready);
  rig.open();
  EXPECT_EQ(rig.offered(id), 0U);
  rig.advance(id, 2, Rig::make_table(2));
  EXPECT_EQ(rig.step()->saves.size(), 2U);
}

// Nobody would know why nothing came from disk, and the canary's slot would be lost.
TEST(CoreTest, ADiskThatHangsAtTheStartIsGivenUpAndTheEngineGoesOn) {
  Rig rig({.has_disk = true, .opens = false});
  const auto filling = [&] {
    return rig.core.context().pool().count(catalog::SlotState::kFilling);
  };
  rig.disk.is_stuck = true;
  rig.open();
  rig.clock.advance(seconds(29));
  rig.settle();
  EXPECT_EQ(rig.core.lower_problem(), "");
  rig.clock.advance(seconds(1));
  rig.settle();
  EXPECT_NE(rig.core.lower_problem().find("disk canary: no answer within 30 s"), std::string::npos);
  EXPECT_NE(rig.log.text.find("error event=disk_off reason=\"disk canary: no answer"),
            std::string::npos);
  EXPECT_NE(rig.log.text.find("check the devices of disk.paths"), std::string::npos);
  // Host serves, and the device has the canary's slot for as long as it may read it.
  const auto tokens = Rig::make_tokens(3, 1);
  rig.run_cold(tokens);
  EXPECT_EQ(rig.look_up(rig.begin(tokens)), 3U);
  EXPECT_EQ(filling(), 1U);
  rig.disk.is_stuck = false;
  rig.settle();
  EXPECT_EQ(filling(), 0U);
  EXPECT_FALSE(rig.core.context().is_lower_readable);
}

TEST(CoreTest, ADiskThatHangsAtTheCanarysReadIsGivenUpToo) {
  Rig rig({.has_disk = true, .opens = false});
  rig.disk.fault = [&](const SequenceHash&, bool is_read) {
    rig.disk.is_stuck = !is_read;  // After the write.
    return Status();
  };
  rig.open();
  rig.clock.advance(seconds(30));
  rig.settle();
  EXPECT_NE(rig.core.lower_problem().find("disk canary: no answer within 30 s"), std::string::npos);
}

TEST(CoreTest, ADiskThatNeverOpensIsTold) {
  Rig rig({.is_disk_opening = true});
  rig.clock.advance(seconds(29));
  rig.settle();
  EXPECT_EQ(rig.log.text.find("disk_late"), std::string::npos);
  rig.clock.advance(seconds(1));
  rig.settle();
  EXPECT_NE(rig.log.text.find("error event=disk_late"), std::string::npos);
  EXPECT_NE(rig.log.text.find("one of disk.paths hangs"), std::string::npos);
  const RequestId first = rig.begin(Rig::make_tokens(1, 2));
  EXPECT_FALSE(rig.poll(first).is_ready);
  rig.clock.advance(rig.options.attach_lookup_wait);
  EXPECT_TRUE(rig.poll(first).is_ready);
  const auto tokens = Rig::make_tokens(3, 1);
  rig.run_cold(tokens);
  EXPECT_EQ(rig.look_up(rig.begin(tokens)), 3U);
}

TEST(CoreTest, NobodyIsToldOfADiskThatIsNotWanted) {
  Rig rig;
  rig.clock.advance(seconds(60));
  rig.settle();
  EXPECT_EQ(rig.log.text.find("disk_late"), std::string::npos);
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

TEST(CoreTest, ARequestWithinItsFirstBlockAtAResetStoresNoMoreAndOneThatOnlyWaitsDoes) {
  Rig rig;
  const auto begun_tokens = Rig::make_tokens(2, 1);
  const auto waiting_tokens = Rig::make_tokens(2, 2);
  const RequestId begun = rig.begin(begun_tokens);
  const RequestId waiting = rig.begin(waiting_tokens);
  ASSERT_EQ(rig.look_up(begun), 0U);
  ASSERT_EQ(rig.look_up(waiting), 0U);
  ASSERT_TRUE(rig.accept(begun, 0, 0, {}).is_ok());  // It computes part of a block.
  rig.core.reset();
  rig.advance(begun, 2, Rig::make_table(2, 20));
  EXPECT_FALSE(rig.step().has_value());
  ASSERT_TRUE(rig.accept(waiting, 0, 0, {}).is_ok());
  rig.advance(waiting, 2, Rig::make_table(2, 30));
  rig.step();
  EXPECT_EQ(rig.look_up(rig.begin(begun_tokens)), 0U);
  EXPECT_EQ(rig.look_up(rig.begin(waiting_tokens)), 2U);
}

TEST(CoreTest, AfterAResetTheDiskServesWhatLeftTheHost) {
  Rig rig({.host_blocks = 16, .has_disk = true});
  rig.core.reset();
  for (std::uint32_t seed = 1; seed < 8; ++seed) rig.run_cold(Rig::make_tokens(3, seed), 3 * seed);
  const RequestId first = rig.begin(Rig::make_tokens(3, 1));
  ASSERT_FALSE(rig.in_host(rig.hashes(first)[0]));
  EXPECT_EQ(rig.look_up(first), 3U);
}

TEST(CoreTest, AWriteThatWasTakenBeforeAResetIsNotBegunAfterIt) {
  Rig rig({.has_disk = true, .tune = [](Options& options) { options.disk.queue_blocks = 8; }});
  const auto tokens = Rig::make_tokens(2, 1);
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), 0U);
  rig.advance(id, 2, Rig::make_table(2));
  rig.step();
  Jobs jobs;
  rig.core.take_jobs(8, rig.clock.now(), jobs);
  ASSERT_EQ(jobs.writes.size(), 2U);
  rig.core.reset();  // The I/O thread has the jobs, and the lock is free.
  const WriteJob& job = jobs.writes[0];
  EXPECT_EQ(rig.disk.begin_write(job.token, job.group, job.hash, 0, {}, {}, job.resets).code(),
            Code::kNotFound);
}

// The disk gave it back without a look at the resets; taken again, it would be stamped with those
// of now, and lie there as if it were of the new weights.
TEST(CoreTest, AWriteThatTheDiskGivesBackAfterAResetIsNeverWritten) {
  for (const bool is_demote : {false, true}) {
    SCOPED_TRACE(is_demote);
    Rig rig({.has_disk = true, .tune = [&](Options& options) {
               options.disk.queue_blocks = 8;
               options.disk.is_demote = is_demote;
             }});
    rig.disk.depth = 0;
    for (std::uint32_t seed = 1; seed <= 5; ++seed) rig.run_cold(Rig::make_tokens(3, seed));
    Jobs jobs;
    rig.core.take_jobs(8, rig.clock.now(), jobs);
    ASSERT_FALSE(jobs.writes.empty());
    const std::uint64_t dropped = rig.counters.drop_disk_write.value();
    rig.core.reset();  // The I/O thread has the jobs, and the lock is free.
    for (const WriteJob& job : jobs.writes) rig.core.put_back_write(job.token);
    EXPECT_EQ(rig.counters.drop_disk_write.value(), dropped + jobs.writes.size());
    EXPECT_EQ(rig.core.writes(), 0U);
    EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
    EXPECT_EQ(rig.count(catalog::SlotState::kEvicting), 0U);
    rig.disk.depth = 16;
    rig.settle();
    for (const WriteJob& job : jobs.writes) {
      EXPECT_FALSE(rig.disk.contains(job.group, job.hash));
    }
    for (std::uint32_t seed = 1; seed <= 5; ++seed) {
      EXPECT_EQ(rig.look_up(rig.begin(Rig::make_tokens(3, seed))), 0U);
    }
  }
}

TEST(CoreTest, AResetIsOverForLaterOwnersOnlyWhenTheDiskSaysSo) {
  Rig rig({.has_disk = true});
  EXPECT_TRUE(rig.core.drop_outcome()->is_ok());  // There was none.
  rig.disk.is_stuck = true;
  rig.core.reset();
  EXPECT_FALSE(rig.core.drop_outcome().has_value());
  EXPECT_EQ(rig.core.undropped().code(), Code::kUnavailable);
  rig.disk.is_stuck = false;
  EXPECT_TRUE(rig.core.drop_outcome()->is_ok());
  EXPECT_TRUE(rig.core.undropped().is_ok());
}

TEST(CoreTest, AResetWhileTheDiskOpensForgetsWhatItFinds) {
  Rig rig(
      {.is_disk_opening = true, .tune = [](Options& options) { options.disk.paths = {"memory"}; }});
  rig.core.reset();
  EXPECT_FALSE(rig.core.drop_outcome().has_value());
  EXPECT_EQ(rig.core.undropped().code(), Code::kUnavailable);
  const auto tokens = Rig::make_tokens(2, 1);
  for (const SequenceHash& hash : rig.hashes(rig.begin(tokens)))
    rig.disk.blocks[{GroupId(0), hash}];
  rig.core.open_lower(rig.disk);
  EXPECT_TRUE(rig.disk.blocks.empty());
  EXPECT_TRUE(rig.core.drop_outcome()->is_ok());
}

TEST(CoreTest, AResetWithoutTheDiskThatWasWantedIsNotOver) {
  Rig rig(
      {.is_disk_opening = true, .tune = [](Options& options) { options.disk.paths = {"memory"}; }});
  rig.core.reset();
  rig.core.close_lower("/kv: EACCES", true);
  ASSERT_TRUE(rig.core.drop_outcome().has_value());
  EXPECT_EQ(rig.core.drop_outcome()->code(), Code::kUnavailable);
  EXPECT_NE(rig.core.drop_outcome()->message().find("/kv: EACCES"), std::string::npos);
  rig.core.close_lower("/kv: EACCES", false);  // And nothing lies there.
  EXPECT_TRUE(rig.core.drop_outcome()->is_ok());
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
