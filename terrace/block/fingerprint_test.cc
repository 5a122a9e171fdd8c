#include "terrace/block/fingerprint.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "terrace/base/rng.h"
#include "terrace/testing/vectors.h"

namespace terrace {
namespace {

Fingerprint example() {
  return {.content = {{"model", "SmolLM2-135M"}, {"dtype", "float32"}},
          .layout = {{"block_tokens", "32"}}};
}

std::string random_bytes(Rng& rng, std::size_t least) {
  std::string bytes(least + rng.below(6), '\0');
  for (char& c : bytes) c = static_cast<char>(rng.below(256));
  return bytes;
}

TEST(FingerprintTest, DigestsEqualThePublishedVectors) {
  for (const auto& row : testing::read_vectors("fingerprint.tsv")) {
    std::vector<FingerprintField> fields;
    for (const auto& field : testing::split(row.at(2), ';')) {
      const auto equals = field.find('=');
      fields.push_back({testing::from_hex(field.substr(0, equals)),
                        testing::from_hex(field.substr(equals + 1))});
    }
    const bool is_content = row.at(1) == "content";
    const Fingerprint fingerprint{.content = is_content ? fields : std::vector<FingerprintField>{},
                                  .layout = is_content ? std::vector<FingerprintField>{} : fields};
    EXPECT_EQ(is_content ? fingerprint.content_digest() : fingerprint.layout_digest(), row.at(3))
        << row.at(0);
  }
}

TEST(FingerprintTest, OrderOfFieldsDoesNotMatterToDigestsAndDifferences) {
  Fingerprint turned = example();
  std::swap(turned.content[0], turned.content[1]);
  EXPECT_EQ(turned.content_digest(), example().content_digest());
  EXPECT_TRUE(differences(example(), turned).empty());
}

TEST(FingerprintTest, EachPartChangesOnlyItsOwnDigest) {
  Fingerprint other = example();
  other.layout[0].value = "64";
  EXPECT_EQ(other.content_digest(), example().content_digest());
  EXPECT_NE(other.layout_digest(), example().layout_digest());
}

TEST(FingerprintTest, HexDigestSpellsTheDigestBytes) {
  const auto bytes = example().layout_digest_bytes();
  EXPECT_EQ(testing::to_hex(std::string(bytes.begin(), bytes.end())), example().layout_digest());
}

TEST(FingerprintTest, TextIsOneReadableLineAField) {
  EXPECT_EQ(example().text(),
            "content.model=SmolLM2-135M\ncontent.dtype=float32\nlayout.block_tokens=32\n");
  const Fingerprint odd{.content = {{"a=b\\", "x=y\\\n\xff"}}, .layout = {}};
  EXPECT_EQ(odd.text(), "content.a\\x3db\\\\=x=y\\\\\\x0a\\xff\n");
}

TEST(FingerprintTest, TextRoundTripsAnyBytes) {
  const std::uint64_t seed = 5;
  SCOPED_TRACE(seed);
  Rng rng(seed);
  for (int round = 0; round < 3000; ++round) {
    Fingerprint original;
    for (std::uint64_t i = rng.below(5); i > 0; --i) {
      // The counter keeps names unique.
      original.content.push_back({random_bytes(rng, 1) + std::to_string(i), random_bytes(rng, 0)});
      original.layout.push_back({random_bytes(rng, 1) + std::to_string(i), random_bytes(rng, 0)});
    }
    const std::string text = original.text();
    ASSERT_TRUE(
        std::ranges::all_of(text, [](char c) { return c == '\n' || (c >= 0x20 && c <= 0x7E); }));
    const auto parsed = Fingerprint::parse(text);
    ASSERT_TRUE(parsed.has_value()) << parsed.error().text();
    ASSERT_EQ(*parsed, original);
  }
}

TEST(FingerprintTest, ParseTakesPlainLinesAsAConnectorWritesThem) {
  const auto parsed = Fingerprint::parse("content.path=/models/\xc3\x9f=1\nlayout.isa=avx512");
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->content[0].value, "/models/\xc3\x9f=1");
  EXPECT_EQ(parsed->layout[0].name, "isa");
}

TEST(FingerprintTest, ParseNamesTheLineThatIsWrong) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"content.a=1\nmodel=x\n", "fingerprint line 2: neither content. nor layout."},
      {"content.a\n", "fingerprint line 1: no ="},
      {"content.=1\n", "fingerprint line 1: an empty name"},
      {"content.a=1\ncontent.\\x61=2\n", "fingerprint line 2: a name given twice"},
      {"content.a=\\", "fingerprint line 1: a bad escape"},
      {"content.a=\\x", "fingerprint line 1: a bad escape"},
      {"content.a=\\x4", "fingerprint line 1: a bad escape"},
      {"content.a=\\x4G", "fingerprint line 1: a bad escape"},
      {"content.a=\\n", "fingerprint line 1: a bad escape"},
      {"\n", "fingerprint line 1: neither content. nor layout."},
      {"content.a=" + std::string(1U << 20U, 'x'), "fingerprint: more than 1 MiB"},
  };
  for (const auto& [text, message] : cases) {
    const auto parsed = Fingerprint::parse(text);
    ASSERT_FALSE(parsed.has_value()) << message;
    EXPECT_EQ(parsed.error().code(), Code::kInvalid);
    EXPECT_EQ(parsed.error().message(), message);
  }
}

