// Scrubbing several directories of which one does not answer: it is passed over, the others are
// read, and what it owes lands in nobody else's memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "terrace/testing/eventually.h"
#include "terrace/testing/hang.h"
#include "terrace/tier/disk/two_directories_fixture.h"

namespace terrace::tier::disk {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using transfer::IoOp;

class DiskScrubHangTest : public TwoDirectories {
 protected:
  void SetUp() override {
    TwoDirectories::SetUp();
    rig_.options().backend = "threads";
    open_and_fill();
  }
  [[nodiscard]] std::string first() const { return owner('a'); }
  [[nodiscard]] ScrubReport report() { return rig_.tier().scrub_report(); }
  [[nodiscard]] bool pass_until(const std::function<bool()>& condition) {
    return poll_until([&] {
      clock_.advance(milliseconds(200));
      return condition();
    });
  }
};

TEST_F(DiskScrubHangTest, ADirectoryThatHangsIsPassedOverAndTheOthersAreRead) {
  faults_->hang(first(), IoOp::kRead);
  (void)rig_.tier().start_scrub(1ULL << 40U);
  ASSERT_TRUE(pass_until([&] { return !report().waits_for.empty(); }));
  EXPECT_EQ(report().waits_for, first());
  EXPECT_TRUE(report().is_running);
  ASSERT_TRUE(pass_until([&] { return !report().is_running; }));
  EXPECT_EQ(report().good_blocks, kBlocks / 2);
  EXPECT_EQ(report().skipped_blocks, kBlocks / 2);
  EXPECT_EQ(report().bad_blocks, 0U);
  EXPECT_THAT(report().passed_over, ElementsAre(first()));
  EXPECT_EQ(report().waits_for, "");
  EXPECT_LT(report().took, seconds(15)) << "what hangs is no work that others have to wait for";
  EXPECT_THAT(rig_.log(), HasSubstr("passed_over=\"" + first() + "\""));
  EXPECT_EQ(faults_->lost(), 1U);
  // The next pass asks it for nothing.
  (void)rig_.tier().start_scrub(1ULL << 40U);
  ASSERT_TRUE(pass_until([&] { return !report().is_running; }));
  EXPECT_EQ(report().good_blocks, kBlocks / 2);
  EXPECT_EQ(faults_->lost(), 1U);
  faults_->hang({});
  faults_->release_lost();
  ASSERT_TRUE(pass_until([&] { return rig_.tier().problems().empty(); }));
  (void)rig_.tier().start_scrub(1ULL << 40U);
  ASSERT_TRUE(pass_until([&] { return !report().is_running; }));
  EXPECT_EQ(report().good_blocks, kBlocks);
  EXPECT_THAT(report().passed_over, IsEmpty());
}

TEST_F(DiskScrubHangTest, WhatComesLateLandsInNoOtherOnesMemory) {
  testing::Hang read("threads.first_volume");
  read.hold();
  // A frame a second; the first directory's come first.
  (void)rig_.tier().start_scrub(kFrame);
  ASSERT_TRUE(pass_until([&] { return read.held() == 1; }));
  ASSERT_TRUE(pass_until([&] { return report().skipped_blocks > 0; }));
  const std::uint64_t good = report().good_blocks;
  // One of the other directory's lies in memory, and nobody has been told.
  faults_->hold(true);
  clock_.advance(seconds(2));
  for (int i = 0; i < 20; ++i) poll();
  ASSERT_EQ(report().good_blocks, good);
  read.release();
  ASSERT_TRUE(testing::eventually([&] { return read.held() == 0; }));
  for (int i = 0; i < 20; ++i) poll();
  faults_->hold(false);
  ASSERT_TRUE(pass_until([&] { return !report().is_running; }));
  EXPECT_EQ(report().bad_blocks, 0U);
  EXPECT_GT(report().good_blocks, good);
  EXPECT_EQ(report().good_blocks + report().skipped_blocks, kBlocks);
}

}  // namespace
}  // namespace terrace::tier::disk
