// A file system that really is full, or turns read-only under a running tier: what is there stays,
// what comes is dropped, and whoever looks is told the way out. On ext4 where the machine has loop
// devices, else on a tmpfs, which cannot turn read-only while it is written to: there it is made
// up.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

TEST_F(DiskRealTest, FullInTheMiddleItDropsWritesAndGoesOnWithoutARestart) {
  rig_.options().preallocate = "zerofill";
  rig_.options().size = 2_MiB;
  ASSERT_EQ(rig_.open().text(), Status().text());
  ASSERT_EQ(write_until_refused(8).text(), Status().text());
  rig_.settle();
  // It is to grow, and before the slot file has more blocks somebody else takes the space.
  rig_.options().size = 40_MiB;
  ASSERT_EQ(rig_.reopen().text(), Status().text());
  disk_.fill_up("hog");
  ASSERT_FALSE(rig_.tier().is_allocated());
  const Status status = write_until_refused(3000);
  EXPECT_TRUE(status.code() == Code::kExhausted || status.code() == Code::kUnavailable)
      << status.text();
  EXPECT_THAT(rig_.tier().problems(), Contains(HasSubstr("state=full")));
  EXPECT_THAT(rig_.tier().problems(), Contains(HasSubstr("free space or lower disk.size")));
  expect_all_sealed();
  fs::remove(disk_.path() + "/hog");
  clock_.advance(seconds(60));
  EXPECT_EQ(write_until_refused(20).text(), Status().text());
  EXPECT_THAT(rig_.tier().problems(), Not(Contains(HasSubstr("state=full"))));
  expect_all_sealed();
  ASSERT_EQ(rig_.reopen().text(), Status().text());
  expect_all_sealed();
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
