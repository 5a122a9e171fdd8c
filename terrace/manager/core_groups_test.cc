// Several KV groups: group 0 needs all, group 1 what its window of two blocks shows, group 2 what
// its window of one block shows.
#include <gtest/gtest.h>

#include <algorithm>

#include "terrace/manager/core_rig_internal.h"
#include "terrace/testing/property.h"

namespace terrace::manager::rig {
namespace {

constexpr GroupId kWhole{0};
constexpr GroupId kTwoBlocks{1};
constexpr GroupId kOneBlock{2};
constexpr std::uint16_t kGroups = 3;
constexpr std::uint32_t kNullBlock = 0;
constexpr std::uint64_t kBlocks = 6;

RigOptions with_groups(RigOptions options = {}) {
  options.host_blocks = std::max<std::uint64_t>(options.host_blocks, 256);
  options.device_blocks = 256;
  options.tune = [tune = options.tune](Options& made) {
    for (std::uint16_t group = 1; group < kGroups; ++group) {
      made.layout.groups.push_back(made.layout.groups.front());
      made.layout.groups.back().group = GroupId(group);
    }
    made.group_rules = {{.window = Tokens(0), .null_block = kNullBlock},
                        {.window = Tokens(2 * kBlockTokens + 1), .null_block = kNullBlock},
                        {.window = Tokens(2), .null_block = kNullBlock}};
    made.lookup_deadline = milliseconds(50);
    if (tune) tune(made);
  };
  return options;
}

// An engine's tables: every group has its own device blocks.
class Tables {
 public:
  explicit Tables(std::uint64_t blocks, std::uint32_t first = 1) {
    for (std::uint16_t group = 0; group < kGroups; ++group) {
      of[group] = Rig::make_table(blocks, first + group * static_cast<std::uint32_t>(blocks));
    }
  }
  [[nodiscard]] Rig::Tables all() const { return {of[0], of[1], of[2]}; }
  std::array<std::vector<std::uint32_t>, kGroups> of;
};

// Computed by the engine and stored, all groups.
void store(Rig& rig, std::span<const std::uint32_t> tokens) {
  const RequestId id = rig.begin(tokens);
  (void)rig.look_up(id);
  const std::uint64_t blocks = tokens.size() / kBlockTokens;
  const Tables tables(blocks);
  (void)rig.accept_all(id, 0, 0, tables.all());
  for (std::uint16_t group = 0; group < kGroups; ++group) {
    for (std::uint64_t block = 0; block < blocks; ++block) {
      rig.compute(id, block, tables.of[group][block], GroupId(group));
    }
  }
  rig.advance_all(id, blocks, tables.all());
  rig.step();
  (void)rig.end(id);
  rig.settle();
}

void forget(Rig& rig, const SequenceHash& hash, GroupId group) {
  Context& context = rig.core.context();
  auto pin = context.pool().pin(context.key_of(group, hash));
  ASSERT_TRUE(pin);
  const SlotRef slot = pin->slot();
  pin->reset();
  ASSERT_TRUE(context.remove(slot, MissReason::kEvicted));
}

TEST(CoreGroupsTest, LoadsAllOfOneGroupAndTheWindowsOfTheOthers) {
  Rig rig(with_groups());
  const auto tokens = Rig::make_tokens(kBlocks, 1);
  store(rig, tokens);
  EXPECT_EQ(rig.counters.offload_blocks.value(), kBlocks * kGroups);
  const RequestId id = rig.begin(tokens);
  EXPECT_EQ(rig.look_up(id), kBlocks);
  const Tables tables(kBlocks, 100);
  EXPECT_TRUE(rig.accept_all(id, 0, kBlocks, tables.all()).is_ok());
  const auto orders = rig.step();
  ASSERT_TRUE(orders);
  EXPECT_EQ(orders->loads.size(), kBlocks + 2 + 1);
  for (std::uint64_t block = 0; block < kBlocks; ++block) {
    EXPECT_TRUE(rig.is_right(id, block, tables.of[0][block], kWhole));
    EXPECT_EQ(rig.is_right(id, block, tables.of[1][block], kTwoBlocks), block >= kBlocks - 2);
    EXPECT_EQ(rig.is_right(id, block, tables.of[2][block], kOneBlock), block == kBlocks - 1);
  }
  const Ledger ledger = rig.end(id);
  EXPECT_EQ(ledger.hit[static_cast<std::size_t>(Tier::kHost)], Tokens(kBlocks * kBlockTokens));
  EXPECT_EQ(rig.counters.verified_blocks.value(), kBlocks);
  EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
}

TEST(CoreGroupsTest, AHoleInAWindowMovesThePointToResumeFrom) {
  Rig rig(with_groups());
  const auto tokens = Rig::make_tokens(kBlocks, 1);
  store(rig, tokens);
  const RequestId id = rig.begin(tokens);
  const auto hashes = rig.hashes(id);
  forget(rig, hashes[1], kTwoBlocks);  // In no window of a longer match.
  EXPECT_EQ(rig.look_up(id), kBlocks);
  (void)rig.end(id);
  forget(rig, hashes[5], kOneBlock);  // The match ends before it ...
  const RequestId second = rig.begin(tokens);
  EXPECT_EQ(rig.look_up(second), 5U);
  (void)rig.end(second);
  forget(rig, hashes[3], kTwoBlocks);  // ... where another group's window has a hole: [3, 5), and
  const RequestId third = rig.begin(tokens);  // so has [2, 4); [1, 3) has the one from before.
  EXPECT_EQ(rig.look_up(third), 1U);
  EXPECT_EQ(rig.end(third).first_miss, MissReason::kEvicted);
}

// Without the corrections that a look-up makes when it holds what was found.
TEST(CoreGroupsTest, ASurveyGoesOnUntilAllGroupsAgree) {
  Rig rig(with_groups());
  const auto tokens = Rig::make_tokens(kBlocks, 1);
  store(rig, tokens);
  const auto hashes = rig.hashes(rig.begin(tokens));
  Survey survey(rig.core.context());
  std::vector<policy::SourceRun> runs;
  EXPECT_EQ(survey.resume_at(hashes, 0, kBlocks, false, runs), kBlocks);
  forget(rig, hashes[5], kOneBlock);   // Ends the match at 5, for which the other window
  forget(rig, hashes[3], kTwoBlocks);  // would need 3 and 4, and at 3 would need 1 and 2.
  forget(rig, hashes[1], kTwoBlocks);
  EXPECT_EQ(survey.resume_at(hashes, 0, kBlocks, false, runs), 1U);
  ASSERT_EQ(runs.size(), 1U);
  EXPECT_EQ(runs.front().blocks, 1U);  // What the first group has beyond costs nothing.
  const auto in_doubt =
      rig.core.context().pool().pin(rig.core.context().key_of(kOneBlock, hashes[0]));
  ASSERT_TRUE(in_doubt);
  survey.condemn(in_doubt->slot());
  EXPECT_EQ(survey.resume_at(hashes, 0, kBlocks, false, runs), 0U);
}

TEST(CoreGroupsTest, WhatTheEngineHasItselfNeedNotBeThere) {
  Rig rig(with_groups());
  const auto tokens = Rig::make_tokens(kBlocks, 1);
  store(rig, tokens);
  const RequestId id = rig.begin(tokens);
  const auto hashes = rig.hashes(id);
  for (std::uint64_t block = 0; block < 5; ++block) {
    for (std::uint16_t group = 0; group < kGroups; ++group) {
      forget(rig, hashes[block], GroupId(group));
    }
  }
  EXPECT_EQ(rig.look_up(id, 5), 1U);
  Tables tables(kBlocks, 100);
  EXPECT_TRUE(rig.accept_all(id, 5, 1, tables.all()).is_ok());
  const auto orders = rig.step();
  ASSERT_TRUE(orders);
  EXPECT_EQ(orders->loads.size(), std::size_t{kGroups});
  // Not what [3, 5) would need: block 4 is here in no group.
  const RequestId other = rig.begin(tokens);
  EXPECT_EQ(rig.look_up(other, 3), 0U);
}

TEST(CoreGroupsTest, ABlockThatTheEngineHasNoMoreIsNotStored) {
  Rig rig(with_groups());
  const auto tokens = Rig::make_tokens(kBlocks, 1);
  const RequestId id = rig.begin(tokens);
  Tables tables(kBlocks);
  tables.of[1][0] = tables.of[1][1] = tables.of[2][0] = kNullBlock;
  rig.advance_all(id, kBlocks, tables.all());
  const auto orders = rig.step();
  ASSERT_TRUE(orders);
  EXPECT_EQ(orders->saves.size(), kBlocks * kGroups - 3);
  rig.advance_all(id, kBlocks, tables.all());
  EXPECT_FALSE(rig.step());  // Nor offered again.
}

TEST(CoreGroupsTest, ALoadThatFailsInPartHasFailed) {
  Rig rig(with_groups());
  const auto tokens = Rig::make_tokens(kBlocks, 1);
  store(rig, tokens);
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), kBlocks);
  Context& context = rig.core.context();
  const SlotRef bad =
      context.pool().pin(context.key_of(kOneBlock, rig.hashes(id)[kBlocks - 1]))->slot();
  rig.shard(bad.index, 0)[7] ^= std::byte{1};
  const Tables tables(kBlocks, 100);
  (void)rig.accept_all(id, 0, kBlocks, tables.all());
  rig.step();
  rig.settle();
  EXPECT_EQ(rig.counters.failed_loads.value(), 1U);
  EXPECT_EQ(rig.counters.failed_tokens.value(), kBlocks * kBlockTokens);
  EXPECT_EQ(rig.counters.hit_blocks[static_cast<std::size_t>(Tier::kHost)].value(), 0U);
  EXPECT_EQ(rig.counters.corrupt_blocks[static_cast<std::size_t>(Tier::kHost)].value(), 1U);
  EXPECT_EQ(rig.offered(id), 0U);  // The same answer for ever would be asked for, for ever.
  EXPECT_EQ(rig.end(id).failed, Tokens(kBlocks * kBlockTokens));
  // The bad shard is gone, the rest is served as far as it goes.
  const RequestId second = rig.begin(tokens);
  EXPECT_EQ(rig.look_up(second), kBlocks - 1);
}

