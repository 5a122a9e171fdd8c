// Reads from disk that nobody wants any more: who asked for them has ended.
// One claim a test, with virtual time and a made-up engine (core_rig_internal.h).
#include <gtest/gtest.h>

#include "terrace/manager/core_rig_internal.h"

namespace terrace::manager {
namespace {

using rig::Rig;
constexpr auto kDisk = static_cast<std::size_t>(Tier::kDisk);
constexpr std::uint64_t kReadBit = std::uint64_t{1} << 63U;  // Of the driver's tokens.
constexpr std::uint64_t kBlocks = 4;

// Prompts of four blocks that are on disk and no longer in host.
class CoreCancelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (std::uint32_t seed = 1; seed <= 8; ++seed) rig_.run_cold(Rig::make_tokens(kBlocks, seed));
    ASSERT_EQ(rig_.count(catalog::SlotState::kFree), 0U);
    rig_.disk.latency = milliseconds(10);
    begun_before_ = rig_.disk.begun_reads;
  }
  RequestId begin(std::uint32_t seed = 1) { return rig_.begin(Rig::make_tokens(kBlocks, seed)); }
  // Its look-up waits, and its reads are with the disk.
  RequestId begin_and_read(std::uint32_t seed = 1) {
    const RequestId id = begin(seed);
    EXPECT_FALSE(rig_.offered(id).has_value());
    rig_.settle();
    return id;
  }
  [[nodiscard]] std::uint64_t begun() const { return rig_.disk.begun_reads - begun_before_; }
  [[nodiscard]] std::uint64_t cancelled() const {
    return rig_.counters.cancel_blocks[kDisk].value();
  }
  // Once the disk has done all that it has.
  void pass() {
    for (int i = 0; i < 100; ++i) {
      rig_.settle();
      rig_.clock.advance(milliseconds(1));
    }
  }
  // As of a request that nobody answered.
  void expect_untouched(const Ledger& ledger) {
    EXPECT_FALSE(ledger.first_miss.has_value());
    for (const Tokens hit : ledger.hit) EXPECT_EQ(hit, Tokens(0));
    EXPECT_EQ(ledger.failed, Tokens(0));
    EXPECT_EQ(ledger.pending, Tokens(0));
    EXPECT_EQ(rig_.counters.read_failures.value(), 0U);
    EXPECT_EQ(Rig::miss(rig_.counters, MissReason::kDropped), 0U);
  }

  Rig rig_{{.host_blocks = 16, .has_disk = true, .tune = [](Options& options) {
              options.has_planner = false;
              options.pin_share = 1;
            }}};
  std::uint64_t begun_before_ = 0;
};

TEST_F(CoreCancelTest, WhatHasNotBegunIsNeverReadAndItsSlotsAreFreeAtOnce) {
  const RequestId id = begin();
  EXPECT_FALSE(rig_.offered(id).has_value());
  ASSERT_EQ(rig_.core.reads(), kBlocks);
  const Ledger ledger = rig_.end(id);
  EXPECT_EQ(rig_.core.reads(), 0U);
  EXPECT_EQ(rig_.count(catalog::SlotState::kFree), kBlocks);
  EXPECT_EQ(cancelled(), kBlocks);
  expect_untouched(ledger);
  pass();
  EXPECT_EQ(begun(), 0U);
  EXPECT_FALSE(rig_.core.has_jobs());
}

TEST_F(CoreCancelTest, SoIsWhatARequestThatNobodyPolledWasToFindInHost) {
  const RequestId id = begin();
  ASSERT_EQ(rig_.core.reads(), kBlocks);
  (void)rig_.end(id);
  EXPECT_EQ(rig_.core.reads(), 0U);
  EXPECT_EQ(cancelled(), kBlocks);
}

TEST_F(CoreCancelTest, WhatWaitsForTheDeviceEndsAndWhatIsThereIsReadAndKept) {
  rig_.disk.at_device = 1;
  const RequestId id = begin_and_read();
  ASSERT_EQ(begun(), kBlocks);
  const auto hashes = rig_.hashes(id);
  const Ledger ledger = rig_.end(id);
  EXPECT_EQ(rig_.core.reads(), kBlocks) << "the disk may be writing to their slots";
  EXPECT_TRUE(rig_.core.has_jobs());
  rig_.settle();
  EXPECT_EQ(rig_.core.reads(), 1U);
  EXPECT_EQ(rig_.count(catalog::SlotState::kFree), kBlocks - 1);
  EXPECT_EQ(cancelled(), kBlocks - 1);
  expect_untouched(ledger);
  pass();
  EXPECT_EQ(rig_.core.reads(), 0U);
  EXPECT_TRUE(rig_.in_host(hashes[0]));
  EXPECT_FALSE(rig_.in_host(hashes[1]));
  EXPECT_EQ(begun(), kBlocks);
  EXPECT_EQ(cancelled(), kBlocks - 1);
}

