#include <gtest/gtest.h>

#include "terrace/manager/groups_internal.h"

namespace terrace::manager {
namespace {

Layout layout_of(std::vector<std::uint64_t> shard_bytes) {
  Layout layout{.block_tokens = Tokens(32), .ranks = 2, .groups = {}};
  for (std::size_t i = 0; i < shard_bytes.size(); ++i) {
    layout.groups.push_back({GroupId(static_cast<std::uint16_t>(i)), {Bytes(shard_bytes[i])}});
  }
  return layout;
}

TEST(GroupsTest, WithoutRulesEachGroupNeedsAll) {
  const Groups groups(layout_of({100, 300}), {});
  EXPECT_FALSE(groups.is_plain());
  EXPECT_TRUE(Groups(layout_of({100}), {}).is_plain());
  EXPECT_EQ(groups.first_needed(GroupId(1), 1000), 0U);
  EXPECT_FALSE(groups.is_null(GroupId(0), 0));
  EXPECT_EQ(groups.bytes(GroupId(0)), Bytes(200));
  EXPECT_EQ(groups.load_bytes(), Bytes(800));
  EXPECT_EQ(groups.most_bytes(), Bytes(600));
}

// The token at 32 * blocks sees itself and the window - 1 before it.
TEST(GroupsTest, AWindowNeedsTheBlocksThatTheNextTokenSees) {
  const auto first = [](std::uint64_t window, std::uint64_t blocks) {
    const Groups groups(layout_of({100}), {{.window = Tokens(window), .null_block = 0}});
    return groups.first_needed(GroupId(0), blocks);
  };
  EXPECT_EQ(first(1, 10), 10U);  // Sees nothing of the past.
  EXPECT_EQ(first(2, 10), 9U);
  EXPECT_EQ(first(33, 10), 9U);
  EXPECT_EQ(first(34, 10), 8U);
  EXPECT_EQ(first(128, 10), 6U);
  EXPECT_EQ(first(320, 10), 0U);
  EXPECT_EQ(first(321, 10), 0U);
  EXPECT_EQ(first(1U << 30U, 10), 0U);
  EXPECT_EQ(first(128, 0), 0U);
}

TEST(GroupsTest, OneGroupWithAWindowIsNotPlain) {
  const Groups groups(layout_of({100}), {{.window = Tokens(64), .null_block = 7}});
  EXPECT_FALSE(groups.is_plain());
  EXPECT_TRUE(groups.is_null(GroupId(0), 7));
  EXPECT_FALSE(groups.is_null(GroupId(0), 0));
  EXPECT_EQ(groups.load_bytes(), Bytes(200));  // No other group to go by.
}

TEST(GroupsTest, OnlyGroupsThatNeedAllCountForTheLoad) {
  const Groups groups(layout_of({100, 300}), {{.window = Tokens(64), .null_block = 0}, {}});
  EXPECT_EQ(groups.load_bytes(), Bytes(600));
}

}  // namespace
}  // namespace terrace::manager
