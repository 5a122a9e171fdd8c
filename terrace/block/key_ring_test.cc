#include "terrace/block/key_ring.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "terrace/block/hkdf.h"
#include "terrace/testing/vectors.h"

namespace terrace {
namespace {

std::span<const std::uint8_t> bytes_of(const std::string& text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

std::string hex_of(std::span<const std::uint8_t> bytes) {
  return testing::to_hex({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

std::array<std::uint8_t, 32> digest_of(const std::string& hex) {
  std::array<std::uint8_t, 32> digest{};
  std::ranges::copy(bytes_of(testing::from_hex(hex)), digest.begin());
  return digest;
}

Secret secret_of(const std::string& hex) { return *parse_master_key(hex); }

const std::string kText = "terrace-key-1 " + std::string(62, '3') + "aF";

TEST(HkdfTest, AnswersThePublishedVectors) {
  struct Case {
    std::string key, salt, info, out;
  };
  const Case cases[] = {
      {std::string(22, '\x0b'), testing::from_hex("000102030405060708090a0b0c"),
       testing::from_hex("f0f1f2f3f4f5f6f7f8f9"),
       "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"},
      {std::string(22, '\x0b'), "", "",
       "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"},
  };
  for (const Case& item : cases) {
    BriefSecret out;
    hkdf_sha256(bytes_of(item.key), bytes_of(item.salt), bytes_of(item.info), out.bytes());
    EXPECT_EQ(hex_of(out.bytes()), item.out);
  }
}

TEST(HkdfTest, TakesKeysThatAreLongerThanABlock) {
  // RFC 5869, case 2: 80 bytes of key, salt and info; its first 32 bytes.
  std::string key(80, 0);
  std::string salt(80, 0);
  std::string info(80, 0);
  for (int i = 0; i < 80; ++i) {
    key[static_cast<std::size_t>(i)] = static_cast<char>(i);
    salt[static_cast<std::size_t>(i)] = static_cast<char>(0x60 + i);
    info[static_cast<std::size_t>(i)] = static_cast<char>(0xb0 + i);
  }
  BriefSecret out;
  hkdf_sha256(bytes_of(key), bytes_of(salt), bytes_of(info), out.bytes());
  EXPECT_EQ(hex_of(out.bytes()),
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c");
}

TEST(KeyRingTest, DerivesWhatTheVectorsSay) {
  int rows = 0;
  for (const auto& row : testing::read_vectors("encryption.tsv")) {
    if (row[0] == "key") {
      EXPECT_EQ(key_id_of(secret_of(row[1])).hex(), row[2]);
      ++rows;
    } else if (row[0] == "namespace") {
      KeyRing ring;
      ring.add(secret_of(row[1]));
      const auto keys = NamespaceKeys::derive(ring, digest_of(row[2]), digest_of(row[3]));
      ASSERT_TRUE(keys.has_value());
      EXPECT_EQ(hex_of(keys->current().secret.bytes()), row[4]);
      ++rows;
    }
  }
  EXPECT_EQ(rows, 4);
}

TEST(KeyRingTest, ReadsBothWaysToWriteAKey) {
  const auto key = parse_master_key(kText);
  ASSERT_TRUE(key.has_value()) << key.error().text();
  EXPECT_EQ(master_key_text(*key), "terrace-key-1 " + std::string(62, '3') + "af\n");
  EXPECT_EQ(key_id_of(*parse_master_key(kText.substr(14))), key_id_of(*key));
  EXPECT_EQ(key_id_of(*parse_master_key(master_key_text(*key))), key_id_of(*key));
}

TEST(KeyRingTest, RefusesWhatIsNoKeyWithoutRepeatingIt) {
  const std::vector<std::string> wrong = {
      "",
      "terrace-key-1 ",
      kText.substr(0, kText.size() - 1),
      kText + "0",
      kText + "\n\n",
      "terrace-key-2 " + std::string(64, '3'),
      kText.substr(0, kText.size() - 1) + "g",
      std::string(64, '0'),
  };
  for (const std::string& text : wrong) {
    const auto key = parse_master_key(text);
    ASSERT_FALSE(key.has_value()) << text;
    EXPECT_EQ(key.error().code(), Code::kInvalid);
    EXPECT_EQ(key.error().message().find("3333"), std::string::npos);
  }
}

TEST(KeyRingTest, TheFirstKeyWritesAndAllRead) {
  KeyRing ring;
  ring.add(secret_of(std::string(64, '1')));
  ring.add(secret_of(std::string(64, '2')));
  ring.add(secret_of(std::string(64, '1')));
  ASSERT_EQ(ring.keys().size(), 2U);
  const auto keys =
      NamespaceKeys::derive(ring, digest_of(std::string(64, 'a')), digest_of(std::string(64, 'b')));
  ASSERT_TRUE(keys.has_value());
  const KeyId first = key_id_of(secret_of(std::string(64, '1')));
  const KeyId second = key_id_of(secret_of(std::string(64, '2')));
  const KeyId other = key_id_of(secret_of(std::string(64, '3')));
  EXPECT_EQ(keys->current().id, first);
  ASSERT_NE(keys->find(second), nullptr);
  EXPECT_EQ(keys->find(second)->id, second);
  EXPECT_EQ(keys->find(other), nullptr);
  EXPECT_TRUE(keys->has_tag(second.tag()));
  EXPECT_FALSE(keys->has_tag(other.tag()));
  EXPECT_EQ(ring.ids(), first.hex() + ", " + second.hex());
  EXPECT_EQ(NamespaceKeys::derive(KeyRing(), digest_of(""), digest_of("")).error().code(),
            Code::kInvalid);
}

TEST(SecretTest, IsWipedWhenItGoesAndMovesWhole) {
  auto secret = Secret::create();
  ASSERT_TRUE(secret.has_value());
  EXPECT_TRUE(std::ranges::all_of(secret->bytes(), [](std::uint8_t b) { return b == 0; }));
  secret->bytes()[5] = 7;
  const std::uint8_t* const place = secret->bytes().data();
  const Secret moved = *std::move(secret);
  EXPECT_EQ(moved.bytes().data(), place);
  EXPECT_EQ(moved.bytes()[5], 7);
  std::array<std::uint8_t, 3> bytes{1, 2, 3};
  wipe(bytes);
  EXPECT_EQ(bytes, (std::array<std::uint8_t, 3>{}));
}

}  // namespace
}  // namespace terrace
