// When a canary is tried again, and when never.
// One claim a test, with virtual time and a made-up engine (core_rig_internal.h).
#include <gtest/gtest.h>

#include "terrace/manager/core_rig_internal.h"

namespace terrace::manager {
namespace {

using rig::Rig;

constexpr SequenceHash kCanary{.high = ~std::uint64_t{0}, .low = ~std::uint64_t{0}};

class DiskCanaryTest : public ::testing::Test {
 protected:
  DiskCanaryTest() {
    rig_.disk.fault = [this](const SequenceHash& hash, bool is_read) {
      if (hash != kCanary) return Status();
      (is_read ? reads_ : writes_) += 1;
      return is_read ? read_ends_ : write_ends_;
    };
  }
  void pass(Nanoseconds time) {
    rig_.clock.advance(time);
    rig_.settle();
  }
  [[nodiscard]] bool is_on() { return rig_.core.context().is_lower_readable; }
  [[nodiscard]] bool says(const std::string& part) const {
    return rig_.log.text.find(part) != std::string::npos;
  }
  [[nodiscard]] std::uint32_t filling() { return rig_.count(catalog::SlotState::kFilling); }
  // Hours in small steps, so that whatever is due happens.
  void pass_hours(int hours) {
    for (int i = 0; i < hours * 360; ++i) pass(seconds(10));
  }

  Rig rig_{{.host_blocks = 16, .has_disk = true, .opens = false}};
  Status write_ends_, read_ends_;
  int writes_ = 0;
  int reads_ = 0;
};

TEST_F(DiskCanaryTest, OneThatAnswersTooLateIsTriedAgainAndTheDiskServes) {
  rig_.disk.is_stuck = true;
  rig_.open();
  pass(seconds(30));
  EXPECT_TRUE(says("error event=disk_off reason=\"disk canary: no answer within 30 s"));
  EXPECT_TRUE(says("it is tried again in 30 s"));
  rig_.disk.is_stuck = false;
  pass(seconds(29));
  EXPECT_FALSE(is_on());
  EXPECT_NE(rig_.core.lower_problem(), "");
  pass(seconds(1));
  EXPECT_TRUE(is_on());
  EXPECT_EQ(rig_.core.lower_problem(), "");
  EXPECT_TRUE(says("info event=disk_on"));
  const auto tokens = Rig::make_tokens(3, 1);
  rig_.run_cold(tokens);
  const SequenceHash first = rig_.hashes(rig_.begin(tokens))[0];
  for (std::uint32_t seed = 2; seed < 10; ++seed) rig_.run_cold(Rig::make_tokens(3, seed), 8);
  ASSERT_FALSE(rig_.in_host(first));
  EXPECT_EQ(rig_.look_up(rig_.begin(tokens)), 3U);
}

// The device may use the slot: no other canary, nor another slot, before it has answered.
TEST_F(DiskCanaryTest, ADeviceThatHangsHoldsOneSlotHoweverLong) {
  rig_.disk.is_stuck = true;
  rig_.open();
  pass_hours(5);
  EXPECT_EQ(filling(), 1U);
  EXPECT_EQ(rig_.disk.is_idle(), false);
  rig_.disk.is_stuck = false;
  rig_.settle();
  pass(seconds(1));
  EXPECT_EQ(filling(), 0U);
  EXPECT_EQ(writes_, 1);  // It is there: read again alone.
  EXPECT_TRUE(is_on());
}

// As after SIGSTOP and SIGCONT: time went by, and the answer lies there.
TEST_F(DiskCanaryTest, AProcessThatWasStoppedTakesTheAnswersThatWait) {
  rig_.disk.latency = seconds(1);
  rig_.open();
  pass(seconds(1000));
  EXPECT_EQ(rig_.core.lower_problem(), "");
  pass(seconds(1000));
  EXPECT_TRUE(is_on());
  EXPECT_FALSE(says("disk_off"));
}

TEST_F(DiskCanaryTest, ADiskThatFailsIsAskedEverMoreRarelyThenNoMore) {
  write_ends_ = {Code::kIo, "pwrite: EIO"};
  rig_.open();
  std::vector<std::int64_t> rests;
  Nanoseconds last = rig_.clock.now();
  int seen = writes_;
  EXPECT_EQ(seen, 1);
  for (int i = 0; i < 12 * 3600; ++i) {
    pass(seconds(1));
    if (writes_ == seen) continue;
    seen = writes_;
    rests.push_back((rig_.clock.now() - last) / seconds(1));
    last = rig_.clock.now();
  }
  const std::vector<std::int64_t> wanted = {30,  60,  120, 240, 480, 600, 600, 600,
                                            600, 600, 600, 600, 600, 600, 600, 600};
  EXPECT_EQ(rests, wanted);
  EXPECT_TRUE(says("write: io: pwrite: EIO; nothing is read from disk for now"));
  EXPECT_NE(rig_.core.lower_problem().find("until the engine restarts"), std::string::npos);
  EXPECT_EQ(filling(), 0U);
}

TEST_F(DiskCanaryTest, AFullDiskIsReadOnceItTookTheCanary) {
  write_ends_ = {Code::kExhausted, "the medium is full"};
  rig_.open();
  EXPECT_FALSE(is_on());
  write_ends_ = {};
  pass(seconds(30));
  EXPECT_TRUE(is_on());
}

// A write budget that the first try has used up, or a medium that was read-only for a while.
TEST_F(DiskCanaryTest, ADiskThatRefusesItIsAskedAgain) {
  write_ends_ = {Code::kRefused, "disk.write_budget is used up"};
  rig_.open();
  EXPECT_FALSE(is_on());
  write_ends_ = {};
  pass(seconds(30));
  EXPECT_TRUE(is_on());
}

TEST_F(DiskCanaryTest, OneWhoseReadsFailIsTriedAgain) {
  read_ends_ = {Code::kIo, "pread: EIO"};
  rig_.open();
  EXPECT_FALSE(is_on());
  EXPECT_EQ(reads_, 3);
  read_ends_ = {};
  pass(seconds(30));
  EXPECT_TRUE(is_on());
}

TEST_F(DiskCanaryTest, OneThatDiffersStaysOffForGood) {
  const auto fault = rig_.disk.fault;
  rig_.disk.fault = [&](const SequenceHash& hash, bool is_read) {
    if (hash == kCanary && is_read) {  // Whole by its checksum, and yet not what was written.
      rig::MemoryDisk::Block& block = rig_.disk.blocks.at(hash);
      block.payloads[0][0] = static_cast<char>(block.payloads[0][0] ^ 1);
      block.checksums[0] = checksum_of(std::as_bytes(std::span(block.payloads[0])));
    }
    return fault(hash, is_read);
  };
  rig_.open();
  rig_.disk.fault = fault;
  EXPECT_NE(rig_.core.lower_problem().find("other bytes came back"), std::string::npos);
  pass_hours(5);
  EXPECT_EQ(reads_, 1);
  EXPECT_FALSE(is_on());
}

TEST_F(DiskCanaryTest, OneThatNeverVerifiesStaysOffForGood) {
  read_ends_ = {Code::kCorrupt, "the payload's checksum does not match"};
  rig_.open();
  EXPECT_NE(rig_.core.lower_problem().find("checksum"), std::string::npos);
  const int before = reads_;
  read_ends_ = {};
  pass_hours(5);
  EXPECT_EQ(reads_, before);
  EXPECT_FALSE(is_on());
}

// ---- The ranks' canary.

// Its step was given up, so its slot may be written late; a new one is ordered and passes.
TEST(RankCanaryTest, OneWhoseRankStoodStillIsOrderedAgain) {
  Rig rig({.opens = false});
  rig.attach(0);
  const auto orders = rig.build();
  ASSERT_TRUE(orders.has_value());
  rig.clock.advance(rig.options.step_timeout + seconds(1));
  rig.settle();
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *orders), rig.clock.now()).is_ok());
  EXPECT_FALSE(rig.core.gate().is_serving());
  const auto again = rig.step();
  ASSERT_TRUE(again.has_value());
  EXPECT_NE(again->canary_slot, UINT32_MAX);
  EXPECT_TRUE(rig.core.gate().is_serving());
  EXPECT_EQ(rig.count(catalog::SlotState::kQuarantined), 0U);
}

