#include "terrace/block/layout.h"

#include <gtest/gtest.h>

#include <set>

#include "terrace/block/location.h"

namespace terrace {
namespace {

Layout example() {
  return {.block_tokens = Tokens(32),
          .ranks = 2,
          .groups = {{.group = GroupId(0), .piece_bytes = {24_KiB, 24_KiB, 1_KiB}}}};
}

std::string problem(const Layout& layout) {
  const Status status = layout.validate();
  return status.is_ok() ? "" : status.text();
}

TEST(LayoutTest, ShardIsTheSumOfItsPieces) {
  EXPECT_EQ(example().groups[0].shard_bytes(), 49_KiB);
  EXPECT_EQ(problem(example()), "");
}

TEST(LayoutTest, RefusesWhatCannotBeACache) {
  Layout layout = example();
  layout.block_tokens = Tokens(0);
  EXPECT_EQ(problem(layout), "invalid: layout: block_tokens is 0");
  layout = example();
  layout.ranks = 0;
  EXPECT_EQ(problem(layout), "invalid: layout: 0 ranks, allowed are 1 to 64");
  layout.ranks = 65;
  EXPECT_EQ(problem(layout), "invalid: layout: 65 ranks, allowed are 1 to 64");
  layout = example();
  layout.groups.clear();
  EXPECT_EQ(problem(layout), "invalid: layout: no KV groups");
  layout = example();
  layout.groups.push_back(layout.groups[0]);
  EXPECT_EQ(problem(layout), "invalid: layout: group 0 is there twice");
  layout = example();
  layout.groups[0].piece_bytes.clear();
  EXPECT_EQ(problem(layout), "invalid: layout: group 0 has no pieces");
  layout.groups[0].piece_bytes = {Bytes(0)};
  EXPECT_EQ(problem(layout), "invalid: layout: group 0 has a piece of 0 bytes");
}

TEST(LayoutTest, RefusesShardsOverOneGibibyteEvenWhenTheirSumWrapsAround) {
  Layout layout = example();
  layout.groups[0].piece_bytes = {1_GiB};
  EXPECT_EQ(problem(layout), "");
  layout.groups[0].piece_bytes.push_back(Bytes(1));
  EXPECT_EQ(problem(layout), "invalid: layout: a shard of group 0 is larger than 1 GiB");
  layout.groups[0].piece_bytes = {1_KiB, Bytes(UINT64_MAX - 100)};
  EXPECT_EQ(problem(layout), "invalid: layout: a shard of group 0 is larger than 1 GiB");
}

TEST(LocationTest, EveryTierHasANameOfItsOwn) {
  std::set<std::string_view> names;
  for (int tier = 0; tier < kTierCount; ++tier) names.insert(to_string(static_cast<Tier>(tier)));
  EXPECT_EQ(names, (std::set<std::string_view>{"device", "host", "disk", "object", "peer"}));
}

}  // namespace
}  // namespace terrace
