#include "terrace/wire/frame_cipher.h"

#include <gtest/gtest.h>
#include <openssl/sha.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/testing/vectors.h"

namespace terrace::wire {
namespace {

using Bytes = std::vector<std::byte>;

Bytes splitmix(std::uint64_t seed, std::size_t size) {
  Bytes bytes(size);
  Rng rng(seed);
  for (std::size_t at = 0; at < size; at += 8) {
    const std::uint64_t word = rng.next();
    std::memcpy(bytes.data() + at, &word, std::min<std::size_t>(8, size - at));
  }
  return bytes;
}

template <std::size_t kSize>
std::array<std::uint8_t, kSize> array_of(const std::string& hex) {
  std::array<std::uint8_t, kSize> bytes{};
  std::ranges::copy(testing::from_hex(hex), bytes.begin());
  return bytes;
}

std::string hex_of(std::span<const std::byte> bytes) {
  return testing::to_hex({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

NamespaceKeys keys_of(const std::string& master, const FrameHeader& header) {
  KeyRing ring;
  ring.add(*parse_master_key(master));
  return *NamespaceKeys::derive(ring, header.content_digest, header.layout_digest);
}

const std::string kMaster(64, '7');
constexpr std::size_t kPayload = 200'000;  // Some pieces, and no whole number of them.

struct Sealed {
  FrameHeader header;
  Bytes plain = splitmix(1, kPayload);
  Bytes stored = Bytes(kPayload);
  FrameVerdict open(const FrameHeader& as, const NamespaceKeys& keys) {
    const auto opened = open_frame(keys.current(), as, stored);
    EXPECT_TRUE(opened.has_value());
    if (opened->verdict == FrameVerdict::kRight) {
      EXPECT_EQ(stored, plain);
      EXPECT_EQ(opened->checksum, checksum_of(plain));
    } else {
      EXPECT_EQ(stored, Bytes(stored.size())) << "bytes that nobody vouches for were left";
    }
    return opened->verdict;
  }
};

FrameHeader example() {
  FrameHeader header;
  header.content_digest.fill(0x11);
  header.layout_digest.fill(0x22);
  header.hash = {0x0001020304050607ULL, 0x08090a0b0c0d0e0fULL};
  header.group = GroupId(2);
  header.rank = RankId(3);
  header.generation = Generation(4);
  header.payload_bytes = kPayload;
  return header;
}

Sealed sealed() {
  Sealed made{.header = example()};
  made.header.payload_checksum = checksum_of(made.plain);
  const auto keys = keys_of(kMaster, made.header);
  EXPECT_TRUE(seal_frame(keys.current(), FrameSalt::random(), made.plain, made.stored, made.header)
                  .is_ok());
  return made;
}

TEST(FrameCipherTest, SealsWhatTheVectorsSay) {
  int rows = 0;
  for (const auto& row : testing::read_vectors("encryption.tsv")) {
    if (row[0] != "frame") continue;
    FrameHeader header;
    header.content_digest = array_of<32>(row[2]);
    header.layout_digest = array_of<32>(row[3]);
    header.hash = SequenceHash::from_bytes(array_of<16>(row[4]));
    header.group = GroupId(static_cast<std::uint16_t>(std::stoul(row[5])));
    header.rank = RankId(static_cast<std::uint16_t>(std::stoul(row[6])));
    header.generation = Generation(static_cast<std::uint32_t>(std::stoul(row[7])));
    header.era = std::stoull(row[8]);
    const Bytes plain = splitmix(std::stoull(row[10]), std::stoull(row[11]));
    header.payload_bytes = plain.size();
    header.payload_checksum = checksum_of(plain);
    const auto keys = keys_of(row[1], header);
    Bytes stored(plain.size());
    ASSERT_TRUE(seal_frame(keys.current(), {array_of<32>(row[9])}, plain, stored, header).is_ok());
    std::array<std::byte, kFrameHeaderBytes> page;
    encode(header, page);
    EXPECT_EQ(hex_of(std::span(page).first<200>()), row[12]);
    std::array<std::uint8_t, SHA256_DIGEST_LENGTH> digest{};
    SHA256(reinterpret_cast<const std::uint8_t*>(stored.data()), stored.size(), digest.data());
    EXPECT_EQ(hex_of(std::as_bytes(std::span(digest))), row[13]);
    const auto found = decode_frame(page);
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(*found, header);
    const auto opened = open_frame(keys.current(), *found, stored);
    ASSERT_TRUE(opened.has_value());
    EXPECT_EQ(opened->verdict, FrameVerdict::kRight);
    EXPECT_EQ(stored, plain);
    ++rows;
  }
  EXPECT_EQ(rows, 4);
}

TEST(FrameCipherTest, OpensWhatItSealedAndKeepsThePlainChecksumToItself) {
  Sealed frame = sealed();
  EXPECT_EQ(frame.header.codec, FrameCodec::kAes256Gcm);
  EXPECT_EQ(frame.header.payload_checksum, checksum_of(frame.stored));
  EXPECT_NE(frame.header.payload_checksum, checksum_of(frame.plain));
  EXPECT_NE(frame.stored, frame.plain);
  EXPECT_EQ(frame.open(frame.header, keys_of(kMaster, frame.header)), FrameVerdict::kRight);
}

TEST(FrameCipherTest, EqualPayloadsAreStoredDifferently) {
  const Sealed one = sealed();
  const Sealed other = sealed();
  EXPECT_NE(one.stored, other.stored);
  EXPECT_NE(one.header.seal.salt, other.header.seal.salt);
  EXPECT_NE(one.header.seal.hidden, other.header.seal.hidden);
}

TEST(FrameCipherTest, ASaltThatCameTwiceStillMakesOtherKeysForOtherBlocks) {
  const FrameSalt salt = FrameSalt::random();
  std::set<std::string> streams;  // What zeros become is the key stream itself.
  for (int block = 0; block < 8; ++block) {
    FrameHeader header = example();
    header.payload_bytes = 64;
    const Bytes zeros(64);
    header.payload_checksum = checksum_of(zeros);
    header.hash.low += static_cast<std::uint64_t>(block & 1);
    header.rank = RankId(static_cast<std::uint16_t>(block >> 1 & 1));
    header.generation = Generation(static_cast<std::uint32_t>(block >> 2));
    Bytes stored(64);
    ASSERT_TRUE(
        seal_frame(keys_of(kMaster, header).current(), salt, zeros, stored, header).is_ok());
    streams.insert(hex_of(stored));
  }
  EXPECT_EQ(streams.size(), 8U);
}

TEST(FrameCipherTest, AFrameOfAnotherPlaceDoesNotOpenThere) {
  const auto changes = std::to_array<void (*)(FrameHeader&)>({
      [](FrameHeader& header) { header.content_digest[31] ^= 1; },  // Tenant, model.
      [](FrameHeader& header) { header.layout_digest[0] ^= 1; },
      [](FrameHeader& header) { header.hash.high ^= 1; },
      [](FrameHeader& header) { header.hash.low ^= 1; },
      [](FrameHeader& header) { header.group = GroupId(3); },
      [](FrameHeader& header) { header.rank = RankId(2); },
      [](FrameHeader& header) { header.generation = Generation(5); },
      [](FrameHeader& header) { header.era ^= 1; },
      [](FrameHeader& header) { header.seal.salt[7] ^= 1; },
      [](FrameHeader& header) { header.seal.key.bytes[0] ^= 1; },
  });
  for (const auto& change : changes) {
    Sealed frame = sealed();
    FrameHeader other = frame.header;
    change(other);
    // With the right namespace's key even: the identity alone keeps it shut.
    EXPECT_EQ(frame.open(other, keys_of(kMaster, frame.header)), FrameVerdict::kForged);
  }
}

TEST(FrameCipherTest, AnotherMasterOrNamespaceKeyDoesNotOpenIt) {
  Sealed frame = sealed();
  EXPECT_EQ(frame.open(frame.header, keys_of(std::string(64, '8'), frame.header)),
            FrameVerdict::kForged);
  frame = sealed();
  FrameHeader tenant = frame.header;
  tenant.content_digest[0] ^= 1;
  EXPECT_EQ(frame.open(frame.header, keys_of(kMaster, tenant)), FrameVerdict::kForged);
}

TEST(FrameCipherTest, ShorterLengthsDoNotOpen) {
  Sealed frame = sealed();
  FrameHeader shorter = frame.header;
  shorter.payload_bytes -= 16;
  frame.stored.resize(frame.stored.size() - 16);
  frame.plain.resize(frame.stored.size());
  EXPECT_EQ(frame.open(shorter, keys_of(kMaster, frame.header)), FrameVerdict::kDamaged);
}

TEST(FrameCipherTest, EveryFlippedBitIsTold) {
  const Sealed good = sealed();
  const auto keys = keys_of(kMaster, good.header);
  Rng rng(5);
  for (int i = 0; i < 60; ++i) {
    Sealed frame = good;
    const std::size_t at = i == 0 ? 0 : i == 1 ? kPayload - 1 : rng.below(kPayload);
    frame.stored[at] ^= static_cast<std::byte>(1U << rng.below(8));
    EXPECT_EQ(frame.open(frame.header, keys), FrameVerdict::kDamaged) << at;
  }
  for (std::size_t bit = 0; bit < 128; ++bit) {
    Sealed frame = good;
    frame.header.seal.tag[bit / 8] ^= static_cast<std::uint8_t>(1U << bit % 8);
    EXPECT_EQ(frame.open(frame.header, keys), FrameVerdict::kForged) << bit;
    frame = good;
    frame.header.seal.hidden[bit / 8] ^= static_cast<std::uint8_t>(1U << bit % 8);
    EXPECT_EQ(frame.open(frame.header, keys), FrameVerdict::kForged) << bit;
  }
}

TEST(FrameCipherTest, BytesThatWereDamagedBeforeTheyWereSealedAreTold) {
  Sealed frame{.header = example()};
  frame.header.payload_checksum = checksum_of(frame.plain);
  frame.plain[77] ^= std::byte{1};
  const auto keys = keys_of(kMaster, frame.header);
  ASSERT_TRUE(
      seal_frame(keys.current(), FrameSalt::random(), frame.plain, frame.stored, frame.header)
          .is_ok());
  EXPECT_EQ(frame.open(frame.header, keys), FrameVerdict::kDamaged);
}

TEST(FrameCipherTest, LengthsThatAreNotTheHeadersAreRefused) {
  FrameHeader header = example();
  const auto keys = keys_of(kMaster, header);
  const Bytes plain(kPayload);
  Bytes shorter(kPayload - 1);
  EXPECT_EQ(seal_frame(keys.current(), FrameSalt::random(), plain, shorter, header).code(),
            Code::kInvalid);
  EXPECT_EQ(seal_frame(keys.current(), FrameSalt::random(), shorter, shorter, header).code(),
            Code::kInvalid);
  EXPECT_FALSE(open_frame(keys.current(), header, shorter).has_value());
  Sealed frame = sealed();
  frame.stored.pop_back();
  EXPECT_FALSE(open_frame(keys.current(), frame.header, frame.stored).has_value());
}

}  // namespace
}  // namespace terrace::wire
