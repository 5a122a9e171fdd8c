// Somewhere that engines keep their KV cache, and an engine in it, for the tests and benchmarks of
// every device.
// Threading: thread-compatible.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
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

}  // namespace terrace::memory
