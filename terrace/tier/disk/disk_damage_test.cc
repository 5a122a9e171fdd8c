// Frames and records that were damaged while nobody looked: each ends as a counted miss, never as
// wrong bytes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "terrace/tier/disk/disk_fixture.h"
#include "terrace/tier/disk/format_internal.h"
#include "terrace/wire/frame.h"

namespace terrace::tier::disk {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr const char* kCorrupt = "terrace_disk_corrupt_blocks_total";

// Four blocks on disk, and the tier closed.
class DiskDamageTest : public DiskFixture {
 protected:
  void SetUp() override {
    ASSERT_TRUE(rig_.open().is_ok());
    write_blocks(0, 4);
    rig_.close();
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
};

TEST_F(DiskDamageTest, AFlippedPayloadBitIsACountedMiss) {
  std::string byte = bytes_of("0.slots", 2 * kFrame + 4096 + 777, 1);
  byte[0] = static_cast<char>(byte[0] ^ 4);
  patch("0.slots", 2 * kFrame + 4096 + 777, byte);
  expect_only_corrupt(2);
}

TEST_F(DiskDamageTest, AFlippedPayloadBitIsSeenByTheThreadThatCopiesItOutOfThePageCache) {
  rig_.options().is_direct = false;
  const std::uint64_t last = 2 * kFrame + 4096 + 8191;
  std::string byte = bytes_of("0.slots", last, 1);
  byte[0] = static_cast<char>(byte[0] ^ 4);
  patch("0.slots", last, byte);
  expect_only_corrupt(2);
}

TEST_F(DiskDamageTest, AFlippedHeaderBitIsACountedMiss) {
  std::string byte = bytes_of("0.slots", kFrame + 40, 1);
  byte[0] = static_cast<char>(byte[0] ^ 1);
  patch("0.slots", kFrame + 40, byte);
  expect_only_corrupt(1);
}

TEST_F(DiskDamageTest, AZeroedFrameIsACountedMiss) {
  patch("0.slots", kFrame, std::string(kFrame, '\0'));
  expect_only_corrupt(1);
}

TEST_F(DiskDamageTest, AFrameZeroedInItsTailIsACountedMiss) {
  patch("0.slots", 2 * kFrame - 512, std::string(512, '\0'));
  expect_only_corrupt(1);
}

TEST_F(DiskDamageTest, ADuplicatedFrameIsACountedMiss) {
  patch("0.slots", 3 * kFrame, bytes_of("0.slots", 0, kFrame));
  expect_only_corrupt(3);
}

TEST_F(DiskDamageTest, ExchangedFramesAreCountedMisses) {
  const std::string first = bytes_of("0.slots", 0, kFrame);
  patch("0.slots", 0, bytes_of("0.slots", kFrame, kFrame));
  patch("0.slots", kFrame, first);
  ASSERT_TRUE(rig_.reopen().is_ok());
  EXPECT_EQ(rig_.read(0).code(), Code::kCorrupt);
  EXPECT_EQ(rig_.read(1).code(), Code::kCorrupt);
  EXPECT_TRUE(rig_.read(2).is_ok());
  EXPECT_EQ(rig_.metric(kCorrupt), 2);
}

TEST_F(DiskDamageTest, APayloadUnderAnotherBlocksHeaderIsACountedMiss) {
  patch("0.slots", 2 * kFrame + 4096, bytes_of("0.slots", 3 * kFrame + 4096, 8192));
  expect_only_corrupt(2);
}

TEST_F(DiskDamageTest, AFrameOfAnEarlierGenerationIsACountedMiss) {
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

// Whole frames of the same key, slot and generation that are not this namespace's, group's, rank's
// or era's.
TEST_F(DiskDamageTest, AFrameOfAnotherNamespaceGroupRankOrEraIsACountedMiss) {
  using Change = void (*)(wire::FrameHeader&);
  for (const Change change : {Change([](wire::FrameHeader& f) { f.content_digest[31] ^= 1U; }),
                              Change([](wire::FrameHeader& f) { f.layout_digest[0] ^= 1U; }),
                              Change([](wire::FrameHeader& f) { f.group = GroupId(1); }),
                              Change([](wire::FrameHeader& f) { f.rank = RankId(1); }),
                              Change([](wire::FrameHeader& f) { f.era ^= 1U; })}) {
    const std::string page = bytes_of("0.slots", 2 * kFrame, wire::kFrameHeaderBytes);
    auto header =
        wire::decode_frame(std::as_bytes(std::span(page)).first<wire::kFrameHeaderBytes>());
    ASSERT_TRUE(header.has_value());
    ASSERT_EQ(header->hash, hash_of(2));
    change(*header);
    std::string changed(wire::kFrameHeaderBytes, '\0');
    wire::encode(*header,
                 std::as_writable_bytes(std::span(changed)).first<wire::kFrameHeaderBytes>());
    patch("0.slots", 2 * kFrame, changed);
    expect_only_corrupt(2);  // And writes it anew.
    rig_.close();
  }
}

TEST_F(DiskDamageTest, ATruncatedSlotFileLosesOnlyWhatItHeld) {
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

TEST_F(DiskDamageTest, ASlotFileCutToNothingIsAllMissesAndServesAgain) {
  std::filesystem::resize_file(rig_.owner() + "/0.slots", 0);
  ASSERT_TRUE(rig_.reopen().is_ok());
  for (std::uint64_t n = 0; n < 4; ++n) EXPECT_FALSE(rig_.has(n));
  EXPECT_EQ(rig_.metric("terrace_disk_damaged_records_total"), 4);
  write_blocks(0, 4);
  for (std::uint64_t n = 0; n < 4; ++n) EXPECT_TRUE(rig_.read(n).is_ok());
}

TEST_F(DiskDamageTest, AFileCutUnderALiveTierIsACountedMiss) {
  ASSERT_TRUE(rig_.reopen().is_ok());
  rig_.settle();
  std::filesystem::resize_file(rig_.owner() + "/0.slots", kFrame + 512);
  EXPECT_TRUE(rig_.read(0).is_ok());
  EXPECT_EQ(rig_.read(1).code(), Code::kCorrupt);
  EXPECT_EQ(rig_.read(3).code(), Code::kCorrupt);
  EXPECT_EQ(rig_.metric(kCorrupt), 2);
}

TEST_F(DiskDamageTest, ADamagedRecordIsACountedMissOfItsBlockAlone) {
  patch("ns-0001/slots.meta", kRecordsOffset + 2 * kSlotRecordBytes + 20, "x");
  ASSERT_TRUE(rig_.reopen().is_ok());
  EXPECT_FALSE(rig_.has(2));
  EXPECT_EQ(rig_.metric("terrace_disk_damaged_records_total"), 1);
  for (const std::uint64_t n : {0, 1, 3}) EXPECT_TRUE(rig_.read(n).is_ok()) << n;
}

TEST_F(DiskDamageTest, ARecordCopiedToAnotherSlotDoesNotCount) {
  patch("ns-0001/slots.meta", kRecordsOffset + 9 * kSlotRecordBytes,
        bytes_of("ns-0001/slots.meta", kRecordsOffset, kSlotRecordBytes));
  patch("ns-0001/slots.meta", kRecordsOffset, std::string(kSlotRecordBytes, '\0'));
  ASSERT_TRUE(rig_.reopen().is_ok());
  EXPECT_FALSE(rig_.has(0));
  EXPECT_TRUE(rig_.read(1).is_ok());
}

TEST_F(DiskDamageTest, ATruncatedSlotsMetaKeepsWhatIsInFront) {
  std::filesystem::resize_file(rig_.owner() + "/ns-0001/slots.meta",
                               kRecordsOffset + 2 * kSlotRecordBytes + 10);
  ASSERT_TRUE(rig_.reopen().is_ok());
  EXPECT_TRUE(rig_.read(0).is_ok());
  EXPECT_TRUE(rig_.read(1).is_ok());
  EXPECT_FALSE(rig_.has(2));
  EXPECT_FALSE(rig_.has(3));
  EXPECT_THAT(rig_.log(), HasSubstr("it was cut short"));
  write_blocks(2, 4);
}

TEST_F(DiskDamageTest, OneLostHeaderPageOfSlotsMetaCostsNothing) {
  patch("ns-0001/slots.meta", 0, std::string(4096, '\xAA'));
  ASSERT_TRUE(rig_.reopen().is_ok());
  for (std::uint64_t n = 0; n < 4; ++n) EXPECT_TRUE(rig_.read(n).is_ok());
  EXPECT_THAT(rig_.log(), Not(HasSubstr("lost_blocks=")));
}

TEST_F(DiskDamageTest, BothHeaderPagesLostForgetsTheBlocksAndServes) {
  patch("ns-0001/slots.meta", 0, std::string(8192, '\xAA'));
  ASSERT_TRUE(rig_.reopen().is_ok());
  for (std::uint64_t n = 0; n < 4; ++n) EXPECT_FALSE(rig_.has(n));
  EXPECT_THAT(rig_.log(), HasSubstr("header=damaged"));
  write_blocks(0, 4);
  for (std::uint64_t n = 0; n < 4; ++n) EXPECT_TRUE(rig_.read(n).is_ok());
}

TEST_F(DiskDamageTest, ADeletedSlotsMetaForgetsTheBlocksAndServes) {
  std::filesystem::remove(rig_.owner() + "/ns-0001/slots.meta");
  ASSERT_TRUE(rig_.reopen().is_ok());
  for (std::uint64_t n = 0; n < 4; ++n) EXPECT_FALSE(rig_.has(n));
  EXPECT_THAT(rig_.log(), HasSubstr("lost_blocks="));
  write_blocks(0, 4);
}

TEST_F(DiskDamageTest, ADamagedExtentRecordLosesItsRunAlone) {
  patch("extents.meta", 4096 + 5, "\x7F");
  ASSERT_TRUE(rig_.reopen().is_ok());
  EXPECT_GE(rig_.metric("terrace_disk_damaged_records_total"), 1);
  EXPECT_FALSE(rig_.has(0));
  write_blocks(10, 14);
  for (std::uint64_t n = 10; n < 14; ++n) EXPECT_TRUE(rig_.read(n).is_ok());
}

// Random damage anywhere: the tier opens or says why, and never delivers wrong bytes.
TEST_F(DiskDamageTest, RandomDamageNeverDeliversWrongBytes) {
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

// A disk that rots would else push every other line out of the log.
TEST(DiskRotTest, ManyCorruptBlocksAreAFewLinesAndAnExactCount) {
  constexpr std::uint64_t kBlocks = 40;
  Rig rig;
  rig.options().blocks = kBlocks;
  ASSERT_TRUE(rig.open().is_ok());
  for (std::uint64_t n = 0; n < kBlocks; ++n) ASSERT_TRUE(rig.write(n).is_ok());
  rig.close();
  const std::string path = rig.owner() + "/0.slots";
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  for (std::uint64_t at = 5000; at < std::filesystem::file_size(path); at += kFrame) {
    file.seekp(static_cast<std::streamoff>(at));
    file.write("rot", 3);
  }
  file.close();
  ASSERT_TRUE(rig.open().is_ok());
  for (std::uint64_t n = 0; n < kBlocks; ++n) EXPECT_EQ(rig.read(n).code(), Code::kCorrupt);
  EXPECT_EQ(rig.metric(kCorrupt), kBlocks);
  rig.close();
  const std::size_t lines = rig.log_lines().count("corrupt=1 slot=");
  EXPECT_EQ(lines + rig.log_lines().sum("disk corrupt=1 left_out="), kBlocks);
  EXPECT_GE(lines, 1U);
  EXPECT_LE(lines, kBlocks / 2);
}

}  // namespace
}  // namespace terrace::tier::disk
