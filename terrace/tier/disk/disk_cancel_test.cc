// Reads that nobody wants any more take none of the device's time, unless they are there.
#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <vector>

#include "terrace/tier/disk/disk_fixture.h"

namespace terrace::tier::disk {
namespace {

using transfer::IoClass;
using transfer::IoOp;

constexpr std::uint64_t kBlocks = 40;
constexpr std::uint32_t kDepth = 8;

class DiskCancelTest : public DiskFixture {
 protected:
  void SetUp() override {
    rig_.options().blocks = kBlocks;
    rig_.options().io.depth = kDepth;
    open_with_faults();
    write_blocks(0, kBlocks);
    rig_.settle();
    faults_->hang("/0.slots", IoOp::kRead);
    // From the last to the first: so none goes together with its neighbour.
    for (std::uint64_t n = kBlocks; n-- > 0;) {
      memory_.push_back(rig_.blank());
      ASSERT_TRUE(rig_.tier()
                      .begin_read(n, GroupId(0), hash_of(n), memory_.back().shards(),
                                  IoClass::kTtftRead, kNoDeadline)
                      .is_ok());
    }
    ASSERT_TRUE(turn_until([&] { return faults_->lost() == kDepth; }));
  }
  void TearDown() override {
    faults_->hang({});
    EXPECT_TRUE(turn_until([&] {
      faults_->release_lost();
      return rig_.tier().is_idle();
    }));
  }
  void turn() {
    std::vector<DiskDone> done;
    rig_.tier().wait(milliseconds(5));
    rig_.tier().poll(done);
    for (const DiskDone& one : done) ended_[one.token] = one.status;
  }
  template <typename Condition>
  bool turn_until(Condition&& condition) {
    const Nanoseconds limit = rig_.clock().now() + seconds(20);
    while (!condition() && rig_.clock().now() < limit) turn();
    return condition();
  }
  void cancel(std::uint64_t first, std::uint64_t end) {
    std::vector<std::uint64_t> tokens(end - first);
    std::iota(tokens.begin(), tokens.end(), first);
    rig_.tier().cancel_reads(tokens);
  }

  std::vector<BlockMemory> memory_;  // Until the end: what hangs may write into it.
  std::map<std::uint64_t, Status> ended_;
};

TEST_F(DiskCancelTest, WhatWaitsEndsAtOnceAndWhatIsAtTheDeviceIsRead) {
  cancel(0, kBlocks);
  turn();
  EXPECT_EQ(ended_.size(), kBlocks - kDepth);
  for (const auto& [token, status] : ended_) {
    EXPECT_EQ(status.code(), Code::kClosed) << token;
    EXPECT_LT(token, kBlocks - kDepth) << "the last ones were the first to begin";
  }
  faults_->hang({});
  faults_->release_lost();
  ASSERT_TRUE(turn_until([&] { return ended_.size() == kBlocks; }));
  for (std::uint64_t n = kBlocks - kDepth; n < kBlocks; ++n) EXPECT_TRUE(ended_.at(n).is_ok()) << n;
  EXPECT_TRUE(rig_.tier().is_idle());
  EXPECT_TRUE(rig_.tier().problems().empty());
  EXPECT_EQ(rig_.metric("terrace_disk_late_reads_total"), 0);
  for (std::uint64_t n = 0; n < kBlocks; ++n) EXPECT_EQ(rig_.read(n).text(), Status().text()) << n;
}

TEST_F(DiskCancelTest, OthersThatWaitGoOn) {
  cancel(0, 10);
  cancel(1000, 1010);
  turn();
  EXPECT_EQ(ended_.size(), 10U);
  faults_->hang({});
  faults_->release_lost();
  ASSERT_TRUE(turn_until([&] { return ended_.size() == kBlocks; }));
  for (std::uint64_t n = 10; n < kBlocks; ++n) EXPECT_TRUE(ended_.at(n).is_ok()) << n;
}

TEST_F(DiskCancelTest, ACancelledReadPinsItsBlockNoLonger) {
  cancel(0, kBlocks);
  faults_->hang({});
  faults_->release_lost();
  ASSERT_TRUE(turn_until([&] { return rig_.tier().is_idle(); }));
  for (std::uint64_t n = 0; n < kBlocks; ++n) {  // In the place of all that there are.
    EXPECT_EQ(rig_.write(kBlocks + n).text(), Status().text()) << n;
  }
}

}  // namespace
}  // namespace terrace::tier::disk
