#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <string>

#include "terrace/base/rng.h"
#include "terrace/tier/disk/format_internal.h"

namespace terrace::tier::disk {
namespace {

std::string hex(std::span<const std::byte> bytes) {
  std::string text;
  for (const std::byte byte : bytes) {
    constexpr char kDigits[] = "0123456789abcdef";
    text += kDigits[std::to_integer<unsigned>(byte) >> 4U];
    text += kDigits[std::to_integer<unsigned>(byte) & 15U];
  }
  return text;
}

SlotRecord sample_record() {
  SlotRecord record;
  record.hash = {0x1122334455667788ULL, 0x99AABBCCDDEEFF00ULL};
  record.alias = 0x0102030405060708ULL;
  record.sequence = 42;
  record.stamp = 7;
  record.generation = 3;
  record.epoch = 2;
  record.name_space = 1;
  record.group = 5;
  record.state = RecordState::kSealed;
  return record;
}

TEST(DiskFormatTest, Crc32cHasItsPublishedCheckValue) {
  const std::string digits = "123456789";
  EXPECT_EQ(crc32c(std::as_bytes(std::span(digits))), 0xE3069283U);
  std::array<std::byte, 32> zeros{};  // RFC 3720, B.4.
  EXPECT_EQ(crc32c(zeros), 0x8A9136AAU);
}

// The bytes that docs/formats/disk.md promises.
TEST(DiskFormatTest, ASlotRecordHasItsDocumentedBytes) {
  std::array<std::byte, kSlotRecordBytes> bytes{};
  encode(sample_record(), 9, bytes);
  EXPECT_EQ(hex(std::span(bytes).first<60>()),
            "8877665544332211"
            "00ffeeddccbbaa99"
            "0807060504030201"
            "2a00000000000000"
            "0700000000000000"
            "03000000"
            "02000000"
            "01000000"
            "0500"
            "0100"
            "09000000");
  std::uint32_t crc = 0;
  std::memcpy(&crc, bytes.data() + 60, 4);
  EXPECT_EQ(crc, crc32c(std::span(bytes).first<60>()));
}

TEST(DiskFormatTest, ARecordOfAnEncryptedBlockHasItsKeysTagForAState) {
  SlotRecord record = sample_record();
  record.key_tag = 0x1234;
  std::array<std::byte, kSlotRecordBytes> bytes{};
  encode(record, 9, bytes);
  EXPECT_EQ(hex(std::span(bytes).subspan<54, 2>()), "3492");
  EXPECT_EQ(decode_slot(bytes, 9).record, record);
  EXPECT_EQ(decode_slot(bytes, 9).record.state, RecordState::kSealed);
}

TEST(DiskFormatTest, ARecordIsReadBackOnlyInItsOwnSlot) {
  std::array<std::byte, kSlotRecordBytes> bytes{};
  encode(sample_record(), 9, bytes);
  EXPECT_EQ(decode_slot(bytes, 9).check, RecordCheck::kGood);
  EXPECT_EQ(decode_slot(bytes, 9).record, sample_record());
  EXPECT_EQ(decode_slot(bytes, 10).check, RecordCheck::kDamaged);
}

TEST(DiskFormatTest, EveryFlippedBitOfARecordIsDamage) {
  std::array<std::byte, kSlotRecordBytes> bytes{};
  encode(sample_record(), 9, bytes);
  for (std::size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    bytes[bit / 8] ^= std::byte{static_cast<unsigned char>(1U << bit % 8)};
    EXPECT_EQ(decode_slot(bytes, 9).check, RecordCheck::kDamaged) << bit;
    bytes[bit / 8] ^= std::byte{static_cast<unsigned char>(1U << bit % 8)};
  }
}

TEST(DiskFormatTest, ARecordNeverWrittenIsAbsentNotDamaged) {
  const std::array<std::byte, kSlotRecordBytes> zeros{};
  EXPECT_EQ(decode_slot(zeros, 0).check, RecordCheck::kAbsent);
}

TEST(DiskFormatTest, ExtentRecordsKeepTheirPlaceAndNoticeDamage) {
  std::array<std::byte, kExtentRecordBytes> bytes{};
  const ExtentRecord record{3, 8, 4, 99};
  encode(record, 11, bytes);
  EXPECT_EQ(hex(std::span(bytes).first<28>()),
            "03000000"
            "08000000"
            "04000000"
            "0b000000"
            "6300000000000000"
            "00000000");
  EXPECT_EQ(decode_extent(bytes, 11), record);
  EXPECT_EQ(decode_extent(bytes, 12), std::nullopt);
  bytes[5] ^= std::byte{1};
  EXPECT_EQ(decode_extent(bytes, 11), std::nullopt);
}

TEST(DiskFormatTest, HeaderPagesAreReadBackAndNoticeDamageAnywhere) {
  std::array<std::byte, kPageBytes> volume{};
  encode(VolumeHeader{1 << 20, 1234}, volume);
  ASSERT_TRUE(decode_volume(volume).has_value());
  EXPECT_EQ(decode_volume(volume)->extent_bytes, 1U << 20);
  std::array<std::byte, kPageBytes> meta{};
  const MetaHeader header{5, 2, 21, 3, 7, 9, true};
  encode(header, meta);
  EXPECT_EQ(decode_meta(meta), header);
  Rng rng(1);
  for (int i = 0; i < 500; ++i) {
    const std::size_t at = rng.below(kPageBytes);
    volume[at] ^= std::byte{0x10};
    meta[at] ^= std::byte{0x10};
    EXPECT_FALSE(decode_volume(volume).has_value()) << at;
    EXPECT_FALSE(decode_meta(meta).has_value()) << at;
    volume[at] ^= std::byte{0x10};
    meta[at] ^= std::byte{0x10};
  }
}

// Earlier versions know no generation, no era and no doubt: to them these bytes are 0 in what they
// write, and nothing in what they read.
TEST(DiskFormatTest, GenerationEraAndDoubtStandBehindWhatEarlierVersionsKnow) {
  std::array<std::byte, kPageBytes> page{};
  encode(MetaHeader{5, 2, 21, 3, 0x0102, 0x1112131415161718, true}, page);
  EXPECT_EQ(hex(std::span(page).subspan<16, 40>()),
            "05000000"
            "02000000"
            "15000000"
            "03000000"
            "0201000000000000"
            "1817161514131211"
            "0100000000000000");
  encode(MetaHeader{5, 2, 21, 3, 0, 0}, page);
  EXPECT_EQ(hex(std::span(page).subspan<16, 40>()),
            "05000000"
            "02000000"
            "15000000"
            "03000000"
            "0000000000000000"
            "0000000000000000"
            "0000000000000000");
}

TEST(DiskFormatTest, ANewerVersionIsRefusedNotCalledDamaged) {
  std::array<std::byte, kPageBytes> page{};
  encode(VolumeHeader{1 << 20, 0}, page);
  page[8] = std::byte{kFormatVersion + 1};
  EXPECT_EQ(decode_volume(page).error().code(), Code::kRefused);
}

// The bytes that docs/formats/disk.md promises.
TEST(DiskFormatTest, AWriteAccountHasItsDocumentedBytes) {
  std::array<std::byte, kPageBytes> page{};
  const WriteAccount account{1'800'000'000, -2, 0x0102030405060708, 3};
  encode(account, page);
  EXPECT_EQ(std::memcmp(page.data(), "TERRWEAR", 8), 0);
  EXPECT_EQ(hex(std::span(page).subspan<8, 4>()), "01000000");
  EXPECT_EQ(hex(std::span(page).subspan<16, 16>()), "00d2496b00000000feffffffffffffff");
  EXPECT_EQ(hex(std::span(page).subspan<32, 16>()), "08070605040302010300000000000000");
  EXPECT_EQ(decode_account(page), account);
}

TEST(DiskFormatTest, AWriteAccountWithAnyBitFlippedIsNone) {
  std::array<std::byte, kPageBytes> page{};
  encode(WriteAccount{1'800'000'000, 12'345, 7, 2}, page);
  for (std::size_t at = 0; at < page.size(); ++at) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      page[at] ^= std::byte{1} << bit;
      ASSERT_FALSE(decode_account(page).has_value()) << at << "." << bit;
      page[at] ^= std::byte{1} << bit;
    }
  }
  EXPECT_TRUE(decode_account(page).has_value());
}

TEST(DiskFormatTest, AHeaderOfWhatWasLearnedHasItsDocumentedBytes) {
  std::array<std::byte, kPageBytes> page{};
  encode(LearnedHeader{7, 258'048, 0x0A0B0C0D}, page);
  EXPECT_EQ(std::memcmp(page.data(), "TERRLRND", 8), 0);
  EXPECT_EQ(hex(std::span(page).subspan<8, 4>()), "01000000");
  EXPECT_EQ(hex(std::span(page).subspan<16, 16>()), "070000000000000000f003000d0c0b0a");
  EXPECT_EQ(decode_learned(page), (LearnedHeader{7, 258'048, 0x0A0B0C0D}));
}

TEST(DiskFormatTest, AHeaderOfWhatWasLearnedThatCannotBeIsNone) {
  std::array<std::byte, kPageBytes> page{};
  for (const LearnedHeader& wrong :
       {LearnedHeader{0, 5, 1}, LearnedHeader{1, 0, 1}, LearnedHeader{1, 258'049, 1}}) {
    encode(wrong, page);
    EXPECT_FALSE(decode_learned(page).has_value());
  }
  encode(LearnedHeader{1, 5, 1}, page);
  for (std::size_t at = 0; at < page.size(); ++at) {
    page[at] ^= std::byte{4};
    ASSERT_FALSE(decode_learned(page).has_value()) << at;
    page[at] ^= std::byte{4};
  }
  EXPECT_TRUE(decode_learned(page).has_value());
}

}  // namespace
}  // namespace terrace::tier::disk
