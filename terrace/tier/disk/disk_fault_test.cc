// Damaged frames and records, failing, full and vanished media: each ends as a counted miss or a
// drop, never as wrong bytes.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/format_internal.h"
#include "terrace/transfer/backends/fault/fault_backend.h"

namespace terrace::tier::disk {
namespace {

using ::testing::HasSubstr;
using transfer::Fault;
using transfer::FaultBackend;
using transfer::IoOp;

constexpr std::uint64_t kFrame = 4096 + 8192;
constexpr const char* kCorrupt = "terrace_disk_corrupt_blocks_total";

class DiskFaultTest : public ::testing::Test {
 protected:
  void open_with_faults(std::uint64_t seed = 1) {
    rig_.options().decorate = [this, seed](std::unique_ptr<transfer::Backend> inner) {
      auto faults = std::make_unique<FaultBackend>(std::move(inner), seed);
      faults_ = faults.get();
      return faults;
    };
    ASSERT_EQ(rig_.open().text(), Status().text());
  }
  void write_blocks(std::uint64_t first, std::uint64_t end) {
    for (std::uint64_t n = first; n < end; ++n) {
      ASSERT_EQ(rig_.write(n).text(), Status().text()) << n;
    }
  }
  // Changes bytes of a file while the tier is closed. Slots are filled in order from 0.
  void patch(const std::string& name, std::uint64_t offset, const std::string& bytes) {
    std::fstream file(rig_.owner() + "/" + name, std::ios::in | std::ios::out | std::ios::binary);
    ASSERT_TRUE(file.good());
    file.seekp(static_cast<std::streamoff>(offset));
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  std::string bytes_of(const std::string& name, std::uint64_t offset, std::size_t count) {
    std::ifstream file(rig_.owner() + "/" + name, std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset));
    std::string bytes(count, '\0');
    file.read(bytes.data(), static_cast<std::streamsize>(count));
    return bytes;
  }
  void expect_only_corrupt(std::uint64_t number) {
    ASSERT_TRUE(rig_.reopen().is_ok());
    EXPECT_EQ(rig_.read(number).code(), Code::kCorrupt);
    EXPECT_EQ(rig_.metric(kCorrupt), 1);
    EXPECT_FALSE(rig_.has(number)) << "a corrupt block must not be offered again";
    for (std::uint64_t n = 0; n < 4; ++n) {
      if (n != number) {
        EXPECT_EQ(rig_.read(n).text(), Status().text()) << n;
      }
    }
    rig_.settle();
    ASSERT_TRUE(rig_.reopen().is_ok());
    EXPECT_FALSE(rig_.has(number)) << "nor after a restart";
    EXPECT_EQ(rig_.write(number).text(), Status().text());
    EXPECT_EQ(rig_.read(number).text(), Status().text());
  }

