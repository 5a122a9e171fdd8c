#include "terrace/memory/device/cpu/cpu_device.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "terrace/base/rng.h"

namespace terrace::memory {
namespace {

struct Engine {
  Layout layout;
  std::vector<std::byte> memory;
  std::vector<GroupRegions> groups;
};

// `is_by_block`: all pieces of a block side by side; else one array per piece, with a gap after
// each.
Engine engine_of(const std::vector<std::size_t>& pieces, std::uint64_t blocks, bool is_by_block) {
  Engine engine;
  engine.layout.block_tokens = Tokens(32);
  GroupLayout group;
  std::size_t row = 0;
  for (const std::size_t piece : pieces) {
    group.piece_bytes.emplace_back(piece);
    row += piece;
  }
  engine.layout.groups = {group};
  constexpr std::size_t kGap = 24;
  engine.memory.resize((row + kGap * pieces.size()) * blocks);
  GroupRegions regions;
  regions.block_count = blocks;
  std::byte* at = engine.memory.data();
  for (const std::size_t piece : pieces) {
    const std::size_t stride = is_by_block ? row + kGap : piece + kGap;
    regions.regions.push_back({at, stride, piece});
    at += is_by_block ? piece : stride * blocks;
  }
  engine.groups = {regions};
  return engine;
}

void fill(std::vector<std::byte>& bytes, Rng& rng) {
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(rng.next());
}

std::vector<std::byte> gathered(const GroupRegions& group, std::uint32_t block) {
  std::vector<std::byte> payload;
  for (const DeviceRegion& region : group.regions) {
    const std::byte* const piece = region.address + region.block_stride * block;
    payload.insert(payload.end(), piece, piece + region.piece_bytes);
  }
  return payload;
}

std::string problem_of(const Engine& engine) {
  const auto device = make_cpu_device(engine.groups, engine.layout);
  return device.has_value() ? "" : device.error().message();
}

TEST(CpuDeviceTest, CopiesAreThoseOfANaiveGatherForAnyShape) {
  constexpr std::uint64_t kSeed = 3;
  std::printf("seed %llu\n", static_cast<unsigned long long>(kSeed));
  Rng rng(kSeed);
  for (int round = 0; round < 400; ++round) {
    std::vector<std::size_t> pieces(rng.below(9) + 1);
    for (std::size_t& piece : pieces) piece = rng.below(round % 10 == 0 ? 70'000 : 500) + 1;
    Engine engine = engine_of(pieces, 5, rng.chance(50));
    fill(engine.memory, rng);
    const auto device = make_cpu_device(engine.groups, engine.layout);
    ASSERT_TRUE(device.has_value()) << device.error().text();
    const std::vector<std::byte> wanted = gathered(engine.groups[0], 3);
    std::vector<std::byte> host(wanted.size() + 1, std::byte{0x77});
    ShardCopy copy{0, 3, host.data(), {}};
    ASSERT_TRUE((*device)->copy_out({&copy, 1}).is_ok());
    ASSERT_EQ(std::memcmp(host.data(), wanted.data(), wanted.size()), 0);
    ASSERT_EQ(host.back(), std::byte{0x77});
    ASSERT_EQ(copy.checksum, checksum_of(wanted));

    const std::vector<std::byte> before = engine.memory;
    std::vector<std::byte> expected = before;
    ShardCopy back{0, 1, host.data(), {}};
    ASSERT_TRUE((*device)->copy_in({&back, 1}).is_ok());
    ASSERT_EQ(back.checksum, copy.checksum);
    ASSERT_EQ(gathered(engine.groups[0], 1), wanted);
    std::size_t at = 0;
    for (const DeviceRegion& region : engine.groups[0].regions) {
      const auto offset = static_cast<std::size_t>(region.address - engine.memory.data());
      std::memcpy(expected.data() + offset + region.block_stride, wanted.data() + at,
                  region.piece_bytes);
      at += region.piece_bytes;
    }
    ASSERT_EQ(engine.memory, expected) << "bytes outside block 1 changed";
  }
}

TEST(CpuDeviceTest, BlockOrGroupThatIsNotThereIsInvalidAndTouchesNothing) {
  Engine engine = engine_of({64, 64}, 2, false);
  const auto device = make_cpu_device(engine.groups, engine.layout);
  ASSERT_TRUE(device.has_value());
  std::vector<std::byte> host(128, std::byte{1});
  const std::vector<std::byte> before = engine.memory;
  ShardCopy copies[2] = {{0, 0, host.data(), {}}, {0, 2, host.data(), {}}};
  EXPECT_EQ((*device)->copy_in(copies).code(), Code::kInvalid);
  copies[1] = {1, 0, host.data(), {}};
  EXPECT_EQ((*device)->copy_in(copies).code(), Code::kInvalid);
  EXPECT_EQ(engine.memory, before);
}

TEST(RegionsTest, WhatIsWrongIsNamed) {
  const Engine good = engine_of({64, 32}, 4, false);
  EXPECT_EQ(problem_of(good), "");
  const auto with = [&](const std::function<void(Engine&)>& change) {
    Engine engine = engine_of({64, 32}, 4, false);
    change(engine);
    return problem_of(engine);
  };
  const auto has = [](const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
  };
  EXPECT_TRUE(has(with([](Engine& e) { e.groups[0].regions[1].address = nullptr; }),
                  "groups[0].regions[1]: address is null"));
  EXPECT_TRUE(
      has(with([](Engine& e) { e.groups[0].regions[0].block_stride = 63; }), "block_stride 63"));
  EXPECT_TRUE(has(with([](Engine& e) { e.groups[0].regions[0].piece_bytes = 65; }), "piece_bytes"));
  EXPECT_TRUE(has(with([](Engine& e) { e.groups[0].block_count = 0; }), "block_count"));
  EXPECT_TRUE(has(with([](Engine& e) { e.groups[0].regions.pop_back(); }), "1 regions"));
  EXPECT_TRUE(has(with([](Engine& e) { e.groups.push_back(e.groups[0]); }), "2 registered"));
  EXPECT_TRUE(has(with([](Engine& e) { e.groups[0].regions[0].block_stride = 1ULL << 63U; }),
                  "address space"));
  EXPECT_TRUE(has(with([](Engine& e) {
                    e.groups[0].has_null_block = true;
                    e.groups[0].null_block = 4;
                  }),
                  "null_block"));
}

TEST(RegionsTest, InterleavedPiecesAreFineOverlappingOnesAreNot) {
  EXPECT_EQ(problem_of(engine_of({64, 32, 8}, 4, true)), "");
  Engine twice = engine_of({64, 64}, 4, false);
  twice.groups[0].regions[1].address = twice.groups[0].regions[0].address;
  EXPECT_NE(problem_of(twice).find("overlaps"), std::string::npos);
  Engine shifted = engine_of({64, 64}, 4, true);
  shifted.groups[0].regions[1].address -= 1;
  EXPECT_NE(problem_of(shifted).find("overlaps"), std::string::npos);
}

TEST(RegionsTest, GroupsMayShareMemory) {
  Engine engine = engine_of({64, 32}, 4, false);
  engine.groups.push_back(engine.groups[0]);
  engine.layout.groups.push_back({GroupId(1), engine.layout.groups[0].piece_bytes});
  EXPECT_EQ(problem_of(engine), "");
}

}  // namespace
}  // namespace terrace::memory
