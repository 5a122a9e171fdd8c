#include "terrace/wire/attach_messages.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <string>

#include "terrace/base/rng.h"

namespace terrace::wire {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

Layout layout_of(const std::vector<std::uint64_t>& pieces) {
  GroupLayout group;
  for (const std::uint64_t piece : pieces) group.piece_bytes.emplace_back(piece);
  Layout layout;
  layout.block_tokens = Tokens(32);
  layout.ranks = 2;
  layout.groups = {group};
  return layout;
}

std::vector<AttachMessage> one_of_each() {
  return {AttachHello{RankId(1), layout_of({4096, 4096, 100, 4096})},
          AttachWelcome{77, Epoch(3), Bytes(8192), 12, 2, 5}, AttachFiles{253, 7},
          AttachProgress{AttachStage::kPopulated}, AttachRefusal{Code::kUnavailable, "later"}};
}

std::string encoded(const AttachMessage& message) {
  auto bytes = encode(message);
  EXPECT_TRUE(bytes.has_value());
  return std::move(bytes).value_or("");
}

TEST(AttachMessagesTest, EveryKindComesBackAsItWas) {
  for (const AttachMessage& message : one_of_each()) {
    const std::string bytes = encoded(message);
    const auto decoded = decode_attach(bytes_of(bytes));
    ASSERT_TRUE(decoded.has_value()) << decoded.error().text();
    EXPECT_EQ(decoded->index(), message.index());
    EXPECT_EQ(encoded(*decoded), bytes);
  }
}

TEST(AttachMessagesTest, HelloKeepsPieceOrderAndGroups) {
  Layout layout = layout_of({1, 1, 2, 1});
  layout.groups.push_back({GroupId(4), {Bytes(9)}});
  const auto decoded = decode_attach(bytes_of(encoded(AttachHello{RankId(0), layout})));
  ASSERT_TRUE(decoded.has_value());
  const Layout& got = std::get<AttachHello>(*decoded).layout;
  ASSERT_EQ(got.groups.size(), 2U);
  EXPECT_EQ(got.groups[0].piece_bytes, layout.groups[0].piece_bytes);
  EXPECT_EQ(got.groups[1].group, GroupId(4));
  EXPECT_EQ(got.ranks, 2);
  EXPECT_EQ(got.block_tokens, Tokens(32));
}

// Golden bytes of docs/formats/attach.md.
TEST(AttachMessagesTest, WelcomeHasTheDocumentedBytes) {
  const std::string bytes = encoded(AttachWelcome{1, Epoch(2), Bytes(4096), 3, 4, 5});
  const std::string expected(
      "TATT\x01\x00\x02\x00"
      "\x01\0\0\0\0\0\0\0"
      "\x02\0\0\0\0\0\0\0"
      "\0\x10\0\0\0\0\0\0"
      "\x03\0\0\0"
      "\x04\0"
      "\x05\0\0\0",
      8 + 8 + 8 + 8 + 4 + 2 + 4);
  EXPECT_EQ(bytes, expected);
}

TEST(AttachMessagesTest, EveryCutIsInvalid) {
  for (const AttachMessage& message : one_of_each()) {
    const std::string bytes = encoded(message);
    for (std::size_t length = 0; length < bytes.size(); ++length) {
      const auto decoded = decode_attach(bytes_of(bytes).first(length));
      ASSERT_FALSE(decoded.has_value()) << message.index() << " cut at " << length;
      EXPECT_EQ(decoded.error().code(), Code::kInvalid);
    }
    EXPECT_FALSE(decode_attach(bytes_of(bytes + "x")).has_value());
  }
}

TEST(AttachMessagesTest, AnotherVersionIsRefusedAndNamed) {
  std::string bytes = encoded(AttachProgress{});
  bytes[4] = 9;
  const auto decoded = decode_attach(bytes_of(bytes));
  ASSERT_FALSE(decoded.has_value());
  EXPECT_EQ(decoded.error().code(), Code::kRefused);
  EXPECT_NE(decoded.error().message().find("version 9"), std::string::npos);
}

TEST(AttachMessagesTest, RunsThatUnfoldToTooMuchAreRefusedBeforeAllocating) {
  std::string bytes = encoded(AttachHello{RankId(0), layout_of({4096})});
  for (std::size_t i = bytes.size() - 12; i < bytes.size() - 8; ++i) bytes[i] = '\xff';
  EXPECT_FALSE(decode_attach(bytes_of(bytes)).has_value());
}

TEST(AttachMessagesTest, LayoutTooLargeForAMessageCannotBeEncoded) {
  std::vector<std::uint64_t> pieces;
  for (std::uint64_t i = 0; i < 6000; ++i) pieces.push_back(4096 + (i % 2));
  const auto bytes = encode(AttachHello{RankId(0), layout_of(pieces)});
  ASSERT_FALSE(bytes.has_value());
  EXPECT_EQ(bytes.error().code(), Code::kInvalid);
}

TEST(AttachMessagesTest, RandomDamageNeverPassesTheBounds) {
  constexpr std::uint64_t kSeed = 20240611;
  std::printf("seed %llu\n", static_cast<unsigned long long>(kSeed));
  Rng rng(kSeed);
  const auto messages = one_of_each();
  for (int i = 0; i < 200'000; ++i) {
    std::string bytes = encoded(messages[rng.below(messages.size())]);
    for (std::uint64_t flips = rng.below(4) + 1; flips > 0; --flips) {
      bytes[rng.below(bytes.size())] = static_cast<char>(rng.below(256));
    }
    const auto decoded = decode_attach(bytes_of(bytes));
    if (!decoded.has_value()) continue;
    if (const auto* hello = std::get_if<AttachHello>(&*decoded)) {
      ASSERT_LE(hello->layout.groups.size(), 64U);
    }
    if (const auto* files = std::get_if<AttachFiles>(&*decoded)) {
      ASSERT_LE(files->count, kAttachFilesAtOnce);
    }
  }
}

TEST(AttachMessagesTest, RendezvousNameIsShortStableAndDiffersByEngine) {
  EXPECT_EQ(rendezvous_name("engine-a").size(), 24U);
  EXPECT_EQ(rendezvous_name("engine-a"), rendezvous_name("engine-a"));
  EXPECT_NE(rendezvous_name("engine-a"), rendezvous_name("engine-b"));
}

}  // namespace
}  // namespace terrace::wire
