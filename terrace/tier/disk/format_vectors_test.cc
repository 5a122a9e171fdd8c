// The format and the geometry against docs/formats/vectors/disk.tsv, which a second implementation
// made from the document alone: what it wrote is read, and what we write is what it wrote.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/block/key_ring.h"
#include "terrace/testing/vectors.h"
#include "terrace/tier/disk/format_internal.h"
#include "terrace/tier/disk/geometry_internal.h"

namespace terrace::tier::disk {
namespace {

using Page = std::array<std::byte, kPageBytes>;
using Row = std::vector<std::string>;

// Those of one kind. None is a failure: a kind that was renamed must not pass for want of rows.
std::vector<Row> rows_of(std::string_view kind) {
  std::vector<Row> rows = testing::read_vectors("disk.tsv");
  std::erase_if(rows, [&](const Row& row) { return row[0] != kind; });
  EXPECT_FALSE(rows.empty()) << kind;
  return rows;
}

template <typename Number>
Number number(const std::string& text) {
  return static_cast<Number>(std::stoull(text));
}

template <std::size_t kBytes>
std::array<std::byte, kBytes> bytes_of(const std::string& hex) {
  const std::string text = testing::from_hex(hex);
  EXPECT_LE(text.size(), kBytes);
  std::array<std::byte, kBytes> bytes{};  // Behind what a vector shows of a page are zeros.
  std::memcpy(bytes.data(), text.data(), std::min(text.size(), kBytes));
  return bytes;
}

template <typename Header>
Page page_of(const Header& header) {
  Page page;
  page.fill(std::byte{0xEE});
  encode(header, page);
  return page;
}

TEST(DiskFormatVectorsTest, HeadersOfExtentsAreThoseOfTheSecondImplementation) {
  for (const Row& row : rows_of("extents-page")) {
    SCOPED_TRACE(row[1]);
    const VolumeHeader header{std::stoull(row[1]), std::stoll(row[2])};
    const auto page = bytes_of<kPageBytes>(row[3]);
    EXPECT_EQ(page_of(header), page);
    const auto found = decode_volume(page);
    ASSERT_TRUE(found.has_value()) << found.error().message();
    EXPECT_EQ(found->extent_bytes, header.extent_bytes);
    EXPECT_EQ(found->created_seconds, header.created_seconds);
  }
}

TEST(DiskFormatVectorsTest, RecordsOfExtentsAreThoseOfTheSecondImplementation) {
  for (const Row& row : rows_of("extents-record")) {
    SCOPED_TRACE(row[1]);
    const auto extent = number<std::uint32_t>(row[1]);
    const ExtentRecord record{number<std::uint32_t>(row[2]), number<std::uint32_t>(row[3]),
                              number<std::uint32_t>(row[4]), std::stoull(row[5])};
    EXPECT_EQ(kPageBytes + extent * kExtentRecordBytes, std::stoull(row[6]));
    const auto bytes = bytes_of<kExtentRecordBytes>(row[7]);
    std::array<std::byte, kExtentRecordBytes> written{};
    encode(record, extent, written);
    EXPECT_EQ(written, bytes);
    EXPECT_EQ(decode_extent(bytes, extent), record);
  }
}

TEST(DiskFormatVectorsTest, HeadersOfSlotsAreThoseOfTheSecondImplementation) {
  for (const Row& row : rows_of("slots-page")) {
    SCOPED_TRACE(row[1]);
    MetaHeader header;
    header.epoch = number<std::uint32_t>(row[1]);
    header.groups = number<std::uint32_t>(row[2]);
    header.run_slots = number<std::uint32_t>(row[3]);
    header.run_extents = number<std::uint32_t>(row[4]);
    header.generation = std::stoull(row[5]);
    header.era = std::stoull(row[6]);
    header.is_in_doubt = row[7] != "0";
    const auto page = bytes_of<kPageBytes>(row[8]);
    EXPECT_EQ(page_of(header), page);
    EXPECT_EQ(decode_meta(page), header);
  }
}

SlotRecord slot_record_of(const Row& row) {
  SlotRecord record;
  std::array<std::uint8_t, 16> hash{};
  std::ranges::copy(testing::from_hex(row[4]), hash.begin());
  record.hash = SequenceHash::from_bytes(hash);
  record.group = number<std::uint16_t>(row[3]);
  record.alias = std::stoull(row[5]);
  record.sequence = std::stoull(row[6]);
  record.stamp = std::stoull(row[7]);
  record.generation = number<std::uint32_t>(row[8]);
  record.epoch = number<std::uint32_t>(row[9]);
  record.name_space = number<std::uint32_t>(row[10]);
  if (row[12] == "-") {
    record.state = number<std::uint32_t>(row[11]) == 1 ? RecordState::kSealed : RecordState::kVoid;
  } else {
    KeyId id;
    std::ranges::copy(testing::from_hex(row[12]), id.bytes.begin());
    record.state = RecordState::kSealed;
    record.key_tag = id.tag();
  }
  return record;
}

TEST(DiskFormatVectorsTest, RecordsOfSlotsAreThoseOfTheSecondImplementation) {
  for (const Row& row : rows_of("slots-record")) {
    SCOPED_TRACE(row[2] + " " + row[3]);
    const auto groups = number<std::uint64_t>(row[1]);
    const auto slot = number<std::uint32_t>(row[2]);
    const SlotRecord record = slot_record_of(row);
    EXPECT_EQ(kRecordsOffset + (slot * groups + record.group) * kSlotRecordBytes,
              std::stoull(row[13]));
    const auto bytes = bytes_of<kSlotRecordBytes>(row[14]);
    std::array<std::byte, kSlotRecordBytes> written{};
    encode(record, slot, written);
    EXPECT_EQ(written, bytes);
    const DecodedSlot found = decode_slot(bytes, slot);
    EXPECT_EQ(found.check, RecordCheck::kGood);
    EXPECT_EQ(found.record, record);
  }
}

TEST(DiskFormatVectorsTest, LastUsesAreThoseOfTheSecondImplementation) {
  for (const Row& row : rows_of("used")) {
    SCOPED_TRACE(row.back());
    const std::string text = row.size() > 2 ? testing::from_hex(row[2]) : "";
    const std::int64_t used = std::stoll(row[1]);
    EXPECT_EQ(used_seconds_of(text), used);
    if (used > 0) {
      EXPECT_EQ(used_text(used), text);
    }
  }
}

TEST(DiskFormatVectorsTest, WriteAccountsAreThoseOfTheSecondImplementation) {
  for (const Row& row : rows_of("writes-page")) {
    SCOPED_TRACE(row[2]);
    const WriteAccount account{std::stoll(row[1]), std::stoll(row[2]), std::stoull(row[3]),
                               static_cast<std::uint32_t>(std::stoul(row[4]))};
    const auto page = bytes_of<kPageBytes>(row[5]);
    EXPECT_EQ(page_of(account), page);
    EXPECT_EQ(decode_account(page), account);
  }
}

TEST(DiskFormatVectorsTest, HeadersOfWhatWasLearnedAreThoseOfTheSecondImplementation) {
  for (const Row& row : rows_of("learned-half")) {
    SCOPED_TRACE(row[1]);
    std::vector<std::byte> payload(std::stoull(row[3]));
    Rng rng(std::stoull(row[2]));
    for (std::size_t at = 0; at < payload.size(); at += 8) {
      const std::uint64_t word = rng.next();
      std::memcpy(payload.data() + at, &word, std::min<std::size_t>(8, payload.size() - at));
    }
    const LearnedHeader header{std::stoull(row[1]), static_cast<std::uint32_t>(payload.size()),
                               crc32c(payload)};
    const auto page = bytes_of<kPageBytes>(row[4]);
    EXPECT_EQ(page_of(header), page);
    EXPECT_EQ(decode_learned(page), header);
  }
}

TEST(DiskFormatVectorsTest, ExtentsAreAsLargeAsTheSecondImplementationHasThem) {
  for (const Row& row : rows_of("extent-bytes")) {
    EXPECT_EQ(choose_extent_bytes(std::stoull(row[1])), std::stoull(row[2])) << row[1];
  }
}

// Of columns 1 to 4: extents, extent_bytes, ranks, payload bytes.
RunGeometry geometry_of(const Row& row) {
  Layout layout;
  layout.block_tokens = Tokens(16);
  layout.ranks = number<std::uint16_t>(row[3]);
  for (const std::string& payload : testing::split(row[4], ',')) {
    const auto group = static_cast<std::uint16_t>(layout.groups.size());
    layout.groups.push_back({GroupId(group), {Bytes(std::stoull(payload))}});
  }
  const auto geometry = plan_runs(layout, std::stoull(row[2]), std::stoull(row[1]));
  EXPECT_TRUE(geometry.has_value());
  return geometry.value_or(RunGeometry{});
}

TEST(DiskFormatVectorsTest, RunsAndFramesLieWhereTheSecondImplementationHasThem) {
  for (const Row& row : rows_of("layout")) {
    SCOPED_TRACE(row[2] + " " + row[4]);
    const RunGeometry geometry = geometry_of(row);
    EXPECT_EQ(geometry.run_extents, std::stoull(row[5]));
    EXPECT_EQ(geometry.run_slots, std::stoull(row[6]));
  }
  for (const Row& row : rows_of("frame")) {
    SCOPED_TRACE(row[2] + " " + row[4] + " " + row[6]);
    const RunGeometry geometry = geometry_of(row);
    ASSERT_NE(geometry.run_slots, 0U);
    const auto slot = number<std::uint32_t>(row[6]);
    EXPECT_EQ(slot / geometry.run_slots, std::stoull(row[8]));
    EXPECT_EQ(geometry.offset(number<std::size_t>(row[5]), slot, number<std::uint16_t>(row[7])),
              std::stoull(row[9]));
  }
}

}  // namespace
}  // namespace terrace::tier::disk
