#include "terrace/wire/frame.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/testing/vectors.h"
#include "terrace/wire/xxhash_internal.h"

namespace terrace::wire {
namespace {

using Page = std::array<std::byte, kFrameHeaderBytes>;

FrameHeader example() {
  FrameHeader header;
  for (std::size_t i = 0; i < 32; ++i) {
    header.content_digest[i] = static_cast<std::uint8_t>(0x40 + i);
    header.layout_digest[i] = static_cast<std::uint8_t>(0x80 + i);
  }
  header.hash = {0x0001020304050607ULL, 0x08090a0b0c0d0e0fULL};
  header.group = GroupId(0x0102);
  header.rank = RankId(0x0304);
  header.generation = Generation(0x05060708);
  header.era = 0x1112131415161718ULL;
  header.payload_bytes = 737'280;
  header.payload_checksum = {0x1122334455667788ULL};
  return header;
}

Page page_of(const FrameHeader& header) {
  Page page;
  page.fill(std::byte{0xEE});
  encode(header, page);
  return page;
}

// After a change of the page: makes its header checksum right again, as another writer would.
void seal(Page& page) {
  const auto check = xxh3_128(std::span(page).first<kFrameHeaderBytes - 16>());
  std::transform(check.begin(), check.end(), page.end() - 16,
                 [](std::uint8_t byte) { return std::byte{byte}; });
}

Code code_of(const Page& page) {
  const auto header = decode_frame(page);
  return header.has_value() ? Code::kOk : header.error().code();
}

std::string hex_of(std::span<const std::byte> bytes) {
  std::string text(bytes.size(), '\0');
  std::transform(bytes.begin(), bytes.end(), text.begin(),
                 [](std::byte byte) { return static_cast<char>(byte); });
  return testing::to_hex(text);
}

TEST(FrameTest, GoldenBytesAreThoseOfTheFormatDocument) {
  const Page page = page_of(example());
  EXPECT_EQ(hex_of(std::span(page).first<128>()),
            "5452434652414d45"
            "01000000"
            "0000"
            "0201"
            "0403"
            "0000"
            "08070605"
            "00400b0000000000"
            "8877665544332211"
            "000102030405060708090a0b0c0d0e0f"
            "404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f"
            "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"
            "0000000000000000");
  const auto is_zero = [](std::byte byte) { return byte == std::byte{0}; };
  EXPECT_TRUE(std::all_of(page.begin() + 128, page.begin() + 192, is_zero));
  EXPECT_EQ(hex_of(std::span(page).subspan<192, 8>()), "1817161514131211");
  EXPECT_TRUE(std::all_of(page.begin() + 200, page.end() - 16, is_zero));
  EXPECT_EQ(hex_of(std::span(page).last<16>()), "c893534829960bdbbbc8fc674de9be60");
}

TEST(FrameTest, PagesAreWhatTheVectorsSay) {
  int rows = 0;
  for (const auto& row : testing::read_vectors("frame.tsv")) {
    FrameHeader header;
    const auto bytes_into = [](const std::string& hex, auto& target) {
      std::ranges::copy(testing::from_hex(hex), target.begin());
    };
    std::array<std::uint8_t, 16> hash{};
    bytes_into(row[0], hash);
    header.hash = SequenceHash::from_bytes(hash);
    bytes_into(row[1], header.content_digest);
    bytes_into(row[2], header.layout_digest);
    header.group = GroupId(static_cast<std::uint16_t>(std::stoul(row[3])));
    header.rank = RankId(static_cast<std::uint16_t>(std::stoul(row[4])));
    header.generation = Generation(static_cast<std::uint32_t>(std::stoul(row[5])));
    header.era = std::stoull(row[6]);
    header.payload_bytes = std::stoull(row[7]);
    header.payload_checksum = {std::stoull(row[8])};
    const Page page = page_of(header);
    EXPECT_EQ(hex_of(std::span(page).first<200>()), row[9]);
    EXPECT_EQ(hex_of(std::span(page).last<16>()), row[10]);
    const auto decoded = decode_frame(page);
    ASSERT_TRUE(decoded.has_value());
    EXPECT_EQ(*decoded, header);
    ++rows;
  }
  EXPECT_EQ(rows, 4);
}

TEST(FrameTest, RoundTripsAnyHeader) {
  const std::uint64_t seed = 12;
  SCOPED_TRACE(seed);
  Rng rng(seed);
  for (int round = 0; round < 1000; ++round) {
    FrameHeader header;
    for (auto& byte : header.content_digest) byte = static_cast<std::uint8_t>(rng.next());
    for (auto& byte : header.layout_digest) byte = static_cast<std::uint8_t>(rng.next());
    header.hash = {rng.next(), rng.next()};
    header.group = GroupId(static_cast<std::uint16_t>(rng.next()));
    header.rank = RankId(static_cast<std::uint16_t>(rng.next()));
    header.generation = Generation(static_cast<std::uint32_t>(rng.next()));
    header.era = rng.next();
    header.payload_bytes = rng.next();
    header.payload_checksum = {rng.next()};
    if (rng.chance(50)) {
      header.codec = FrameCodec::kAes256Gcm;
      for (auto& byte : header.seal.key.bytes) byte = static_cast<std::uint8_t>(rng.next());
      for (auto& byte : header.seal.salt) byte = static_cast<std::uint8_t>(rng.next());
      for (auto& byte : header.seal.hidden) byte = static_cast<std::uint8_t>(rng.next());
      for (auto& byte : header.seal.tag) byte = static_cast<std::uint8_t>(rng.next());
    }
    const auto decoded = decode_frame(page_of(header));
    ASSERT_TRUE(decoded.has_value()) << decoded.error().text();
    ASSERT_EQ(*decoded, header);
  }
}

TEST(FrameTest, EveryBitFlipOfTheHeaderPageIsCorrupt) {
  Page page = page_of(example());
  for (std::size_t bit = 0; bit < page.size() * 8; ++bit) {
    const auto mask = std::byte{1} << static_cast<int>(bit % 8);
    page[bit / 8] ^= mask;
    ASSERT_EQ(code_of(page), Code::kCorrupt) << "bit " << bit;
    page[bit / 8] ^= mask;
  }
  EXPECT_EQ(code_of(page), Code::kOk);
}

TEST(FrameTest, AZeroedOrTornPageIsCorrupt) {
  const Page whole = page_of(example());
  for (std::size_t kept = 0; kept < whole.size(); kept += 512) {
    Page page = whole;
    std::fill(page.begin() + static_cast<std::ptrdiff_t>(kept), page.end(), std::byte{0});
    ASSERT_EQ(code_of(page), Code::kCorrupt) << kept;
  }
}

TEST(FrameTest, TwoHeadersMixedAtASectorBoundaryAreCorrupt) {
  FrameHeader other = example();
  other.generation = Generation(9);
  const Page first = page_of(example());
  const Page second = page_of(other);
  for (std::size_t cut = 512; cut < first.size(); cut += 512) {
    Page page = first;
    std::copy(second.begin() + static_cast<std::ptrdiff_t>(cut), second.end(),
              page.begin() + static_cast<std::ptrdiff_t>(cut));
    ASSERT_EQ(code_of(page), Code::kCorrupt) << cut;
  }
}

TEST(FrameTest, AnotherVersionCodecOrUsedReserveIsRefusedNotCorrupt) {
  for (const std::size_t at : {8UL, 12UL, 18UL, 120UL, 200UL, 4079UL}) {
    Page page = page_of(example());
    page[at] = std::byte{2};
    seal(page);
    EXPECT_EQ(code_of(page), Code::kRefused) << at;
  }
}

TEST(FrameTest, TheIdentityIsTheHeaderWithoutWhatEncryptionMakes) {
  FrameHeader header = example();
  const auto identity = frame_identity(header);
  header.payload_checksum = {1};
  header.seal.hidden.fill(1);
  header.seal.tag.fill(1);
  EXPECT_EQ(frame_identity(header), identity);
  header.seal.salt[0] = 1;
  EXPECT_NE(frame_identity(header), identity);
  header.seal.salt[0] = 0;
  header.era ^= 1;
  EXPECT_NE(frame_identity(header), identity);
}

TEST(FrameTest, AnotherMagicIsCorruptEvenWhenSealed) {
  Page page = page_of(example());
  page[0] = std::byte{'X'};
  seal(page);
  EXPECT_EQ(code_of(page), Code::kCorrupt);
}

}  // namespace
}  // namespace terrace::wire