// What would be written could not be read back, and the blocks below it never be found again.
TEST(FingerprintTest, WhatCannotBeReadBackIsRefusedByTheFieldsName) {
  EXPECT_TRUE(example().validate().is_ok());
  Fingerprint twice = example();
  twice.content.push_back({"dtype", "float32"});
  EXPECT_EQ(twice.validate().code(), Code::kInvalid);
  EXPECT_EQ(twice.validate().message(), "fingerprint: content.dtype is given twice; give it once");
  EXPECT_FALSE(Fingerprint::parse(twice.text()).has_value());
  Fingerprint nameless = example();
  nameless.layout.push_back({"", "x"});
  EXPECT_EQ(nameless.validate().message(), "fingerprint: a field of layout has no name");
  Fingerprint long_one = example();
  long_one.content[0].value.assign(1U << 20U, 'x');
  EXPECT_EQ(long_one.validate().message(), "fingerprint: more than 1 MiB");
}

TEST(FingerprintTest, AFieldFromSomebodyElseIsTakenOnce) {
  Fingerprint fingerprint = example();
  ASSERT_TRUE(fingerprint.add_content("tenant", "t", "the setting tenant").is_ok());
  EXPECT_EQ(fingerprint.content.back(), (FingerprintField{"tenant", "t"}));
  const Status again = fingerprint.add_content("tenant", "t", "the setting tenant");
  EXPECT_EQ(again.code(), Code::kInvalid);
  EXPECT_EQ(again.message(),
            "fingerprint: content.tenant is given twice, by the fingerprint and by the setting "
            "tenant; leave one of them out");
  EXPECT_TRUE(fingerprint.validate().is_ok());
}

TEST(FingerprintTest, OneNameMayStandInBothParts) {
  EXPECT_TRUE(Fingerprint::parse("content.a=1\nlayout.a=2\n").has_value());
}

TEST(FingerprintTest, DifferencesNameFieldsThatDifferAndThoseOnlyOneSideHas) {
  Fingerprint theirs = example();
  theirs.content[1].value = "bfloat16";
  theirs.content.push_back({"tenant", "t"});
  theirs.layout.clear();
  const std::vector<FieldDifference> expected = {
      {"content", "dtype", "float32", "bfloat16"},
      {"content", "tenant", std::nullopt, "t"},
      {"layout", "block_tokens", "32", std::nullopt},
  };
  EXPECT_EQ(differences(example(), theirs), expected);
}

}  // namespace
}  // namespace terrace
