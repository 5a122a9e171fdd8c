#include "terrace/wire/pack.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/testing/vectors.h"
#include "terrace/wire/frame.h"
#include "terrace/wire/xxhash_internal.h"

namespace terrace::wire {
namespace {

Layout layout_of(const std::vector<std::vector<std::uint64_t>>& groups, std::uint16_t ranks) {
  Layout layout;
  layout.block_tokens = Tokens(16);
  layout.ranks = ranks;
  for (const auto& pieces : groups) {
    GroupLayout group{GroupId(static_cast<std::uint16_t>(layout.groups.size())), {}};
    for (const std::uint64_t bytes : pieces) group.piece_bytes.emplace_back(bytes);
    layout.groups.push_back(std::move(group));
  }
  return layout;
}

PackFooter example() {
  PackFooter footer;
  for (std::size_t i = 0; i < 32; ++i) {
    footer.content_digest[i] = static_cast<std::uint8_t>(0x40 + i);
    footer.layout_digest[i] = static_cast<std::uint8_t>(0x80 + i);
  }
  footer.block_tokens = Tokens(16);
  footer.ranks = 2;
  footer.payload_bytes = {8192, 5000};
  for (std::uint64_t i = 0; i < 4; ++i) footer.hashes.push_back({i << 60U, i});
  return footer;
}

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

Code code_of(const std::string& text) {
  const auto footer = decode_pack_footer(bytes_of(text));
  return footer.has_value() ? Code::kOk : footer.error().code();
}

// As another writer would close what is in `text`.
void seal(std::string& text) {
  text.resize(text.size() - 16);
  const auto check = xxh3_128(bytes_of(text));
  text.append(check.begin(), check.end());
}

TEST(PackTest, FramesLieOneAfterTheOtherByBlockGroupAndRank) {
  const PackGeometry pack(layout_of({{4096, 4096}, {5000}}, 2), 4);
  EXPECT_EQ(pack.frame_bytes(GroupId(0)), 4096U + 8192U);
  EXPECT_EQ(pack.frame_bytes(GroupId(1)), 4096U + 8192U);
  std::uint64_t offset = 0;
  for (std::uint32_t block = 0; block < 4; ++block) {
    for (std::uint16_t group = 0; group < 2; ++group) {
      const PackRange range = pack.shard_group(block, GroupId(group));
      EXPECT_EQ(range.offset, offset);
      EXPECT_EQ(range.bytes, 2 * pack.frame_bytes(GroupId(group)));
      offset += range.bytes;
    }
  }
  EXPECT_EQ(pack.footer_offset(), offset);
  EXPECT_EQ(pack.footer_bytes(), 4096U);
  EXPECT_EQ(pack.bytes(), offset + 4096);
}

TEST(PackTest, AFooterComesBackAndIsAsLongAsTheGeometrySays) {
  for (const std::uint32_t blocks : {1U, 4U, 250U, kMostPackBlocks}) {
    PackFooter footer = example();
    footer.hashes.resize(blocks, {7, 8});
    const std::string text = encode(footer);
    EXPECT_EQ(text.size(), PackGeometry(layout_of({{8192}, {5000}}, 2), blocks).footer_bytes());
    const std::string pack = std::string(5000, 'x') + text;
    const auto found = decode_pack_footer(bytes_of(pack));
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(*found, footer);
  }
}

TEST(PackTest, EveryFlippedBitOfAFooterIsTold) {
  const std::string whole = encode(example());
  // Each bit of what is not padding, then one in 61.
  constexpr std::size_t kDense = 2400;
  for (std::size_t bit = 0; bit < 8 * whole.size(); bit += bit < kDense ? 1 : 61) {
    std::string text = whole;
    text[bit / 8] = static_cast<char>(text[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_EQ(code_of(text), Code::kCorrupt) << bit;
  }
}

TEST(PackTest, ACutFooterIsTold) {
  const std::string whole = encode(example());
  for (std::size_t bytes = 0; bytes < whole.size(); ++bytes) {
    ASSERT_EQ(code_of(whole.substr(whole.size() - bytes)), Code::kCorrupt) << bytes;
    ASSERT_EQ(code_of(whole.substr(0, bytes)), Code::kCorrupt) << bytes;
  }
}

TEST(PackTest, AnotherVersionIsRefusedAndCountsThatCannotBeAreCorrupt) {
  std::string text = encode(example());
  text[8] = 2;
  seal(text);
  EXPECT_EQ(code_of(text), Code::kRefused);
  for (const std::size_t at : {12U, 16U, 18U}) {  // Blocks, groups, ranks.
    for (const char high : {'\x00', '\x7f', '\xff'}) {
      text = encode(example());
      text[at] = 0;
      text[at + 1] = high;
      seal(text);
      EXPECT_EQ(code_of(text), Code::kCorrupt) << at;
    }
  }
}

TEST(PackTest, RandomBytesAreNeverAFooter) {
  Rng rng(1);
  for (int round = 0; round < 2000; ++round) {
    std::string text = round % 2 == 0 ? encode(example()) : std::string(4096, '\0');
    for (int i = 0; i < 20; ++i) text[rng.below(text.size())] = static_cast<char>(rng.next());
    if (round % 4 < 2) seal(text);
    (void)decode_pack_footer(bytes_of(text));
  }
}

TEST(PackTest, GoldenBytesAndNamesAreThoseOfTheFormatDocument) {
  const std::string text = encode(example());
  EXPECT_EQ(testing::to_hex(text.substr(0, 24)),
            "5452435041434b4601000000040000000200020010000000");
  const PackFooter footer = example();
  const PackNames names(footer.content_digest, footer.layout_digest);
  EXPECT_EQ(names.folder(), "v1/a83b164b2b8e13a94e954d4af3843212/");
  EXPECT_EQ(names.pack(7, 4, {0xab00000000000000ULL, 1}),
            names.folder() + "g7/n4/ab/ab000000000000000000000000000001.pack");
}

// Those rows of docs/formats/vectors/pack.tsv, which a second implementation made from the document
// alone. None is a failure: a kind that was renamed must not pass for want of rows.
std::vector<std::vector<std::string>> rows_of(std::string_view kind) {
  auto rows = testing::read_vectors("pack.tsv");
  std::erase_if(rows, [&](const auto& row) { return row[0] != kind; });
  EXPECT_FALSE(rows.empty()) << kind;
  return rows;
}

std::array<std::uint8_t, 32> digest_of(const std::string& hex) {
  std::array<std::uint8_t, 32> digest{};
  std::ranges::copy(testing::from_hex(hex), digest.begin());
  return digest;
}

std::vector<std::uint64_t> numbers_of(const std::string& text) {
  std::vector<std::uint64_t> numbers;
  for (const std::string& number : testing::split(text, ',')) {
    numbers.push_back(std::stoull(number));
  }
  return numbers;
}

// Of columns 1 to 3: N, ranks, payload bytes.
PackGeometry geometry_of(const std::vector<std::string>& row) {
  std::vector<std::vector<std::uint64_t>> groups;
  for (const std::uint64_t bytes : numbers_of(row[3])) groups.push_back({bytes});
  return {layout_of(groups, static_cast<std::uint16_t>(std::stoul(row[2]))),
          static_cast<std::uint32_t>(std::stoul(row[1]))};
}

TEST(PackTest, NamesAreThoseOfTheSecondImplementation) {
  for (const auto& row : rows_of("name")) {
    SCOPED_TRACE(row[7]);
    const PackNames names(digest_of(row[1]), digest_of(row[2]));
    const auto generation = std::stoull(row[3]);
    const auto blocks = static_cast<std::uint32_t>(std::stoul(row[4]));
    const std::string key = row[5] == "-" ? "" : row[5];
    std::array<std::uint8_t, 16> hash{};
    std::ranges::copy(testing::from_hex(row[6]), hash.begin());
    EXPECT_EQ(names.pack(generation, blocks, SequenceHash::from_bytes(hash), key), row[7]);
    const auto found = parse_pack_name(row[7]);
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ("v1/" + std::string(found->name_space) + "/", names.folder());
    EXPECT_EQ(found->generation, generation);
    EXPECT_EQ(found->blocks, blocks);
    EXPECT_EQ(found->key, key);
  }
  for (const auto& row : rows_of("reset")) {
    SCOPED_TRACE(row[4]);
    const PackNames names(digest_of(row[1]), digest_of(row[2]));
    EXPECT_EQ(names.reset(std::stoull(row[3])), row[4]);
    EXPECT_EQ(names.generation_of(row[4]), std::stoull(row[3]));
  }
}

// Else the collector would take it for one, and remove it when it is old.
TEST(PackTest, NamesThatAreNearlyOnesAreNobodys) {
  const PackNames names(digest_of(rows_of("reset")[0][1]), digest_of(rows_of("reset")[0][2]));
  for (const auto& row : rows_of("other")) {
    EXPECT_EQ(parse_pack_name(row[1]), std::nullopt) << row[1];
    EXPECT_EQ(names.generation_of(row[1]), std::nullopt) << row[1];
    EXPECT_EQ(turn_of(row[1]), std::nullopt) << row[1];
  }
}

TEST(PackTest, FramesLieWhereTheSecondImplementationHasThem) {
  for (const auto& row : rows_of("frame")) {
    SCOPED_TRACE(row[3] + " " + row[4]);
    const PackGeometry pack = geometry_of(row);
    const GroupId group(static_cast<std::uint16_t>(std::stoul(row[5])));
    const PackRange range = pack.shard_group(static_cast<std::uint32_t>(std::stoul(row[4])), group);
    EXPECT_EQ(range.offset + std::stoull(row[6]) * pack.frame_bytes(group), std::stoull(row[7]));
  }
}

TEST(PackTest, FootersAreThoseOfTheSecondImplementation) {
  for (const auto& row : rows_of("footer")) {
    SCOPED_TRACE(row[1] + " " + row[3]);
    PackFooter footer;
    footer.ranks = static_cast<std::uint16_t>(std::stoul(row[2]));
    footer.payload_bytes = numbers_of(row[3]);
    footer.block_tokens = Tokens(std::stoull(row[4]));
    footer.content_digest = digest_of(row[5]);
    footer.layout_digest = digest_of(row[6]);
    std::string text = testing::from_hex(row[10]);
    Rng rng(std::stoull(row[7]));
    for (std::uint64_t block = 0; block < std::stoull(row[1]); ++block) {
      std::array<std::uint8_t, 16> hash{};
      for (std::size_t at = 0; at < hash.size(); at += 8) {
        const std::uint64_t word = rng.next();
        std::memcpy(hash.data() + at, &word, sizeof word);
      }
      footer.hashes.push_back(SequenceHash::from_bytes(hash));
      text.append(hash.begin(), hash.end());
    }
    text.resize(std::stoull(row[9]) - 24, '\0');
    text += testing::from_hex(row[11]);
    EXPECT_EQ(encode(footer), text);
    const auto found = decode_pack_footer(bytes_of(text));
    ASSERT_TRUE(found.has_value()) << found.error().message();
    EXPECT_EQ(*found, footer);
    EXPECT_EQ(geometry_of(row).footer_offset(), std::stoull(row[8]));
    EXPECT_EQ(geometry_of(row).footer_bytes(), text.size());
  }
}

TEST(PackTest, AResetsNameTellsItsGenerationAndNothingElseDoes) {
  const PackFooter footer = example();
  const PackNames names(footer.content_digest, footer.layout_digest);
  EXPECT_EQ(names.reset(17), names.resets() + "00000000000000000017");
  for (const std::uint64_t generation : {std::uint64_t{1}, kMostGeneration}) {
    EXPECT_EQ(names.generation_of(names.reset(generation)), generation);
  }
  for (const auto* other :
       {"", "17", "0000000000000000001x", "-0000000000000000017", "99999999999999999999",
        "000000000000000000017", "01000000000000000001", "18446744073709551615"}) {
    EXPECT_EQ(names.generation_of(names.resets() + other), std::nullopt) << other;
  }
  EXPECT_EQ(names.generation_of("v1/other/resets/00000000000000000017"), std::nullopt);
}

TEST(PackTest, APacksNameTellsWhatItIsAndNothingElseDoes) {
  const PackFooter footer = example();
  const PackNames names(footer.content_digest, footer.layout_digest);
  const std::string name = names.pack(7, 16, {0xab00000000000000ULL, 1});
  const auto found = parse_pack_name(name);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->name_space, names.folder().substr(3, 32));
  EXPECT_EQ(found->generation, 7U);
  EXPECT_EQ(found->blocks, 16U);
  // Nobody else's object is taken for a pack: it would be removed when it is old.
  for (std::size_t i = 0; i < name.size(); ++i) {
    std::string other = name;
    other[i] = other[i] == 'z' ? 'y' : 'z';
    EXPECT_EQ(parse_pack_name(other), std::nullopt) << other;
  }
  for (std::size_t length = 0; length < name.size(); ++length) {
    EXPECT_EQ(parse_pack_name(std::string_view(name).substr(0, length)), std::nullopt);
    EXPECT_EQ(parse_pack_name(std::string_view(name).substr(name.size() - length)), std::nullopt);
  }
  EXPECT_EQ(parse_pack_name(names.reset(7)), std::nullopt);
  EXPECT_EQ(parse_pack_name(names.pack(7, 0, {1, 1})), std::nullopt);
  EXPECT_EQ(parse_pack_name(names.pack(7, kMostPackBlocks + 1, {1, 1})), std::nullopt);
  EXPECT_EQ(parse_pack_name("x" + name), std::nullopt);
  // A second name for what has one: it would be counted as another pack.
  for (const char* const part : {"/g7/", "/n16/"}) {
    std::string other = name;
    other.insert(other.find(part) + 2, "0");
    EXPECT_EQ(parse_pack_name(other), std::nullopt) << other;
  }
  EXPECT_TRUE(parse_pack_name(names.pack(0, 1, {1, 1})).has_value());
  EXPECT_EQ(parse_pack_name(name + "x"), std::nullopt);
}

TEST(PackTest, ThePacksOfEachKeyAreThePacksOfAllForWhoCollectsOldOnes) {
  const PackFooter footer = example();
  const PackNames names(footer.content_digest, footer.layout_digest);
  const SequenceHash last{0xab00000000000000ULL, 1};
  const std::string name = names.pack(7, 16, last, "0123456789abcdef");
  EXPECT_NE(name.find("/n16k0123456789abcdef/ab/"), std::string::npos) << name;
  const std::string plain_name = names.pack(7, 16, last);
  const auto plain = parse_pack_name(plain_name);
  auto found = parse_pack_name(name);
  ASSERT_TRUE(plain && found);
  EXPECT_EQ(plain->key, "");
  EXPECT_EQ(found->key, "0123456789abcdef");
  found->key = {};
  EXPECT_EQ(found, plain);
  EXPECT_EQ(parse_pack_name(names.pack(7, 16, last, "0123456789abcde")), std::nullopt);
  EXPECT_EQ(parse_pack_name(names.pack(7, 16, last, "0123456789abcdex")), std::nullopt);
  EXPECT_EQ(parse_pack_name(names.pack(7, 0, last, "0123456789abcdef")), std::nullopt);
}

TEST(PackTest, ATurnsNameTellsItsNumberAndNothingElseDoes) {
  EXPECT_EQ(turn_name(1'800'000'000), "turns/00000000001800000000");
  EXPECT_EQ(turn_of(turn_name(1'800'000'000)), 1'800'000'000U);
  for (const auto* other : {"turns/", "turns/17", "turns/0000000000180000000x", "v1/turns/1",
                            "turns/-0000000001800000000", "turns/000000000018000000001"}) {
    EXPECT_EQ(turn_of(other), std::nullopt) << other;
  }
}

}  // namespace
}  // namespace terrace::wire
