// The core's rules of admission to disk: what is a sighting, and when what is wanted is written.
// One claim a test, with virtual time and a made-up engine (core_rig_internal.h).
#include <gtest/gtest.h>

#include "terrace/manager/core_rig_internal.h"

namespace terrace::manager {
namespace {

using rig::Rig;

class CoreAdmissionTest : public ::testing::Test {
 protected:
  void open(bool is_demote = false) {
    rig_ = std::make_unique<Rig>(
        rig::RigOptions{.host_blocks = 32, .has_disk = true, .tune = [is_demote](Options& options) {
                          options.disk.is_demote = is_demote;
                        }});
    rig_->core.context().admission = policy::make_reuse({});
  }
  Rig& rig() { return *rig_; }
  std::vector<SequenceHash> hashes(std::span<const std::uint32_t> tokens) {
    const RequestId id = rig().begin(tokens);
    const auto all = rig().hashes(id);
    rig().end(id);
    return all;
  }
  // Of the blocks of `tokens`, those on disk.
  std::size_t on_disk(std::span<const std::uint32_t> tokens) {
    std::size_t count = 0;
    for (const SequenceHash& hash : hashes(tokens)) count += rig().disk.blocks.count(hash);
    return count;
  }
  std::size_t in_host(std::span<const std::uint32_t> tokens) {
    std::size_t count = 0;
    for (const SequenceHash& hash : hashes(tokens)) count += rig().in_host(hash) ? 1 : 0;
    return count;
  }
  void push_out(std::uint32_t seed) {
    // Few at a time: what is to be written first can be.
    for (std::uint32_t i = 0; i < 64; ++i) rig().run_cold(Rig::make_tokens(1, seed + i));
  }
  // A request that the engine serves from `local` blocks of its own and `external` ones of ours.
  void hit(std::span<const std::uint32_t> tokens, std::uint64_t local, std::uint64_t external) {
    const RequestId id = rig().begin(tokens);
    ASSERT_EQ(rig().look_up(id, local), external);
    const auto table = Rig::make_table(local + external, 20);
    ASSERT_TRUE(rig().accept(id, local, external, table).is_ok());
    rig().step();
    rig().end(id);
    rig().settle();
  }

  std::unique_ptr<Rig> rig_;
};

class CoreDemoteTest : public ::testing::Test {
 protected:
  static constexpr std::uint64_t kPrompt = 30;
  static constexpr std::uint32_t kFew = 16;  // Chosen ahead of 256 slots, whatever is asked for.

  explicit CoreDemoteTest(const std::string& eviction = "lru")
      : rig_({.host_blocks = 256, .has_disk = true, .tune = [eviction](Options& options) {
                options.host.eviction = eviction;
                options.disk.is_demote = true;
                options.disk.queue_blocks = 64;
              }}) {}

  // Prompts of that many blocks that nobody had before.
  void run(int prompts, std::uint64_t blocks = kPrompt) {
    for (int i = 0; i < prompts; ++i) rig_.run_cold(Rig::make_tokens(blocks, next_seed_++));
  }

