#include <gtest/gtest.h>

#include <cstdio>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/memory/device/cuda/copy_plan_internal.h"

namespace terrace::memory::cuda {
namespace {

PieceTable table_of(const std::vector<std::uint64_t>& shards) {
  PieceTable table;
  for (const std::uint64_t shard : shards) table.groups.push_back({0, 1, shard});
  return table;
}

TEST(CopyPlanTest, EveryByteIsCarriedOnceAndPartsDoNotTouch) {
  constexpr std::uint64_t kSeed = 9;
  std::printf("seed %llu\n", static_cast<unsigned long long>(kSeed));
  Rng rng(kSeed);
  for (int round = 0; round < 2000; ++round) {
    const std::uint64_t batch = (rng.below(20) + 1) * kPageBytes;
    const PieceTable table =
        table_of({rng.below(100'000) + 1, rng.below(5000) + 1, (rng.below(9) + 1) * kPageBytes});
    std::vector<ShardCopy> copies(rng.below(20) + 1);
    for (ShardCopy& copy : copies) copy.group = static_cast<std::uint16_t>(rng.below(3));
    std::vector<std::uint64_t> done(copies.size());
    std::vector<Part> parts;
    Position at;
    while (at.copy < copies.size()) {
      plan_batch(table, copies, batch, at, parts);
      ASSERT_FALSE(parts.empty());
      std::uint64_t free_from = 0;
      std::uint32_t pages = 0;
      for (const Part& part : parts) {
        const std::uint64_t shard = table.groups[copies[part.copy].group].shard_bytes;
        ASSERT_EQ(part.from, done[part.copy]);
        ASSERT_LT(part.from, part.to);
        ASSERT_TRUE(part.to == shard || part.to % kPageBytes == 0);
        ASSERT_TRUE(shard > batch || (part.from == 0 && part.to == shard));
        done[part.copy] = part.to;
        ASSERT_EQ(part.staging % kPartAlignment, 0U);
        ASSERT_GE(part.staging, free_from);
        free_from = part.staging + (part.to - part.from + 15) / 16 * 16;
        ASSERT_LE(free_from, batch);
        ASSERT_EQ(part.first_page, pages);
        pages += part.pages();
      }
    }
    for (std::size_t i = 0; i < copies.size(); ++i) {
      ASSERT_EQ(done[i], table.groups[copies[i].group].shard_bytes);
    }
  }
}

TEST(CopyPlanTest, ABatchHasNoMorePartsThanItsTables) {
  const PieceTable table = table_of({8});
  std::vector<ShardCopy> copies(kMaxParts + 3);
  std::vector<Part> parts;
  Position at;
  plan_batch(table, copies, std::uint64_t{32} << 20U, at, parts);
  EXPECT_EQ(parts.size(), kMaxParts);
  plan_batch(table, copies, std::uint64_t{32} << 20U, at, parts);
  EXPECT_EQ(parts.size(), 3U);
  EXPECT_EQ(at.copy, copies.size());
}

TEST(CopyPlanTest, BatchesAreAQuarterOfTheCallWithinBounds) {
  constexpr std::uint64_t kMiB = std::uint64_t{1} << 20U;
  EXPECT_EQ(batch_bytes(100, 32 * kMiB), kMiB);
  EXPECT_EQ(batch_bytes(8 * kMiB, 32 * kMiB), 2 * kMiB);
  EXPECT_EQ(batch_bytes(8 * kMiB + 4, 32 * kMiB), 2 * kMiB + kPageBytes);
  EXPECT_EQ(batch_bytes(1000 * kMiB, 32 * kMiB), 32 * kMiB);
  EXPECT_EQ(batch_bytes(1000 * kMiB, 64 * kPageBytes), 64 * kPageBytes);
}

TEST(CopyPlanTest, TheTableHoldsAllPiecesInPayloadOrder) {
  alignas(64) static std::byte memory[1000];
  GroupRegions first;
  first.regions = {{memory, 10, 8}, {memory + 100, 20, 5}};
  GroupRegions second;
  second.regions = {{memory + 500, 7, 7}};
  const PieceTable table = piece_table({first, second});
  ASSERT_EQ(table.pieces.size(), 3U);
  EXPECT_EQ(table.pieces[1].end, 13U);
  EXPECT_EQ(table.pieces[1].stride, 20U);
  EXPECT_EQ(table.pieces[2].end, 7U);
  EXPECT_EQ(table.groups[0].shard_bytes, 13U);
  EXPECT_EQ(table.groups[1].first_piece, 2U);
  EXPECT_EQ(table.groups[1].piece_count, 1U);
}

}  // namespace
}  // namespace terrace::memory::cuda
