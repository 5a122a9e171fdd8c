// What a request's ledger says: each reason of a miss and its count, why tiers were not asked,
// where the time went; and what is kept of requests that ended. One claim a test, with virtual time
// and a made-up engine (core_rig_internal.h).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <string_view>

#include "terrace/manager/core_rig_internal.h"

namespace terrace::manager {
namespace {

using rig::Rig;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr auto kHost = static_cast<std::size_t>(Tier::kHost);

// Looks up a prompt of two blocks, takes what is offered, and ends.
Ledger ask(Rig& rig, std::uint32_t seed) {
  const RequestId id = rig.begin(Rig::make_tokens(2, seed));
  const std::uint64_t offered = rig.look_up(id);
  EXPECT_TRUE(rig.accept(id, 0, offered, Rig::make_table(2, 40)).is_ok());
  rig.step();
  return rig.end(id);
}

// The reason, told by the ledger, by the counter and by what is kept.
void expect_miss(Rig& rig, const Ledger& ledger, MissReason reason, std::uint64_t blocks) {
  EXPECT_EQ(ledger.first_miss, reason);
  EXPECT_EQ(Rig::miss(rig.counters, reason), blocks);
  EXPECT_EQ(rig.shared.ledgers.newest(1).at(0).ledger.first_miss, reason);
}

TEST(CoreLedgerTest, WhatNobodyStoredIsNeverStored) {
  Rig rig;
  expect_miss(rig, ask(rig, 1), MissReason::kNeverStored, 2);
}

TEST(CoreLedgerTest, WhatEveryTierLetGoIsEvicted) {
  Rig rig({.host_blocks = 4, .tune = [](Options& options) { options.host.eviction = "lru"; }});
  for (std::uint32_t seed = 1; seed < 4; ++seed) rig.run_cold(Rig::make_tokens(2, seed));
  const std::uint64_t before = Rig::miss(rig.counters, MissReason::kNeverStored);
  expect_miss(rig, ask(rig, 1), MissReason::kEvicted, 2);
  EXPECT_EQ(Rig::miss(rig.counters, MissReason::kNeverStored), before);
}

TEST(CoreLedgerTest, EvictedBlocksAreKnownAsSuchForAsManyAsTheTiersHold) {
  EXPECT_EQ(Ghosts::cells_for(0), Ghosts::kCells);
  EXPECT_EQ(Ghosts::cells_for(100'000), 262'144U);
  EXPECT_EQ(Ghosts::cells_for(UINT64_MAX / 4), Ghosts::kMostCells);
  constexpr std::uint64_t kBlocks = 100'000;
  Ghosts ghosts(Ghosts::cells_for(kBlocks));
  Rng rng(3);
  std::vector<SequenceHash> gone(kBlocks);
  for (SequenceHash& hash : gone) {
    hash = {.high = rng.next(), .low = rng.next()};
    ghosts.remember(hash, MissReason::kEvicted);
  }
  std::uint64_t known = 0;
  for (const SequenceHash& hash : gone) known += ghosts.recall(hash).has_value() ? 1 : 0;
  EXPECT_GT(known, kBlocks * 4 / 5) << "of those that went last as many as the tiers hold";
}

TEST(CoreLedgerTest, WhatLiesUnderAnotherFingerprintIsOtherNamespace) {
  Rig rig({.has_disk = true});
  const RequestId id = rig.begin(Rig::make_tokens(2, 1));
  rig.disk.foreign.insert(rig.hashes(id)[0]);
  ASSERT_EQ(rig.look_up(id), 0U);
  expect_miss(rig, rig.end(id), MissReason::kOtherNamespace, 2);
}

TEST(CoreLedgerTest, WhatDoesNotVerifyIsCorrupt) {
  Rig rig;
  rig.run_cold(Rig::make_tokens(2, 1));
  const RequestId id = rig.begin(Rig::make_tokens(2, 1));
  ASSERT_EQ(rig.look_up(id), 2U);
  ASSERT_TRUE(rig.accept(id, 0, 2, Rig::make_table(2, 40)).is_ok());
  const auto orders = rig.build();
  rig.shard(orders->loads[1].slot.index, 0)[3] ^= std::byte{1};
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *orders), rig.clock.now()).is_ok());
  const Ledger ledger = rig.end(id);
  expect_miss(rig, ledger, MissReason::kCorrupt, 1);
  EXPECT_EQ(ledger.hit[kHost], Tokens(4)) << "what leads up to the bad block";
  EXPECT_EQ(ledger.failed, Tokens(4));
}

