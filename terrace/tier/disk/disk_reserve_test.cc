// What is written must also be recorded: slots.meta has its blocks before the frames that it lists,
// so a disk that fills up later, or others fill up, stops no block that has a slot.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "terrace/testing/fake_clock.h"
#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/format_internal.h"
#include "terrace/transfer/backends/fault/fault_backend.h"

namespace terrace::tier::disk {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using transfer::FaultBackend;

std::uint64_t blocks_of(const std::string& path) {
  struct stat facts{};
  EXPECT_EQ(::stat(path.c_str(), &facts), 0) << path;
  return static_cast<std::uint64_t>(facts.st_blocks) * 512;
}

// The same bytes with holes where there are only zeros, as an earlier Terrace left them.
void make_sparse(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(file)), {});
  file.close();
  fs::remove(path);
  std::ofstream(path, std::ios::binary).close();
  fs::resize_file(path, bytes.size());
  std::fstream copy(path, std::ios::in | std::ios::out | std::ios::binary);
  for (std::size_t at = 0; at < bytes.size(); at += kPageBytes) {
    const std::string page = bytes.substr(at, kPageBytes);
    if (page.find_first_not_of('\0') == std::string::npos) continue;
    copy.seekp(static_cast<std::streamoff>(at));
    copy.write(page.data(), static_cast<std::streamsize>(page.size()));
  }
  copy.close();
  ASSERT_LT(blocks_of(path), bytes.size());
}

// What the disk has left, but for `spared` bytes, is somebody else's from now on.
void fill_up(const SmallDisk& disk, std::uint64_t spared = 0) {
  const std::string path = disk.path() + "/somebody-elses";
  const std::string page(4096, 'x');
  std::ofstream hog(path, std::ios::binary | std::ios::app);
  while (fs::space(disk.path()).available > spared && hog.good()) {
    hog.write(page.data(), 4096).flush();
  }
}

class DiskReserveTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    ASSERT_TRUE(disk_.is_mounted()) << "this test mounts a tmpfs: run it as root";
    rig_.options().paths = {disk_.path()};
    rig_.options().preallocate = GetParam();
    rig_.options().blocks = 600;
  }
  [[nodiscard]] std::string meta(int name_space = 1) const {
    return disk_.path() + "/terrace-00/ns-000" + std::to_string(name_space) + "/slots.meta";
  }
  void expect_all_found(std::uint64_t end) {
    for (std::uint64_t n = 0; n < end; ++n) EXPECT_EQ(rig_.read(n).text(), Status().text()) << n;
  }

  const SmallDisk disk_{32 << 20};
  Rig rig_;
};

TEST_P(DiskReserveTest, ADiskThatOthersFillStopsNoBlockThatHasASlot) {
  ASSERT_EQ(rig_.open().text(), Status().text());
  rig_.settle();
  EXPECT_GE(blocks_of(meta()), fs::file_size(meta()));
  fill_up(disk_);
  for (std::uint64_t n = 0; n < 600; ++n) ASSERT_EQ(rig_.write(n).text(), Status().text()) << n;
  EXPECT_TRUE(rig_.tier().problems().empty());
  ASSERT_EQ(rig_.reopen().text(), Status().text());
  expect_all_found(600);
}

// Every hole of the old file gets its blocks; what its records say stays true.
TEST_P(DiskReserveTest, ASparseFileOfAnEarlierTerraceIsReservedAndLosesNothing) {
  ASSERT_EQ(rig_.open().text(), Status().text());
  for (std::uint64_t n = 0; n < 40; ++n) ASSERT_EQ(rig_.write(n).text(), Status().text()) << n;
  rig_.settle();
  rig_.close();
  make_sparse(meta());
  ASSERT_EQ(rig_.open().text(), Status().text());
  expect_all_found(40);
  rig_.settle();
  fill_up(disk_);
  for (std::uint64_t n = 40; n < 600; ++n) ASSERT_EQ(rig_.write(n).text(), Status().text()) << n;
  ASSERT_EQ(rig_.reopen().text(), Status().text());
  expect_all_found(600);
}

