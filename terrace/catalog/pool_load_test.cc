#include "terrace/catalog/pool_load.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "terrace/base/check.h"
#include "terrace/base/rng.h"
#include "terrace/testing/keys.h"

namespace terrace::catalog {
namespace {

using testing::key;

std::unique_ptr<Pool> make_pool(std::uint32_t slots) {
  return Pool::create({.slots = slots}).value();
}

struct Block {
  std::uint64_t number = 0;
  std::uint32_t slot = 0;
  std::uint64_t sequence = 0;
};

// In the order of `blocks`; `parts` entered last first.
std::uint32_t load(Pool& pool, const std::vector<Block>& blocks, std::size_t parts) {
  auto load = PoolLoad::create(pool, NamespaceId(1), GroupId(0), parts).value();
  std::vector<std::vector<PoolLoad::Entry>> entries(parts);
  for (const Block& block : blocks) {
    const auto entry =
        load.take({key(block.number).hash, SlotIndex(block.slot), Generation(5), block.sequence});
    if (entry) entries[load.part_of(*entry)].push_back(*entry);
  }
  for (std::size_t part = parts; part > 0; --part) load.enter(part - 1, entries[part - 1]);
  const auto sequences = load.sequences();
  std::vector<SlotIndex> order;
  for (std::uint32_t slot = 0; slot < sequences.size(); ++slot) {
    if (sequences[slot] != 0) order.emplace_back(slot);
  }
  std::sort(order.begin(), order.end(),
            [&](SlotIndex a, SlotIndex b) { return sequences[a.value()] < sequences[b.value()]; });
  return load.finish(order);
}

TEST(PoolLoadTest, OfTwoBlocksWithOneKeyTheOneWrittenLaterStays) {
  for (const bool is_later_first : {false, true}) {
    auto pool = make_pool(3);
    std::vector<Block> blocks{{7, 0, 20}, {7, 1, 30}, {8, 2, 10}};
    if (is_later_first) std::swap(blocks[0], blocks[1]);
    EXPECT_EQ(load(*pool, blocks, 2), 2U);
    EXPECT_EQ(pool->count(SlotState::kSealed), 2U);
    EXPECT_EQ(pool->pin(key(7))->slot().index, SlotIndex(1));
    EXPECT_EQ(pool->next_victim()->key, key(8));
    auto next = pool->reserve(key(9)).value();
    EXPECT_EQ(next.slot(), (SlotRef{SlotIndex(0), Generation(6)}))
        << "goes on after what was there";
  }
}

TEST(PoolLoadTest, SlotsThatAreTakenOrWildAreLeftAlone) {
  auto pool = make_pool(3);
  ASSERT_TRUE(pool->adopt(key(1, 9), SlotIndex(1), Generation(1)));
  pool->age(SlotIndex(2), Generation(5));
  EXPECT_EQ(load(*pool, {{1, 1, 5}, {2, 3, 6}, {3, 2, 7}, {4, 0, 0}}, 2), 0U);
  EXPECT_EQ(pool->count(SlotState::kFree), 2U);
  EXPECT_TRUE(pool->contains(key(1, 9)));
}

TEST(PoolLoadTest, AnOrderThatLeavesOutABlockIsABreach) {
  auto pool = make_pool(2);
  auto load = PoolLoad::create(*pool, NamespaceId(1), GroupId(0), 1).value();
  const auto entry = load.take({key(1).hash, SlotIndex(0), Generation(1), 1});
  load.enter(0, std::span(&*entry, 1));
  ASSERT_EQ(load.sequences()[0], 1U);
  EXPECT_THROW(load.finish({}), base::Breach);
}

// The naive twin: a map, and the blocks adopted one by one in the order of writing.
TEST(PoolLoadTest, IsAsGoodAsAdoptingOneByOneInTheOrderOfWriting) {
  const std::uint64_t seed = random_u64();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng rng(seed);
  for (int round = 0; round < 300; ++round) {
    const auto slots = static_cast<std::uint32_t>(1 + rng.below(400));
    const std::uint64_t keys = 1 + rng.below(std::uint64_t{2} * slots);
    std::vector<Block> blocks;
    for (std::uint32_t slot = 0; slot < slots; ++slot) {
      if (!rng.chance(20)) blocks.push_back({rng.below(keys), slot, 0});
    }
    for (std::size_t i = 0; i < blocks.size(); ++i) blocks[i].sequence = 1 + 3 * i;
    for (std::size_t i = blocks.size(); i > 1; --i) {
      std::swap(blocks[i - 1].sequence, blocks[rng.below(i)].sequence);
    }
    auto loaded = make_pool(slots);
    load(*loaded, blocks, 1 + rng.below(5));
    std::map<std::uint64_t, Block> latest;
    for (const Block& block : blocks) {
      Block& held = latest.try_emplace(block.number, block).first->second;
      if (held.sequence < block.sequence) held = block;
    }
    std::sort(blocks.begin(), blocks.end(),
              [](const Block& a, const Block& b) { return a.sequence < b.sequence; });
    auto adopted = make_pool(slots);
    for (const Block& block : blocks) {
      if (latest.at(block.number).slot != block.slot) continue;
      ASSERT_TRUE(adopted->adopt(key(block.number), SlotIndex(block.slot), Generation(5)));
    }
    for (int state = 0; state < kSlotStateCount; ++state) {
      ASSERT_EQ(loaded->count(static_cast<SlotState>(state)),
                adopted->count(static_cast<SlotState>(state)));
    }
    // New blocks take the same slots, free ones and then the oldest.
    for (std::uint64_t n = 0; n < slots; ++n) {
      const auto expected = adopted->next_victim();
      const auto victim = loaded->next_victim();
      ASSERT_EQ(victim.has_value(), expected.has_value());
      if (victim) {
        ASSERT_EQ(victim->key, expected->key);
      }
      auto slot = loaded->reserve(key(10'000 + n)).value();
      auto twin = adopted->reserve(key(10'000 + n)).value();
      ASSERT_EQ(slot.slot().index, twin.slot().index);
      (void)std::move(slot).begin_fill().seal();
      (void)std::move(twin).begin_fill().seal();
    }
  }
}

}  // namespace
}  // namespace terrace::catalog
