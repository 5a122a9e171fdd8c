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
#include "terrace/testing/device_place.h"

namespace terrace::memory {

struct DevicePlaceMaker {
  std::string name;
  std::function<std::unique_ptr<DevicePlace>()> make;
  int rounds = 100;                   // Of shapes tried at random.
  std::size_t large_bytes = 300'000;  // Of a piece, now and then.
  // Why this machine has no such place; empty = it has one.
  std::function<std::string()> missing = [] { return std::string(); };
};

inline void PrintTo(const DevicePlaceMaker& maker, std::ostream* out) { *out << maker.name; }

inline std::string device_place_name(const ::testing::TestParamInfo<DevicePlaceMaker>& info) {
  return info.param.name;
}

class DeviceContract : public ::testing::TestWithParam<DevicePlaceMaker> {
 protected:
  void SetUp() override {
    if (const std::string why = GetParam().missing(); !why.empty()) GTEST_SKIP() << why;
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
  constexpr std::uint64_t kThreads = 4;
  constexpr std::uint64_t kBlocks = 6;  // Of each thread.
  Rng rng(17);
  PlacedEngine engine(*place_, {{4096, 1000}, {20'000}}, kThreads * kBlocks, false, 16, rng);
  const auto device = device_of(engine);
  ASSERT_NE(device, nullptr);
  std::vector<std::string> problems(kThreads);
  const auto work = [&](std::uint64_t thread) {
    for (int round = 0; round < 10; ++round) {
      for (std::uint16_t group = 0; group < 2; ++group) {
        const auto block = static_cast<std::uint32_t>(thread * kBlocks +
                                                      static_cast<std::uint64_t>(round) % kBlocks);
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
    threads.reserve(kThreads);
    for (std::uint64_t i = 0; i < kThreads; ++i) threads.emplace_back(work, i);
  }
  EXPECT_EQ(problems, std::vector<std::string>(kThreads));
  EXPECT_TRUE(engine.is_as_wanted());
}

}  // namespace terrace::memory