// A hole in front of records that count: it is filled as far as they begin.
TEST_P(DiskReserveTest, AHoleBeforeOtherRecordsCostsThemNothing) {
  ASSERT_EQ(rig_.open().text(), Status().text());
  for (std::uint64_t n = 0; n < 200; ++n) ASSERT_EQ(rig_.write(n).text(), Status().text()) << n;
  rig_.settle();
  rig_.close();
  make_sparse(meta());
  std::fstream extents(disk_.path() + "/terrace-00/extents.meta",
                       std::ios::in | std::ios::out | std::ios::binary);
  extents.seekp(kPageBytes + 5).put('\x7F');  // The first run is nobody's any more.
  extents.close();
  ASSERT_EQ(rig_.open().text(), Status().text());
  std::vector<std::uint64_t> left;
  for (std::uint64_t n = 0; n < 200; ++n) {
    if (rig_.has(n)) left.push_back(n);
  }
  ASSERT_GT(left.size(), 50U);
  ASSERT_LT(left.size(), 200U);
  rig_.settle();
  ASSERT_EQ(rig_.reopen().text(), Status().text());
  for (const std::uint64_t n : left) EXPECT_EQ(rig_.read(n).text(), Status().text()) << n;
}

TEST_P(DiskReserveTest, NoRoomForTheRecordsIsSaidAtStartAndDropsBlocks) {
  rig_.options().blocks = 1500;  // 96,000 bytes of records.
  ASSERT_EQ(rig_.open().text(), Status().text());
  ASSERT_TRUE(rig_.write(1).is_ok());
  rig_.settle();
  rig_.close();
  rig_.set_model("model-b");
  fill_up(disk_, 64 << 10);
  ASSERT_EQ(rig_.open().text(), Status().text());
  const Nanoseconds limit = rig_.clock().now() + seconds(20);
  std::vector<DiskDone> done;
  while (rig_.tier().problems().empty() && rig_.clock().now() < limit) {
    rig_.tier().wait(milliseconds(50));
    rig_.tier().poll(done);
  }
  ASSERT_FALSE(rig_.tier().problems().empty());
  EXPECT_THAT(rig_.tier().problems().back(), HasSubstr("state=full"));
  EXPECT_THAT(rig_.tier().problems().back(), HasSubstr(meta(2) + ": ENOSPC"));
  EXPECT_THAT(rig_.tier().problems().back(), HasSubstr("free space or lower disk.size"));
  std::uint64_t stored = 0;
  Status status;
  while (status.is_ok() && stored < 1500) status = rig_.write(stored++);
  EXPECT_TRUE(status.code() == Code::kExhausted || status.code() == Code::kUnavailable);
  expect_all_found(stored - 1);
}

// In steps down to 64 KiB, 1024 records: what fits of them is reserved, and its blocks are stored
// whatever others take then; the last pages of a disk are left to those.
TEST(DiskReserveStepsTest, AsManyRecordsAsFitAreReserved) {
  const SmallDisk disk(64 << 20);
  ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
  testing::FakeClock clock;
  Rig rig;
  rig.use_clock(clock);
  rig.options().paths = {disk.path()};
  rig.options().preallocate = "fallocate";
  rig.options().blocks = 3000;  // 188 KiB of records.
  ASSERT_EQ(rig.open().text(), Status().text());
  ASSERT_TRUE(rig.write(1).is_ok());
  rig.settle();
  rig.close();
  rig.set_model("model-b");
  fill_up(disk, (16 + 64 + 48) << 10);  // The files of another namespace take 16 KiB.
  ASSERT_EQ(rig.open().text(), Status().text());
  const Nanoseconds limit = rig.clock().now() + seconds(20);
  std::vector<DiskDone> done;
  while (rig.tier().problems().empty() && rig.clock().now() < limit) {
    rig.tier().wait(milliseconds(50));
    rig.tier().poll(done);
  }
  ASSERT_FALSE(rig.tier().problems().empty());
  EXPECT_EQ(blocks_of(disk.path() + "/terrace-00/ns-0002/slots.meta"), kRecordsOffset + (64 << 10));
  fill_up(disk);
  std::uint64_t stored = 0;
  for (std::uint64_t n = 0; n < 1500; ++n) {
    ASSERT_EQ(rig.write(10 + n).text(), Status().text()) << "the oldest ones make room";
  }
  for (std::uint64_t n = 0; n < 1500; ++n) stored += rig.has(10 + n) ? 1U : 0U;
  EXPECT_GT(stored, 900U);  // Whole runs only.
  EXPECT_LE(stored, 1024U);
}