// Its slot stays until nobody pins it; meanwhile nobody else is given it, and the disk has another.
TEST(CoreGroupsTest, AShardInDoubtIsNotOfferedThoughTheDiskHasItAsWell) {
  Rig rig(with_groups({.has_disk = true}));
  const auto tokens = Rig::make_tokens(kBlocks, 1);
  store(rig, tokens);
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), kBlocks);
  Context& context = rig.core.context();
  const SlotRef bad = context.pool().pin(context.key_of(GroupId(0), rig.hashes(id)[3]))->slot();
  rig.shard(bad.index, 0)[7] ^= std::byte{1};
  const Tables tables(kBlocks, 100);
  (void)rig.accept_all(id, 0, kBlocks, tables.all());
  rig.step();
  const RequestId second = rig.begin(tokens);
  const std::uint64_t blocks = rig.look_up(second);
  (void)rig.accept_all(second, 0, blocks, tables.all());
  rig.step();
  EXPECT_EQ(rig.counters.failed_loads.value(), 1U);  // That of the first.
  for (std::uint64_t block = 0; block < blocks; ++block) {
    EXPECT_TRUE(rig.is_right(second, block, tables.of[0][block], GroupId(0)));
  }
  rig.settle();
  (void)rig.end(id);
  EXPECT_EQ(rig.end(second).first_miss, MissReason::kCorrupt);
  EXPECT_EQ(rig.look_up(rig.begin(tokens)), kBlocks);  // From disk again.
}

