// The cuda device on the GPU of this machine. Skips with the driver's words where there is none.
#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "contract/device_contract.h"
#include "contract/device_worker_contract.h"
#include "terrace/memory/device/cpu/cpu_device.h"
#include "terrace/memory/device/cuda/cuda_device.h"
#include "terrace/memory/device/cuda/gpu_place_fixture.h"
#include "terrace/memory/host_segment.h"

namespace terrace::memory {
namespace {

constexpr std::uint64_t kSmallHalf = 64U << 10U;  // So that many batches and cut shards are met.

const DevicePlaceMaker kAsShipped{"as_shipped", [] { return std::make_unique<GpuPlace>(); }, 30,
                                  400'000, gpu_missing};
const DevicePlaceMaker kSmallHalves{"small_halves",
                                    [] { return std::make_unique<GpuPlace>(kSmallHalf); }, 60,
                                    300'000, gpu_missing};

INSTANTIATE_TEST_SUITE_P(Gpu, DeviceContract, ::testing::Values(kAsShipped, kSmallHalves),
                         device_place_name);

class GpuDeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = gpu_missing(); !why.empty()) GTEST_SKIP() << why;
    place_.emplace();
  }
  std::unique_ptr<Device> device_of(const PlacedEngine& engine) {
    auto made = make_cuda_device(engine.groups, engine.layout);
    EXPECT_TRUE(made.has_value()) << made.error().text();
    return made.has_value() ? std::move(*made) : nullptr;
  }
  std::optional<GpuPlace> place_;
};

struct Shape {
  const char* name;
  std::vector<std::size_t> pieces;
  std::uint64_t blocks;
  bool is_by_block;
  std::size_t gap;
};

std::vector<Shape> shapes() {
  const auto equal = [](std::size_t bytes, std::size_t count) {
    return std::vector<std::size_t>(count, bytes);
  };
  return {{"32 x 48 KiB", equal(49'152, 32), 12, false, 0},
          {"80 x 64 KiB, by block", equal(65'536, 80), 6, true, 0},
          {"61 x 72 KiB, latent", equal(73'728, 61), 6, false, 0},
          {"one piece of 4.4 MiB", {4'613'736}, 6, false, 64},
          {"40 x 1000", equal(1000, 40), 40, false, 0},
          {"33 x 4100, strides beyond", equal(4100, 33), 20, false, 4},
          {"odd: 4099, 1, 17, 65537", {4099, 1, 17, 65'537}, 9, true, 3},
          {"80 x 8", equal(8, 80), 3000, false, 0}};
}

// The same bytes on the CPU and on the GPU: the same bytes come out, with the same checksums, and
// go into other blocks.
TEST_F(GpuDeviceTest, EqualsTheCpuDeviceForLayoutsOfRealModels) {
  Rng rng(31);
  for (const Shape& shape : shapes()) {
    SCOPED_TRACE(shape.name);
    PlacedEngine engine(*place_, {shape.pieces}, shape.blocks, shape.is_by_block, shape.gap, rng);
    const auto gpu = device_of(engine);
    ASSERT_NE(gpu, nullptr);
    auto groups = engine.groups;
    std::byte* const base = engine.groups[0].regions[0].address;
    for (DeviceRegion& region : groups[0].regions) {
      region.address = engine.wanted.data() + (region.address - base);
    }
    const auto cpu = make_cpu_device(groups, engine.layout).value();
    const auto half = static_cast<std::uint32_t>(shape.blocks / 2);
    const std::size_t bytes = engine.shard_bytes(0);
    std::vector<std::byte> gpu_host(bytes * half);
    std::vector<std::byte> cpu_host(bytes * half);
    std::vector<ShardCopy> gpu_copies;
    std::vector<ShardCopy> cpu_copies;
    for (std::uint32_t i = 0; i < half; ++i) {
      gpu_copies.push_back({0, i, gpu_host.data() + i * bytes, {}});
      cpu_copies.push_back({0, i, cpu_host.data() + i * bytes, {}});
    }
    const Status out = gpu->copy_out(gpu_copies);
    ASSERT_TRUE(out.is_ok()) << out.text();
    ASSERT_TRUE(cpu->copy_out(cpu_copies).is_ok());
    ASSERT_EQ(gpu_host, cpu_host);
    for (std::uint32_t i = 0; i < half; ++i) {
      ASSERT_EQ(gpu_copies[i].checksum, cpu_copies[i].checksum) << i;
      gpu_copies[i].block += half;
      cpu_copies[i].block += half;
      gpu_copies[i].checksum = {};
    }
    const Status in = gpu->copy_in(gpu_copies);
    ASSERT_TRUE(in.is_ok()) << in.text();
    ASSERT_TRUE(cpu->copy_in(cpu_copies).is_ok());
    for (std::uint32_t i = 0; i < half; ++i) {
      ASSERT_EQ(gpu_copies[i].checksum, cpu_copies[i].checksum) << i;
    }
    ASSERT_TRUE(engine.is_as_wanted());
    place_->free_all();
  }
}

TEST_F(GpuDeviceTest, AShardLargerThanAllStagingIsCopiedInParts) {
  Rng rng(37);
  PlacedEngine engine(*place_, {{50'000'003, 60'000'000}}, 2, false, 0, rng);
  const auto device = device_of(engine);
  ASSERT_NE(device, nullptr);
  std::vector<std::byte> host(engine.shard_bytes(0));
  ShardCopy copy{0, 0, host.data(), {}};
  ASSERT_TRUE(device->copy_out({&copy, 1}).is_ok());
  EXPECT_EQ(host, engine.gathered(0, 0));
  EXPECT_EQ(copy.checksum, checksum_of(host));
  copy.block = 1;
  ASSERT_TRUE(device->copy_in({&copy, 1}).is_ok());
  EXPECT_EQ(copy.checksum, checksum_of(host));
  engine.scatter(0, 1, host);
  EXPECT_TRUE(engine.is_as_wanted());
}

TEST_F(GpuDeviceTest, ManyThreadsCopyLargeShardsAtOnce) {
  constexpr std::uint32_t kThreads = 12;
  Rng rng(41);
  PlacedEngine engine(*place_, {std::vector<std::size_t>(32, 98'304)}, std::uint64_t{2} * kThreads,
                      false, 0, rng);
  const auto device = device_of(engine);
  ASSERT_NE(device, nullptr);
  std::vector<int> wrong(kThreads);
  {
    std::vector<std::jthread> threads;
    threads.reserve(kThreads);
    for (std::uint32_t thread = 0; thread < kThreads; ++thread) {
      threads.emplace_back([&, thread] {
        std::vector<std::byte> host(engine.shard_bytes(0));
        for (int round = 0; round < 20; ++round) {
          ShardCopy copy{0, 2 * thread + static_cast<std::uint32_t>(round % 2), host.data(), {}};
          const bool is_out = device->copy_out({&copy, 1}).is_ok();
          const Checksum out = copy.checksum;
          const bool is_in = device->copy_in({&copy, 1}).is_ok();
          const bool is_right = is_out && is_in && out == copy.checksum && out == checksum_of(host);
          wrong[thread] += is_right ? 0 : 1;
        }
      });
    }
  }
  EXPECT_EQ(wrong, std::vector<int>(kThreads));
  EXPECT_TRUE(engine.is_as_wanted());
}

// As a worker does with its lane: extents one after the other, slots in any of them.
TEST_F(GpuDeviceTest, SlotsOfALaneThatIsRegisteredInStepsAreCopiedInOneCall) {
  Rng rng(43);
  constexpr std::uint32_t kSlots = 60;
  PlacedEngine engine(*place_, {std::vector<std::size_t>(32, 49'152)}, kSlots, false, 0, rng);
  const auto device = device_of(engine);
  ASSERT_NE(device, nullptr);
  const SegmentGeometry geometry{Bytes(engine.shard_bytes(0)), kSlots, 1};
  const Lane lane = Lane::create(geometry, false, "test").value();
  std::vector<std::byte*> extents;
  for (std::uint32_t i = 0; i + 1 < geometry.extents(); ++i) {  // The last one is left out.
    ASSERT_TRUE(lane.populate(i).is_ok());
    const SlotIndex first(i * geometry.slots_per_extent());
    const std::span<std::byte> extent(lane.slot(first).data(), geometry.extent_bytes().value());
    const Status registered = device->register_host(extent);
    ASSERT_TRUE(registered.is_ok()) << registered.text();
    extents.push_back(extent.data());
  }
  std::vector<ShardCopy> copies;
  copies.reserve(kSlots);
  for (std::uint32_t i = 0; i < kSlots; ++i) {
    copies.push_back({0, i, lane.slot(SlotIndex(i)).data(), {}});
  }
  const Status out = device->copy_out(copies);
  ASSERT_TRUE(out.is_ok()) << out.text();
  for (const ShardCopy& copy : copies) {
    ASSERT_EQ(copy.checksum, checksum_of({copy.host, engine.shard_bytes(0)}));
  }
  ASSERT_TRUE(device->copy_in(copies).is_ok());
  EXPECT_TRUE(engine.is_as_wanted());
  for (std::byte* const extent : extents) EXPECT_TRUE(device->unregister_host(extent).is_ok());
}

TEST_F(GpuDeviceTest, TheThreadsContextIsLeftAsItWas) {
  Rng rng(47);
  PlacedEngine engine(*place_, {{4096}}, 2, false, 0, rng);
  const auto device = device_of(engine);
  ASSERT_NE(device, nullptr);
  std::vector<std::byte> host(4096);
  ShardCopy copy{0, 0, host.data(), {}};
  ASSERT_TRUE(device->copy_out({&copy, 1}).is_ok());
  EXPECT_TRUE(place_->has_no_context());
  place_->in_context([&] { EXPECT_TRUE(device->copy_out({&copy, 1}).is_ok()); });
}

TEST_F(GpuDeviceTest, OrdinaryMemoryIsRefused) {
  std::vector<std::byte> memory(64);
  Layout layout;
  layout.block_tokens = Tokens(32);
  layout.groups = {{GroupId(0), {Bytes(64)}}};
  GroupRegions group;
  group.regions = {{memory.data(), 64, 64}};
  group.block_count = 1;
  const auto made = make_cuda_device({group}, layout);
  ASSERT_FALSE(made.has_value());
  EXPECT_EQ(made.error().code(), Code::kInvalid) << made.error().text();
}

// Breaks the context of its process, so in one of its own.
int use_a_freed_region() {
  GpuPlace place;
  Rng rng(53);
  PlacedEngine engine(place, {{64U << 20U}}, 2, false, 0, rng);
  auto device = place.make(engine.groups, engine.layout).value();
  std::vector<std::byte> host(engine.shard_bytes(0));
  ShardCopy copy{0, 0, host.data(), {}};
  copy.checksum = Checksum{42};
  if (!device->copy_out({&copy, 1}).is_ok()) return 1;
  place.free_all();
  copy.checksum = Checksum{42};
  const Status failed = device->copy_out({&copy, 1});
  std::fprintf(stderr, "freed region: %s\n", failed.text().c_str());
  if (failed.code() != Code::kIo || copy.checksum != Checksum{42}) return 2;
  const Status later = device->copy_in({&copy, 1});
  std::fprintf(stderr, "afterwards: %s\n", later.text().c_str());
  if (later.code() != Code::kIo) return 3;
  device.reset();
  ::_exit(0);  // The place's own calls fail from now on.
}

TEST_F(GpuDeviceTest, AFreedRegionIsAnErrorAndNoCrash) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(::_exit(use_a_freed_region()), ::testing::ExitedWithCode(0),
              "freed region: io: cuda .*afterwards: .*not used any more");
}

}  // namespace
}  // namespace terrace::memory

namespace terrace::worker {
namespace {

INSTANTIATE_TEST_SUITE_P(Gpu, DeviceWorkerContract,
                         ::testing::Values(memory::DevicePlaceMaker{
                             "cuda", [] { return std::make_unique<memory::GpuPlace>(); }, 1, 1,
                             memory::gpu_missing}),
                         memory::device_place_name);

}  // namespace
}  // namespace terrace::worker