INSTANTIATE_TEST_SUITE_P(Ways, DiskReserveTest, ::testing::Values("fallocate", "zerofill"),
                         [](const auto& way) { return way.param; });

// The zeros of 10^7 records, 640 MB, are nobody's wait: the tier opens before the first of them.
TEST(DiskReserveStartTest, AnEmptyCacheStartsInBoundedWorkWhateverItsSize) {
  for (const std::uint64_t blocks : {1'000ULL, 10'000'000ULL}) {
    const SmallDisk disk(256ULL << 30U);
    ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
    Rig rig;
    rig.options().paths = {disk.path()};
    rig.options().preallocate = "zerofill";
    rig.options().blocks = blocks;
    FaultBackend* faults = nullptr;
    rig.options().decorate = [&](std::unique_ptr<transfer::Backend> inner) {
      auto made = std::make_unique<FaultBackend>(std::move(inner), 1);
      faults = made.get();
      faults->hold(true);
      return made;
    };
    ASSERT_EQ(rig.open().text(), Status().text());
    EXPECT_EQ(rig.tier().slots(), blocks);
    EXPECT_EQ(faults->in_flight(), 0U);
    EXPECT_LE(fs::space(disk.path()).capacity - fs::space(disk.path()).available, 256U << 10U);
    // The first block waits for the zeros of its own run, not of all.
    faults->hold(false);
    EXPECT_EQ(rig.write(1).text(), Status().text());
    EXPECT_LE(rig.metric("terrace_disk_io_bytes_total{op=\"write\"}"), 256e6);
  }
}

// Until it is tried again, blocks that have no space yet are dropped: an operator has to see why.
TEST(DiskReserveStartTest, AnAllocationThatFailsIsSaidAndTriedAgain) {
  testing::FakeClock clock;
  Rig rig;
  rig.use_clock(clock);
  FaultBackend* faults = nullptr;
  rig.options().decorate = [&](std::unique_ptr<transfer::Backend> inner) {
    auto made = std::make_unique<FaultBackend>(std::move(inner), 1);
    faults = made.get();
    faults->aim(transfer::Fault::kError, transfer::IoOp::kAllocate, 1000);
    return made;
  };
  ASSERT_TRUE(rig.open().is_ok());
  EXPECT_EQ(rig.write(1).code(), Code::kIo);
  ASSERT_EQ(rig.tier().problems().size(), 1U);
  EXPECT_THAT(rig.tier().problems()[0], HasSubstr("state=stuck"));
  EXPECT_THAT(rig.tier().problems()[0], HasSubstr("EIO"));
  EXPECT_THAT(rig.log(), HasSubstr("state=stuck"));
  EXPECT_EQ(rig.write(2).code(), Code::kExhausted) << "not tried again at once";
  faults->aim(transfer::Fault::kNone, transfer::IoOp::kAllocate, 0);
  clock.advance(seconds(10));
  rig.settle();
  EXPECT_TRUE(rig.tier().problems().empty());
  EXPECT_EQ(rig.write(3).text(), Status().text());
}

// Else closing waits for its limit and then leaves the tier behind.
TEST(DiskReserveStartTest, ClosingEndsTheFilling) {
  const SmallDisk disk(64ULL << 30U);
  ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
  Rig rig;
  rig.options().paths = {disk.path()};
  rig.options().preallocate = "zerofill";
  rig.options().blocks = 1'000'000;
  FaultBackend* faults = nullptr;
  rig.options().decorate = [&](std::unique_ptr<transfer::Backend> inner) {
    auto made = std::make_unique<FaultBackend>(std::move(inner), 1);
    faults = made.get();
    return made;
  };
  ASSERT_TRUE(rig.open().is_ok());
  ASSERT_TRUE(rig.write(1).is_ok());
  rig.tier().stop_writes();
  std::vector<DiskDone> done;
  for (int i = 0; i < 20 && faults->in_flight() > 0; ++i) {
    rig.tier().wait(seconds(1));
    rig.tier().poll(done);
  }
  EXPECT_EQ(faults->in_flight(), 0U);
  EXPECT_FALSE(rig.tier().is_allocated());
}

}  // namespace
}  // namespace terrace::tier::disk
