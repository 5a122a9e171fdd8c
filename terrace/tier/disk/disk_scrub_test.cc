// Scrubbing: what it finds, what it leaves alone, how much it reads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "terrace/tier/disk/disk_fixture.h"
#include "terrace/wire/frame.h"

namespace terrace::tier::disk {
namespace {

using ::testing::HasSubstr;
using transfer::Fault;
using transfer::IoOp;

constexpr const char* kGood = "terrace_disk_scrub_blocks_total{result=\"good\"}";
constexpr const char* kBad = "terrace_disk_scrub_blocks_total{result=\"bad\"}";
constexpr const char* kSkipped = "terrace_disk_scrub_blocks_total{result=\"skipped\"}";
constexpr const char* kPasses = "terrace_disk_scrub_passes_total";
constexpr const char* kBytes = "terrace_disk_scrub_bytes_total";

class DiskScrubTest : public DiskFixture {
 protected:
  void flip(std::uint64_t offset) const { flip_bit(slots(), offset); }
  // A whole pass, as if there were no rate.
  ScrubReport scrub() {
    const std::uint64_t pass = rig_.tier().start_scrub(1ULL << 40U);
    EXPECT_TRUE(poll_until([&] { return !rig_.tier().scrub_report().is_running; }));
    EXPECT_EQ(rig_.tier().scrub_report().pass, pass);
    return rig_.tier().scrub_report();
  }
};

TEST_F(DiskScrubTest, ABadBlockIsDroppedAndReportedWithItsPlace) {
  ASSERT_TRUE(rig_.open().is_ok());
  write_blocks(0, 4);
  flip(2 * kFrame + 4096 + 777);
  const ScrubReport report = scrub();
  EXPECT_EQ(report.good_blocks, 3U);
  EXPECT_EQ(report.bad_blocks, 1U);
  EXPECT_EQ(report.progress, 1);
  ASSERT_EQ(report.found.size(), 1U);
  EXPECT_EQ(report.found[0].file, rig_.owner() + "/0.slots");
  EXPECT_EQ(report.found[0].offset, 2 * kFrame);
  EXPECT_EQ(report.found[0].hash, hash_of(2));
  EXPECT_THAT(report.found[0].reason, HasSubstr("checksum"));
  EXPECT_FALSE(rig_.has(2));
  EXPECT_EQ(rig_.metric(kGood), 3);
  EXPECT_EQ(rig_.metric(kBad), 1);
  EXPECT_EQ(rig_.metric(kPasses), 1);
  EXPECT_EQ(rig_.metric(kBytes), 3 * kFrame);
  EXPECT_THAT(rig_.log(), HasSubstr(rig_.owner() + "/0.slots offset=" + std::to_string(2 * kFrame) +
                                    " scrub=bad key=" + hash_of(2).hex()));
  EXPECT_THAT(rig_.log(), HasSubstr("warn disk scrub=done pass=1 good_blocks=3 bad_blocks=1"));
}

TEST_F(DiskScrubTest, ADroppedBlockStaysDroppedAfterARestartAndIsToldAsEvicted) {
  ASSERT_TRUE(rig_.open().is_ok());
  write_blocks(0, 3);
  flip(kFrame + 40);  // In the header: whose block it is.
  EXPECT_EQ(scrub().bad_blocks, 1U);
  const auto gone = rig_.tier().take_evicted();
  ASSERT_EQ(gone.size(), 1U);
  EXPECT_EQ(gone[0].key.hash, hash_of(1));
  rig_.settle();
  ASSERT_TRUE(rig_.reopen().is_ok());
  EXPECT_FALSE(rig_.has(1));
  EXPECT_TRUE(rig_.has(0));
  EXPECT_TRUE(rig_.write(1).is_ok());
  EXPECT_TRUE(rig_.read(1).is_ok());
  EXPECT_EQ(scrub().bad_blocks, 0U);
}

TEST_F(DiskScrubTest, AFrameOfAnotherBlockIsBad) {
  ASSERT_TRUE(rig_.open().is_ok());
  write_blocks(0, 2);
  {
    std::fstream file(rig_.owner() + "/0.slots", std::ios::in | std::ios::out | std::ios::binary);
    std::string frame(kFrame, '\0');
    file.read(frame.data(), kFrame);
    file.seekp(kFrame);
    file.write(frame.data(), kFrame);
  }
  const ScrubReport report = scrub();
  ASSERT_EQ(report.bad_blocks, 1U);
  EXPECT_THAT(report.found[0].reason, HasSubstr("another block's"));
}

// The order of eviction is that of use, whatever order a pass reads in.
TEST_F(DiskScrubTest, APassDoesNotCountAsUse) {
  rig_.options().blocks = 4;
  ASSERT_TRUE(rig_.open().is_ok());
  write_blocks(0, 4);
  ASSERT_TRUE(rig_.read(0).is_ok());  // Now 1 is the oldest.
  EXPECT_EQ(scrub().good_blocks, 4U);
  write_blocks(10, 11);
  EXPECT_FALSE(rig_.has(1));
  EXPECT_TRUE(rig_.has(0));
  write_blocks(11, 12);
  EXPECT_FALSE(rig_.has(2));
}

TEST_F(DiskScrubTest, EveryRankAndGroupIsRead) {
  Rig rig({.ranks = 2, .payload_bytes = {8192, 4096}});
  ASSERT_TRUE(rig.open().is_ok());
  ASSERT_TRUE(rig.write(1, 0).is_ok());
  ASSERT_TRUE(rig.write(1, 1).is_ok());
  (void)rig.tier().start_scrub(1ULL << 40U);
  std::vector<DiskDone> done;
  while (rig.tier().scrub_report().is_running) {
    rig.tier().wait(milliseconds(20));
    rig.tier().poll(done);
  }
  EXPECT_EQ(rig.tier().scrub_report().good_blocks, 2U);
  EXPECT_EQ(rig.metric(kBytes), 2 * (4096 + 8192) + 2 * (4096 + 4096));
}

// Bytes of a slot that is being given away say nothing about the block that was there.
TEST_F(DiskScrubTest, ASlotThatChangesHandsUnderTheReadIsNotJudged) {
  rig_.options().blocks = 1;
  open_with_faults();
  write_blocks(0, 1);
  flip(4096 + 9);  // What the read brings is bad.
  faults_->aim(Fault::kLose, IoOp::kRead, 1, "0.slots");
  (void)rig_.tier().start_scrub(1ULL << 40U);
  ASSERT_TRUE(poll_until([&] { return faults_->lost() == 1; }));
  write_blocks(5, 6);  // Into the same slot.
  faults_->release_lost();
  ASSERT_TRUE(poll_until([&] { return rig_.metric(kPasses) == 1; }));
  EXPECT_EQ(rig_.metric(kBad), 0);
  EXPECT_TRUE(rig_.has(5));
}

TEST_F(DiskScrubTest, ABlockOfAfterAResetIsGood) {
  ASSERT_TRUE(rig_.open().is_ok());
  write_blocks(0, 2);
  rig_.tier().forget_all();
  write_blocks(2, 5);
  const ScrubReport report = scrub();
  EXPECT_EQ(report.good_blocks, 3U);
  EXPECT_EQ(report.bad_blocks, 0U);
}

TEST_F(DiskScrubTest, ADirectoryThatIsLeftAloneIsSkippedAndSaid) {
  open_with_faults();
  write_blocks(0, 6);
  faults_->aim(Fault::kError, IoOp::kRead, 5, "0.slots");
  const ScrubReport report = scrub();
  EXPECT_EQ(report.bad_blocks, 4U);
  EXPECT_EQ(report.skipped_blocks, 2U) << "five errors in a row close the directory";
  EXPECT_EQ(rig_.metric(kSkipped), 2);
  EXPECT_EQ(report.good_blocks, 0U);
  EXPECT_THAT(rig_.log(), HasSubstr("skipped_blocks=2"));
}

TEST_F(DiskScrubTest, ItReadsNoFasterThanItIsTold) {
  rig_.use_clock(clock_);
  ASSERT_TRUE(rig_.open().is_ok());
  write_blocks(0, 16);
  rig_.settle();
  (void)rig_.tier().start_scrub(kFrame);  // A frame a second.
  for (int second = 1; second <= 3; ++second) {
    ASSERT_TRUE(poll_until([&] { return rig_.metric(kGood) >= second; }));
    for (int i = 0; i < 5; ++i) poll();
    EXPECT_EQ(rig_.metric(kGood), second);
    clock_.advance(seconds(1));
  }
  EXPECT_TRUE(rig_.tier().scrub_report().is_running);
  (void)rig_.tier().start_scrub(1ULL << 40U);  // Who asks again hastens it.
  const Nanoseconds asked_at = clock_.now();
  EXPECT_TRUE(poll_until([&] {
    clock_.advance(milliseconds(1));
    return rig_.metric(kPasses) == 1;
  }));
  EXPECT_LT(clock_.now() - asked_at, seconds(10)) << "13 frames were left";
  EXPECT_EQ(rig_.tier().scrub_report().pass, 1U);
  EXPECT_EQ(rig_.metric(kGood), 16) << "it goes on where it was";
}

TEST_F(DiskScrubTest, WhoAsksWithoutARateGetsTheTiersOwnOrElseOneThatEnds) {
  rig_.use_clock(clock_);  // While it stands, the second block waits, and the pass with it.
  const auto is_over = [&] {
    clock_.advance(milliseconds(10));
    return rig_.metric(kPasses) == 1;
  };
  ASSERT_TRUE(rig_.open().is_ok());
  write_blocks(0, 2);
  rig_.settle();
  (void)rig_.tier().start_scrub(0);
  ASSERT_TRUE(poll_until([&] { return rig_.tier().scrub_report().bytes_per_second > 0; }));
  EXPECT_EQ(rig_.tier().scrub_report().bytes_per_second, 64ULL << 20U);
  ASSERT_TRUE(poll_until(is_over));
  rig_.options().scrub_bytes_per_second = 5'000'000;
  rig_.options().scrub_first = seconds(600);
  ASSERT_TRUE(rig_.reopen().is_ok());
  (void)rig_.tier().start_scrub(0);
  EXPECT_TRUE(rig_.tier().scrub_report().is_asked);
  ASSERT_TRUE(poll_until([&] { return rig_.metric(kGood) == 1; }));
  EXPECT_EQ(rig_.tier().scrub_report().bytes_per_second, 5'000'000U);
  EXPECT_TRUE(poll_until(is_over));
  EXPECT_EQ(rig_.tier().scrub_report().bytes_per_second, 5'000'000U);
}

TEST_F(DiskScrubTest, NothingIsReadOnceTheTierStops) {
  ASSERT_TRUE(rig_.open().is_ok());
  write_blocks(0, 2);
  rig_.settle();
  rig_.tier().stop_writes();
  (void)rig_.tier().start_scrub(1ULL << 40U);
  for (int i = 0; i < 5; ++i) poll();
  EXPECT_EQ(rig_.metric(kBytes), 0);
}

TEST_F(DiskScrubTest, APassThatWasDueIsOneThatWasAskedForOnceSomebodyAsks) {
  rig_.use_clock(clock_);
  rig_.options().scrub_bytes_per_second = kFrame;
  rig_.options().scrub_interval = seconds(3600);
  ASSERT_TRUE(rig_.open().is_ok());
  write_blocks(0, 4);
  rig_.settle();
  ASSERT_TRUE(poll_until([&] { return rig_.tier().scrub_report().is_running; }));
  EXPECT_FALSE(rig_.tier().scrub_report().is_asked);
  (void)rig_.tier().start_scrub(1ULL << 40U);
  EXPECT_TRUE(rig_.tier().scrub_report().is_asked);
  EXPECT_EQ(rig_.tier().scrub_report().pass, 1U);
}

TEST_F(DiskScrubTest, PassesComeByThemselvesAfterTheirIntervalAndNotWithoutARate) {
  rig_.use_clock(clock_);
  rig_.options().scrub_bytes_per_second = 1ULL << 40U;
  rig_.options().scrub_first = seconds(600);
  rig_.options().scrub_interval = seconds(3600);
  ASSERT_TRUE(rig_.open().is_ok());
  write_blocks(0, 2);
  rig_.settle();
  clock_.advance(seconds(599));
  for (int i = 0; i < 5; ++i) poll();
  EXPECT_EQ(rig_.metric(kBytes), 0);
  clock_.advance(seconds(1));
  const auto has_ended = [&](int passes) {
    clock_.advance(milliseconds(1));  // A frame takes its time by the rate.
    return rig_.metric(kPasses) == passes;
  };
  ASSERT_TRUE(poll_until([&] { return has_ended(1); }));
  EXPECT_FALSE(rig_.tier().scrub_report().is_asked);
  clock_.advance(seconds(3598));
  for (int i = 0; i < 5; ++i) poll();
  EXPECT_EQ(rig_.metric(kPasses), 1);
  EXPECT_EQ(rig_.metric(kBytes), 2 * kFrame) << "and the next one has not begun";
  clock_.advance(seconds(2));
  EXPECT_TRUE(poll_until([&] { return has_ended(2); }));
  rig_.options().scrub_bytes_per_second = 0;
  ASSERT_TRUE(rig_.reopen().is_ok());
  clock_.advance(seconds(1'000'000));
  for (int i = 0; i < 5; ++i) poll();
  EXPECT_EQ(rig_.metric(kBytes), 0);
  EXPECT_EQ(rig_.tier().scrub_report().pass, 0U);
}

TEST_F(DiskScrubTest, NothingIsReadWhileItIsHeld) {
  ASSERT_TRUE(rig_.open().is_ok());
  write_blocks(0, 2);
  rig_.settle();
  rig_.tier().hold_scrub(true);
  (void)rig_.tier().start_scrub(1ULL << 40U);
  for (int i = 0; i < 5; ++i) poll();
  EXPECT_EQ(rig_.metric(kBytes), 0);
  EXPECT_TRUE(rig_.tier().scrub_report().is_held);
  rig_.tier().hold_scrub(false);
  EXPECT_TRUE(poll_until([&] { return rig_.metric(kPasses) == 1; }));
  EXPECT_EQ(rig_.metric(kGood), 2);
}

// Others come first; but a disk that is never idle is read, too, a frame a second.
TEST_F(DiskScrubTest, ItWaitsForAnIdleDiskAndNotForEver) {
  rig_.use_clock(clock_);
  open_with_faults();
  write_blocks(0, 4);
  rig_.settle();
  faults_->aim(Fault::kLose, IoOp::kRead, 1, "0.slots");
  const BlockMemory into = rig_.blank();
  ASSERT_TRUE(rig_.tier()
                  .begin_read(900, GroupId(0), hash_of(0), into.shards(),
                              transfer::IoClass::kTtftRead, kNoDeadline)
                  .is_ok());
  ASSERT_TRUE(poll_until([&] { return faults_->lost() == 1; }));
  (void)rig_.tier().start_scrub(1ULL << 40U);
  for (int i = 0; i < 5; ++i) poll();
  EXPECT_EQ(rig_.metric(kBytes), 0);
  for (int second = 1; second <= 2; ++second) {
    clock_.advance(seconds(1));
    ASSERT_TRUE(poll_until([&] { return rig_.metric(kGood) >= second; }));
    for (int i = 0; i < 5; ++i) poll();
    EXPECT_EQ(rig_.metric(kGood), second);
  }
  faults_->release_lost();
  rig_.settle();  // What was read is looked at before its memory goes.
}

// It could be dropped under a request that is about to find out itself.
TEST_F(DiskScrubTest, ABadBlockThatARequestReadsIsLeftToIt) {
  rig_.use_clock(clock_);
  open_with_faults();
  write_blocks(0, 2);
  rig_.settle();
  flip(4096 + 9);
  faults_->aim(Fault::kLose, IoOp::kRead, 1, "0.slots");
  const BlockMemory into = rig_.blank();
  ASSERT_TRUE(rig_.tier()
                  .begin_read(900, GroupId(0), hash_of(0), into.shards(),
                              transfer::IoClass::kTtftRead, kNoDeadline)
                  .is_ok());
  ASSERT_TRUE(poll_until([&] { return faults_->lost() == 1; }));
  (void)rig_.tier().start_scrub(1ULL << 40U);
  for (int second = 0; second < 3; ++second) {
    clock_.advance(seconds(1));
    for (int i = 0; i < 5; ++i) poll();
  }
  EXPECT_EQ(rig_.metric(kBad), 0);
  EXPECT_TRUE(rig_.has(0));
  faults_->release_lost();
  EXPECT_EQ(rig_.await(900).status.code(), Code::kCorrupt);
  EXPECT_TRUE(poll_until([&] {
    clock_.advance(milliseconds(1));
    return rig_.metric(kPasses) == 1;
  }));
  EXPECT_EQ(rig_.metric(kBad), 0);
  EXPECT_EQ(rig_.metric(kGood), 1);
}

TEST_F(DiskScrubTest, BlocksOfAnotherNamespaceAreNotItsBusiness) {
  ASSERT_TRUE(rig_.open().is_ok());
  write_blocks(0, 4);
  rig_.set_model("model-b");
  ASSERT_TRUE(rig_.reopen().is_ok());
  write_blocks(10, 12);
  const ScrubReport report = scrub();
  EXPECT_EQ(report.good_blocks, 2U);
  EXPECT_EQ(report.bad_blocks, 0U);
  rig_.set_model("model-a");
  ASSERT_TRUE(rig_.reopen().is_ok());
  for (std::uint64_t n = 0; n < 4; ++n) EXPECT_EQ(rig_.read(n).text(), Status().text()) << n;
}

TEST_F(DiskScrubTest, FindingsAreTheLatestAndBounded) {
  rig_.options().blocks = kMostScrubFindings + 20;
  ASSERT_TRUE(rig_.open().is_ok());
  write_blocks(0, kMostScrubFindings + 10);
  rig_.settle();
  const std::string bytes = tree(rig_.path()).at(slots());
  std::uint64_t last = 0;
  for (std::uint64_t page = 0; page < bytes.size(); page += 4096) {
    if (bytes.compare(page, 8, "TRCFRAME") != 0) continue;
    flip(page + 40);
    last = page;
  }
  const ScrubReport report = scrub();
  EXPECT_EQ(report.bad_blocks, kMostScrubFindings + 10);
  ASSERT_EQ(report.found.size(), kMostScrubFindings);
  EXPECT_EQ(report.found.back().offset, last);
}

TEST_F(DiskScrubTest, FindingsOfThePassBeforeStayAndAnAskedRateEndsWithItsPass) {
  rig_.options().scrub_bytes_per_second = 5'000'000;
  rig_.options().scrub_first = seconds(600);
  rig_.options().scrub_interval = seconds(600);
  ASSERT_TRUE(rig_.open().is_ok());
  write_blocks(0, 4);
  flip(2 * kFrame + 4096);
  EXPECT_EQ(scrub().bad_blocks, 1U);
  const ScrubReport second = scrub();
  EXPECT_EQ(second.bad_blocks, 0U);
  EXPECT_EQ(second.found.size(), 1U);
  EXPECT_EQ(second.bytes_per_second, 5'000'000U) << "of the next one, by itself";
}

TEST_F(DiskScrubTest, AFrameOfAFormatThatNobodyKnowsIsBad) {
  ASSERT_TRUE(rig_.open().is_ok());
  write_blocks(0, 2);
  rig_.settle();
  std::string page = bytes_of("0.slots", kFrame, wire::kFrameHeaderBytes);
  auto header = wire::decode_frame(std::as_bytes(std::span(page)).first<wire::kFrameHeaderBytes>());
  ASSERT_TRUE(header.has_value());
  header->codec = static_cast<wire::FrameCodec>(7);
  wire::encode(*header, std::as_writable_bytes(std::span(page)).first<wire::kFrameHeaderBytes>());
  patch("0.slots", kFrame, page);
  EXPECT_EQ(scrub().bad_blocks, 1U);
}

// A device that hangs under a read of the scrubber lets the tier close.
TEST_F(DiskScrubTest, AReadThatNeverEndsKeepsNobodyWaiting) {
  open_with_faults();
  write_blocks(0, 2);
  faults_->aim(Fault::kLose, IoOp::kRead, 1, "0.slots");
  (void)rig_.tier().start_scrub(0);
  ASSERT_TRUE(poll_until([&] { return faults_->lost() == 1; }));
  EXPECT_TRUE(rig_.tier().is_idle());
  EXPECT_TRUE(rig_.read(0).is_ok());
  EXPECT_TRUE(rig_.write(7).is_ok());
  faults_->release_lost();
}

}  // namespace
}  // namespace terrace::tier::disk
