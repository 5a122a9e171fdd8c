#include "terrace/manager/ledger_ring.h"

#include <gtest/gtest.h>

#include <deque>
#include <string>
#include <thread>

#include "terrace/base/rng.h"
#include "terrace/testing/fake_clock.h"

namespace terrace::manager {
namespace {

const testing::FakeClock kClock;  // NOLINT(cert-err58-cpp): it throws nothing.

KeptLedger named(const std::string& name, std::uint64_t prompt = 0) {
  KeptLedger kept;
  kept.name = Label(name);
  kept.ledger.prompt = Tokens(prompt);
  kept.state = LedgerState::kEnded;
  return kept;
}

TEST(LedgerRingTest, KeepsTheNewestAndNumbersThem) {
  LedgerRing ring(3, kClock);
  EXPECT_EQ(ring.last(), 0U);
  EXPECT_TRUE(ring.newest(10).empty());
  for (const char* name : {"a", "b", "c", "d"}) (void)ring.add(named(name));
  EXPECT_EQ(ring.last(), 4U);
  const auto newest = ring.newest(2);
  ASSERT_EQ(newest.size(), 2U);
  EXPECT_EQ(newest[0].name.view(), "d");
  EXPECT_EQ(newest[0].number, 4U);
  EXPECT_EQ(newest[1].name.view(), "c");
  const auto all = ring.read(0, 100);
  ASSERT_EQ(all.size(), 3U);
  EXPECT_EQ(all[0].name.view(), "b") << "the oldest has gone";
  EXPECT_TRUE(ring.read(5, 100).empty()) << "nothing came since";
}

TEST(LedgerRingTest, AnEntryBearsTheWallTimeOfItsEndHoweverLateItIsRead) {
  testing::FakeClock moving(seconds(5), 1'800'000'000);
  LedgerRing ring(2, moving);
  (void)ring.add(named("a"));
  moving.advance(seconds(100));
  ring.amend(1, {}, LedgerState::kEnded);
  EXPECT_EQ(ring.newest(1).at(0).ended_wall_seconds, 1'800'000'000);
}

TEST(LedgerRingTest, WhatIsReportedLaterIsAmendedUnlessItHasGone) {
  LedgerRing ring(2, kClock);
  const std::uint64_t first = ring.add(named("a"));
  Ledger ledger;
  ledger.prompt = Tokens(7);
  ring.amend(first, ledger, LedgerState::kEnded);
  EXPECT_EQ(ring.newest(1).at(0).ledger.prompt, Tokens(7));
  EXPECT_EQ(ring.newest(1).at(0).name.view(), "a");
  (void)ring.add(named("b"));
  (void)ring.add(named("c"));
  ring.amend(first, ledger, LedgerState::kEnded);
  for (const KeptLedger& kept : ring.newest(2)) EXPECT_EQ(kept.ledger.prompt, Tokens(0));
}

TEST(LedgerRingTest, OneOfNoEntriesKeepsNothing) {
  LedgerRing ring(0, kClock);
  EXPECT_EQ(ring.add(named("a")), 1U);
  ring.amend(1, Ledger{}, LedgerState::kEnded);
  EXPECT_TRUE(ring.newest(5).empty());
  EXPECT_TRUE(ring.read(1, 5).empty());
  EXPECT_EQ(ring.last(), 1U);
}

TEST(LedgerRingTest, LongNamesAreCut) {
  const std::string longest(Label::kMost, 'x');
  EXPECT_EQ(Label(longest + "yz").view(), longest);
  EXPECT_EQ(Label("").view(), "");
  EXPECT_EQ(sizeof(Label), Label::kMost + 1);
}

TEST(LedgerRingTest, AnEntryIsHalfAKibibyte) { EXPECT_LE(sizeof(KeptLedger), 512U); }

TEST(LedgerRingTest, EqualsAQueueOfTheLastOnes) {
  constexpr std::uint64_t kSeed = 5;
  Rng rng(kSeed);
  for (const std::size_t size : {1U, 7U, 40U}) {
    LedgerRing ring(size, kClock);
    std::deque<std::uint64_t> model;
    for (std::uint64_t i = 1; i < 200; ++i) {
      (void)ring.add(named(std::to_string(i), i));
      model.push_front(i);
      if (model.size() > size) model.pop_back();
      const std::size_t most = rng.next() % (size + 3);
      const auto found = ring.newest(most);
      ASSERT_EQ(found.size(), std::min(most, model.size())) << "seed " << kSeed;
      for (std::size_t j = 0; j < found.size(); ++j) {
        ASSERT_EQ(found[j].number, model[j]);
        ASSERT_EQ(found[j].ledger.prompt, Tokens(model[j]));
      }
    }
  }
}

// For the thread sanitizer, and that a reader never sees half an entry.
TEST(LedgerRingTest, ReadersSeeWholeEntriesWhileTheyAreWritten) {
  LedgerRing ring(32, kClock);
  std::jthread writer([&](const std::stop_token& stop) {
    for (std::uint64_t i = 1; !stop.stop_requested(); ++i) {
      (void)ring.add(named(std::to_string(i), i));
    }
  });
  std::uint64_t seen = 0;
  for (int round = 0; round < 200; ++round) {
    std::uint64_t before = 0;
    for (const KeptLedger& kept : ring.read(seen, 64)) {
      ASSERT_GT(kept.number, before);
      ASSERT_EQ(kept.ledger.prompt, Tokens(kept.number));
      ASSERT_EQ(kept.name.view(), std::to_string(kept.number));
      before = kept.number;
    }
    seen = before;
  }
}

}  // namespace
}  // namespace terrace::manager