TEST(CoreLedgerTest, ABlockThatTheDiskCannotVerifyIsCorruptForThoseWhoWaitAndThoseWhoCome) {
  Rig rig({.host_blocks = 4, .has_disk = true});
  for (std::uint32_t seed = 1; seed < 4; ++seed) rig.run_cold(Rig::make_tokens(2, seed));
  rig.disk.fault = [](const SequenceHash&, bool is_read) {
    return is_read ? Status(Code::kCorrupt, "planted") : Status();
  };
  EXPECT_EQ(ask(rig, 1).first_miss, MissReason::kCorrupt);
}

TEST(CoreLedgerTest, WhatDoesNotComeInTimeIsLate) {
  Rig rig({.host_blocks = 4, .has_disk = true, .tune = [](Options& options) {
             options.lookup_deadline = Nanoseconds(0);
           }});
  for (std::uint32_t seed = 1; seed < 4; ++seed) rig.run_cold(Rig::make_tokens(2, seed));
  expect_miss(rig, ask(rig, 1), MissReason::kLate, 2);
}

TEST(CoreLedgerTest, WhatAFullTierRefusedIsDropped) {
  Rig rig({.host_blocks = 2});
  rig.run_cold(Rig::make_tokens(2, 1));
  const RequestId holder = rig.begin(Rig::make_tokens(1, 1));  // Pins a half of it.
  ASSERT_EQ(rig.look_up(holder), 1U);
  rig.run_cold(Rig::make_tokens(2, 2));  // One block finds no slot.
  (void)rig.end(holder);
  const std::uint64_t before = Rig::miss(rig.counters, MissReason::kDropped);
  const RequestId id = rig.begin(Rig::make_tokens(2, 2));
  const std::uint64_t offered = rig.look_up(id);
  ASSERT_TRUE(rig.accept(id, 0, offered, Rig::make_table(2, 40)).is_ok());
  rig.step();
  EXPECT_EQ(rig.end(id).first_miss, MissReason::kDropped);
  EXPECT_GT(Rig::miss(rig.counters, MissReason::kDropped), before);
}

TEST(CoreLedgerTest, WhatIsCheaperComputedIsNotWorthIt) {
  Rig rig({.host_blocks = 4, .has_disk = true});
  for (std::uint32_t seed = 1; seed < 4; ++seed) rig.run_cold(Rig::make_tokens(2, seed));
  policy::Planner& planner = rig.core.context().planner;
  for (int i = 0; i < 40; ++i) {
    planner.observe_load(Tier::kDisk, rig.core.context().groups.most_bytes(), seconds(1));
    planner.observe_prefill(Tokens(rig::kBlockTokens), milliseconds(1));
  }
  const Ledger ledger = ask(rig, 1);
  expect_miss(rig, ledger, MissReason::kNotWorthIt, 2);
  ASSERT_TRUE(ledger.decision.has_value());
  EXPECT_GT(ledger.decision->found, Tokens(0));
  EXPECT_EQ(ledger.decision->planned, Tokens(0));
}

RequestId begin_unkeyable(Rig& rig, const Options& options) {
  return rig.core
      .add_request(make_request(RequestId(99),
                                {.tokens = {},
                                 .extra_keys = {},
                                 .prompt_tokens = Tokens(9),
                                 .is_unkeyable = true,
                                 .name = "n",
                                 .unkeyable = "prompt embeddings"},
                                options),
                   rig.clock.now())
      .id;
}

TEST(CoreLedgerTest, WhatCannotBeKeyedIsUnkeyableAndCountedThoughNobodyPolls) {
  Rig rig;
  expect_miss(rig, rig.end(begin_unkeyable(rig, rig.options)), MissReason::kUnkeyable, 2);
  const KeptLedger kept = rig.shared.ledgers.newest(1).at(0);
  EXPECT_EQ(kept.unkeyable.view(), "prompt embeddings");
  EXPECT_EQ(kept.name.view(), "n");
  EXPECT_EQ(kept.ledger.prompt, Tokens(9));
}

TEST(CoreLedgerTest, WhatTheEngineHadItselfOfAnUnkeyableRequestIsNoMiss) {
  Rig rig;
  const RequestId id = begin_unkeyable(rig, rig.options);
  EXPECT_TRUE(rig.poll(id, 1).is_ready);
  ASSERT_TRUE(rig.accept(id, 1, 0, {}).is_ok());
  expect_miss(rig, rig.end(id), MissReason::kUnkeyable, 1);
}

