#include "terrace/tier/host/host_tier.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "terrace/base/check.h"
#include "terrace/testing/scratch_directory.h"

namespace terrace::tier {
namespace {

HostTier::Options options_of(std::uint16_t ranks = 2) {
  HostTier::Options options;
  options.layout.block_tokens = Tokens(32);
  options.layout.ranks = ranks;
  options.layout.groups = {{GroupId(0), std::vector<Bytes>(3, Bytes(2000))},  // 8 KiB slots
                           {GroupId(1), std::vector<Bytes>(1, Bytes(100))}};
  options.size = 1_MiB;
  return options;
}

std::unique_ptr<HostTier> made(const HostTier::Options& options) {
  auto tier = HostTier::create(options);
  EXPECT_TRUE(tier.has_value()) << tier.error().text();
  return std::move(tier).value();
}

TEST(HostTierTest, SizeIsForAllRanksTogetherAndNeverExceeded) {
  for (const std::uint16_t ranks : std::initializer_list<std::uint16_t>{1, 2, 3, 64}) {
    const auto tier = made(options_of(ranks));
    EXPECT_LE(tier->bytes(), 1_MiB);
    EXPECT_GT(tier->bytes() + Bytes(8192) * ranks, 1_MiB);
    EXPECT_EQ(tier->lanes().size(), ranks);
    EXPECT_EQ(tier->pool().slots(), tier->geometry().slots);
  }
}

TEST(HostTierTest, SlotsHoldTheLargestGroupsShard) {
  EXPECT_EQ(made(options_of())->geometry().slot_bytes, 8_KiB);
}

TEST(HostTierTest, BlocksBeatSize) {
  HostTier::Options options = options_of();
  options.blocks = 7;
  EXPECT_EQ(made(options)->geometry().slots, 7U);
}

TEST(HostTierTest, WithoutSizeItIsStagingWithEnoughSlotsToWork) {
  HostTier::Options options = options_of(1);
  options.size = Bytes(0);
  options.staging = 1_MiB;
  EXPECT_EQ(made(options)->geometry().slots, 128U);
  options.staging = Bytes(1);
  EXPECT_EQ(made(options)->geometry().slots, HostTier::kStagingSlots);
}

TEST(HostTierTest, SizeWithoutRoomForOneBlockNamesTheSettingAndWhatItTakes) {
  HostTier::Options options = options_of();
  options.size = Bytes(16383);
  const auto tier = HostTier::create(options);
  ASSERT_FALSE(tier.has_value());
  EXPECT_EQ(tier.error().code(), Code::kInvalid);
  EXPECT_NE(tier.error().message().find("host.size"), std::string::npos);
  EXPECT_NE(tier.error().message().find("16384"), std::string::npos);
}

TEST(HostTierTest, MoreThanTheMachineHasIsExhaustedBeforeAnythingIsTouched) {
  const testing::ScratchDirectory root;
  std::filesystem::create_directories(root.path() + "/proc");
  std::ofstream(root.path() + "/proc/meminfo") << "MemAvailable: 1000 kB\n";
  HostTier::Options options = options_of();
  options.huge_pages = false;
  options.system_root = root.path();
  const auto tier = HostTier::create(options);
  ASSERT_FALSE(tier.has_value());
  EXPECT_EQ(tier.error().code(), Code::kExhausted);
  EXPECT_NE(tier.error().message().find("host.size"), std::string::npos);
  EXPECT_NE(tier.error().message().find("MemAvailable"), std::string::npos);
  std::ofstream(root.path() + "/proc/meminfo") << "MemAvailable: 1024 kB\n";
  EXPECT_TRUE(HostTier::create(options).has_value());
}

TEST(HostTierTest, UnknownEvictionAndBadLayoutAreInvalid) {
  HostTier::Options options = options_of();
  options.eviction = "psychic";
  EXPECT_EQ(HostTier::create(options).error().code(), Code::kInvalid);
  options = options_of();
  options.layout.groups.clear();
  EXPECT_EQ(HostTier::create(options).error().code(), Code::kInvalid);
  options = options_of();
  options.blocks = std::uint64_t{1} << 40U;
  const Status many = HostTier::create(options).error();
  EXPECT_EQ(many.code(), Code::kInvalid);
  EXPECT_NE(many.message().find("lower host.blocks, or give the engine larger"), std::string::npos);
}

TEST(HostTierTest, ChecksumsAndAliasesBelongToSlotAndRank) {
  const auto tier = made(options_of(3));
  for (std::uint32_t slot = 0; slot < tier->geometry().slots; ++slot) {
    tier->set_alias(SlotIndex(slot), slot + 1000);
    for (std::uint16_t rank = 0; rank < 3; ++rank) {
      tier->set_checksum(SlotIndex(slot), RankId(rank), Checksum{slot * 10ULL + rank});
    }
  }
  for (std::uint32_t slot = 0; slot < tier->geometry().slots; ++slot) {
    ASSERT_EQ(tier->alias(SlotIndex(slot)), slot + 1000);
    for (std::uint16_t rank = 0; rank < 3; ++rank) {
      ASSERT_EQ(tier->checksum(SlotIndex(slot), RankId(rank)).value, slot * 10ULL + rank);
    }
  }
  EXPECT_THROW(tier->set_alias(SlotIndex(tier->geometry().slots), 1), base::Breach);
  EXPECT_THROW((void)tier->checksum(SlotIndex(0), RankId(3)), base::Breach);
  EXPECT_THROW((void)tier->shard(SlotIndex(0), RankId(3)), base::Breach);
}

TEST(HostTierTest, RanksHaveTheirOwnBytes) {
  const auto tier = made(options_of());
  tier->shard(SlotIndex(4), RankId(0))[0] = std::byte{1};
  tier->shard(SlotIndex(4), RankId(1))[0] = std::byte{2};
  EXPECT_EQ(tier->shard(SlotIndex(4), RankId(0))[0], std::byte{1});
  EXPECT_NE(tier->shard(SlotIndex(4), RankId(0)).data(),
            tier->shard(SlotIndex(4), RankId(1)).data());
}

TEST(HostTierTest, PopulatingGoesThroughAllLanesAndCanBeStopped) {
  HostTier::Options options = options_of();
  options.size = 160_MiB;  // 80 MiB a lane: extents of 32, 32 and 16 MiB.
  const auto tier = made(options);
  EXPECT_EQ(tier->populated_slots(), 0U);
  int asked = 0;
  EXPECT_TRUE(tier->populate([&] { return ++asked > 3; }).is_ok());
  EXPECT_EQ(tier->populated_slots(), 4096U);  // One extent in both lanes, a second one in one.
  EXPECT_TRUE(tier->populate([] { return false; }).is_ok());
  EXPECT_EQ(tier->populated_slots(), tier->geometry().slots);
}

}  // namespace
}  // namespace terrace::tier