// It was attached between the order of the canary and that of the loads, and reports as attached.
TEST(RankCanaryTest, OneThatARankDidNotRunIsOrderedAgain) {
  Rig rig({.opens = false});
  rig.attach(0);
  rig.ranks[0].canary = wire::CanaryResult::kNotRun;
  ASSERT_TRUE(rig.step().has_value());
  EXPECT_FALSE(rig.core.gate().is_serving());
  rig.ranks[0].canary = wire::CanaryResult::kPassed;
  const auto again = rig.step();
  ASSERT_TRUE(again.has_value());
  EXPECT_NE(again->canary_slot, UINT32_MAX);
  EXPECT_TRUE(rig.core.gate().is_serving());
}

// Given up for a second one, yet from the same process: it differs, so nothing is served any more.
TEST(RankCanaryTest, AWrongAnswerThatComesSecondShutsTheGateToo) {
  Rig rig({.opens = false});
  rig.attach(0);
  const auto first = rig.build();
  ASSERT_TRUE(first.has_value());
  rig.clock.advance(seconds(2));
  std::optional<wire::Orders> second;
  for (int i = 0; i < 5 && !second; ++i) second = rig.build();
  ASSERT_TRUE(second.has_value());
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *first), rig.clock.now()).is_ok());
  EXPECT_TRUE(rig.core.gate().is_serving());
  EXPECT_EQ(rig.counters.canaries_passed.value(), 1U);
  rig.ranks[0].canary = wire::CanaryResult::kFailed;
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *second), rig.clock.now()).is_ok());
  EXPECT_EQ(rig.core.gate().state(rig.clock.now()), Gate::State::kShut);
  EXPECT_EQ(rig.counters.canaries_failed.value(), 1U);
}

TEST(RankCanaryTest, OneThatIsNeverReportedIsToldAndStillOpensLater) {
  Rig rig({.host_blocks = 400, .opens = false});
  rig.attach(0);
  std::optional<wire::Orders> last;
  for (int i = 0; i < 64 * 8; ++i) {  // Steps that nobody answers.
    if (auto orders = rig.build()) last = std::move(orders);
    rig.clock.advance(milliseconds(500));
    rig.settle();
  }
  EXPECT_NE(rig.log.text.find("error event=canary_late"), std::string::npos);
  EXPECT_EQ(rig.log.text.find("canary_late"), rig.log.text.rfind("canary_late"));
  const RequestId id = rig.begin(Rig::make_tokens(2, 1));
  EXPECT_EQ(rig.offered(id), 0U);  // At once.
  ASSERT_TRUE(last.has_value());
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *last), rig.clock.now()).is_ok());
  rig.clock.advance(seconds(600));
  rig.step();
  EXPECT_TRUE(rig.core.gate().is_serving());
}

}  // namespace
}  // namespace terrace::manager