TEST(CoreLedgerTest, OneThatIsPausedMissesForThatReason) {
  Rig rig;
  rig.run_cold(Rig::make_tokens(2, 1));
  ASSERT_TRUE(rig.core.set_mode(Mode::kPaused));
  expect_miss(rig, ask(rig, 1), MissReason::kPaused, 2);
}

TEST(CoreLedgerTest, ARequestThatIsNotToLoadWasNotAsked) {
  Rig rig;
  const RequestId polled = rig.begin(Rig::make_tokens(2, 1), false);
  ASSERT_EQ(rig.look_up(polled), 0U);
  EXPECT_EQ(rig.end(polled).not_asked, NotAsked::kOptedOut);
  const Ledger never_polled = rig.end(rig.begin(Rig::make_tokens(2, 1), false));
  EXPECT_EQ(never_polled.not_asked, NotAsked::kOptedOut);
  EXPECT_FALSE(never_polled.first_miss.has_value());
}

TEST(CoreLedgerTest, AnOwnerThatOnlyStoresObservesOrIsShutSaysSo) {
  Rig stores({.tune = [](Options& options) { options.can_load = false; }});
  EXPECT_EQ(ask(stores, 1).not_asked, NotAsked::kStoresOnly);
  Rig observes({.tune = [](Options& options) { options.observed = ObservedTiers{}; }});
  EXPECT_EQ(ask(observes, 1).not_asked, NotAsked::kObserves);
  Rig shut;
  shut.core.poison("made up");
  EXPECT_EQ(ask(shut, 1).not_asked, NotAsked::kNotServing);
  Rig serves;
  EXPECT_FALSE(ask(serves, 1).not_asked.has_value());
}

TEST(CoreLedgerTest, SaysWhereTheTimeWent) {
  Rig rig;
  rig.run_cold(Rig::make_tokens(3, 1));
  const RequestId id = rig.begin(Rig::make_tokens(5, 1));
  rig.clock.advance(milliseconds(7));  // In the engine's queue.
  ASSERT_EQ(rig.look_up(id), 3U);
  rig.clock.advance(milliseconds(2));  // The engine finds no room.
  ASSERT_EQ(rig.look_up(id), 3U);
  const auto table = Rig::make_table(5, 20);
  ASSERT_TRUE(rig.accept(id, 0, 3, table).is_ok());
  rig.advance(id, 5, table);
  const auto orders = rig.build();
  rig.clock.advance(milliseconds(20));
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *orders), rig.clock.now()).is_ok());
  rig.clock.advance(milliseconds(100));  // It decodes.
  const Stages stages = rig.end(id).stages;
  EXPECT_EQ(stages.queued, milliseconds(7));
  EXPECT_EQ(stages.placed, milliseconds(2));
  EXPECT_EQ(stages.copied, Nanoseconds(3000)) << "what the rank reported";
  EXPECT_EQ(stages.computed, milliseconds(20) - Nanoseconds(3000));
  EXPECT_EQ(stages.computed_tokens, Tokens(8));
  EXPECT_EQ(stages.total, milliseconds(129));
}

struct Counts final : MetricVisitor {
  void counter(std::string_view name, std::string_view /*labels*/, std::uint64_t value) override {
    if (name.ends_with("_count")) of[std::string(name)] = value;
  }
  void gauge(std::string_view /*name*/, std::string_view /*labels*/, double /*value*/) override {}
  std::map<std::string, std::uint64_t> of;
};

TEST(CoreLedgerTest, EachLookUpAndEachLoadIsTimedOnce) {
  Rig rig;
  rig.run_cold(Rig::make_tokens(2, 1));
  const RequestId id = rig.begin(Rig::make_tokens(3, 1));
  ASSERT_EQ(rig.look_up(id), 2U);
  rig.clock.advance(milliseconds(2));  // The engine finds no room, and asks again.
  ASSERT_EQ(rig.look_up(id), 2U);
  ASSERT_TRUE(rig.accept(id, 0, 2, Rig::make_table(3, 20)).is_ok());
  rig.step();
  (void)rig.end(id);
  const RequestId missed = rig.begin(Rig::make_tokens(3, 2));
  ASSERT_EQ(rig.look_up(missed), 0U);
  rig.clock.advance(milliseconds(2));
  ASSERT_EQ(rig.look_up(missed), 0U);
  EXPECT_EQ(rig.end(missed).lookup_wait, Nanoseconds(0)) << "the first answer was ready at once";
  Counts counts;
  rig.counters.visit(counts);
  EXPECT_EQ(counts.of["terrace_lookup_seconds_count"], 3U) << "with the cold one";
  EXPECT_EQ(counts.of["terrace_onboard_seconds_count"], 1U);
}

