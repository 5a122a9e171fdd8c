// What every device must do: copies of any shape equal to a naive gather, whose checksums are those
// of checksum_of. A device's test instantiates it with a place that has the accelerator's memory:
//   INSTANTIATE_TEST_SUITE_P(Cpu, DeviceContract, ::testing::Values(...), device_place_name);
// Threading: tests only.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/memory/device/api/device.h"

namespace terrace::memory {

// Somewhere that engines' memory can be had, and devices over it.
class DevicePlace {
 public:
  virtual ~DevicePlace() = default;
  // Aligned to 64, until the place goes. Never null.
  virtual std::byte* allocate(std::size_t bytes) = 0;
  virtual void write(std::byte* target, const std::vector<std::byte>& bytes) = 0;
  virtual std::vector<std::byte> read(const std::byte* source, std::size_t bytes) = 0;
  virtual Result<std::unique_ptr<Device>> make(std::vector<GroupRegions> groups,
                                               const Layout& layout) = 0;
};

struct DevicePlaceMaker {
  std::string name;
  std::function<std::unique_ptr<DevicePlace>()> make;
  int rounds = 100;                   // Of shapes tried at random.
  std::size_t large_bytes = 300'000;  // Of a piece, now and then.
};

inline void PrintTo(const DevicePlaceMaker& maker, std::ostream* out) { *out << maker.name; }

inline std::string device_place_name(const ::testing::TestParamInfo<DevicePlaceMaker>& info) {
  return info.param.name;
}

inline std::vector<std::byte> random_bytes(std::size_t bytes, Rng& rng) {
  std::vector<std::byte> made(bytes + 8);
  for (std::size_t at = 0; at < bytes; at += 8) {
    const std::uint64_t word = rng.next();
    std::memcpy(made.data() + at, &word, 8);
  }
  made.resize(bytes);
  return made;
}

// An engine's memory in a place, filled at random, and what it should hold.
class PlacedEngine {
 public:
  // For each group the bytes of its pieces. `is_by_block`: all pieces of a block side by side; else
  // one array per piece. `gap`: bytes of nobody's between blocks.
  PlacedEngine(DevicePlace& place, const std::vector<std::vector<std::size_t>>& shapes,
               std::uint64_t blocks, bool is_by_block, std::size_t gap, Rng& rng)
      : place_(place) {
    layout.block_tokens = Tokens(32);
    std::size_t total = 0;
    for (const auto& pieces : shapes) {
      for (const std::size_t piece : pieces) total += (piece + gap) * blocks;
    }
    base_ = place.allocate(total);
    std::byte* at = base_;
    for (const auto& pieces : shapes) {
      GroupLayout group{GroupId(static_cast<std::uint16_t>(layout.groups.size())), {}};
      GroupRegions regions;
      regions.block_count = blocks;
      std::size_t row = 0;
      for (const std::size_t piece : pieces) row += piece + gap;
      for (const std::size_t piece : pieces) {
        group.piece_bytes.emplace_back(piece);
        const std::size_t stride = is_by_block ? row : piece + gap;
        regions.regions.push_back({at, stride, piece});
        at += is_by_block ? piece + gap : stride * blocks;
      }
      if (is_by_block) at += row * (blocks - 1);
      layout.groups.push_back(std::move(group));
      groups.push_back(std::move(regions));
    }
    wanted = random_bytes(total, rng);
    place.write(base_, wanted);
  }

  [[nodiscard]] std::size_t shard_bytes(std::uint16_t group) const {
    return layout.groups[group].shard_bytes().value();
  }
  [[nodiscard]] std::vector<std::byte> gathered(std::uint16_t group, std::uint32_t block) const {
    std::vector<std::byte> payload;
    for (const DeviceRegion& region : groups[group].regions) {
      const std::byte* const piece = place_of(region, block);
      payload.insert(payload.end(), piece, piece + region.piece_bytes);
    }
    return payload;
  }
  // In `wanted` alone.
  void scatter(std::uint16_t group, std::uint32_t block, const std::vector<std::byte>& payload) {
    const std::byte* from = payload.data();
    for (const DeviceRegion& region : groups[group].regions) {
      std::memcpy(wanted.data() + (place_of(region, block) - wanted.data()), from,
                  region.piece_bytes);
      from += region.piece_bytes;
    }
  }
  [[nodiscard]] bool is_as_wanted() const { return place_.read(base_, wanted.size()) == wanted; }

  Layout layout;
  std::vector<GroupRegions> groups;
  std::vector<std::byte> wanted;