  Rig rig_;
  std::uint32_t next_seed_ = 1;
};

TEST_F(CoreDemoteTest, AfterABurstAsManyAreChosenForTheNext) {
  run(10);
  const std::uint64_t at_first = rig_.counters.drop_demote.value();
  run(20);
  EXPECT_EQ(rig_.counters.drop_demote.value(), at_first) << "each victim was written first";
  EXPECT_EQ(rig_.count(catalog::SlotState::kEvicting), kPrompt);
}

class CoreDemoteByHazardTest : public CoreDemoteTest {
 protected:
  CoreDemoteByHazardTest() : CoreDemoteTest("hazard") {}
};

// Else it would be on disk as if anybody had used it just now, and in no chain.
TEST_F(CoreDemoteByHazardTest, WhatIsWrittenTakesWhatIsKnownOfItsUseAlong) {
  const Nanoseconds begin = rig_.clock.now();
  run(1);
  const Nanoseconds end = rig_.clock.now();
  rig_.clock.advance(seconds(300));
  run(10);
  const RequestId id = rig_.begin(Rig::make_tokens(kPrompt, 1));
  const auto hashes = rig_.hashes(id);
  rig_.end(id);
  for (std::size_t i = 0; i < hashes.size(); ++i) {
    ASSERT_TRUE(rig_.disk.blocks.contains(hashes[i])) << i;
    const auto last = rig_.disk.last_uses.find(hashes[i]);
    ASSERT_NE(last, rig_.disk.last_uses.end()) << i;
    EXPECT_GE(last->second.use.at, begin - seconds(1)) << i;
    EXPECT_LE(last->second.use.at, end) << i;
    EXPECT_EQ(last->second.before, i > 0 ? std::optional(hashes[i - 1]) : std::nullopt) << i;
  }
}

TEST_F(CoreDemoteTest, SomeMinutesAfterABurstAsManyAreStillChosen) {
  run(20);
  rig_.clock.advance(seconds(300));
  run(100, 1);
  EXPECT_EQ(rig_.count(catalog::SlotState::kEvicting), kPrompt);
}

TEST_F(CoreDemoteTest, LongAfterABurstAFewAreChosenAgain) {
  run(20);
  rig_.clock.advance(seconds(1500));
  run(100, 1);
  EXPECT_EQ(rig_.count(catalog::SlotState::kEvicting), kFew);
}

TEST_F(CoreDemoteTest, WhatIsChosenToLeaveIsHitAndStaysThen) {
  run(8);
  ASSERT_GT(rig_.count(catalog::SlotState::kEvicting), 0U);
  const auto oldest = Rig::make_tokens(kPrompt, 1);
  const RequestId id = rig_.begin(oldest);
  const auto hashes = rig_.hashes(id);
  EXPECT_EQ(rig_.look_up(id), kPrompt);
  (void)rig_.end(id);
  run(2);
  for (const SequenceHash& hash : hashes) EXPECT_TRUE(rig_.in_host(hash));
  EXPECT_EQ(rig_.core.context().pool().pinned(), 0U) << "nobody holds it any more";
}

TEST_F(CoreDemoteTest, OfWhatIsHitAgainAndAgainNothingPilesUp) {
  run(8);
  for (int i = 0; i < 300; ++i) {
    for (std::uint32_t seed = 1; seed <= 8; ++seed) {
      const RequestId id = rig_.begin(Rig::make_tokens(kPrompt, seed));
      EXPECT_EQ(rig_.look_up(id), kPrompt);
      (void)rig_.end(id);
      rig_.settle();
    }
  }
  EXPECT_LE(rig_.core.context().leaving(), 256U);
  EXPECT_EQ(rig_.core.context().pool().pinned(), 0U);
}

TEST_F(CoreAdmissionTest, ToBeSealedAndEvictedOnceIsNoReuse) {
  open();
  const auto tokens = Rig::make_tokens(3, 1);
  rig().run_cold(tokens);
  EXPECT_EQ(on_disk(tokens), 0U);
  push_out(100);
  EXPECT_EQ(in_host(tokens), 0U);
  EXPECT_EQ(on_disk(tokens), 0U);
  EXPECT_GE(rig().counters.drop_admission.value(), 6U);  // When sealed, and when evicted.
}

TEST_F(CoreAdmissionTest, WhatIsHitInHostIsWrittenAtOnce) {
  open();
  const auto tokens = Rig::make_tokens(3, 1);
  rig().run_cold(tokens);
  hit(tokens, 0, 3);
  EXPECT_EQ(on_disk(tokens), 3U);
  EXPECT_EQ(in_host(tokens), 3U);
}

TEST_F(CoreAdmissionTest, WhatTheEngineHitsItselfIsWritten) {
  open();
  const auto tokens = Rig::make_tokens(3, 1);
  rig().run_cold(tokens);
  hit(tokens, 3, 0);
  EXPECT_EQ(on_disk(tokens), 3U);
}

TEST_F(CoreAdmissionTest, OnlyWhatWasHitIsWritten) {
  open();
  const auto tokens = Rig::make_tokens(5, 1);
  rig().run_cold(tokens);
  const RequestId id = rig().begin(tokens);
  ASSERT_EQ(rig().look_up(id), 5U);
  ASSERT_TRUE(rig().accept(id, 0, 2, Rig::make_table(2, 20)).is_ok());
  rig().step();
  rig().settle();
  EXPECT_EQ(on_disk(tokens), 2U);
}

TEST_F(CoreAdmissionTest, ManyHitsAtOnceAreOneWrite) {
  open();
  const auto tokens = Rig::make_tokens(3, 1);
  rig().run_cold(tokens);
  const std::uint64_t before = rig().disk.begun_writes;
  rig().disk.is_stuck = true;
  for (int i = 0; i < 5; ++i) hit(tokens, 0, 3);
  EXPECT_EQ(rig().disk.begun_writes - before, 3U);
  rig().disk.is_stuck = false;
  rig().settle();
  EXPECT_EQ(on_disk(tokens), 3U);
}

TEST_F(CoreAdmissionTest, WrittenForAHitTheRootsOutliveTheLeavesInHost) {
  open();
  const auto tokens = Rig::make_tokens(8, 1);
  rig().run_cold(tokens);
  hit(tokens, 0, 8);
  ASSERT_EQ(on_disk(tokens), 8U);
  for (std::uint32_t i = 0; in_host(tokens) == 8; ++i) rig().run_cold(Rig::make_tokens(2, 100 + i));
  const auto all = hashes(tokens);
  bool is_there = true;
  for (const SequenceHash& hash : all) {
    EXPECT_TRUE(is_there || !rig().in_host(hash)) << "a leaf outlived its root";
    is_there = rig().in_host(hash);
  }
}

TEST_F(CoreAdmissionTest, InDemoteTheSecondTimeItIsComputedItIsWrittenWhenEvicted) {
  open(true);
  const auto tokens = Rig::make_tokens(3, 1);
  rig().run_cold(tokens);
  push_out(100);
  ASSERT_EQ(in_host(tokens), 0U);
  EXPECT_EQ(on_disk(tokens), 0U);
  rig().run_cold(tokens);
  EXPECT_EQ(on_disk(tokens), 0U);
  push_out(200);
  EXPECT_EQ(on_disk(tokens), 3U);
}

TEST_F(CoreAdmissionTest, AnEndedModeWritesNothing) {
  open();
  const auto tokens = Rig::make_tokens(3, 1);
  rig().run_cold(tokens);
  rig().core.set_mode(Mode::kReadOnly);
  hit(tokens, 0, 3);
  EXPECT_EQ(on_disk(tokens), 0U);
}

// Chosen to leave ahead, as the filter wants it neither on disk.
TEST_F(CoreAdmissionTest, WhatTheFilterRefusedStaysInAModeThatStoresNothing) {
  open();
  for (std::uint32_t seed = 1; seed <= 64; ++seed) rig().run_cold(Rig::make_tokens(1, seed));
  const std::uint32_t evicting = rig().count(catalog::SlotState::kEvicting);
  const std::uint32_t sealed = rig().count(catalog::SlotState::kSealed);
  ASSERT_GT(evicting, 0U);
  rig().core.set_mode(Mode::kReadOnly);
  EXPECT_EQ(rig().count(catalog::SlotState::kEvicting), 0U);
  EXPECT_EQ(rig().count(catalog::SlotState::kSealed), sealed + evicting);
  EXPECT_EQ(rig().core.context().leaving(), 0U);
}

TEST_F(CoreAdmissionTest, WhatGoesOverTheWriteBudgetIsCountedAsThat) {
  open();
  rig().core.context().admission = policy::make_admit_all();
  rig().disk.fault = [](const SequenceHash&, bool is_read) {
    return is_read ? Status() : Status(Code::kRefused, "the write budget is used up");
  };
  const auto tokens = Rig::make_tokens(3, 1);
  const std::uint64_t before = rig().counters.drop_disk_write.value();
  rig().run_cold(tokens);
  EXPECT_EQ(rig().counters.drop_write_budget.value(), 3U);
  EXPECT_EQ(rig().counters.drop_disk_write.value(), before);
  EXPECT_EQ(in_host(tokens), 3U);
}

}  // namespace
}  // namespace terrace::manager
