// A file system that really is full, or turns read-only under a running tier: what is there stays,
// what comes is dropped, and whoever looks is told the way out. On ext4 where the machine has loop
// devices, else on a tmpfs, which cannot turn read-only while it is written to: there it is made
// up.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iostream>

#include "terrace/testing/fake_clock.h"
#include "terrace/testing/real_disk.h"
#include "terrace/tier/disk/disk_rig.h"
#include "terrace/transfer/backends/fault/fault_backend.h"

namespace terrace::tier::disk {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class DiskRealTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(disk_.is_mounted()) << "this test mounts a file system: run it as root";
    std::cout << "on " << disk_.kind() << "\n";
    rig_.options().paths = {disk_.path()};
    rig_.options().blocks = 0;
    rig_.options().size = 16_MiB;
    rig_.use_clock(clock_);
  }
  // Numbers of those that were acknowledged, until one is not.
  Status write_until_refused(std::uint64_t most) {
    Status status;
    for (std::uint64_t n = 0; n < most && status.is_ok(); ++n) {
      status = rig_.write(next_);
      if (status.is_ok()) sealed_.push_back(next_);
      ++next_;
    }
    return status;
  }
  void expect_all_sealed() {
    for (const std::uint64_t number : sealed_) {
      EXPECT_EQ(rig_.read(number).text(), Status().text()) << number;
    }
  }

  // Of those that were acknowledged some made room for others; the rest is right. How many.
  std::uint64_t expect_rest_sealed() {
    std::uint64_t count = 0;
    for (const std::uint64_t number : sealed_) {
      if (!rig_.has(number)) continue;
      EXPECT_EQ(rig_.read(number).text(), Status().text()) << number;
      ++count;
    }
    return count;
  }

  testing::RealDisk disk_{64 << 20};
  testing::FakeClock clock_;
  Rig rig_;
  std::uint64_t next_ = 0;
  std::vector<std::uint64_t> sealed_;
};

TEST_F(DiskRealTest, FullFromTheStartItIsRefusedWithAWayOutAndUsedOnceThereIsRoom) {
  disk_.fill_up("hog");
  const Status status = rig_.open();
  EXPECT_EQ(status.code(), Code::kRefused);
  EXPECT_THAT(status.message(), HasSubstr(disk_.path()));
  EXPECT_THAT(status.message(), HasSubstr("ENOSPC"));
  EXPECT_THAT(status.message(), HasSubstr("name another directory in disk.paths"));
  fs::remove(disk_.path() + "/hog");
  ASSERT_EQ(rig_.open().text(), Status().text());
  EXPECT_EQ(write_until_refused(20).text(), Status().text());
  expect_all_sealed();
}

