#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "terrace/base/rng.h"
#include "terrace/tier/disk/geometry_internal.h"

namespace terrace::tier::disk {
namespace {

Layout layout_of(std::uint16_t ranks, const std::vector<std::uint64_t>& payloads) {
  Layout layout;
  layout.block_tokens = Tokens(16);
  layout.ranks = ranks;
  for (const std::uint64_t payload : payloads) {
    const auto group = static_cast<std::uint16_t>(layout.groups.size());
    layout.groups.push_back({GroupId(group), {Bytes(payload)}});
  }
  return layout;
}

TEST(DiskGeometryTest, FramesNeverOverlapAndStayInsideTheirRun) {
  const std::uint64_t seed = random_u64();
  SCOPED_TRACE("seed " + std::to_string(seed));
  Rng rng(seed);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::uint64_t> payloads(1 + rng.below(3));
    for (auto& payload : payloads) payload = 1 + rng.below(100'000);
    const Layout layout = layout_of(static_cast<std::uint16_t>(1 + rng.below(4)), payloads);
    const std::uint64_t extent = std::uint64_t{65536} << rng.below(5);
    const auto geometry = plan_runs(layout, extent, 4096);
    ASSERT_TRUE(geometry.has_value());
    std::vector<std::pair<std::uint64_t, std::uint64_t>> frames;
    for (std::uint32_t slot = 0; slot < 2 * geometry->run_slots && slot < 300; ++slot) {
      for (std::size_t group = 0; group < payloads.size(); ++group) {
        for (std::uint16_t rank = 0; rank < layout.ranks; ++rank) {
          const std::uint64_t begin = geometry->offset(group, slot, rank);
          const std::uint64_t end = begin + geometry->frame_bytes[group];
          ASSERT_EQ(begin % 4096, 0U);
          ASSERT_EQ(begin / geometry->run_bytes(), (end - 1) / geometry->run_bytes());
          ASSERT_EQ(begin / geometry->run_bytes(), slot / geometry->run_slots);
          ASSERT_GE(geometry->frame_bytes[group], payloads[group] + 4096);
          frames.emplace_back(begin, end);
        }
      }
    }
    std::sort(frames.begin(), frames.end());
    for (std::size_t i = 1; i < frames.size(); ++i) {
      ASSERT_GE(frames[i].first, frames[i - 1].second);
    }
  }
}

TEST(DiskGeometryTest, RealBlockSizesWasteLittle) {
  for (const std::uint64_t payload : {768ULL << 10U, 3ULL << 20U, 40ULL << 20U, 100ULL << 20U}) {
    const auto geometry = plan_runs(layout_of(1, {payload}), 64ULL << 20U, 4096);
    ASSERT_TRUE(geometry.has_value());
    const double used = static_cast<double>(geometry->run_slots * geometry->block_bytes()) /
                        static_cast<double>(geometry->run_bytes());
    EXPECT_GE(used, 15.0 / 16) << payload;
  }
}

TEST(DiskGeometryTest, AnEarlierRunLengthIsKept) {
  const Layout layout = layout_of(1, {768ULL << 10U});
  EXPECT_EQ(plan_runs(layout, 1ULL << 20U, 4096, 7)->run_extents, 7U);
  EXPECT_NE(plan_runs(layout, 1ULL << 20U, 4096, 0)->run_extents, 7U);
  EXPECT_LE(plan_runs(layout, 1ULL << 20U, 4, 7)->run_extents, 4U);
}

TEST(DiskGeometryTest, ABlockLargerThanTheVolumeNamesTheSetting) {
  const auto geometry = plan_runs(layout_of(2, {1ULL << 20U}), 65536, 16);
  ASSERT_FALSE(geometry.has_value());
  EXPECT_EQ(geometry.error().code(), Code::kInvalid);
  EXPECT_NE(geometry.error().message().find("disk.size"), std::string::npos);
}

TEST(DiskGeometryTest, AFileSystemKeepsAReserveThatSuitsItsSize) {
  constexpr std::uint64_t kMi = 1U << 20U;
  constexpr std::uint64_t kGi = 1U << 30U;
  EXPECT_EQ(reserve_of(24 * kMi), 6 * kMi);
  EXPECT_EQ(reserve_of(2 * kGi), kGi / 2);
  EXPECT_EQ(reserve_of(10 * kGi), kGi);
  EXPECT_EQ(reserve_of(200 * kGi), 10 * kGi);
  EXPECT_EQ(reserve_of(20'000 * kGi), 64 * kGi);
}

TEST(DiskGeometryTest, SharesAreEvenButTakeNothingThatFits) {
  constexpr std::uint64_t kAll = 1'000'000;
  EXPECT_EQ(divide(100, {{0, kAll}, {0, kAll}}), (std::vector<std::uint64_t>{50, 50}));
  EXPECT_EQ(divide(100, {{80, kAll}, {0, kAll}}), (std::vector<std::uint64_t>{80, 20}));
  EXPECT_EQ(divide(100, {{100, kAll}, {0, kAll}}), (std::vector<std::uint64_t>{100, 0}));
  EXPECT_EQ(divide(100, {{200, kAll}}), (std::vector<std::uint64_t>{100}));
  EXPECT_EQ(divide(100, {{90, kAll}, {90, kAll}}), (std::vector<std::uint64_t>{50, 50}));
  EXPECT_EQ(divide(100, {{0, 30}, {0, kAll}}), (std::vector<std::uint64_t>{30, 70}));
  EXPECT_EQ(divide(100, {{0, 30}, {0, 20}}), (std::vector<std::uint64_t>{30, 20}));
}

TEST(DiskGeometryTest, DivisionNeverExceedsTheTotalOrAVolume) {
  Rng rng(7);
  for (int round = 0; round < 2000; ++round) {
    std::vector<VolumeShare> volumes(1 + rng.below(5));
    for (VolumeShare& volume : volumes) {
      volume.held = rng.below(200);
      volume.most = volume.held + rng.below(200);
    }
    const std::uint64_t total = rng.below(500);
    const auto given = divide(total, volumes);
    EXPECT_LE(std::accumulate(given.begin(), given.end(), std::uint64_t{0}), total);
    std::uint64_t held = 0;
    for (const VolumeShare& volume : volumes) held += volume.held;
    for (std::size_t i = 0; i < volumes.size(); ++i) {
      EXPECT_LE(given[i], volumes[i].most);
      if (held <= total) {
        EXPECT_GE(given[i], volumes[i].held);
      }
    }
  }
}

TEST(SlotMapTest, EverySlotHasOnePlaceAndVolumesLieOneBehindTheOther) {
  Rng rng(3);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::uint32_t> slots(1 + rng.below(4));
    for (auto& count : slots) count = static_cast<std::uint32_t>(rng.below(40));
    const SlotMap map(slots);
    ASSERT_EQ(map.size(), std::accumulate(slots.begin(), slots.end(), 0U));
    std::set<std::pair<std::uint32_t, std::uint32_t>> seen;
    for (std::uint32_t index = 0; index < map.size(); ++index) {
      const SlotMap::Place place = map.place(index);
      ASSERT_LT(place.slot, slots[place.volume]);
      ASSERT_TRUE(seen.emplace(place.volume, place.slot).second);
      ASSERT_EQ(map.index(place), index);
      ASSERT_GE(index, map.first(place.volume));
      ASSERT_LT(index, map.end(place.volume));
    }
  }
}

TEST(SlotMapTest, ASmallerRowTakesFromTheLargestAndKnowsNoSlotBeyondIt) {
  const std::vector<std::uint32_t> slots = {10, 3, 7};
  for (std::uint32_t most = 0; most <= 25; ++most) {
    const SlotMap map(slots, most);
    ASSERT_EQ(map.size(), std::min(most, 20U));
    std::vector<std::uint32_t> left;
    for (std::uint32_t v = 0; v < 3; ++v) {
      left.push_back(map.end(v) - map.first(v));
      ASSERT_LE(left[v], slots[v]);
      EXPECT_EQ(map.index({v, left[v]}), map.size());
    }
    for (std::uint32_t v = 0; v < 3; ++v) {  // Nobody gave who had less than another kept.
      if (left[v] == slots[v]) continue;
      for (const std::uint32_t kept : left) EXPECT_LE(kept, left[v] + 1);
    }
  }
}

}  // namespace
}  // namespace terrace::tier::disk