  Rig rig_;
  FaultBackend* faults_ = nullptr;
};

class DiskFrameTest : public DiskFaultTest {
 protected:
  void SetUp() override {
    ASSERT_TRUE(rig_.open().is_ok());
    write_blocks(0, 4);
    rig_.close();
  }
};

TEST_F(DiskFrameTest, AFlippedPayloadBitIsACountedMiss) {
  std::string byte = bytes_of("0.slots", 2 * kFrame + 4096 + 777, 1);
  byte[0] = static_cast<char>(byte[0] ^ 4);
  patch("0.slots", 2 * kFrame + 4096 + 777, byte);
  expect_only_corrupt(2);
}

TEST_F(DiskFrameTest, AFlippedHeaderBitIsACountedMiss) {
  std::string byte = bytes_of("0.slots", kFrame + 40, 1);
  byte[0] = static_cast<char>(byte[0] ^ 1);
  patch("0.slots", kFrame + 40, byte);
  expect_only_corrupt(1);
}

TEST_F(DiskFrameTest, AZeroedFrameIsACountedMiss) {
  patch("0.slots", kFrame, std::string(kFrame, '\0'));
  expect_only_corrupt(1);
}

TEST_F(DiskFrameTest, AFrameZeroedInItsTailIsACountedMiss) {
  patch("0.slots", 2 * kFrame - 512, std::string(512, '\0'));
  expect_only_corrupt(1);
}

TEST_F(DiskFrameTest, ADuplicatedFrameIsACountedMiss) {
  patch("0.slots", 3 * kFrame, bytes_of("0.slots", 0, kFrame));
  expect_only_corrupt(3);
}

TEST_F(DiskFrameTest, ExchangedFramesAreCountedMisses) {
  const std::string first = bytes_of("0.slots", 0, kFrame);
  patch("0.slots", 0, bytes_of("0.slots", kFrame, kFrame));
  patch("0.slots", kFrame, first);
  ASSERT_TRUE(rig_.reopen().is_ok());
  EXPECT_EQ(rig_.read(0).code(), Code::kCorrupt);
  EXPECT_EQ(rig_.read(1).code(), Code::kCorrupt);
  EXPECT_TRUE(rig_.read(2).is_ok());
  EXPECT_EQ(rig_.metric(kCorrupt), 2);
}

TEST_F(DiskFrameTest, APayloadUnderAnotherBlocksHeaderIsACountedMiss) {
  patch("0.slots", 2 * kFrame + 4096, bytes_of("0.slots", 3 * kFrame + 4096, 8192));
  expect_only_corrupt(2);
}

TEST_F(DiskFrameTest, AFrameOfAnEarlierGenerationIsACountedMiss) {
  const std::string old = bytes_of("0.slots", 0, kFrame);
  ASSERT_TRUE(rig_.reopen().is_ok());
  // Block 0 leaves slot 0 and later comes back to it.
  for (std::uint64_t n = 4; n < 17; ++n) ASSERT_TRUE(rig_.write(n).is_ok());
  ASSERT_FALSE(rig_.has(0));
  for (std::uint64_t n = 17; n < 32; ++n) ASSERT_TRUE(rig_.write(n).is_ok());
  ASSERT_TRUE(rig_.write(0).is_ok());
  rig_.close();
  std::uint64_t slot = 0;
  const auto has_block_0 = [&](std::uint64_t s) {
    std::array<std::byte, kSlotRecordBytes> bytes{};
    const std::string text =
        bytes_of("ns-0001/slots.meta", kRecordsOffset + s * kSlotRecordBytes, kSlotRecordBytes);
    std::memcpy(bytes.data(), text.data(), bytes.size());
    const auto decoded = decode_slot(bytes, static_cast<std::uint32_t>(s));
    return decoded.check == RecordCheck::kGood && decoded.record.hash == hash_of(0) &&
           decoded.record.state == RecordState::kSealed;
  };
  while (slot < 16 && !has_block_0(slot)) ++slot;
  ASSERT_LT(slot, 16U);
  patch("0.slots", slot * kFrame, old);
  ASSERT_TRUE(rig_.open().is_ok());
  EXPECT_EQ(rig_.read(0).code(), Code::kCorrupt);
}

TEST_F(DiskFrameTest, ATruncatedSlotFileLosesOnlyWhatItHeld) {
  std::filesystem::resize_file(rig_.owner() + "/0.slots", 65536 + 2 * kFrame);
  ASSERT_TRUE(rig_.reopen().is_ok());
  // Whole runs are judged: the tail of a cut run is gone with it, what is in front stays.
  EXPECT_GE(rig_.metric("terrace_disk_damaged_records_total") +
                rig_.metric("terrace_disk_adopted_blocks_total"),
            4);
  rig_.settle();
  for (std::uint64_t n = 0; n < 4; ++n) {
    if (rig_.has(n)) {
      EXPECT_NE(rig_.read(n).code(), Code::kInternal);
    }
  }
  EXPECT_TRUE(rig_.write(50).is_ok());
  EXPECT_TRUE(rig_.read(50).is_ok());
}

TEST_F(DiskFrameTest, ASlotFileCutToNothingIsAllMissesAndServesAgain) {
  std::filesystem::resize_file(rig_.owner() + "/0.slots", 0);
  ASSERT_TRUE(rig_.reopen().is_ok());
  for (std::uint64_t n = 0; n < 4; ++n) EXPECT_FALSE(rig_.has(n));
  EXPECT_EQ(rig_.metric("terrace_disk_damaged_records_total"), 4);
  write_blocks(0, 4);
  for (std::uint64_t n = 0; n < 4; ++n) EXPECT_TRUE(rig_.read(n).is_ok());
}

TEST_F(DiskFrameTest, AFileCutUnderALiveTierIsACountedMiss) {
  ASSERT_TRUE(rig_.reopen().is_ok());
  rig_.settle();
  std::filesystem::resize_file(rig_.owner() + "/0.slots", kFrame + 512);
  EXPECT_TRUE(rig_.read(0).is_ok());
  EXPECT_EQ(rig_.read(1).code(), Code::kCorrupt);
  EXPECT_EQ(rig_.read(3).code(), Code::kCorrupt);
  EXPECT_EQ(rig_.metric(kCorrupt), 2);
}

TEST_F(DiskFrameTest, ADamagedRecordIsACountedMissOfItsBlockAlone) {
  patch("ns-0001/slots.meta", kRecordsOffset + 2 * kSlotRecordBytes + 20, "x");
  ASSERT_TRUE(rig_.reopen().is_ok());
  EXPECT_FALSE(rig_.has(2));
  EXPECT_EQ(rig_.metric("terrace_disk_damaged_records_total"), 1);
  for (const std::uint64_t n : {0, 1, 3}) EXPECT_TRUE(rig_.read(n).is_ok()) << n;
}

TEST_F(DiskFrameTest, ARecordCopiedToAnotherSlotDoesNotCount) {
  patch("ns-0001/slots.meta", kRecordsOffset + 9 * kSlotRecordBytes,
        bytes_of("ns-0001/slots.meta", kRecordsOffset, kSlotRecordBytes));
  patch("ns-0001/slots.meta", kRecordsOffset, std::string(kSlotRecordBytes, '\0'));
  ASSERT_TRUE(rig_.reopen().is_ok());
  EXPECT_FALSE(rig_.has(0));
  EXPECT_TRUE(rig_.read(1).is_ok());
}

TEST_F(DiskFrameTest, ATruncatedSlotsMetaKeepsWhatIsInFront) {
  std::filesystem::resize_file(rig_.owner() + "/ns-0001/slots.meta",
                               kRecordsOffset + 2 * kSlotRecordBytes + 10);
  ASSERT_TRUE(rig_.reopen().is_ok());
  EXPECT_TRUE(rig_.read(0).is_ok());
  EXPECT_TRUE(rig_.read(1).is_ok());
  EXPECT_FALSE(rig_.has(2));
  EXPECT_FALSE(rig_.has(3));
  write_blocks(2, 4);
}

TEST_F(DiskFrameTest, OneLostHeaderPageOfSlotsMetaCostsNothing) {
  patch("ns-0001/slots.meta", 0, std::string(4096, '\xAA'));
  ASSERT_TRUE(rig_.reopen().is_ok());
  for (std::uint64_t n = 0; n < 4; ++n) EXPECT_TRUE(rig_.read(n).is_ok());
}

TEST_F(DiskFrameTest, BothHeaderPagesLostForgetsTheBlocksAndServes) {
  patch("ns-0001/slots.meta", 0, std::string(8192, '\xAA'));
  ASSERT_TRUE(rig_.reopen().is_ok());
  for (std::uint64_t n = 0; n < 4; ++n) EXPECT_FALSE(rig_.has(n));
  EXPECT_THAT(rig_.log(), HasSubstr("header=damaged"));
  write_blocks(0, 4);
  for (std::uint64_t n = 0; n < 4; ++n) EXPECT_TRUE(rig_.read(n).is_ok());
}

TEST_F(DiskFrameTest, ADeletedSlotsMetaForgetsTheBlocksAndServes) {
  std::filesystem::remove(rig_.owner() + "/ns-0001/slots.meta");
  ASSERT_TRUE(rig_.reopen().is_ok());
  for (std::uint64_t n = 0; n < 4; ++n) EXPECT_FALSE(rig_.has(n));
  write_blocks(0, 4);
}

TEST_F(DiskFrameTest, ADamagedExtentRecordLosesItsRunAlone) {
  patch("extents.meta", 4096 + 5, "\x7F");
  ASSERT_TRUE(rig_.reopen().is_ok());
  EXPECT_GE(rig_.metric("terrace_disk_damaged_records_total"), 1);
  EXPECT_FALSE(rig_.has(0));
  write_blocks(10, 14);
  for (std::uint64_t n = 10; n < 14; ++n) EXPECT_TRUE(rig_.read(n).is_ok());
}

// Random damage anywhere: the tier opens or says why, and never delivers wrong bytes.
TEST_F(DiskFrameTest, RandomDamageNeverDeliversWrongBytes) {
  const std::uint64_t seed = random_u64();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng rng(seed);
  for (int round = 0; round < 60; ++round) {
    if (rig_.open().is_ok()) {
      for (std::uint64_t n = 0; n < 16; ++n) {
        if (!rig_.has(n)) (void)rig_.write(n);
      }
      for (std::uint64_t n = 0; n < 16; ++n) {
        ASSERT_NE(rig_.read(n).code(), Code::kInternal) << "round " << round;
      }
      rig_.close();
    } else {
      std::filesystem::remove_all(rig_.owner());
      continue;
    }
    const char* const names[] = {"0.slots", "ns-0001/slots.meta", "extents.meta"};
    const std::string name = names[rng.below(3)];
    if (!std::filesystem::exists(rig_.owner() + "/" + name)) continue;
    const std::uint64_t size = std::filesystem::file_size(rig_.owner() + "/" + name);
    if (size == 0) continue;
    if (rng.chance(15)) {
      std::filesystem::resize_file(rig_.owner() + "/" + name, rng.below(size));
      continue;
    }
    const std::uint64_t bytes = 1 + rng.below(200);
    std::string noise;
    for (std::uint64_t i = 0; i < bytes; ++i) noise.push_back(static_cast<char>(rng.next()));
    patch(name, rng.below(size), noise);
  }
}

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