TEST_F(DiskRealTest, FullInTheMiddleItsBlocksMakeRoomForNewOnesUntilItCanGrow) {
  transfer::FaultBackend* faults = nullptr;
  rig_.options().decorate = [&](std::unique_ptr<transfer::Backend> inner) {
    auto made = std::make_unique<transfer::FaultBackend>(std::move(inner), 1);
    faults = made.get();
    return made;
  };
  rig_.options().size = 2_MiB;
  ASSERT_EQ(rig_.open().text(), Status().text());
  ASSERT_EQ(write_until_refused(8).text(), Status().text());
  rig_.settle();
  // It is to grow; a quota says no, which nobody sees beforehand.
  rig_.options().size = 40_MiB;
  ASSERT_EQ(rig_.reopen().text(), Status().text());
  faults->aim(transfer::Fault::kNoSpace, transfer::IoOp::kAllocate, 100'000, "0.slots");
  ASSERT_FALSE(rig_.tier().is_allocated());
  EXPECT_EQ(write_until_refused(1000).text(), Status().text());
  EXPECT_THAT(rig_.tier().problems(), Contains(HasSubstr("state=full")));
  EXPECT_THAT(rig_.tier().problems(), Contains(HasSubstr("free space or lower disk.size")));
  const std::uint64_t kept = expect_rest_sealed();
  EXPECT_GT(kept, 100U);
  EXPECT_LT(kept, 200U) << "2 MiB of them";
  // Tried again and again, said once.
  for (int i = 0; i < 20; ++i) {
    clock_.advance(seconds(10));
    EXPECT_EQ(write_until_refused(10).text(), Status().text());
  }
  EXPECT_EQ(rig_.log_lines().count("state=full"), 1U);
  faults->aim(transfer::Fault::kNone, transfer::IoOp::kAllocate, 0);
  clock_.advance(seconds(60));
  EXPECT_EQ(write_until_refused(500).text(), Status().text());
  EXPECT_THAT(rig_.tier().problems(), Not(Contains(HasSubstr("state=full"))));
  EXPECT_GT(expect_rest_sealed(), 500U);
  ASSERT_EQ(rig_.reopen().text(), Status().text());
  EXPECT_GT(expect_rest_sealed(), 500U);
}

TEST_F(DiskRealTest, WhatOthersHaveTakenIsSaidOnceHoweverMuchItIs) {
  rig_.options().size = 2_MiB;
  ASSERT_EQ(rig_.open().text(), Status().text());
  ASSERT_EQ(write_until_refused(8).text(), Status().text());
  rig_.settle();
  rig_.options().size = 40_MiB;
  ASSERT_EQ(rig_.reopen().text(), Status().text());
  const std::string hog = disk_.path() + "/hog";
  std::uint64_t refused = 0;
  for (int i = 0; i < 10; ++i) {
    const auto free = fs::space(disk_.path()).available;
    std::ofstream(hog, std::ios::binary | std::ios::app)
        << std::string(i == 0 ? free - (7 << 20) : 512 << 10, 'x');
    clock_.advance(seconds(10));
    for (int n = 0; n < 40; ++n) refused += write_until_refused(1).is_ok() ? 0U : 1U;
  }
  EXPECT_LE(refused, 1U) << "the first that was to get space";
  EXPECT_EQ(rig_.log_lines().count("state=full"), 1U) << rig_.log();
  EXPECT_GT(expect_rest_sealed(), 100U);
}

TEST_F(DiskRealTest, TurnedReadOnlyUnderItItServesOnAndHasLostNothingAfterwards) {
  transfer::FaultBackend* faults = nullptr;
  rig_.options().decorate = [&](std::unique_ptr<transfer::Backend> inner) {
    auto made = std::make_unique<transfer::FaultBackend>(std::move(inner), 1);
    faults = made.get();
    return made;
  };
  ASSERT_EQ(rig_.open().text(), Status().text());
  ASSERT_EQ(write_until_refused(20).text(), Status().text());
  rig_.settle();
  if (disk_.is_ext4()) {
    ASSERT_TRUE(disk_.turn_read_only());
  } else {
    faults->aim(transfer::Fault::kReadOnly, transfer::IoOp::kWrite, 1000);
  }
  for (int i = 0; i < 12; ++i) EXPECT_FALSE(rig_.write(5000 + i).is_ok());
  // Reads go on: nothing of what is there was lost.
  expect_all_sealed();
  ASSERT_EQ(rig_.tier().problems().size(), 1U);
  EXPECT_THAT(rig_.tier().problems()[0], HasSubstr("state=read-only"));
  EXPECT_THAT(rig_.tier().problems()[0], HasSubstr("EROFS"));
  EXPECT_THAT(rig_.tier().problems()[0], HasSubstr("mount it writable"));
  rig_.close();
  ASSERT_TRUE(!disk_.is_ext4() || disk_.turn_writable());
  rig_.options().decorate = nullptr;
  ASSERT_EQ(rig_.open().text(), Status().text());
  expect_all_sealed();
  EXPECT_EQ(write_until_refused(20).text(), Status().text());
  EXPECT_THAT(rig_.tier().problems(), IsEmpty());
}

TEST_F(DiskRealTest, WritableAgainItTakesBlocksWithoutARestart) {
  transfer::FaultBackend* faults = nullptr;
  rig_.options().decorate = [&](std::unique_ptr<transfer::Backend> inner) {
    auto made = std::make_unique<transfer::FaultBackend>(std::move(inner), 1);
    faults = made.get();
    return made;
  };
  ASSERT_EQ(rig_.open().text(), Status().text());
  // A mount that is remounted both ways with files open for writing: none of the test's can.
  faults->aim(transfer::Fault::kReadOnly, transfer::IoOp::kWrite, 1000);
  EXPECT_FALSE(rig_.write(7000).is_ok());
  EXPECT_EQ(rig_.write(7001).code(), Code::kUnavailable);  // Not tried again at once.
  faults->aim(transfer::Fault::kNone, transfer::IoOp::kWrite, 0);
  clock_.advance(seconds(60));
  EXPECT_EQ(write_until_refused(8).text(), Status().text());
  EXPECT_THAT(rig_.tier().problems(), IsEmpty());
}

}  // namespace
}  // namespace terrace::tier::disk
