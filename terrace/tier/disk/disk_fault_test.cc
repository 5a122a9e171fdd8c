// Failing, full, hanging and vanished media: each ends as a counted miss or a drop, never as wrong
// bytes.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "terrace/tier/disk/disk_fixture.h"

namespace terrace::tier::disk {
namespace {

using ::testing::HasSubstr;
using transfer::Fault;
using transfer::FaultBackend;
using transfer::IoOp;

constexpr const char* kCorrupt = "terrace_disk_corrupt_blocks_total";

using DiskFaultTest = DiskFixture;

TEST_F(DiskFaultTest, AFlippedBitOnTheWayIsACountedMiss) {
  open_with_faults();
  write_blocks(0, 4);
  faults_->aim(Fault::kFlip, IoOp::kRead);
  EXPECT_EQ(rig_.read(1).code(), Code::kCorrupt);
  faults_->aim(Fault::kCut, IoOp::kRead);
  EXPECT_EQ(rig_.read(2).code(), Code::kCorrupt);
  faults_->aim(Fault::kMisplace, IoOp::kRead);
  EXPECT_EQ(rig_.read(3).code(), Code::kCorrupt);
  EXPECT_TRUE(rig_.read(0).is_ok());
  EXPECT_EQ(rig_.metric(kCorrupt), 3);
}

TEST_F(DiskFaultTest, AWriteThatLandedWrongIsFoundOutAtTheRead) {
  open_with_faults();
  faults_->aim(Fault::kFlip, IoOp::kWrite, 1, "0.slots");
  ASSERT_TRUE(rig_.write(1).is_ok());
  EXPECT_EQ(rig_.read(1).code(), Code::kCorrupt);
  ASSERT_TRUE(rig_.write(1).is_ok());
  EXPECT_TRUE(rig_.read(1).is_ok());
}

TEST_F(DiskFaultTest, AReadErrorIsAMissAndTheRestIsServed) {
  open_with_faults();
  write_blocks(0, 4);
  faults_->aim(Fault::kError, IoOp::kRead);
  const Status status = rig_.read(1);
  EXPECT_EQ(status.code(), Code::kIo);
  EXPECT_THAT(status.message(), HasSubstr("pread " + rig_.owner() + "/0.slots: EIO"));
  EXPECT_EQ(rig_.metric("terrace_disk_io_errors_total{op=\"read\"}"), 1);
  EXPECT_TRUE(rig_.read(0).is_ok());
  EXPECT_TRUE(rig_.tier().problems().empty());
}

// A cable, a controller, a path that comes back: the bytes are where they were.
TEST_F(DiskFaultTest, ADeviceThatDropsOutForAMomentLosesNoBlockThatWasBeingRead) {
  rig_.use_clock(clock_);
  open_with_faults();
  write_blocks(0, 12);
  rig_.settle();
  faults_->aim(Fault::kError, IoOp::kRead, 1000);
  std::vector<BlockMemory> memory;
  for (std::uint64_t n = 0; n < 12; ++n) {
    memory.push_back(rig_.blank());
    ASSERT_TRUE(rig_.tier()
                    .begin_read(900 + n, GroupId(0), hash_of(n), memory.back().shards(),
                                transfer::IoClass::kTtftRead, kNoDeadline)
                    .is_ok());
  }
  for (std::uint64_t n = 0; n < 12; ++n) EXPECT_EQ(rig_.await(900 + n).status.code(), Code::kIo);
  EXPECT_FALSE(rig_.has(0)) << "left alone for now";
  faults_->aim(Fault::kNone, IoOp::kRead, 0);
  clock_.advance(seconds(30));
  ASSERT_TRUE(poll_until([&] { return rig_.tier().problems().empty(); }));
  for (std::uint64_t n = 0; n < 12; ++n) EXPECT_EQ(rig_.read(n).text(), Status().text()) << n;
}

TEST_F(DiskFaultTest, ABlockIsGivenUpAtTheSecondReadErrorInARow) {
  open_with_faults();
  write_blocks(0, 4);
  const auto fail = [&] {
    faults_->aim(Fault::kError, IoOp::kRead);
    EXPECT_EQ(rig_.read(1).code(), Code::kIo);
  };
  for (int i = 0; i < 3; ++i) {
    fail();
    EXPECT_EQ(rig_.read(1).text(), Status().text()) << "it was not the medium";
  }
  fail();
  EXPECT_TRUE(rig_.has(1));
  fail();
  EXPECT_FALSE(rig_.has(1));
  EXPECT_TRUE(rig_.read(0).is_ok());
  EXPECT_TRUE(rig_.tier().problems().empty());
}

// What failed was another block's read.
TEST_F(DiskFaultTest, ABlockInThePlaceOfOneThatCouldNotBeReadHasTwoErrorsOfItsOwn) {
  rig_.options().blocks = 2;
  open_with_faults();
  write_blocks(0, 2);
  const auto fail = [&](std::uint64_t number) {
    faults_->aim(Fault::kError, IoOp::kRead);
    EXPECT_EQ(rig_.read(number).code(), Code::kIo);
  };
  fail(0);
  write_blocks(10, 12);
  ASSERT_FALSE(rig_.has(0) || rig_.has(1)) << "both places have another one";
  for (const std::uint64_t number : {10, 11}) {
    fail(number);
    EXPECT_TRUE(rig_.has(number)) << number;
  }
  fail(10);
  EXPECT_FALSE(rig_.has(10)) << "it was remembered beside another one";
  ASSERT_EQ(rig_.write(10).text(), Status().text());
  fail(10);
  EXPECT_TRUE(rig_.has(10)) << "stored anew";
  fail(11);
  EXPECT_FALSE(rig_.has(11));
}

// As of a file system that turned read-only and refuses reads, too, or of a plug-in.
TEST_F(DiskFaultTest, AReadThatTheDeviceRefusesIsItsErrorAndNeedsNoKey) {
  open_with_faults();
  write_blocks(0, 4);
  faults_->aim(Fault::kReadOnly, IoOp::kRead);
  const Status status = rig_.read(1);
  EXPECT_EQ(status.code(), Code::kIo);
  EXPECT_THAT(status.message(), HasSubstr("EROFS"));
  EXPECT_EQ(rig_.metric("terrace_disk_locked_blocks_total"), 0);
  EXPECT_EQ(rig_.metric(kCorrupt), 0);
  faults_->aim(Fault::kReadOnly, IoOp::kRead, 5);
  for (const std::uint64_t n : {0, 2, 3}) EXPECT_FALSE(rig_.read(n).is_ok());
  EXPECT_EQ(rig_.metric("terrace_disk_locked_blocks_total"), 0);
}

TEST_F(DiskFaultTest, AWriteErrorDropsThatBlockAndCountsIt) {
  open_with_faults();
  for (const char* const file : {"extents.meta", "0.slots", "slots.meta"}) {
    faults_->aim(Fault::kError, IoOp::kWrite, 1, file);
    EXPECT_EQ(rig_.write(1).code(), Code::kIo) << file;
    EXPECT_FALSE(rig_.has(1)) << file;
  }
  EXPECT_EQ(rig_.metric("terrace_disk_io_errors_total{op=\"write\"}"), 3);
  EXPECT_EQ(rig_.write(1).text(), Status().text());
  EXPECT_TRUE(rig_.read(1).is_ok());
}

TEST_F(DiskFaultTest, AFailedSyncIsNotDurabilityAndNothingIsFound) {
  open_with_faults();
  write_blocks(0, 1);
  for (const char* const file : {"0.slots", "slots.meta"}) {
    faults_->aim(Fault::kError, IoOp::kSync, 1, file);
    EXPECT_EQ(rig_.write(1).code(), Code::kIo) << file;
    EXPECT_FALSE(rig_.has(1)) << file;
  }
  ASSERT_TRUE(rig_.write(1).is_ok());
  rig_.options().decorate = nullptr;
  ASSERT_TRUE(rig_.reopen().is_ok());
  EXPECT_TRUE(rig_.read(0).is_ok());
  EXPECT_TRUE(rig_.read(1).is_ok());
}

// Keeps the completions of syncs of slot files until they are to fail.
class HeldSyncs final : public transfer::Backend {
 public:
  explicit HeldSyncs(std::unique_ptr<Backend> inner)
      : Backend(inner->depth()), inner_(std::move(inner)) {}
  [[nodiscard]] std::string_view name() const override { return inner_->name(); }
  void name_file(int file, const std::string& path) override {
    Backend::name_file(file, path);
    inner_->name_file(file, path);
  }
  void wake() override { inner_->wake(); }
  void hold() { is_holding_ = true; }
  [[nodiscard]] std::size_t held() const { return held_.size(); }
  // Of the writes of slot files, those that ended since hold().
  [[nodiscard]] std::size_t written() const { return written_; }
  void fail_held() { is_holding_ = false; }