TEST_F(CoreCancelTest, WhoWaitsHasTheDiskToHimself) {
  rig_.disk.at_device = 1;
  const std::uint64_t before = rig_.disk.reads;
  const RequestId aborted = begin_and_read(1);
  const RequestId other = begin_and_read(2);
  (void)rig_.end(aborted);
  EXPECT_EQ(rig_.look_up(other), kBlocks);
  EXPECT_EQ(rig_.disk.reads - before, 1 + kBlocks);
}

TEST_F(CoreCancelTest, WhatAnotherRequestAskedForTooIsRead) {
  for (const bool is_first : {true, false}) {
    const std::uint32_t seed = is_first ? 1 : 2;
    const RequestId one = begin(seed);
    const RequestId other = begin(seed);
    EXPECT_FALSE(rig_.offered(is_first ? one : other).has_value());
    (void)rig_.end(is_first ? one : other);
    EXPECT_EQ(rig_.core.reads(), kBlocks);
    EXPECT_EQ(rig_.look_up(is_first ? other : one), kBlocks);
    EXPECT_EQ(cancelled(), 0U);
    (void)rig_.end(is_first ? other : one);
  }
}

TEST_F(CoreCancelTest, OfASharedBeginningTheRestAloneIsNotRead) {
  auto tokens = Rig::make_tokens(kBlocks, 1);
  tokens.resize(2 * rig::kBlockTokens);
  const RequestId id = begin();
  const RequestId shorter = rig_.begin(tokens);
  (void)rig_.end(id);
  EXPECT_EQ(cancelled(), kBlocks - 2);
  EXPECT_EQ(rig_.look_up(shorter), 2U);
  EXPECT_EQ(begun(), 2U);
}

TEST_F(CoreCancelTest, WhoComesBeforeTheDiskIsToldHasTheReadsThatAreUnderWay) {
  rig_.disk.at_device = 1;
  (void)rig_.end(begin_and_read());
  const RequestId next = begin();
  EXPECT_EQ(rig_.look_up(next), kBlocks);
  EXPECT_EQ(begun(), kBlocks);
  EXPECT_EQ(cancelled(), 0U);
}

TEST_F(CoreCancelTest, WhoComesAfterItWasToldHasThemBegunAnew) {
  rig_.disk.at_device = 1;
  (void)rig_.end(begin_and_read());
  Jobs jobs;
  rig_.core.take_jobs(64, rig_.clock.now(), jobs);
  ASSERT_EQ(jobs.cancels.size(), kBlocks);
  const RequestId next = begin();
  EXPECT_FALSE(rig_.offered(next).has_value());
  for (std::uint64_t& token : jobs.cancels) token |= kReadBit;
  rig_.disk.cancel_reads(jobs.cancels);
  EXPECT_EQ(rig_.look_up(next), kBlocks);
  EXPECT_EQ(begun(), kBlocks + kBlocks - 1);
  EXPECT_EQ(cancelled(), 0U);
  EXPECT_EQ(rig_.counters.read_failures.value(), 0U);
}

TEST_F(CoreCancelTest, WhatTheDiskHadNoRoomForIsNotOfferedToItAgain) {
  rig_.disk.depth = 1;
  const RequestId id = begin_and_read();
  ASSERT_EQ(begun(), 1U);
  (void)rig_.end(id);
  EXPECT_EQ(cancelled(), kBlocks - 1);
  pass();
  EXPECT_EQ(begun(), 1U);
  EXPECT_EQ(rig_.core.reads(), 0U);
}

// It did not wait to its end for what it had asked for: that goes on, until it ends.
TEST_F(CoreCancelTest, WhatARequestGaveUpEndsWithIt) {
  rig_.disk.at_device = 1;
  const RequestId id = begin_and_read();
  rig_.disk.is_stuck = true;
  rig_.clock.advance(rig_.options.lookup_deadline);
  EXPECT_EQ(rig_.offered(id), 0U);
  EXPECT_EQ(rig_.core.reads(), kBlocks);
  (void)rig_.end(id);
  rig_.settle();
  EXPECT_EQ(rig_.core.reads(), 1U);
  EXPECT_EQ(cancelled(), kBlocks - 1);
}

// A read that failed for another reason is told as ever.
TEST_F(CoreCancelTest, AReadThatFailsAtTheDeviceIsCountedThoughNobodyWaits) {
  rig_.disk.at_device = 1;
  rig_.disk.fault = [](const SequenceHash&, bool is_read) {
    return is_read ? Status(Code::kIo, "made up") : Status();
  };
  (void)rig_.end(begin_and_read());
  pass();
  EXPECT_EQ(rig_.counters.read_failures.value(), 1U);
  EXPECT_EQ(cancelled(), kBlocks - 1);
}

}  // namespace
}  // namespace terrace::manager
