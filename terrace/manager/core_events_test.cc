// What the core announces: a block once per tier when it can be matched there, once when it goes.
// One claim a test, with virtual time and a made-up engine (core_rig_internal.h).
#include <gtest/gtest.h>

#include <algorithm>

#include "terrace/manager/core_rig_internal.h"

namespace terrace::manager {
namespace {

using rig::Rig;
using rig::RigOptions;

RigOptions with_events(std::uint64_t host_blocks, bool has_disk) {
  return {.host_blocks = host_blocks, .has_disk = has_disk, .tune = [](Options& options) {
            options.has_events = true;
          }};
}

std::vector<SequenceHash> hashes_of(const std::vector<Event>& events, Event::Kind kind, Tier tier) {
  std::vector<SequenceHash> found;
  for (const Event& event : events) {
    if (event.kind == kind && event.tier == tier) found.push_back(event.hash);
  }
  return found;
}

std::vector<SequenceHash> sorted(std::vector<SequenceHash> hashes) {
  std::ranges::sort(hashes, [](const SequenceHash& left, const SequenceHash& right) {
    return std::pair(left.high, left.low) < std::pair(right.high, right.low);
  });
  return hashes;
}

TEST(CoreEventsTest, ABlockThatMakesRoomInHostIsToldToBeGone) {
  Rig rig(with_events(4, false));
  rig.run_cold(Rig::make_tokens(4, 1));
  const auto stored = hashes_of(rig.core.take_events(), Event::Kind::kStored, Tier::kHost);
  ASSERT_EQ(stored.size(), 4U);
  rig.run_cold(Rig::make_tokens(4, 2));
  const auto removed = hashes_of(rig.core.take_events(), Event::Kind::kRemoved, Tier::kHost);
  EXPECT_EQ(sorted(removed), sorted(stored));
}

TEST(CoreEventsTest, ABlockThatMakesRoomOnDiskIsToldToBeGone) {
  Rig rig(with_events(16, true));
  rig.disk.capacity = 4;
  rig.run_cold(Rig::make_tokens(4, 1));
  const auto stored = hashes_of(rig.core.take_events(), Event::Kind::kStored, Tier::kDisk);
  ASSERT_EQ(stored.size(), 4U);
  rig.run_cold(Rig::make_tokens(4, 2));
  const auto removed = hashes_of(rig.core.take_events(), Event::Kind::kRemoved, Tier::kDisk);
  EXPECT_EQ(sorted(removed), sorted(stored));
}

TEST(CoreEventsTest, WhatLiesOnDiskFromBeforeIsAnnouncedWhenARequestFirstMatchesIt) {
  Rig before(with_events(16, true));
  const auto tokens = Rig::make_tokens(3, 1);
  before.run_cold(tokens);
  Rig rig(with_events(16, true));
  rig.disk.blocks = before.disk.blocks;
  rig.run_cold(Rig::make_tokens(2, 2));
  EXPECT_EQ(hashes_of(rig.core.take_events(), Event::Kind::kStored, Tier::kDisk).size(), 2U);
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), 3U);
  const auto hashes = rig.hashes(id);
  const auto events = rig.core.take_events();
  EXPECT_EQ(hashes_of(events, Event::Kind::kStored, Tier::kDisk), hashes);
  EXPECT_EQ(hashes_of(events, Event::Kind::kStored, Tier::kHost), hashes);
  for (const Event& event : events) EXPECT_EQ(event.tokens.size(), rig::kBlockTokens);
  ASSERT_EQ(rig.look_up(rig.begin(tokens)), 3U);
  EXPECT_TRUE(rig.core.take_events().empty());
}

TEST(CoreEventsTest, ABlockThatDoesNotVerifyOnDiskIsToldToBeGoneAndToBeThereAgain) {
  Rig before(with_events(16, true));
  const auto tokens = Rig::make_tokens(2, 1);
  before.run_cold(tokens);
  Rig rig(with_events(16, true));
  rig.disk.blocks = before.disk.blocks;
  const RequestId id = rig.begin(tokens);
  const SequenceHash damaged = rig.hashes(id)[1];
  rig.disk.blocks[damaged].payloads[0][3] ^= 1;
  ASSERT_EQ(rig.look_up(id), 1U);
  const std::vector<SequenceHash> one = {damaged};
  EXPECT_EQ(hashes_of(rig.core.take_events(), Event::Kind::kRemoved, Tier::kDisk), one);
  rig.compute(id, 1, 8);
  rig.advance(id, 2, Rig::make_table(2, 7));
  rig.step();
  rig.settle();
  EXPECT_EQ(hashes_of(rig.core.take_events(), Event::Kind::kStored, Tier::kDisk), one);
}

TEST(CoreEventsTest, AResetLeavesOneClearedAndNothingBeforeIt) {
  Rig rig(with_events(16, true));
  rig.run_cold(Rig::make_tokens(4, 1));
  rig.core.reset();
  const auto events = rig.core.take_events();
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].kind, Event::Kind::kCleared);
}

TEST(CoreEventsTest, NobodyWhoWantsNoneGetsAny) {
  Rig rig({.host_blocks = 4, .has_disk = true});
  rig.run_cold(Rig::make_tokens(4, 1));
  rig.run_cold(Rig::make_tokens(4, 2));
  EXPECT_TRUE(rig.core.take_events().empty());
}

}  // namespace
}  // namespace terrace::manager
