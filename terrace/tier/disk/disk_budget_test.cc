// disk.write_budget and disk.dwpd as the tier keeps them: drops with their reason, the account on
// the medium, restarts.
#include <gtest/gtest.h>

#include "terrace/testing/eventually.h"
#include "terrace/testing/fake_clock.h"
#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/format_internal.h"
#include "terrace/transfer/backends/fault/fault_backend.h"

namespace terrace::tier::disk {
namespace {

// A frame of the rig's: header page and two pages of payload.
constexpr std::uint64_t kFrame = 12'288;
constexpr std::uint64_t kDay = 24 * 23 * kFrame;  // 22 frames an hour, 23 in the bucket.

class DiskBudgetTest : public ::testing::Test {
 protected:
  DiskBudgetTest() {
    rig_.use_clock(clock_);
    rig_.options().write_budget = Bytes(kDay);
    rig_.options().blocks = 200;
  }
  void open() { ASSERT_EQ(rig_.open().text(), Status().text()); }
  // Writes blocks until one is refused; how many were written.
  std::uint64_t write_all() {
    std::uint64_t written = 0;
    for (; written < 100; ++written) {
      rig_.settle();  // What may be written next has been put down.
      const Status status = rig_.write(next_++);
      last_refusal_ = status.code();
      if (last_refusal_ == Code::kRefused || last_refusal_ == Code::kUnavailable) break;
      EXPECT_EQ(status.text(), Status().text());
    }
    return written;
  }
  double dropped() {
    return rig_.metric("terrace_disk_drop_blocks_total{reason=\"write_budget\"}");
  }
  std::string account() { return tree(rig_.path()).at(rig_.owner() + "/writes.meta"); }
  void add_faults() {
    rig_.options().decorate = [this](std::unique_ptr<transfer::Backend> inner) {
      auto made = std::make_unique<transfer::FaultBackend>(std::move(inner), 1);
      faults_ = made.get();
      return made;
    };
  }
  // Rounds until nothing is due any more.
  void poll_for_a_while() {
    std::vector<DiskDone> done;
    for (int i = 0; i < 50; ++i) {
      rig_.tier().wait(milliseconds(2));
      rig_.tier().poll(done);
    }
  }
  double left() { return rig_.metric("terrace_disk_write_budget_bytes"); }

  // ---- Two directories.
  void use_two() { rig_.options().paths = {two(0), two(1)}; }
  [[nodiscard]] std::string two(int number) const {
    return rig_.path() + (number == 0 ? "/a" : "/b");
  }
  void put_account(int number, const WriteAccount& account) {
    std::string page(kPageBytes, '\0');
    encode(account, std::as_writable_bytes(std::span(page)).first<kPageBytes>());
    write_text(two(number) + "/terrace-00/writes.meta", page);
  }
  // What every copy of both says.
  void put_accounts(std::int64_t first, std::int64_t second) {
    put_account(0, {clock_.wall_seconds(), first, 7, 2});
    put_account(1, {clock_.wall_seconds(), second, 7, 2});
  }

