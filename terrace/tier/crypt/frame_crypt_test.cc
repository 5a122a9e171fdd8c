#include "terrace/tier/crypt/frame_crypt.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "terrace/testing/crypt.h"

namespace terrace::tier {
namespace {

using testing::key_id;
using testing::ring_of;

std::unique_ptr<FrameCrypt> crypt_of(const std::string& digits, bool accepts_plain = false) {
  FrameCrypt::Options options;
  options.crypt.ring = ring_of(digits);
  options.crypt.accepts_plain = accepts_plain;
  options.buffer_bytes = 8192;
  options.buffers = 3;
  auto made = FrameCrypt::create(std::move(options));
  EXPECT_TRUE(made.has_value());
  return *std::move(made);
}

wire::FrameHeader encrypted_with(char digit) {
  wire::FrameHeader header;
  header.codec = wire::FrameCodec::kAes256Gcm;
  header.seal.key = key_id(digit);
  return header;
}

TEST(FrameCryptTest, WithoutAKeyOnlyPlainBlocksAreRead) {
  const auto crypt = crypt_of("");
  EXPECT_FALSE(crypt->is_on());
  EXPECT_TRUE(crypt->can_read(std::nullopt));
  EXPECT_FALSE(crypt->can_read(key_id('1').tag()));
  EXPECT_TRUE(crypt->check({}).is_ok());
  const Status status = crypt->check(encrypted_with('1'));
  EXPECT_EQ(status.code(), Code::kRefused);
  EXPECT_NE(status.message().find(key_id('1').hex()), std::string::npos) << status.text();
  EXPECT_EQ(crypt->take_buffer(), nullptr) << "memory for what is off";
  EXPECT_EQ(crypt->key_ids(), "");
}

TEST(FrameCryptTest, WithKeysTheirBlocksAreReadAndPlainOnesOnlyWhereAllowed) {
  const auto crypt = crypt_of("12");
  EXPECT_EQ(crypt->current().id, key_id('1'));
  EXPECT_EQ(crypt->key_ids(), key_id('1').hex() + ", " + key_id('2').hex());
  EXPECT_TRUE(crypt->check(encrypted_with('1')).is_ok());
  EXPECT_TRUE(crypt->check(encrypted_with('2')).is_ok());
  EXPECT_EQ(crypt->check(encrypted_with('3')).code(), Code::kRefused);
  EXPECT_EQ(crypt->check({}).code(), Code::kRefused);
  EXPECT_FALSE(crypt->can_read(std::nullopt));
  EXPECT_TRUE(crypt->can_read(key_id('2').tag()));
  EXPECT_FALSE(crypt->can_read(key_id('3').tag()));
  const auto lenient = crypt_of("12", true);
  EXPECT_TRUE(lenient->check({}).is_ok());
  EXPECT_TRUE(lenient->can_read(std::nullopt));
}

TEST(FrameCryptTest, HandsOutItsBuffersAndNoMore) {
  const auto crypt = crypt_of("1");
  std::set<std::byte*> taken;
  for (int i = 0; i < 3; ++i) taken.insert(crypt->take_buffer());
  EXPECT_EQ(taken.size(), 3U);
  EXPECT_EQ(taken.count(nullptr), 0U);
  EXPECT_EQ(crypt->take_buffer(), nullptr);
  crypt->give_buffer(*taken.begin());
  EXPECT_EQ(crypt->take_buffer(), *taken.begin());
}

TEST(FrameCryptTest, SealsWithZerosBehindThePayloadAndOpensAgain) {
  const auto crypt = crypt_of("1");
  std::vector<std::byte> plain(5000, std::byte{7});
  std::vector<std::byte> stored(8192, std::byte{9});
  wire::FrameHeader header;
  header.payload_bytes = plain.size();
  header.payload_checksum = checksum_of(plain);
  Status status(Code::kInternal, "not done");
  std::vector<std::uint64_t> done;
  crypt->post_seal(11, plain, stored.data(), stored.size(), header, status);
  EXPECT_EQ(crypt->under_way(), 1U);
  crypt->take_done(done);
  EXPECT_EQ(done, std::vector<std::uint64_t>{11});
  EXPECT_EQ(crypt->under_way(), 0U);
  EXPECT_TRUE(status.is_ok()) << status.text();
  EXPECT_TRUE(std::all_of(stored.begin() + 5000, stored.end(),
                          [](std::byte byte) { return byte == std::byte{0}; }));
  EXPECT_EQ(crypt->check(header).text(), Status().text());
  const auto as_stored = header;
  crypt->post_open(12, header, std::span(stored).first(5000), true, status);
  crypt->take_done(done);
  EXPECT_EQ(done, (std::vector<std::uint64_t>{11, 12}));
  EXPECT_TRUE(status.is_ok()) << status.text();
  EXPECT_TRUE(std::equal(plain.begin(), plain.end(), stored.begin()));
  EXPECT_EQ(header.payload_checksum, checksum_of(plain));

  // Plain bytes are not what was sealed, and the header says so of the stored ones.
  header = as_stored;
  crypt->post_open(13, header, std::span(stored).first(5000), true, status);
  EXPECT_EQ(status.code(), Code::kCorrupt);
  EXPECT_EQ(crypt->forged(), 0U);
  header = as_stored;
  header.payload_checksum = checksum_of(std::span(stored).first(5000));  // They were wiped.
  crypt->post_open(14, header, std::span(stored).first(5000), true, status);
  EXPECT_EQ(status.code(), Code::kCorrupt);
  EXPECT_EQ(crypt->forged(), 1U);
}

TEST(FrameCryptTest, AFrameWhoseKeyIsNotThereIsRefusedThoughNobodyCheckedIt) {
  const auto crypt = crypt_of("1");
  wire::FrameHeader header = encrypted_with('2');
  std::vector<std::byte> stored(4096);
  header.payload_bytes = stored.size();
  Status status;
  crypt->post_open(1, header, stored, false, status);
  EXPECT_EQ(status.code(), Code::kRefused);
}

TEST(FrameCryptTest, WhoWaitsIsWokenWhenAJobHasEndedNotBefore) {
  testing::SlowHands hands;
  int woken = 0;
  FrameCrypt::Options options;
  options.crypt.ring = ring_of("1");
  options.crypt.hands = &hands;
  options.wake = [&] { ++woken; };
  const auto crypt = *FrameCrypt::create(std::move(options));
  const std::vector<std::byte> plain(4096);
  std::vector<std::byte> stored(4096);
  wire::FrameHeader header;
  header.payload_bytes = plain.size();
  Status status;
  crypt->post_seal(1, plain, stored.data(), stored.size(), header, status);
  EXPECT_EQ(woken, 0);
  hands.do_all();
  EXPECT_EQ(woken, 1);
}

// What another part of the engine left in memory is nobody's to write to disk.
TEST(FrameCryptTest, BuffersHoldNothingOfWhatWasInMemoryBefore) {
  constexpr std::size_t kBytes = 3 * std::size_t{8192};
  for (int i = 0; i < 64; ++i) {
    auto* const used = static_cast<std::byte*>(std::aligned_alloc(4096, kBytes));
    std::fill_n(used, kBytes, std::byte{'s'});
    std::free(used);
    const auto crypt = crypt_of("1");
    for (const std::byte* buffer = crypt->take_buffer(); buffer != nullptr;
         buffer = crypt->take_buffer()) {
      ASSERT_TRUE(
          std::all_of(buffer, buffer + 8192, [](std::byte b) { return b == std::byte{0}; }));
    }
  }
}

TEST(FrameCryptTest, WhatCannotBeSealedSaysWhy) {
  const auto crypt = crypt_of("1");
  const std::vector<std::byte> plain(4096);
  std::vector<std::byte> stored(4096);
  wire::FrameHeader header;
  header.payload_bytes = 1;
  Status status;
  crypt->post_seal(1, plain, stored.data(), stored.size(), header, status);
  EXPECT_EQ(status.code(), Code::kInvalid);
}

}  // namespace
}  // namespace terrace::tier
