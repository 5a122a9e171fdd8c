// One of two directories lies on a device that does not answer, for less time than it takes to say
// that it hangs: the other one goes on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "terrace/tier/disk/disk_fixture.h"
#include "terrace/tier/disk/reader_internal.h"

namespace terrace::tier::disk {
namespace {

using transfer::IoClass;

constexpr std::uint64_t kBlocks = 64;  // They alternate between the directories.
constexpr std::uint32_t kQueue = 64;

class DiskHangTest : public DiskFixture, public ::testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    rig_.use_clock(clock_);
    rig_.options().backend = GetParam();
    rig_.options().blocks = 1024;
    rig_.options().queue_blocks = kQueue;
    rig_.options().paths = {rig_.path() + "/a", rig_.path() + "/b"};
    open_with_faults();
    write_blocks(0, kBlocks);
    rig_.settle();
    faults_->hang("/b/terrace-00/");
  }
  void TearDown() override {
    if (faults_ == nullptr) return;
    faults_->hang({});
    EXPECT_TRUE(poll_until([&] {
      faults_->release_lost();
      return rig_.tier().is_idle();
    }));
  }
  void poll() {
    std::vector<DiskDone> done;
    rig_.tier().wait(milliseconds(5));
    rig_.tier().poll(done);
    for (DiskDone& one : done) {
      EXPECT_EQ(one.status.text(), Status().text());
      EXPECT_TRUE(ended_.insert(one.token).second);
    }
  }
  template <typename Condition>
  bool poll_until(Condition&& condition) {
    const Nanoseconds limit = rig_.clock().now() + seconds(20);
    while (!condition() && rig_.clock().now() < limit) poll();
    return condition();
  }
  Status begin_read(std::uint64_t token, std::uint64_t block, IoClass io_class) {
    memory_.push_back(rig_.blank());
    return rig_.tier().begin_read(token, GroupId(0), hash_of(block), memory_.back().shards(),
                                  io_class, kNoDeadline);
  }
  // As soon as the queue has room for it.
  Status begin_write(std::uint64_t token, std::uint64_t block) {
    memory_.push_back(rig_.block(block));
    const Nanoseconds limit = rig_.clock().now() + seconds(20);
    for (;;) {
      Status status = rig_.begin_write(token, block, memory_.back());
      if (status.code() != Code::kExhausted || rig_.clock().now() >= limit) return status;
      poll();
    }
  }

  void expect_writes_go_on() {
    constexpr std::uint64_t kMore = 200;
    for (std::uint64_t n = 0; n < kMore; ++n) {
      ASSERT_EQ(begin_write(n, kBlocks + n).text(), Status().text()) << n;
    }
    EXPECT_TRUE(poll_until([&] { return ended_.size() >= kMore - kQueue / 2; }));
    EXPECT_GT(faults_->lost(), 0U);
    EXPECT_EQ(ended_.size(), kMore - kQueue / 2) << "half of the queue is the other one's";
  }

  std::vector<BlockMemory> memory_;  // Until the end: what hangs may write into it.
  std::set<std::uint64_t> ended_;    // Tokens.
};

INSTANTIATE_TEST_SUITE_P(Backends, DiskHangTest, ::testing::Values("io_uring", "threads"),
                         [](const auto& tested) { return std::string(tested.param); });

TEST_P(DiskHangTest, ReadsOfTheOtherDirectoryGoOn) {
  for (const IoClass io_class : {IoClass::kTtftRead, IoClass::kPrefetch}) {
    const std::size_t before = ended_.size();
    const std::uint64_t first = io_class == IoClass::kTtftRead ? 0 : kBlocks;
    // From the last to the first: so none goes together with its neighbour.
    for (std::uint64_t n = kBlocks; n-- > 0;) {
      ASSERT_TRUE(begin_read(first + n, n, io_class).is_ok());
    }
    EXPECT_TRUE(poll_until([&] { return ended_.size() == before + kBlocks / 2; }));
    EXPECT_GT(faults_->lost(), 0U);
  }
  EXPECT_TRUE(rig_.tier().problems().empty());
}

// With their syncs, and the records and syncs of slots.meta.
TEST_P(DiskHangTest, WritesIntoTheOtherDirectoryGoOn) { expect_writes_go_on(); }

// Those that hang are more than all of them may be at the device.
TEST_P(DiskHangTest, WritesGoOnWhereTheOtherOnesFramesHang) {
  faults_->hang("/b/terrace-00/0.slots");
  expect_writes_go_on();
  EXPECT_GE(faults_->lost(), 4U);
}

TEST_P(DiskHangTest, BothAtOnceGoOn) {
  for (std::uint64_t n = kBlocks; n-- > 0;) {
    ASSERT_TRUE(begin_read(n, n, n % 4 < 2 ? IoClass::kTtftRead : IoClass::kPrefetch).is_ok());
  }
  constexpr std::uint64_t kMore = 100;
  for (std::uint64_t n = 0; n < kMore; ++n) {
    ASSERT_EQ(begin_write(1000 + n, kBlocks + n).text(), Status().text()) << n;
  }
  EXPECT_TRUE(poll_until([&] { return ended_.size() >= kBlocks / 2 + kMore - kQueue / 2; }));
}

// As many as one directory may have under way wait for it; who asks for more is not kept waiting,
// and what the other one has is read.
TEST_P(DiskHangTest, AReadThatFindsNoRoomForASilentDirectoryIsAMiss) {
  for (std::uint64_t n = 0; n < kBlocks; ++n) {
    ASSERT_TRUE(begin_read(n, n, IoClass::kTtftRead).is_ok());
  }
  ASSERT_TRUE(poll_until([&] { return ended_.size() == kBlocks / 2; }));
  std::uint64_t silent = 0;
  while (ended_.contains(silent)) ++silent;
  std::uint64_t answering = 0;
  while (!ended_.contains(answering)) ++answering;
  std::uint64_t token = kBlocks;
  std::size_t waiting = kBlocks / 2;
  Status status;
  while ((status = begin_read(token, silent, IoClass::kTtftRead)).is_ok()) {
    ++token;
    ++waiting;
  }
  EXPECT_EQ(waiting, Reader::kMostReads / 2);
  EXPECT_EQ(status.code(), Code::kExhausted) << "it may answer soon";
  clock_.advance(seconds(1));
  EXPECT_EQ(begin_read(token, silent, IoClass::kTtftRead).code(), Code::kUnavailable);
  ASSERT_TRUE(begin_read(token, answering, IoClass::kTtftRead).is_ok());
  EXPECT_TRUE(poll_until([&] { return ended_.contains(token); }));
}

}  // namespace
}  // namespace terrace::tier::disk
