#include "terrace/block/sequence_hash.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <numeric>
#include <optional>

#include "terrace/base/check.h"
#include "terrace/base/rng.h"
#include "terrace/block/sequence_hash_internal.h"
#include "terrace/testing/vectors.h"

namespace terrace {
namespace {

std::vector<std::uint32_t> counting(std::uint32_t first, std::size_t count) {
  std::vector<std::uint32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

std::vector<SequenceHash> hashes_of(std::uint64_t block_tokens, std::vector<ExtraKey> extra,
                                    const std::vector<std::uint32_t>& tokens) {
  SequenceChain chain(Tokens(block_tokens), std::move(extra));
  chain.append(tokens);
  return {chain.hashes().begin(), chain.hashes().end()};
}

ExtraKey salt(std::string identity) { return {ExtraKey::Kind::kSalt, std::move(identity)}; }
ExtraKey image(std::string identity, std::uint64_t first, std::uint64_t count) {
  return {ExtraKey::Kind::kMultimodal, std::move(identity), first, count};
}

ExtraKey parse_extra(const std::string& text) {
  const auto parts = testing::split(text, ':');
  return {static_cast<ExtraKey::Kind>(std::stoi(parts[0])), testing::from_hex(parts[1]),
          std::stoull(parts[2]), std::stoull(parts[3])};
}

TEST(SequenceHashTest, EqualsThePublishedVectors) {
  for (auto row : testing::read_vectors("sequence-hash.tsv")) {
    row.resize(5);
    std::vector<std::uint32_t> tokens;
    for (const auto& token : testing::split(row[2], ',')) {
      tokens.push_back(static_cast<std::uint32_t>(std::stoul(token)));
    }
    std::vector<ExtraKey> extra;
    for (const auto& key : testing::split(row[3], ';')) extra.push_back(parse_extra(key));
    std::vector<std::string> hashes;
    for (const auto& hash : hashes_of(std::stoull(row[1]), extra, tokens)) {
      hashes.push_back(hash.hex());
    }
    EXPECT_EQ(hashes, testing::split(row[4], ',')) << row[0];
  }
}

TEST(SequenceHashTest, BytesAndHexAreTheFirstSixteenDigestBytes) {
  const SequenceHash hash{0x0102030405060708ULL, 0x090a0b0c0d0e0f10ULL};
  EXPECT_EQ(hash.hex(), "0102030405060708090a0b0c0d0e0f10");
  const auto bytes = hash.bytes();
  for (std::size_t i = 0; i < bytes.size(); ++i) EXPECT_EQ(bytes[i], i + 1);
  EXPECT_EQ(SequenceHash::from_bytes(bytes), hash);
}

TEST(SequenceHashTest, AnyCuttingOfTheTokensGivesTheSameChain) {
  const std::uint64_t seed = 20240611;
  SCOPED_TRACE(seed);
  Rng rng(seed);
  for (int round = 0; round < 300; ++round) {
    const std::uint64_t block_tokens = 1 + rng.below(40);
    const auto tokens = counting(static_cast<std::uint32_t>(rng.below(1000)), rng.below(400));
    const std::vector<ExtraKey> extra = {salt("s"), image("i", rng.below(200), rng.below(90))};
    SequenceChain chain(Tokens(block_tokens), extra);
    for (std::size_t at = 0; at < tokens.size();) {
      const std::size_t part = std::min<std::size_t>(rng.below(70), tokens.size() - at);
      chain.append(std::span(tokens).subspan(at, part));
      at += part;
      ASSERT_EQ(chain.hashes().size(), at / block_tokens);
      ASSERT_EQ(chain.token_count(), Tokens(at));
    }
    ASSERT_TRUE(std::ranges::equal(chain.hashes(), hashes_of(block_tokens, extra, tokens)));
  }
}

TEST(SequenceHashTest, EarlierHashesStandWhereTheyWereWhenTokensAreAppended) {
  SequenceChain chain(Tokens(4), {});
  chain.append(counting(0, 9));
  const std::vector<SequenceHash> before(chain.hashes().begin(), chain.hashes().end());
  chain.append(counting(9, 100));
  EXPECT_TRUE(std::equal(before.begin(), before.end(), chain.hashes().begin()));
}

TEST(SequenceHashTest, EverythingThatChangesTheKvChangesTheHash) {
  const auto tokens = counting(0, 64);
  const auto plain = hashes_of(16, {}, tokens);
  EXPECT_NE(hashes_of(32, {}, tokens)[0], plain[1]);
  EXPECT_NE(hashes_of(16, {salt("a")}, tokens)[0], plain[0]);
  EXPECT_NE(hashes_of(16, {salt("a")}, tokens)[3], plain[3]);
  EXPECT_NE(hashes_of(16, {salt("a")}, tokens)[0], hashes_of(16, {salt("b")}, tokens)[0]);
  EXPECT_NE(hashes_of(16, {{ExtraKey::Kind::kLora, "a"}}, tokens)[0],
            hashes_of(16, {salt("a")}, tokens)[0]);
  EXPECT_NE(hashes_of(16, {salt("a"), salt("b")}, tokens)[0],
            hashes_of(16, {salt("b"), salt("a")}, tokens)[0]);
  auto other = tokens;
  other[0] ^= 0x80000000U;
  EXPECT_NE(hashes_of(16, {}, other)[3], plain[3]);
}

TEST(SequenceHashTest, AnItemEntersExactlyTheBlocksThatItOverlapsAndTheirSuccessors) {
  const auto tokens = counting(0, 64);
  const auto plain = hashes_of(16, {}, tokens);
  EXPECT_EQ(hashes_of(16, {image("i", 16, 16)}, tokens)[0], plain[0]);
  EXPECT_NE(hashes_of(16, {image("i", 16, 16)}, tokens)[1], plain[1]);
  EXPECT_NE(hashes_of(16, {image("i", 15, 1)}, tokens)[0], plain[0]);
  EXPECT_EQ(hashes_of(16, {image("i", 64, 1)}, tokens), plain);
  EXPECT_EQ(hashes_of(16, {image("i", 3, 0)}, tokens), plain);
  // Where it starts counts, also when it started in an earlier block; and where it ends.
  EXPECT_NE(hashes_of(16, {image("i", 1, 8)}, tokens)[0],
            hashes_of(16, {image("i", 2, 8)}, tokens)[0]);
  EXPECT_NE(hashes_of(16, {image("i", 1, 8)}, tokens)[0],
            hashes_of(16, {image("i", 1, 9)}, tokens)[0]);
  // An item reaching past the last representable position does not wrap around to the first block.
  EXPECT_EQ(hashes_of(16, {image("i", 40, UINT64_MAX)}, tokens)[1], plain[1]);
  EXPECT_NE(hashes_of(16, {image("i", 40, UINT64_MAX)}, tokens)[2], plain[2]);
  EXPECT_NE(hashes_of(16, {image("i", 0, UINT64_MAX)}, tokens)[0], plain[0]);
}

TEST(SequenceHashTest, BlockSizesOutsideTheAllowedRangeAreABreach) {
  EXPECT_THROW(SequenceChain(Tokens(0), {}), base::Breach);
  EXPECT_THROW(SequenceChain(Tokens((1ULL << 20U) + 1), {}), base::Breach);
}

// What one block's message says, read back from its bytes alone.
struct Decoded {
  std::array<std::uint8_t, 16> parent{};
  std::vector<std::uint32_t> tokens;
  std::vector<ExtraKey> entries;  // first_token = relative position for items.
};

class MessageReader {
 public:
  explicit MessageReader(std::span<const std::uint8_t> bytes) : rest_(bytes) {}
  template <typename T>
  T take() {
    T value{};
    take_into(&value, sizeof(T));
    return value;
  }
  void take_into(void* out, std::size_t count) {
    if (count > rest_.size()) throw std::runtime_error("message cut");
    if (count != 0) std::memcpy(out, rest_.data(), count);
    rest_ = rest_.subspan(count);
  }
  [[nodiscard]] bool is_at_end() const { return rest_.empty(); }

 private:
  std::span<const std::uint8_t> rest_;
};

Decoded decode(std::span<const std::uint8_t> message) {
  MessageReader reader(message);
  Decoded out;
  (void)reader.take<std::uint64_t>();  // Domain.
  out.tokens.resize(reader.take<std::uint32_t>());
  const auto entries = reader.take<std::uint32_t>();
  reader.take_into(out.parent.data(), out.parent.size());
  reader.take_into(out.tokens.data(), out.tokens.size() * sizeof(std::uint32_t));
  for (std::uint32_t i = 0; i < entries; ++i) {
    ExtraKey entry{static_cast<ExtraKey::Kind>(reader.take<std::uint8_t>()), ""};
    entry.identity.resize(reader.take<std::uint64_t>());
    if (entry.kind == ExtraKey::Kind::kMultimodal) {
      entry.first_token = reader.take<std::uint64_t>();
      entry.token_count = reader.take<std::uint64_t>();
    }
    reader.take_into(entry.identity.data(), entry.identity.size());
    out.entries.push_back(std::move(entry));
  }
  if (!reader.is_at_end()) throw std::runtime_error("bytes left over");
  return out;
}

std::string random_identity(Rng& rng) {
  std::string identity(rng.below(4), '\0');
  for (char& c : identity) c = static_cast<char>(rng.below(3));
  return identity;
}

// A message that can be read back to all that went into it cannot belong to two inputs.
TEST(SequenceHashTest, EveryMessageReadsBackToItsInputs) {
  const std::uint64_t seed = 77;
  SCOPED_TRACE(seed);
  Rng rng(seed);
  for (int round = 0; round < 20'000; ++round) {
    const std::uint64_t block = rng.below(4);
    std::vector<std::uint32_t> tokens(1 + rng.below(6));
    for (auto& token : tokens) token = static_cast<std::uint32_t>(rng.below(4));
    std::vector<ExtraKey> extra;
    for (std::uint64_t i = rng.below(4); i > 0; --i) {
      const auto kind = static_cast<ExtraKey::Kind>(1 + rng.below(3));
      extra.push_back({kind, random_identity(rng), rng.below(20), rng.below(20)});
    }
    const SequenceHash parent{rng.next(), rng.next()};
    std::vector<std::uint8_t> message;
    sequence_hash_internal::encode_block(message, parent, block, tokens, extra);
    const Decoded read = decode(message);
    ASSERT_EQ(read.parent, parent.bytes());
    ASSERT_EQ(read.tokens, tokens);
    std::size_t next = 0;
    for (const ExtraKey& key : extra) {
      const bool is_item = key.kind == ExtraKey::Kind::kMultimodal;
      const std::uint64_t start = block * tokens.size();
      const bool is_in =
          is_item ? std::max(key.first_token, start) <
                        std::min(key.first_token + key.token_count, start + tokens.size())
                  : block == 0;
      if (!is_in) continue;
      ASSERT_LT(next, read.entries.size());
      const ExtraKey& entry = read.entries[next++];
      ASSERT_EQ(entry.kind, key.kind);
      ASSERT_EQ(entry.identity, key.identity);
      if (!is_item) continue;
      ASSERT_EQ(entry.first_token + start, key.first_token);
      ASSERT_EQ(entry.token_count, key.token_count);
    }
    ASSERT_EQ(next, read.entries.size());
  }
}

TEST(SequenceHashTest, NoTwoDifferentSmallInputsShareAHash) {
  std::map<SequenceHash, std::string> seen;
  std::size_t inputs = 0;
  const std::vector<std::string> identities = {"", "a", "aa", std::string(1, '\0')};
  std::vector<std::vector<ExtraKey>> extras = {{}};
  for (int kind = 1; kind <= 3; ++kind) {
    for (const auto& identity : identities) {
      extras.push_back({{static_cast<ExtraKey::Kind>(kind), identity, 0, 1}});
      extras.push_back({{static_cast<ExtraKey::Kind>(kind), identity, 0, 1}, salt("a")});
    }
  }
  for (std::uint64_t block_tokens = 1; block_tokens <= 3; ++block_tokens) {
    for (std::uint32_t value = 0; value < 3; ++value) {
      for (const auto& extra : extras) {
        const std::vector<std::uint32_t> tokens(block_tokens, value);
        const auto hashes = hashes_of(block_tokens, extra, tokens);
        seen.emplace(hashes.at(0), "");
        ++inputs;
      }
    }
  }
  EXPECT_EQ(seen.size(), inputs);
}

}  // namespace
}  // namespace terrace