  testing::FakeClock clock_;
  Rig rig_;
  std::uint64_t next_ = 1;
  Code last_refusal_ = Code::kOk;
  transfer::FaultBackend* faults_ = nullptr;
};

TEST_F(DiskBudgetTest, AFreshTierWritesOneBlockAndThenWhatItEarns) {
  open();
  EXPECT_EQ(write_all(), 1U);
  EXPECT_EQ(dropped(), 1);
  clock_.advance(seconds(3600));
  EXPECT_EQ(write_all(), 21U) << "the first one was charged";
  EXPECT_EQ(dropped(), 2);
  EXPECT_EQ(rig_.metric("terrace_disk_write_budget_day_bytes"), static_cast<double>(kDay));
}

TEST_F(DiskBudgetTest, ABlockThatIsThereIsSaidToBeThere) {
  open();
  ASSERT_TRUE(rig_.write(1).is_ok());
  ASSERT_EQ(rig_.write(2).code(), Code::kRefused);
  EXPECT_EQ(rig_.write(1).code(), Code::kInvalid);
  EXPECT_EQ(rig_.read(1).text(), Status().text());
}

TEST_F(DiskBudgetTest, ALoopOfRestartsWritesNoMoreThanOneThatRunsOn) {
  open();
  clock_.advance(seconds(3600));
  EXPECT_EQ(write_all(), 22U);
  for (int i = 0; i < 10; ++i) {
    ASSERT_EQ(rig_.reopen().text(), Status().text());
    EXPECT_LE(write_all(), 1U);
  }
  // Ten first blocks, charged: ten twenty-seconds of an hour are owed.
  clock_.advance(seconds(10 * 3600 / 22));
  EXPECT_EQ(write_all(), 0U);
}

TEST_F(DiskBudgetTest, WhatWasSavedUpIsThereAfterAnOrderlyRestart) {
  open();
  clock_.advance(seconds(3600));
  ASSERT_EQ(rig_.reopen().text(), Status().text());
  EXPECT_GE(write_all(), 21U);
}

TEST_F(DiskBudgetTest, ADamagedAccountIsNone) {
  open();
  clock_.advance(seconds(3600));
  rig_.close();
  std::string bytes = account();
  bytes[24] = static_cast<char>(bytes[24] ^ 1);
  write_text(rig_.owner() + "/writes.meta", bytes);
  open();
  EXPECT_EQ(write_all(), 1U);
}

TEST_F(DiskBudgetTest, WhereTheAccountCannotBeKeptNothingIsWrittenAndSaid) {
  std::filesystem::create_directories(rig_.path());
  open();
  rig_.close();
  std::filesystem::remove(rig_.owner() + "/writes.meta");
  std::filesystem::create_symlink("/nowhere/else", rig_.owner() + "/writes.meta");
  open();
  clock_.advance(seconds(7200));
  EXPECT_EQ(write_all(), 1U);
  EXPECT_EQ(last_refusal_, Code::kUnavailable);
  ASSERT_EQ(rig_.tier().problems().size(), 1U);
  EXPECT_NE(rig_.tier().problems()[0].find("writes.meta"), std::string::npos);
}

TEST_F(DiskBudgetTest, AnAccountThatFailsIsTriedAgain) {
  add_faults();
  open();
  clock_.advance(seconds(3600));
  faults_->aim(transfer::Fault::kError, transfer::IoOp::kWrite, 1, "writes.meta");
  const std::uint64_t before = write_all();
  EXPECT_LT(before, 5U) << "what the account of the start promises";
  EXPECT_EQ(faults_->injected(), 1U);
  clock_.advance(seconds(11));
  std::vector<DiskDone> done;
  EXPECT_TRUE(testing::eventually([&] {
    rig_.tier().poll(done);
    return rig_.write(next_++).is_ok();
  }));
  EXPECT_GT(write_all(), 10U);
}

TEST_F(DiskBudgetTest, WhereNoAccountCanBeWrittenAProblemSaysSoUntilItCan) {
  add_faults();
  open();
  clock_.advance(seconds(3600));
  rig_.settle();
  faults_->aim(transfer::Fault::kReadOnly, transfer::IoOp::kWrite, 1000, "writes.meta");
  EXPECT_LT(write_all(), 5U) << "what the account of the start promises";
  EXPECT_EQ(last_refusal_, Code::kUnavailable);
  EXPECT_EQ(dropped(), 0) << "there is budget left";
  EXPECT_EQ(rig_.metric("terrace_disk_drop_blocks_total{reason=\"unavailable\"}"), 1);
  ASSERT_EQ(rig_.tier().problems().size(), 1U);
  EXPECT_NE(rig_.tier().problems()[0].find("writes.meta"), std::string::npos);
  EXPECT_NE(rig_.tier().problems()[0].find("nothing more is written"), std::string::npos);
  faults_->aim(transfer::Fault::kNone, transfer::IoOp::kWrite, 0);
  clock_.advance(seconds(11));
  poll_for_a_while();
  EXPECT_TRUE(rig_.tier().problems().empty());
  EXPECT_GT(write_all(), 10U);
}

TEST_F(DiskBudgetTest, OneDirectoryWhoseAccountFailsStopsNoWrites) {
  use_two();
  add_faults();
  open();
  clock_.advance(seconds(3600));
  rig_.settle();
  faults_->aim(transfer::Fault::kError, transfer::IoOp::kWrite, 1000, "/a/terrace-00/writes.meta");
  EXPECT_GT(write_all(), 20U);
  EXPECT_GT(faults_->injected(), 2U);
  EXPECT_TRUE(rig_.tier().problems().empty());
}

TEST_F(DiskBudgetTest, OneDirectoryWhoseAccountHangsStopsNoWrites) {
  use_two();
  add_faults();
  open();
  clock_.advance(seconds(3600));
  rig_.settle();
  faults_->hang("/a/terrace-00/writes.meta");
  std::uint64_t written = 0;
  while (written < 30 && rig_.write(next_++).is_ok()) {
    ++written;
    poll_for_a_while();
  }
  EXPECT_GT(written, 20U);
  EXPECT_EQ(faults_->lost(), 1U) << "none is begun behind it";
  faults_->hang({});
  faults_->release_lost();
  rig_.settle();
  ASSERT_EQ(rig_.reopen().text(), Status().text());
  EXPECT_LE(write_all(), 1U);
}

TEST_F(DiskBudgetTest, OfTwoDirectoriesTheLesserAccountCounts) {
  use_two();
  open();
  rig_.close();
  put_accounts(9 * kFrame, 5 * kFrame);
  open();
  EXPECT_EQ(left(), 5.0 * kFrame);
  rig_.close();
  put_accounts(3 * kFrame, 5 * kFrame);
  open();
  EXPECT_EQ(left(), 3.0 * kFrame);
}

TEST_F(DiskBudgetTest, ALostOrExchangedDirectoryDoesNotForgetWhatWasWritten) {
  use_two();
  open();
  rig_.close();
  put_accounts(9 * kFrame, 9 * kFrame);
  std::filesystem::remove_all(two(0));
  open();
  EXPECT_EQ(left(), 0) << "what is gone may have said less";
  rig_.close();
  put_account(0, {clock_.wall_seconds(), 9 * kFrame, 8, 1});  // Another owner's.
  put_account(1, {clock_.wall_seconds(), -3 * static_cast<std::int64_t>(kFrame), 7, 1});
  open();
  EXPECT_EQ(left(), -3.0 * kFrame) << "what is owed is owed";
  rig_.close();
  put_accounts(9 * kFrame, 9 * kFrame);
  rig_.options().paths = {two(1)};
  open();
  EXPECT_EQ(left(), 0);
  clock_.advance(seconds(1800));
  rig_.close();
  open();
  EXPECT_GT(left(), 10.0 * kFrame) << "it is on its own by now";
}

TEST_F(DiskBudgetTest, AnAccountOfAnEarlierVersionIsTakenOver) {
  use_two();
  open();
  rig_.close();
  put_account(0, {clock_.wall_seconds(), 9 * kFrame});
  std::filesystem::remove(two(1) + "/terrace-00/writes.meta");
  open();
  EXPECT_EQ(left(), 9.0 * kFrame);
  rig_.close();
  open();
  EXPECT_EQ(left(), 9.0 * kFrame) << "as both say now";
}

TEST_F(DiskBudgetTest, WithoutABoundThereIsNoAccount) {
  rig_.options().write_budget = Bytes(0);
  open();
  EXPECT_EQ(write_all(), 100U);
  EXPECT_FALSE(tree(rig_.path()).contains(rig_.owner() + "/writes.meta"));
}

TEST_F(DiskBudgetTest, DeviceWritesPerDayGoByTheFileSystemsSize) {
  const SmallDisk disk(256 << 20U);
  if (!disk.is_mounted()) GTEST_FAIL() << "needs the right to mount";
  rig_.options().paths = {disk.path()};
  rig_.options().writes_per_day = 0.5;
  rig_.options().write_budget = Bytes(0);
  open();
  EXPECT_EQ(rig_.metric("terrace_disk_write_budget_day_bytes"), static_cast<double>(128 << 20U));
  rig_.close();
  rig_.options().write_budget = Bytes(64 << 20U);
  open();
  EXPECT_EQ(rig_.metric("terrace_disk_write_budget_day_bytes"), static_cast<double>(64 << 20U));
  rig_.close();
}

TEST_F(DiskBudgetTest, ZerosThatPreallocateAreCharged) {
  rig_.options().preallocate = "zerofill";
  open();
  rig_.settle();
  EXPECT_LT(rig_.metric("terrace_disk_write_budget_bytes"), -1'000'000);
}

TEST_F(DiskBudgetTest, BytesWrittenAndServedAreToldWithTheirRatio) {
  rig_.options().write_budget = Bytes(0);
  open();
  EXPECT_EQ(rig_.metric("terrace_disk_written_per_served"), 0);
  for (std::uint64_t n = 1; n <= 4; ++n) ASSERT_TRUE(rig_.write(n).is_ok());
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(rig_.read(1).is_ok());
  const double written = rig_.metric("terrace_disk_io_bytes_total{op=\"write\"}");
  EXPECT_GE(written, 4.0 * kFrame);
  EXPECT_EQ(rig_.metric("terrace_disk_served_bytes_total"), 20.0 * 8192);
  EXPECT_DOUBLE_EQ(rig_.metric("terrace_disk_written_per_served"), written / (20.0 * 8192));
  const DiskTier::Flow flow = rig_.tier().flow();
  EXPECT_EQ(static_cast<double>(flow.written_bytes), written);
  EXPECT_EQ(flow.served_bytes, 20U * 8192);
}

}  // namespace
}  // namespace terrace::tier::disk
