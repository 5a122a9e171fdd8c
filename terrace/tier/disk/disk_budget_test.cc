// disk.write_budget and disk.dwpd as the tier keeps them: drops with their reason, the account on
// the medium, restarts.
#include <gtest/gtest.h>

#include "terrace/testing/eventually.h"
#include "terrace/testing/fake_clock.h"
#include "terrace/tier/disk/disk_rig.h"
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
      if (status.code() == Code::kRefused) break;
      EXPECT_EQ(status.text(), Status().text());
    }
    return written;
  }
  double dropped() {
    return rig_.metric("terrace_disk_drop_blocks_total{reason=\"write_budget\"}");
  }
  std::string account() { return tree(rig_.path()).at(rig_.owner() + "/writes.meta"); }

  testing::FakeClock clock_;
  Rig rig_;
  std::uint64_t next_ = 1;
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
  ASSERT_EQ(rig_.tier().problems().size(), 1U);
  EXPECT_NE(rig_.tier().problems()[0].find("writes.meta"), std::string::npos);
}

TEST_F(DiskBudgetTest, AnAccountThatFailsIsTriedAgain) {
  transfer::FaultBackend* faults = nullptr;
  rig_.options().decorate = [&](std::unique_ptr<transfer::Backend> inner) {
    auto made = std::make_unique<transfer::FaultBackend>(std::move(inner), 1);
    faults = made.get();
    return made;
  };
  open();
  clock_.advance(seconds(3600));
  faults->aim(transfer::Fault::kError, transfer::IoOp::kWrite, 1, "writes.meta");
  const std::uint64_t before = write_all();
  EXPECT_LT(before, 5U) << "what the account of the start promises";
  EXPECT_EQ(faults->injected(), 1U);
  clock_.advance(seconds(11));
  std::vector<DiskDone> done;
  EXPECT_TRUE(testing::eventually([&] {
    rig_.tier().poll(done);
    return rig_.write(next_++).is_ok();
  }));
  EXPECT_GT(write_all(), 10U);
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