 private:
  [[nodiscard]] const std::byte* place_of(const DeviceRegion& region, std::uint32_t block) const {
    return wanted.data() + (region.address - base_) + region.block_stride * block;
  }
  DevicePlace& place_;
  std::byte* base_ = nullptr;
};

class DeviceContract : public ::testing::TestWithParam<DevicePlaceMaker> {
 protected:
  void SetUp() override {
    place_ = GetParam().make();
    ASSERT_NE(place_, nullptr);
  }
  std::unique_ptr<Device> device_of(const PlacedEngine& engine) {
    auto made = place_->make(engine.groups, engine.layout);
    EXPECT_TRUE(made.has_value()) << made.error().text();
    return made.has_value() ? std::move(*made) : nullptr;
  }
  std::unique_ptr<DevicePlace> place_;
};

TEST_P(DeviceContract, CopiesAreThoseOfANaiveGatherForAnyShape) {
  constexpr std::uint64_t kSeed = 3;
  std::printf("seed %llu\n", static_cast<unsigned long long>(kSeed));
  Rng rng(kSeed);
  for (int round = 0; round < GetParam().rounds; ++round) {
    std::vector<std::size_t> pieces(rng.below(9) + 1);
    for (std::size_t& piece : pieces) {
      piece = rng.below(round % 10 == 0 ? GetParam().large_bytes : 500) + 1;
      if (rng.chance(30)) piece = (piece + 15) / 16 * 16;
    }
    PlacedEngine engine(*place_, {pieces}, 5, rng.chance(50), rng.below(4) * 8, rng);
    const auto device = device_of(engine);
    ASSERT_NE(device, nullptr);
    const std::vector<std::byte> payload = engine.gathered(0, 3);
    const std::size_t odd = rng.below(9);
    std::vector<std::byte> host(odd + payload.size() + 1, std::byte{0x77});
    ShardCopy copy{0, 3, host.data() + odd, {}};
    ASSERT_TRUE(device->copy_out({&copy, 1}).is_ok());
    ASSERT_EQ(std::memcmp(host.data() + odd, payload.data(), payload.size()), 0);
    ASSERT_EQ(host.back(), std::byte{0x77});
    ASSERT_EQ(copy.checksum, checksum_of(payload));

    ShardCopy back{0, 1, host.data() + odd, {}};
    ASSERT_TRUE(device->copy_in({&back, 1}).is_ok());
    ASSERT_EQ(back.checksum, copy.checksum);
    engine.scatter(0, 1, payload);
    ASSERT_TRUE(engine.is_as_wanted()) << "round " << round;
  }
}

TEST_P(DeviceContract, ManyShardsOfSeveralGroupsGoInOneCall) {
  Rng rng(11);
  PlacedEngine engine(*place_, {{4096, 8192}, {1000, 4100, 24}, {65'536}}, 24, false, 0, rng);
  const auto device = device_of(engine);
  ASSERT_NE(device, nullptr);
  std::vector<std::vector<std::byte>> hosts;
  std::vector<ShardCopy> copies;
  for (std::uint32_t i = 0; i < 36; ++i) {
    const auto group = static_cast<std::uint16_t>(i % 3);
    hosts.emplace_back(engine.shard_bytes(group));
    copies.push_back({group, i / 3, hosts.back().data(), {}});
  }
  ASSERT_TRUE(device->copy_out(copies).is_ok());
  for (std::size_t i = 0; i < copies.size(); ++i) {
    ASSERT_EQ(hosts[i], engine.gathered(copies[i].group, copies[i].block)) << i;
    ASSERT_EQ(copies[i].checksum, checksum_of(hosts[i])) << i;
    engine.scatter(copies[i].group, copies[i].block + 12, hosts[i]);
  }
  for (ShardCopy& copy : copies) copy.block += 12;
  const std::vector<ShardCopy> before = copies;
  ASSERT_TRUE(device->copy_in(copies).is_ok());
  for (std::size_t i = 0; i < copies.size(); ++i) {
    ASSERT_EQ(copies[i].checksum, before[i].checksum) << i;
  }
  ASSERT_TRUE(engine.is_as_wanted());
}

TEST_P(DeviceContract, DamageOnTheHostIsSeenOnTheWayIn) {
  Rng rng(5);
  PlacedEngine engine(*place_, {{5000, 96, 12'000}}, 2, false, 8, rng);
  const auto device = device_of(engine);
  ASSERT_NE(device, nullptr);
  std::vector<std::byte> host(engine.shard_bytes(0));
  ShardCopy copy{0, 0, host.data(), {}};
  ASSERT_TRUE(device->copy_out({&copy, 1}).is_ok());
  const Checksum right = copy.checksum;
  for (int round = 0; round < 40; ++round) {
    const std::size_t at = round == 0 ? host.size() - 1 : rng.below(host.size());
    const auto bit = static_cast<std::byte>(1U << rng.below(8));
    host[at] ^= bit;
    ASSERT_TRUE(device->copy_in({&copy, 1}).is_ok());
    ASSERT_NE(copy.checksum, right) << at;
    host[at] ^= bit;
  }
  ASSERT_TRUE(device->copy_in({&copy, 1}).is_ok());
  EXPECT_EQ(copy.checksum, right);
  EXPECT_TRUE(engine.is_as_wanted());
}

TEST_P(DeviceContract, BlockOrGroupThatIsNotThereIsInvalidAndTouchesNothing) {
  Rng rng(7);
  PlacedEngine engine(*place_, {{64, 64}}, 2, false, 24, rng);
  const auto device = device_of(engine);
  ASSERT_NE(device, nullptr);
  std::vector<std::byte> host(128, std::byte{1});
  ShardCopy copies[2] = {{0, 0, host.data(), {}}, {0, 2, host.data(), {}}};
  EXPECT_EQ(device->copy_in(copies).code(), Code::kInvalid);
  copies[1] = {1, 0, host.data(), {}};
  EXPECT_EQ(device->copy_in(copies).code(), Code::kInvalid);
  EXPECT_TRUE(engine.is_as_wanted());
}

TEST_P(DeviceContract, NothingToCopyIsFine) {
  Rng rng(7);
  PlacedEngine engine(*place_, {{64}}, 1, false, 0, rng);
  const auto device = device_of(engine);
  ASSERT_NE(device, nullptr);
  EXPECT_TRUE(device->copy_out({}).is_ok());
  EXPECT_TRUE(device->copy_in({}).is_ok());
}

TEST_P(DeviceContract, RegisteredHostMemoryCopiesAsAnyOther) {
  Rng rng(13);
  PlacedEngine engine(*place_, {{4096, 300}}, 2, false, 0, rng);
  const auto device = device_of(engine);
  ASSERT_NE(device, nullptr);
  const std::size_t bytes = (engine.shard_bytes(0) + 4095) / 4096 * 4096;
  const std::unique_ptr<std::byte, void (*)(void*)> host(
      static_cast<std::byte*>(std::aligned_alloc(4096, bytes)), &std::free);
  std::memset(host.get(), 0, bytes);
  ASSERT_TRUE(device->register_host({host.get(), bytes}).is_ok());
  ShardCopy copy{0, 1, host.get(), {}};
  EXPECT_TRUE(device->copy_out({&copy, 1}).is_ok());
  EXPECT_EQ(copy.checksum, checksum_of(engine.gathered(0, 1)));
  EXPECT_TRUE(device->unregister_host(host.get()).is_ok());
}

TEST_P(DeviceContract, SeveralThreadsMayCopyAtOnce) {
  constexpr std::uint32_t kThreads = 4;
  constexpr std::uint32_t kBlocks = 6;  // Of each thread.
  Rng rng(17);
  PlacedEngine engine(*place_, {{4096, 1000}, {20'000}}, kThreads * kBlocks, false, 16, rng);
  const auto device = device_of(engine);
  ASSERT_NE(device, nullptr);
  std::vector<std::string> problems(kThreads);
  const auto work = [&](std::uint32_t thread) {
    for (int round = 0; round < 10; ++round) {
      for (std::uint16_t group = 0; group < 2; ++group) {
        const std::uint32_t block = thread * kBlocks + static_cast<std::uint32_t>(round) % kBlocks;
        std::vector<std::byte> host(engine.shard_bytes(group));
        ShardCopy copy{group, block, host.data(), {}};
        const bool is_out = device->copy_out({&copy, 1}).is_ok();
        if (!is_out || host != engine.gathered(group, block)) problems[thread] = "copy_out";
        const Checksum wanted = checksum_of(host);
        if (copy.checksum != wanted) problems[thread] = "checksum out";
        if (!device->copy_in({&copy, 1}).is_ok()) problems[thread] = "copy_in";
        if (copy.checksum != wanted) problems[thread] = "checksum in";
      }
    }
  };
  {
    std::vector<std::jthread> threads;
    for (std::uint32_t i = 0; i < kThreads; ++i) threads.emplace_back(work, i);
  }
  EXPECT_EQ(problems, std::vector<std::string>(kThreads));
  EXPECT_TRUE(engine.is_as_wanted());
}

}  // namespace terrace::memory