TEST(CoreLedgerTest, ALoadReportedAfterTheEndIsAmended) {
  Rig rig;
  rig.run_cold(Rig::make_tokens(2, 1));
  for (const bool is_bad : {false, true}) {
    const RequestId id = rig.begin(Rig::make_tokens(2, 1));
    rig.core.find(id)->name = Label("late");
    ASSERT_EQ(rig.look_up(id), 2U);
    ASSERT_TRUE(rig.accept(id, 0, 2, Rig::make_table(2, 40)).is_ok());
    const auto orders = rig.build();
    if (is_bad) rig.shard(orders->loads[0].slot.index, 0)[3] ^= std::byte{1};
    (void)rig.end(id);
    EXPECT_EQ(rig.shared.ledgers.newest(1).at(0).state, LedgerState::kReporting);
    EXPECT_EQ(rig.shared.ledgers.newest(1).at(0).ledger.pending, Tokens(8));
    ASSERT_TRUE(rig.core.take_report(rig.obey(0, *orders), rig.clock.now()).is_ok());
    const KeptLedger kept = rig.shared.ledgers.newest(1).at(0);
    EXPECT_EQ(kept.name.view(), "late");
    EXPECT_EQ(kept.state, LedgerState::kEnded);
    EXPECT_EQ(kept.ledger.pending, Tokens(0));
    EXPECT_EQ(kept.ledger.hit[kHost], Tokens(is_bad ? 0 : 8));
    EXPECT_EQ(kept.ledger.failed, Tokens(is_bad ? 8 : 0));
    EXPECT_EQ(kept.ledger.first_miss.has_value(), is_bad);
  }
}

TEST(CoreLedgerTest, RequestsUnderWayAreFoundByTheBeginOfTheirNames) {
  Rig rig;
  for (const char* name : {"cmpl-1", "cmpl-2", "chat-1"}) {
    rig.core.find(rig.begin(Rig::make_tokens(1, 1)))->name = Label(name);
  }
  rig.clock.advance(milliseconds(5));
  std::vector<KeptLedger> found;
  found.reserve(10);
  rig.core.find_running("cmpl-", rig.clock.now(), found);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].state, LedgerState::kRunning);
  EXPECT_EQ(found[0].number, 0U);
  EXPECT_EQ(found[0].ledger.stages.total, milliseconds(5));
  found.clear();
  found.shrink_to_fit();
  rig.core.find_running("cmpl-", rig.clock.now(), found);
  EXPECT_THAT(found, IsEmpty()) << "no room, no answer";
}

std::vector<std::string> rate_lines(Rig& rig) {
  rig.core.tick(rig.clock.now());
  std::vector<std::string> lines;
  for (const Note& note : std::exchange(rig.core.context().notes, {})) {
    if (note.line.starts_with("event=rates")) lines.push_back(note.line);
  }
  return lines;
}

TEST(CoreLedgerTest, OneLineAMinuteTellsRatesSharesAndReasons) {
  Rig rig({.tune = [](Options& options) { options.log_rates_every = seconds(60); }});
  rig.run_cold(Rig::make_tokens(2, 1));
  (void)ask(rig, 1);
  EXPECT_THAT(rate_lines(rig), IsEmpty()) << "the minute is not over";
  rig.clock.advance(seconds(60));
  const auto lines = rate_lines(rig);
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_THAT(lines[0], AllOf(HasSubstr("event=rates seconds=60 requests=2 prompt_tokens_per_s=0 "
                                        "engine=0.0% host=50.0% disk=0.0% object=0.0%"),
                              HasSubstr(" missed_blocks=never_stored:2 "),
                              HasSubstr(" failed_loads=0 slow_loads=0 dropped_blocks=0")));
  rig.clock.advance(seconds(60));
  EXPECT_THAT(rate_lines(rig), IsEmpty()) << "nobody asked for anything";
}

}  // namespace
}  // namespace terrace::manager
