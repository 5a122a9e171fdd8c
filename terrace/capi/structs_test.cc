#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "terrace/capi/convert_internal.h"
#include "terrace/capi/structs_internal.h"

namespace terrace::capi {
namespace {

// A struct as a caller of another version has it, in memory that ends where it ends.
template <typename T>
class Foreign {
 public:
  explicit Foreign(std::size_t bytes) : bytes_(bytes, std::byte{0xEE}) {
    const auto size = static_cast<std::uint32_t>(bytes);
    std::memcpy(bytes_.data(), &size, sizeof size);
    for (std::size_t i = sizeof(T); i < bytes; ++i) bytes_[i] = std::byte{0};
  }
  std::byte& operator[](std::size_t at) { return bytes_[at]; }
  [[nodiscard]] const T* get() const { return reinterpret_cast<const T*>(bytes_.data()); }
  [[nodiscard]] Result<T> adopted(std::size_t first_bytes = kFirstBytes<T>) const {
    return adopt("a_struct", get(), first_bytes);
  }

 private:
  std::vector<std::byte> bytes_;
};

template <typename T>
std::byte byte_of(const T& made, std::size_t at) {
  return std::as_bytes(std::span(&made, 1))[at];
}

template <typename T>
class StructsTest : public ::testing::Test {};

using AllStructs =
    ::testing::Types<terrace_extra_key, terrace_group_layout, terrace_owner_options,
                     terrace_request_options, terrace_hints, terrace_ending, terrace_progress,
                     terrace_region, terrace_group_regions, terrace_worker_options>;
TYPED_TEST_SUITE(StructsTest, AllStructs);

TYPED_TEST(StructsTest, OneOfTheFirstVersionIsTakenAndAShorterOneIsNone) {
  EXPECT_TRUE(Foreign<TypeParam>(kFirstBytes<TypeParam>).adopted().has_value());
  for (std::size_t bytes = 4; bytes < kFirstBytes<TypeParam>; ++bytes) {
    const auto refused = Foreign<TypeParam>(bytes).adopted();
    ASSERT_FALSE(refused.has_value()) << bytes;
    EXPECT_EQ(refused.error().code(), Code::kInvalid);
    EXPECT_NE(refused.error().message().find("a_struct: struct_size is"), std::string::npos);
  }
}

TYPED_TEST(StructsTest, WhatAnOlderOneLacksIsZeroAndNothingBeyondItIsRead) {
  constexpr std::size_t kOlder = sizeof(TypeParam) - 4;
  const auto made = Foreign<TypeParam>(kOlder).adopted(kOlder);
  ASSERT_TRUE(made.has_value());
  EXPECT_EQ(byte_of(*made, kOlder - 1), std::byte{0xEE});
  for (std::size_t i = kOlder; i < sizeof(TypeParam); ++i)
    EXPECT_EQ(byte_of(*made, i), std::byte{});
  EXPECT_EQ(made->struct_size, sizeof(TypeParam));
}

TYPED_TEST(StructsTest, ANewerOneIsTakenWhileItAsksForNothingUnknown) {
  Foreign<TypeParam> newer(sizeof(TypeParam) + 24);
  EXPECT_TRUE(newer.adopted().has_value());
  newer[sizeof(TypeParam) + 23] = std::byte{1};
  const auto refused = newer.adopted();
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code(), Code::kInvalid);
  EXPECT_NE(refused.error().message().find("newer than the library"), std::string::npos);
}

TYPED_TEST(StructsTest, ASizeThatWasNeverSetIsRefusedUnread) {
  TypeParam own = {};
  own.struct_size = UINT32_MAX;
  EXPECT_FALSE(adopt("a_struct", &own).has_value());
  own.struct_size = 0;
  EXPECT_FALSE(adopt("a_struct", &own).has_value());
}

// As a caller of a later version has it.
struct LaterKey {
  terrace_extra_key known;
  std::uint64_t later;
};

TEST(StructArraysTest, ElementsAreAsFarApartAsTheCallersStructIsLong) {
  const std::uint8_t identity[] = {1, 2};
  std::array<LaterKey, 2> keys = {{{{sizeof(LaterKey), 1, identity, 1, 0, 0}, 0},
                                   {{sizeof(LaterKey), 2, identity, 2, 0, 0}, 0}}};
  const auto made = convert_extra_keys(&keys[0].known, keys.size());
  ASSERT_TRUE(made.has_value()) << made.error().text();
  EXPECT_EQ(made->at(1).kind, ExtraKey::Kind::kLora);
  EXPECT_EQ(made->at(1).identity.size(), 2U);
  keys[1].later = 1;
  EXPECT_FALSE(convert_extra_keys(&keys[0].known, keys.size()).has_value());
  keys[1].later = 0;
  keys[1].known.struct_size = sizeof(terrace_extra_key);
  EXPECT_FALSE(convert_extra_keys(&keys[0].known, keys.size()).has_value());
}

TEST(StructArraysTest, ALaterCallersGroupsAndRegionsAreFoundToo) {
  struct LaterRegion {
    terrace_region known;
    std::uint64_t later;
  };
  struct LaterGroup {
    terrace_group_regions known;
    std::uint64_t later;
  };
  std::vector<std::uint8_t> memory(4 * 4096);
  const LaterRegion regions[] = {{{sizeof(LaterRegion), 0, memory.data(), 2048, 2048}, 0},
                                 {{sizeof(LaterRegion), 0, memory.data() + 8192, 4096, 4096}, 0}};
  const LaterGroup groups[] = {{{sizeof(LaterGroup), 1, &regions[0].known, 2, 0, 1}, 0},
                               {{sizeof(LaterGroup), 1, &regions[1].known, 2, 0, 1}, 0}};
  terrace_worker_options options = {};
  options.struct_size = sizeof options;
  options.rank_count = 1;
  options.block_tokens = 16;
  options.group_count = 2;
  options.groups = &groups[0].known;
  options.engine_id = "engine";
  const auto made = convert_worker(options, {});
  ASSERT_TRUE(made.has_value()) << made.error().text();
  EXPECT_EQ(made->groups.at(1).regions.at(0).piece_bytes, 4096U);
}

TEST(ChecksumTest, NullHasNoChecksumUnlessItIsEmpty) {
  EXPECT_EQ(terrace_checksum_bytes(nullptr, 8), 0U);
  EXPECT_NE(std::string(terrace_last_error()).find("NULL"), std::string::npos);
  const std::uint8_t nothing = 0;
  EXPECT_EQ(terrace_checksum_bytes(nullptr, 0), terrace_checksum_bytes(&nothing, 0));
}

}  // namespace
}  // namespace terrace::capi
