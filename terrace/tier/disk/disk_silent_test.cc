// One kind of call on a directory's files does not come back, while all others do: the directory is
// said to hang, by that call, is left alone, and comes back when it answers.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "terrace/tier/disk/disk_fixture.h"

namespace terrace::tier::disk {
namespace {

using ::testing::HasSubstr;
using transfer::IoOp;

constexpr std::uint64_t kBlocks = 16;  // They alternate between the directories.

struct Call {
  const char* name = "";
  const char* file = "";
  IoOp op = IoOp::kSync;
  const char* text = "";
  const char* operation = "";
};

class DiskSilentTest : public DiskFixture, public ::testing::WithParamInterface<Call> {
 protected:
  void open(std::vector<std::string> paths) {
    rig_.use_clock(clock_);
    rig_.options().blocks = 1024;
    rig_.options().queue_blocks = 16;
    rig_.options().paths = std::move(paths);
    open_with_faults();
    write_blocks(0, kBlocks);
    rig_.settle();
  }
  void open_two() { open({rig_.path() + "/a", rig_.path() + "/b"}); }
  void TearDown() override {
    faults_->hang({});
    EXPECT_TRUE(poll_until([&] {
      faults_->release_lost();
      return rig_.tier().is_idle();
    }));
  }
  // Time for the device, whoever else ends the wait: virtual time passes after it.
  void poll() {
    const Nanoseconds until = rig_.clock().now() + milliseconds(5);
    std::vector<DiskDone> done;
    while (done.empty() && rig_.clock().now() < until) {
      rig_.tier().wait(milliseconds(5));
      rig_.tier().poll(done);
    }
    for (DiskDone& one : done) ended_[one.token] = one.status.code();
  }
  template <typename Condition>
  bool poll_until(Condition&& condition) {
    const Nanoseconds limit = rig_.clock().now() + seconds(20);
    while (!condition() && rig_.clock().now() < limit) poll();
    return condition();
  }
  [[nodiscard]] bool pass_until(const std::function<bool()>& condition) {
    return poll_until([&] {
      clock_.advance(milliseconds(200));
      return condition();
    });
  }
  Status begin_write() {
    memory_.push_back(rig_.block(next_));
    const Status status = rig_.begin_write(next_, next_, memory_.back());
    ++next_;
    return status;
  }
  [[nodiscard]] std::string problem() {
    const auto problems = rig_.tier().problems();
    return problems.empty() ? "" : problems.front();
  }
  [[nodiscard]] std::uint64_t seen() const {
    std::uint64_t count = 0;
    for (std::uint64_t n = 0; n < kBlocks; ++n) count += rig_.has(n) ? 1U : 0U;
    return count;
  }
  [[nodiscard]] double hangs(const char* operation) const {
    return rig_.metric(
        fmt::format("terrace_disk_hangs_total{{volume=\"1\",operation=\"{}\"}}", operation));
  }

  std::uint64_t next_ = 1000;
  std::vector<BlockMemory> memory_;
  std::map<std::uint64_t, Code> ended_;  // By token.
};

INSTANTIATE_TEST_SUITE_P(Calls, DiskSilentTest,
                         ::testing::Values(Call{"DataSync", "/b/terrace-00/0.slots", IoOp::kSync,
                                                "fdatasync of 0.slots", "fdatasync"},
                                           Call{"RecordSync", "/b/terrace-00/ns-", IoOp::kSync,
                                                "fdatasync of slots.meta", "fdatasync"},
                                           Call{"Record", "/b/terrace-00/ns-", IoOp::kWrite,
                                                "a write of slots.meta", "transfer"},
                                           Call{"Frame", "/b/terrace-00/0.slots", IoOp::kWrite,
                                                "a write of 0.slots", "transfer"}),
                         [](const auto& tested) { return std::string(tested.param.name); });

TEST_P(DiskSilentTest, ItsDirectoryHangsByNameAndComesBackByItself) {
  open_two();
  const Call& call = GetParam();
  faults_->hang(call.file, call.op);
  for (int i = 0; i < 8; ++i) ASSERT_EQ(begin_write().text(), Status().text());
  ASSERT_TRUE(poll_until([&] { return ended_.size() == 4 && faults_->lost() > 0; }));
  // Reads come back all the time.
  ASSERT_TRUE(pass_until([&] {
    if (rig_.has(0)) (void)rig_.read(0);
    if (rig_.has(1)) (void)rig_.read(1);
    return !problem().empty();
  }));
  EXPECT_THAT(problem(), HasSubstr("/b/terrace-00 state=hanging: " + std::string(call.text)));
  EXPECT_THAT(problem(), HasSubstr("has not come back for 10 s"));
  EXPECT_EQ(hangs(call.operation), 1);
  EXPECT_EQ(seen(), kBlocks / 2);
  // Whoever is stored from here on goes to the other one.
  const std::size_t before = ended_.size();
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(begin_write().text(), Status().text());
    ASSERT_TRUE(poll_until([&] { return ended_.size() > before + static_cast<std::size_t>(i); }));
  }
  faults_->hang({});
  ASSERT_TRUE(pass_until([&] {
    faults_->release_lost();
    return problem().empty();
  }));
  EXPECT_EQ(seen(), kBlocks);
  EXPECT_TRUE(poll_until([&] { return ended_.size() == 28; }));
  EXPECT_EQ(hangs(call.operation), 1);
}

TEST_F(DiskSilentTest, AFlushThatStallsIsSaidBeforeTheQueueIsAllThereIsToSee) {
  open({rig_.path()});
  faults_->hang("/terrace-00/0.slots", IoOp::kSync);
  Status status;
  for (int i = 0; i < 100 && status.is_ok(); ++i) status = begin_write();
  EXPECT_EQ(status.code(), Code::kExhausted);
  ASSERT_TRUE(pass_until([&] { return !problem().empty(); }));
  EXPECT_THAT(problem(), HasSubstr("state=hanging: fdatasync of 0.slots"));
  EXPECT_EQ(begin_write().code(), Code::kUnavailable);
  EXPECT_GT(rig_.metric("terrace_disk_drop_blocks_total{reason=\"unavailable\"}"), 0);
}

TEST_F(DiskSilentTest, AScrubThatDoesNotComeBackIsSaid) {
  open_two();
  faults_->hang("/b/terrace-00/0.slots", IoOp::kRead);
  (void)rig_.tier().start_scrub(0);
  ASSERT_TRUE(pass_until([&] { return !problem().empty(); }));
  EXPECT_THAT(problem(), HasSubstr("/b/terrace-00 state=hanging: a read of the scrub"));
  EXPECT_EQ(hangs("transfer"), 1);
}

// A device is as fast as its frames are.
TEST_F(DiskSilentTest, ASlowFlushIsNoSlowDevice) {
  open_two();
  for (int round = 0; round < 40; ++round) {
    faults_->hang("/b/terrace-00/0.slots", IoOp::kSync);
    ASSERT_EQ(begin_write().text(), Status().text());
    ASSERT_EQ(begin_write().text(), Status().text());
    ASSERT_TRUE(poll_until([&] { return faults_->lost() > 0; }));
    for (int second = 0; second < 3; ++second) {
      clock_.advance(seconds(1));
      poll();
    }
    faults_->hang({});
    faults_->release_lost();
    ASSERT_TRUE(poll_until([&] { return rig_.tier().is_idle(); }));
  }
  EXPECT_EQ(problem(), "");
}

}  // namespace
}  // namespace terrace::tier::disk