TEST(CoreGroupsTest, TheAnswerIsTakenWholeOrNotAtAll) {
  Rig rig(with_groups());
  const auto tokens = Rig::make_tokens(kBlocks, 1);
  store(rig, tokens);
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), kBlocks);
  const Tables tables(kBlocks, 100);
  (void)rig.accept_all(id, 0, kBlocks - 1, tables.all());  // Its window begins one block earlier.
  const auto orders = rig.step();
  ASSERT_TRUE(orders);
  EXPECT_TRUE(std::ranges::all_of(orders->loads, &wire::LoadOrder::is_void));
  EXPECT_EQ(rig.counters.failed_loads.value(), 1U);
}

TEST(CoreGroupsTest, ALowerLimitIsAnsweredWithWhatResumesThere) {
  Rig rig(with_groups());
  const auto tokens = Rig::make_tokens(kBlocks, 1);
  store(rig, tokens);
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), kBlocks);
  const MatchAnswer answer = rig.poll(id, 0, 4 * kBlockTokens);
  ASSERT_TRUE(answer.is_ready);
  EXPECT_EQ(answer.external, Tokens(4 * kBlockTokens));
  const Tables tables(kBlocks, 100);
  EXPECT_TRUE(rig.accept_all(id, 0, 4, tables.all()).is_ok());
  rig.step();
  EXPECT_TRUE(rig.is_right(id, 2, tables.of[1][2], kTwoBlocks));
  EXPECT_TRUE(rig.is_right(id, 3, tables.of[2][3], kOneBlock));
  EXPECT_EQ(rig.counters.failed_loads.value(), 0U);
  (void)rig.end(id);
  EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
}

