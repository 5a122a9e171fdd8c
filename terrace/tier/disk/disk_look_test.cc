// Somebody who stands behind one directory's path does not answer: the other directories, and
// whoever polls the tier, go on; it is left alone, and comes back as others do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <optional>

#include "terrace/base/thread.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/hang.h"
#include "terrace/testing/left_thread.h"
#include "terrace/testing/silent_mount.h"
#include "terrace/tier/disk/two_directories_fixture.h"

namespace terrace::tier::disk {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using transfer::Fault;
using transfer::IoOp;
namespace fs = std::filesystem;

class DiskLookTest : public TwoDirectories {
 protected:
  void SetUp() override {
    TwoDirectories::SetUp();
    rig_.options().make_hand = lone_hand;
  }
  void expect_all_seen_are_read() {
    for (std::uint64_t n = 0; n < kBlocks; ++n) {
      if (rig_.has(n)) {
        EXPECT_EQ(rig_.read(n).text(), Status().text()) << n;
      }
    }
  }
  // A second of the tier's time, and enough of the threads' own.
  void pass(int count = 1) {
    for (int second = 0; second < count; ++second) {
      clock_.advance(seconds(1));
      for (int i = 0; i < 2; ++i) poll();
    }
  }
  [[nodiscard]] bool pass_until(const std::function<bool()>& condition) {
    return poll_until([&] {
      clock_.advance(milliseconds(200));
      return condition();
    });
  }
  void hang(testing::Hang& look) {
    ASSERT_TRUE(pass_until([&] { return look.held() == 1; }));
    ASSERT_TRUE(pass_until([&] { return problem().contains("state=hanging"); }));
  }
};

TEST_F(DiskLookTest, WhileALookDoesNotComeBackReadsAndWritesGoOn) {
  open_and_fill();
  testing::Hang look("lstat", "terrace-look-1");
  look.hold();
  ASSERT_TRUE(pass_until([&] { return look.held() == 1; }));
  pass(3);
  EXPECT_EQ(problem(), "") << "it may yet come back";
  EXPECT_EQ(seen(), kBlocks);
  expect_all_seen_are_read();
  EXPECT_EQ(rig_.write(kBlocks).text(), Status().text());
  EXPECT_EQ(look.held(), 1);
}

TEST_F(DiskLookTest, APathThatHangsIsMissesAtOnceAndNamedWithTheCall) {
  open_and_fill();
  testing::Hang look("lstat", "terrace-look-1");
  look.hold();
  hang(look);
  EXPECT_THAT(problem(), HasSubstr("path=" + owner('b') + " state=hanging: lstat " + owner('b') +
                                   "/0.slots has not come back for 10 s"));
  EXPECT_EQ(seen(), kBlocks / 2);
  expect_all_seen_are_read();
  const std::string hangs = "terrace_disk_hangs_total{volume=\"1\",operation=";
  EXPECT_EQ(rig_.metric(hangs + "\"lstat\"}"), 1);
  EXPECT_EQ(rig_.metric(hangs + "\"transfer\"}"), 0);
  EXPECT_GE(rig_.metric("terrace_disk_look_seconds{volume=\"1\"}"), 10);
  std::uint64_t missing = 0;
  while (rig_.has(missing)) ++missing;
  EXPECT_EQ(rig_.write(missing).text(), Status().text()) << "stored anew where it answers";
  EXPECT_TRUE(rig_.has(missing));
  pass(30);
  EXPECT_EQ(rig_.metric(hangs + "\"lstat\"}"), 1) << "once, however long it takes";
  EXPECT_EQ(look.held(), 1);
}

TEST_F(DiskLookTest, TheOthersAreLookedAtMeanwhile) {
  open_and_fill();
  testing::Hang look("fstatvfs", "terrace-look-1");
  look.hold();
  hang(look);
  fs::rename(rig_.path() + "/a", rig_.path() + "/elsewhere");
  ASSERT_TRUE(pass_until([&] { return problem().contains("state=gone"); }));
  EXPECT_EQ(seen(), 0U);
  fs::rename(rig_.path() + "/elsewhere", rig_.path() + "/a");
  EXPECT_TRUE(pass_until([&] { return problem().contains("state=hanging"); }));
  EXPECT_EQ(seen(), kBlocks / 2);
}

TEST_F(DiskLookTest, WhatComesBackIsCheckedAndServed) {
  open_and_fill();
  testing::Hang look("stat", "terrace-look-1");
  look.hold();
  hang(look);
  EXPECT_THAT(problem(), HasSubstr("stat " + owner('b') + "/owner.lock"));
  look.release();
  ASSERT_TRUE(pass_until([&] { return problem().empty(); })) << problem();
  EXPECT_THAT(rig_.log(), HasSubstr(owner('b') + " state=returned good_blocks="));
  EXPECT_EQ(seen(), kBlocks);
  expect_all_seen_are_read();
}

TEST_F(DiskLookTest, WhatComesBackOtherwiseIsNotTrusted) {
  open_and_fill();
  testing::Hang look("lstat", "terrace-look-1");
  look.hold();
  hang(look);
  {
    std::fstream file(owner('b') + "/0.slots", std::ios::in | std::ios::out | std::ios::binary);
    const std::string zeros(fs::file_size(owner('b') + "/0.slots"), '\0');
    file.write(zeros.data(), static_cast<std::streamsize>(zeros.size()));
  }
  look.release();
  EXPECT_TRUE(pass_until([&] { return problem().contains("state=distrusted"); })) << problem();
  EXPECT_EQ(seen(), kBlocks / 2);
}

// Both failed; the check of one of them hangs at a call that no other look makes.
TEST_F(DiskLookTest, ACheckThatHangsKeepsNoOtherDirectoryFromItsOwn) {
  open_and_fill();
  faults_->aim(Fault::kError, IoOp::kRead, 1000, "terrace-00/0.slots");
  for (int round = 0; round < 20 && rig_.tier().problems().size() < 2; ++round) {
    for (std::uint64_t n = 0; n < kBlocks; ++n) (void)rig_.read(n);
  }
  ASSERT_EQ(rig_.tier().problems().size(), 2U);
  faults_->aim(Fault::kNone, IoOp::kRead, 0);
  testing::Hang look("posix_fadvise", "terrace-look-0");
  look.hold();
  ASSERT_TRUE(pass_until([&] { return look.held() == 1; }));
  EXPECT_TRUE(pass_until([&] { return rig_.log().contains(owner('b') + " state=returned"); }));
  EXPECT_TRUE(pass_until([&] { return problem().contains("posix_fadvise"); })) << problem();
  look.release();
  EXPECT_TRUE(pass_until([&] { return rig_.tier().problems().empty(); })) << problem();
  EXPECT_THAT(rig_.log(), HasSubstr(owner('a') + " state=returned"));
}

// What room there is is asked before a directory gets its first block.
TEST_F(DiskLookTest, BlocksThatWaitForALookAreDroppedWhenItHangsAndOthersWritten) {
  testing::Hang look("fstatvfs", "terrace-look-1");
  look.hold();
  open_with_faults();
  std::vector<BlockMemory> memory;
  for (std::uint64_t n = 0; n < kBlocks / 2; ++n) {
    memory.push_back(rig_.block(n));
    ASSERT_TRUE(rig_.begin_write(100 + n, n, memory.back()).is_ok());
  }
  ASSERT_TRUE(rig_.step_until([&] { return seen() == kBlocks / 4; }));
  ASSERT_TRUE(testing::eventually([&] { return look.held() == 1; }));
  ASSERT_TRUE(rig_.step_until([&] {
    clock_.advance(milliseconds(200));
    return problem().contains("state=hanging");
  }));
  std::uint64_t dropped = 0;
  for (std::uint64_t n = 0; n < kBlocks / 2; ++n) {
    const Status status = rig_.await(100 + n).status;
    if (!status.is_ok()) ++dropped;
    EXPECT_TRUE(status.is_ok() || status.code() == Code::kUnavailable) << status.text();
  }
  EXPECT_EQ(dropped, kBlocks / 4);
  EXPECT_EQ(rig_.write(kBlocks).text(), Status().text());
  look.release();
  ASSERT_TRUE(pass_until([&] { return problem().empty() && rig_.tier().is_allocated(); }));
}

TEST_F(DiskLookTest, ClosingEndsAndWhoLooksTouchesNothingMore) {
  open_and_fill();
  testing::Hang look("lstat", "terrace-look-1");
  look.hold();
  hang(look);
  EXPECT_TRUE(rig_.tier().close(seconds(20))) << "nobody uses the blocks' memory";
  EXPECT_EQ(look.held(), 1) << "it waited";
  EXPECT_THAT(rig_.log(), HasSubstr("disk look=left: lstat " + owner('b') + "/0.slots"));
  EXPECT_TRUE(testing::eventually([] { return !testing::has_thread("terrace-look-0"); }));
  ASSERT_TRUE(testing::has_thread("terrace-look-1"));
  const auto soil = testing::soil_freed_memory();
  look.release();
  EXPECT_TRUE(testing::eventually([] { return !testing::has_thread("terrace-look-1"); }));
}

// Not yet said to hang: it has the time that closing has.
TEST_F(DiskLookTest, ClosingWaitsForALookUpToItsLimit) {
  open_and_fill();
  testing::Hang look("lstat", "terrace-look-1");
  look.hold();
  ASSERT_TRUE(pass_until([&] { return look.held() == 1; }));
  EXPECT_TRUE(rig_.tier().close(milliseconds(50)));
  EXPECT_EQ(look.held(), 1);
  EXPECT_THAT(rig_.log(), HasSubstr("disk look=left"));
}

TEST_F(DiskLookTest, ClosingLeavesNothingBehindWhereAllAnswer) {
  open_and_fill();
  pass();
  rig_.close();
  EXPECT_FALSE(testing::has_thread("terrace-look-0"));
  EXPECT_FALSE(testing::has_thread("terrace-look-1"));
  EXPECT_THAT(rig_.log(), Not(HasSubstr("look=left")));
  ASSERT_TRUE(rig_.reopen().is_ok());
  EXPECT_FALSE(fs::exists(rig_.path() + "/b/terrace-01")) << "its lock was not free";
  EXPECT_EQ(seen(), kBlocks);
}

TEST_F(DiskLookTest, WithoutAThreadOneIsLookedAtAllTheSame) {
  rig_.options().make_hand = [](const std::string&) -> Result<std::unique_ptr<Hands>> {
    return fail(Code::kExhausted, "no thread");
  };
  open_and_fill();
  EXPECT_THAT(rig_.log(), HasSubstr("looks=in_turn reason=\"no thread\""));
  fs::rename(rig_.path() + "/b", rig_.path() + "/elsewhere");
  EXPECT_TRUE(pass_until([&] { return problem().contains("state=gone"); }));
}

// As a mount whose server is away: nobody answers for what lies below the path.
TEST_F(DiskLookTest, AFileSystemThatDoesNotAnswerIsLeftAloneUntilItDoes) {
  open_and_fill();
  testing::SilentMount silent(rig_.path() + "/b");
  std::optional<testing::Hang> stand_in;  // Where the system has no FUSE.
  if (!silent.is_mounted()) stand_in.emplace("lstat", "terrace-look-1").hold();
  ASSERT_TRUE(pass_until([&] { return problem().contains("state=hanging"); }));
  EXPECT_THAT(problem(), HasSubstr("lstat " + owner('b') + "/0.slots"));
  EXPECT_EQ(seen(), kBlocks / 2);
  expect_all_seen_are_read();
  silent.end();
  stand_in.reset();
  ASSERT_TRUE(pass_until([&] { return problem().empty(); })) << problem();
  EXPECT_EQ(seen(), kBlocks);
  EXPECT_THAT(rig_.tier().problems(), IsEmpty());
}

// Both grow on one file system, of which each knows only what its last look saw.
TEST(DiskLookRoomTest, WhatDirectoriesTookSinceTheLookIsLeftToOthersNoLess) {
  const testing::SmallDisk disk(64 << 20);
  ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
  testing::FakeClock clock;  // It stands: no look but those that are asked for.
  Rig rig;
  rig.use_clock(clock);
  rig.options().make_hand = lone_hand;
  rig.options().paths = {disk.path() + "/a", disk.path() + "/b"};
  rig.options().preallocate = "zerofill";
  rig.options().blocks = 0;
  rig.options().size = 32_MiB;
  ASSERT_EQ(rig.open().text(), Status().text());
  const std::uint64_t taken = fs::space(disk.path()).available - (16U << 20U);
  std::ofstream(disk.path() + "/somebody-elses", std::ios::binary) << std::string(taken, 'x');
  EXPECT_TRUE(rig.step_until([&] { return rig.tier().problems().size() == 2; }));
  EXPECT_THAT(rig.tier().problems()[0], HasSubstr("others have used its file system up"));
  // Half of a quarter of it, but for a step of the other one and for records.
  EXPECT_GE(fs::space(disk.path()).available, (7U << 20U) - (256U << 10U));
  EXPECT_LT(fs::space(disk.path()).available, 10U << 20U) << "what is there is used";
}

}  // namespace
}  // namespace terrace::tier::disk