 protected:
  Status start(const transfer::Transfer& transfer) override {
    transfer::Transfer inner = transfer;
    inner.token = ++last_;
    flights_.emplace(inner.token, transfer);
    return inner_->submit(inner);
  }
  void collect(std::vector<Finished>& finished) override {
    std::vector<transfer::Completion> ended;
    inner_->poll(ended);
    for (transfer::Completion& completion : ended) {
      const transfer::Transfer transfer = flights_.extract(completion.token).mapped();
      const bool is_ours = is_holding_ && path_of(transfer.file).ends_with("0.slots");
      if (is_ours && transfer.op == IoOp::kSync) {
        held_.push_back(transfer);
      } else {
        if (is_ours && transfer.op == IoOp::kWrite) ++written_;
        finished.push_back({transfer, std::move(completion.status)});
      }
    }
    if (is_holding_) return;
    for (const transfer::Transfer& sync : held_) finished.push_back({sync, {Code::kIo, "EIO"}});
    held_.clear();
  }
  void pause(Nanoseconds limit) override { inner_->wait(std::min(limit, milliseconds(1))); }

 private:
  std::unique_ptr<Backend> inner_;
  bool is_holding_ = false;
  std::uint64_t last_ = 0;
  std::size_t written_ = 0;
  std::map<std::uint64_t, transfer::Transfer> flights_;
  std::vector<transfer::Transfer> held_;
};

// The kernel may have given up the pages of all that was written before it failed, and calls the
// next sync a success.
TEST_F(DiskFaultTest, WhatWasWrittenWhileASyncFailedIsNotMadeDurableByTheNext) {
  HeldSyncs* syncs = nullptr;
  rig_.options().decorate = [&](std::unique_ptr<transfer::Backend> inner) {
    auto made = std::make_unique<HeldSyncs>(std::move(inner));
    syncs = made.get();
    return made;
  };
  ASSERT_EQ(rig_.open().text(), Status().text());
  write_blocks(0, 1);  // What has to be claimed is.
  syncs->hold();
  const BlockMemory first = rig_.block(1, 0);
  const BlockMemory second = rig_.block(2, 0);
  ASSERT_TRUE(rig_.begin_write(101, 1, first).is_ok());
  ASSERT_TRUE(rig_.step_until([&] { return syncs->held() == 1; }));
  ASSERT_TRUE(rig_.begin_write(102, 2, second).is_ok());
  const std::size_t written = syncs->written();
  ASSERT_TRUE(rig_.step_until([&] { return syncs->written() > written; }));
  syncs->fail_held();
  EXPECT_EQ(rig_.await(101).status.code(), Code::kIo);
  EXPECT_EQ(rig_.await(102).status.code(), Code::kIo);
  EXPECT_FALSE(rig_.has(1) || rig_.has(2));
  EXPECT_EQ(rig_.write(3).text(), Status().text())
      << "what is written afterwards is as good as ever";
  EXPECT_TRUE(rig_.read(0).is_ok() && rig_.read(3).is_ok());
}

TEST_F(DiskFaultTest, AFailingPathIsLeftAloneAndSaysSo) {
  open_with_faults();
  write_blocks(0, 10);
  faults_->aim(Fault::kError, IoOp::kRead, 1000);
  for (std::uint64_t n = 0; n < 5; ++n) EXPECT_EQ(rig_.read(n).code(), Code::kIo);
  EXPECT_EQ(rig_.read(5).code(), Code::kUnavailable);
  EXPECT_EQ(rig_.write(20).code(), Code::kUnavailable);
  ASSERT_EQ(rig_.tier().problems().size(), 1U);
  EXPECT_THAT(rig_.tier().problems()[0], HasSubstr("state=failing"));
  EXPECT_THAT(rig_.tier().problems()[0], HasSubstr(rig_.owner()));
}

TEST_F(DiskFaultTest, AFullDiskDropsNewBlocksAndServesOldOnes) {
  open_with_faults();
  write_blocks(0, 4);
  faults_->aim(Fault::kNoSpace, IoOp::kWrite, 1, "0.slots");
  EXPECT_EQ(rig_.write(9).code(), Code::kExhausted);
  EXPECT_EQ(rig_.metric("terrace_disk_drop_blocks_total{reason=\"full\"}"), 1);
  EXPECT_EQ(rig_.write(10).code(), Code::kUnavailable);  // Not tried again at once.
  for (std::uint64_t n = 0; n < 4; ++n) EXPECT_TRUE(rig_.read(n).is_ok());
  ASSERT_EQ(rig_.tier().problems().size(), 1U);
  EXPECT_THAT(rig_.tier().problems()[0], HasSubstr("lower disk.size"));
}

TEST_F(DiskFaultTest, WithoutRoomForTheSlotFileWritesAreDroppedNotAwaited) {
  rig_.options().decorate = [this](std::unique_ptr<transfer::Backend> inner) {
    auto faults = std::make_unique<FaultBackend>(std::move(inner), 1);
    faults_ = faults.get();
    faults->aim(Fault::kNoSpace, IoOp::kAllocate, 1000);
    return faults;
  };
  ASSERT_TRUE(rig_.open().is_ok());
  EXPECT_EQ(rig_.write(1).code(), Code::kExhausted);
  EXPECT_FALSE(rig_.tier().problems().empty());
}

TEST_F(DiskFaultTest, ZerosAreWrittenWhereFallocateIsRefused) {
  rig_.options().decorate = [this](std::unique_ptr<transfer::Backend> inner) {
    auto faults = std::make_unique<FaultBackend>(std::move(inner), 1);
    faults_ = faults.get();
    faults->aim(Fault::kUnsupported, IoOp::kAllocate, 1000);
    return faults;
  };
  ASSERT_TRUE(rig_.open().is_ok());
  write_blocks(0, 4);
  rig_.settle();
  EXPECT_TRUE(rig_.tier().is_allocated());
  EXPECT_THAT(rig_.log(), HasSubstr("preallocate=zerofill"));
  EXPECT_THAT(rig_.log(), HasSubstr("zeroed_percent=100"));
  for (std::uint64_t n = 0; n < 4; ++n) EXPECT_TRUE(rig_.read(n).is_ok());
}

TEST_F(DiskFaultTest, OnlyFallocateAsAskedForReportsItsRefusal) {
  rig_.options().preallocate = "fallocate";
  rig_.options().decorate = [](std::unique_ptr<transfer::Backend> inner) {
    auto faults = std::make_unique<FaultBackend>(std::move(inner), 1);
    faults->aim(Fault::kUnsupported, IoOp::kAllocate, 1000);
    return faults;
  };
  ASSERT_TRUE(rig_.open().is_ok());
  EXPECT_EQ(rig_.write(1).code(), Code::kUnavailable);
}

TEST_F(DiskFaultTest, AVanishedDirectoryIsNoticedAndReported) {
  ASSERT_TRUE(rig_.open().is_ok());
  write_blocks(0, 4);
  std::filesystem::remove_all(rig_.owner());
  const Nanoseconds limit = rig_.clock().now() + seconds(20);
  std::vector<DiskDone> done;
  while (rig_.tier().problems().empty() && rig_.clock().now() < limit) {
    rig_.tier().wait(milliseconds(50));
    rig_.tier().poll(done);
  }
  ASSERT_EQ(rig_.tier().problems().size(), 1U);
  EXPECT_THAT(rig_.tier().problems()[0], HasSubstr("deleted"));
  EXPECT_FALSE(rig_.has(0));
  EXPECT_EQ(rig_.read(0).code(), Code::kNotFound);
  EXPECT_EQ(rig_.write(9).code(), Code::kUnavailable);
  ASSERT_TRUE(rig_.reopen().is_ok());
  write_blocks(0, 1);
}

TEST_F(DiskFaultTest, AHungReadEndsWhenTheDeviceLetsGoAndAWaitingOneOnTime) {
  rig_.options().io.depth = 1;
  open_with_faults();
  write_blocks(0, 2);
  rig_.settle();
  const BlockMemory first = rig_.blank();
  const BlockMemory second = rig_.blank();
  faults_->hold(true);
  const Nanoseconds soon = rig_.clock().now() + milliseconds(20);
  ASSERT_TRUE(
      rig_.tier()
          .begin_read(1, GroupId(0), hash_of(0), first.shards(), transfer::IoClass::kTtftRead, soon)
          .is_ok());
  rig_.tier().wait(milliseconds(1));
  ASSERT_TRUE(rig_.tier()
                  .begin_read(2, GroupId(0), hash_of(1), second.shards(),
                              transfer::IoClass::kTtftRead, soon)
                  .is_ok());
  EXPECT_EQ(rig_.await(2).status.code(), Code::kDeadline);
  EXPECT_EQ(rig_.metric("terrace_disk_late_reads_total"), 1);
  EXPECT_FALSE(rig_.tier().is_idle());
  faults_->hold(false);
  EXPECT_TRUE(rig_.await(1).status.is_ok());
  EXPECT_TRUE(first.equals(rig_.block(0)));
}

// Its memory may go to somebody else only when no rank's read can write to it any more.
TEST_F(DiskFaultTest, AReadOfTwoRanksOfWhichOneHangsIsNotOverAtItsDeadline) {
  Rig rig({.ranks = 2, .payload_bytes = {600'000}});  // Each its own request.
  FaultBackend* faults = nullptr;
  rig.options().io.depth = 1;
  rig.options().decorate = [&](std::unique_ptr<transfer::Backend> inner) {
    auto made = std::make_unique<FaultBackend>(std::move(inner), 1);
    faults = made.get();
    return made;
  };
  ASSERT_EQ(rig.open().text(), Status().text());
  ASSERT_TRUE(rig.write(0).is_ok());
  rig.settle();
  const BlockMemory into = rig.blank();
  faults->hold(true);
  const Nanoseconds soon = rig.clock().now() + milliseconds(20);
  ASSERT_TRUE(
      rig.tier()
          .begin_read(7, GroupId(0), hash_of(0), into.shards(), transfer::IoClass::kTtftRead, soon)
          .is_ok());
  std::vector<DiskDone> done;
  while (rig.clock().now() < soon + milliseconds(20)) {
    rig.tier().wait(milliseconds(5));
    rig.tier().poll(done);
  }
  EXPECT_TRUE(done.empty()) << "one rank's read is at the device still";
  faults->hold(false);
  EXPECT_EQ(rig.await(7).status.code(), Code::kDeadline);
}

TEST_F(DiskFaultTest, ALostCompletionHoldsItsBlockInPlace) {
  rig_.options().blocks = 2;
  open_with_faults();
  write_blocks(0, 2);
  const BlockMemory into = rig_.blank();
  faults_->aim(Fault::kLose, IoOp::kRead);
  ASSERT_TRUE(rig_.tier()
                  .begin_read(77, GroupId(0), hash_of(0), into.shards(),
                              transfer::IoClass::kTtftRead, kNoDeadline)
                  .is_ok());
  ASSERT_TRUE(rig_.write(5).is_ok());  // Evicts block 1: block 0 is pinned by the read.
  EXPECT_TRUE(rig_.has(0));
  EXPECT_FALSE(rig_.has(1));
  faults_->release_lost();
  EXPECT_TRUE(rig_.await(77).status.is_ok());
  EXPECT_TRUE(into.equals(rig_.block(0)));
}

TEST_F(DiskFaultTest, ReadErrorsAtStartLoseBlocksNotTheTier) {
  open_with_faults();
  write_blocks(0, 4);
  rig_.close();
  rig_.options().decorate = [](std::unique_ptr<transfer::Backend> inner) {
    auto faults = std::make_unique<FaultBackend>(std::move(inner), 1);
    faults->aim(Fault::kError, IoOp::kRead, 1, "slots.meta");
    return faults;
  };
  ASSERT_EQ(rig_.open().text(), Status().text());
  EXPECT_FALSE(rig_.has(0));
  EXPECT_GT(rig_.metric("terrace_disk_damaged_records_total"), 0);
  write_blocks(10, 12);
  EXPECT_TRUE(rig_.read(10).is_ok());
}

// Everything at once, for a while: whatever is delivered as right is right.
TEST_F(DiskFaultTest, AStormOfFaultsNeverDeliversWrongBytes) {
  const std::uint64_t seed = random_u64();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng rng(seed);
  open_with_faults(seed);
  transfer::FaultRates rates;
  rates.read_error = 2;
  rates.write_error = 2;
  rates.sync_error = 2;
  rates.no_space = 1;
  rates.flipped_read = 5;
  rates.flipped_write = 5;
  rates.short_read = 5;
  rates.torn_write = 5;
  rates.misplaced_read = 5;
  rates.delayed = 10;
  for (int round = 0; round < 12; ++round) {
    faults_->set_rates(rates);
    for (int step = 0; step < 60; ++step) {
      const std::uint64_t number = rng.below(40);
      const Status status = rng.chance(50) ? rig_.write(number) : rig_.read(number);
      ASSERT_NE(status.code(), Code::kInternal) << status.text();
    }
    faults_->set_rates({});
    ASSERT_EQ(rig_.reopen().text(), Status().text());
    for (std::uint64_t n = 0; n < 40; ++n) ASSERT_NE(rig_.read(n).code(), Code::kInternal) << n;
  }
}

}  // namespace
}  // namespace terrace::tier::disk
