#include "terrace/memory/device/cpu/cpu_device.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "contract/device_contract.h"

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

std::string problem_of(const Engine& engine) {
  const auto device = make_cpu_device(engine.groups, engine.layout);
  return device.has_value() ? "" : device.error().message();
}

class CpuPlace final : public DevicePlace {
 public:
  std::byte* allocate(std::size_t bytes) override {
    memory_.emplace_back(bytes);
    return memory_.back().data();
  }
  void write(std::byte* target, const std::vector<std::byte>& bytes) override {
    std::memcpy(target, bytes.data(), bytes.size());
  }
  std::vector<std::byte> read(const std::byte* source, std::size_t bytes) override {
    return {source, source + bytes};
  }
  Result<std::unique_ptr<Device>> make(std::vector<GroupRegions> groups,
                                       const Layout& layout) override {
    return make_cpu_device(std::move(groups), layout);
  }

 private:
  std::vector<std::vector<std::byte>> memory_;
};

INSTANTIATE_TEST_SUITE_P(Cpu, DeviceContract,
                         ::testing::Values(DevicePlaceMaker{
                             "cpu", [] { return std::make_unique<CpuPlace>(); }, 400, 70'000}),
                         device_place_name);

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