TEST(CoreGroupsTest, ReadsFromDiskOnlyWhatIsNeeded) {
  Rig rig(with_groups({.has_disk = true}));
  const auto tokens = Rig::make_tokens(kBlocks, 1);
  store(rig, tokens);
  ASSERT_EQ(rig.disk.blocks.size(), kBlocks * kGroups + 1);  // And the canary.
  const std::uint64_t reads = rig.disk.reads;
  const RequestId old = rig.begin(tokens);
  for (const SequenceHash& hash : rig.hashes(old)) {
    for (std::uint16_t group = 0; group < kGroups; ++group) forget(rig, hash, GroupId(group));
  }
  (void)rig.end(old);
  const RequestId id = rig.begin(tokens);
  EXPECT_EQ(rig.look_up(id), kBlocks);
  EXPECT_EQ(rig.disk.reads, reads + kBlocks + 2 + 1);
  const Tables tables(kBlocks, 100);
  (void)rig.accept_all(id, 0, kBlocks, tables.all());
  rig.step();
  EXPECT_TRUE(rig.is_right(id, kBlocks - 1, tables.of[2][kBlocks - 1], kOneBlock));
  const Ledger ledger = rig.end(id);
  EXPECT_EQ(ledger.hit[static_cast<std::size_t>(Tier::kDisk)], Tokens(kBlocks * kBlockTokens));
}

// Where a prompt is short, windows begin at its start, too.
TEST(CoreGroupsTest, APrefetchAsksForWhatEachGroupLacks) {
  Rig rig(with_groups({.has_disk = true}));
  const auto tokens = Rig::make_tokens(2, 1);
  store(rig, tokens);
  const RequestId old = rig.begin(tokens);
  for (const SequenceHash& hash : rig.hashes(old)) forget(rig, hash, kTwoBlocks);
  (void)rig.end(old);
  const std::uint64_t reads = rig.disk.reads;
  const RequestId id = rig.begin(tokens);
  rig.settle();
  EXPECT_EQ(rig.disk.reads, reads + 2);  // Before anybody polled.
  EXPECT_EQ(rig.look_up(id), 2U);
  EXPECT_EQ(rig.disk.reads, reads + 2);
}

TEST(CoreGroupsTest, AReadThatFailsLeavesAShorterMatch) {
  Rig rig(with_groups({.has_disk = true}));
  const auto tokens = Rig::make_tokens(kBlocks, 1);
  store(rig, tokens);
  const RequestId old = rig.begin(tokens);
  const auto hashes = rig.hashes(old);
  forget(rig, hashes[kBlocks - 1], kTwoBlocks);
  (void)rig.end(old);
  rig.disk.fault = [&](const SequenceHash& hash, bool is_read) {
    const bool is_it = is_read && hash == hashes[kBlocks - 1];
    return is_it ? Status(Code::kCorrupt, "flipped") : Status();
  };
  const RequestId id = rig.begin(tokens);
  EXPECT_EQ(rig.look_up(id), kBlocks - 1);
  const Tables tables(kBlocks, 100);
  (void)rig.accept_all(id, 0, kBlocks - 1, tables.all());
  rig.step();
  for (std::uint64_t block = kBlocks - 3; block < kBlocks - 1; ++block) {
    EXPECT_TRUE(rig.is_right(id, block, tables.of[1][block], kTwoBlocks));
  }
  EXPECT_EQ(rig.end(id).first_miss, MissReason::kCorrupt);
  EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
}

TEST(CoreGroupsTest, AtTheDeadlineWhatIsInHostIsServed) {
  Rig rig(with_groups({.has_disk = true}));
  const auto tokens = Rig::make_tokens(kBlocks, 1);
  store(rig, tokens);
  const RequestId old = rig.begin(tokens);
  forget(rig, rig.hashes(old)[kBlocks - 1], kOneBlock);
  (void)rig.end(old);
  rig.disk.is_stuck = true;
  const RequestId id = rig.begin(tokens);
  EXPECT_FALSE(rig.offered(id));
  rig.clock.advance(milliseconds(51));
  EXPECT_EQ(rig.offered(id), kBlocks - 1);
  EXPECT_EQ(rig.end(id).first_miss, MissReason::kLate);
  EXPECT_EQ(rig.core.look_ups().waiting_pins(), 0U);
  EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
}

TEST(CoreGroupsTest, PinsOfAnAnswerAreBoundedAndExpire) {
  Rig rig(with_groups({.tune = [](Options& options) { options.pin_share = 8.0 / 256; }}));
  const auto tokens = Rig::make_tokens(kBlocks, 1);
  store(rig, tokens);
  const RequestId id = rig.begin(tokens);
  EXPECT_EQ(rig.look_up(id), 5U);  // 5 + 2 + 1 pins.
  EXPECT_EQ(rig.core.look_ups().waiting_pins(), 8U);
  EXPECT_EQ(rig.counters.drop_pins.value(), 1U);
  rig.clock.advance(rig.options.pin_time + milliseconds(1));
  rig.settle();
  EXPECT_EQ(rig.core.look_ups().waiting_pins(), 0U);
  EXPECT_EQ(rig.core.context().pool().pinned(), 0U);
  const auto table = Rig::make_table(kBlocks, 40);
  ASSERT_TRUE(rig.accept_all(id, 0, 5, Rig::Tables(kGroups, table)).is_ok());
  rig.step();
  EXPECT_EQ(Rig::miss(rig.counters, MissReason::kLate), 5U);
  EXPECT_EQ(Rig::miss(rig.counters, MissReason::kCorrupt), 0U);
}

// Where one can resume follows from what is there alone; the plain search asks of every length
// whether every block it needs is there.
TEST(CoreGroupsTest, FindsTheLongestMatchThatAPlainSearchFinds) {
  const auto property = terrace::testing::property(20261128, 300);
  Rng rng(property.seed);
  for (std::uint64_t round = 0; round < property.steps; ++round) {
    Rig rig(with_groups({.has_disk = true}));
    const auto tokens = Rig::make_tokens(kBlocks, 1);
    store(rig, tokens);
    const RequestId id = rig.begin(tokens, false);
    const auto hashes = rig.hashes(id);
    const std::uint64_t percent = rng.below(40);
    bool is_there[kGroups][kBlocks];
    for (std::uint16_t group = 0; group < kGroups; ++group) {
      for (std::uint64_t block = 0; block < kBlocks; ++block) {
        const bool in_host = rng.below(100) >= percent;
        const bool on_disk = rng.below(100) >= percent;
        if (!in_host) forget(rig, hashes[block], GroupId(group));
        if (!on_disk) rig.disk.blocks.erase({GroupId(group), hashes[block]});
        is_there[group][block] = in_host || on_disk;
      }
    }
    const std::uint64_t first = rng.below(kBlocks);
    std::uint64_t expected = first;
    for (std::uint64_t at = first; at <= kBlocks; ++at) {
      bool is_enough = true;
      for (std::uint16_t group = 0; group < kGroups; ++group) {
        const std::uint64_t window = group == 0 ? at : (group == 1 ? 2 : 1);
        for (std::uint64_t block = std::max(first, at - std::min(at, window)); block < at;
             ++block) {
          is_enough = is_enough && is_there[group][block];
        }
      }
      if (is_enough) expected = at;
    }
    const RequestId asking = rig.begin(tokens);
    ASSERT_EQ(first + rig.look_up(asking, first), expected) << "round " << round;
    const Tables tables(kBlocks, 100);
    ASSERT_TRUE(rig.accept_all(asking, first, expected - first, tables.all()).is_ok());
    rig.step();
    for (std::uint64_t block = first; block < expected; ++block) {
      ASSERT_TRUE(rig.is_right(asking, block, tables.of[0][block], kWhole)) << "round " << round;
    }
    ASSERT_EQ(rig.counters.failed_loads.value(), 0U) << "round " << round;
    (void)rig.end(asking);
    ASSERT_EQ(rig.core.context().pool().pinned(), 0U) << "round " << round;
  }
}

}  // namespace
}  // namespace terrace::manager::rig
