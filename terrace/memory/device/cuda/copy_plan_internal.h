// How a call's shards are cut into batches that fit a half of the staging: pure.
// Threading: pure functions.  Waits: never.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "terrace/memory/device/api/device.h"
#include "terrace/memory/device/cuda/page_kernel_internal.h"

namespace terrace::memory::cuda {

inline constexpr std::uint64_t kPartAlignment = 256;  // Of parts in staging; covers store_staging.
inline constexpr std::uint32_t kMaxParts = 1024;      // Of a batch.

// The table that kernels read: all pieces of all groups, and which of them are a group's.
struct PieceTable {
  struct Group {
    std::uint32_t first_piece = 0;
    std::uint32_t piece_count = 0;
    std::uint64_t shard_bytes = 0;
  };
  std::vector<PieceEntry> pieces;
  std::vector<Group> groups;
};
[[nodiscard]] PieceTable piece_table(const std::vector<GroupRegions>& groups);

// Bytes from..to of the payload of copy number `copy`, at `staging` in the half.
struct Part {
  std::size_t copy = 0;
  std::uint64_t from = 0;
  std::uint64_t to = 0;
  std::uint64_t staging = 0;
  std::uint32_t first_page = 0;
  [[nodiscard]] std::uint32_t pages() const {
    return static_cast<std::uint32_t>((to - from + kPageBytes - 1) / kPageBytes);
  }
};

// How far a call has come.
struct Position {
  std::size_t copy = 0;
  std::uint64_t offset = 0;  // In its payload; a multiple of 4096.
};

// Bytes that one batch aims at: a quarter of the call, so that the first kernel and the last DMA,
// which nothing overlaps, are small; at least 1 MiB, at most a half.
[[nodiscard]] std::uint64_t batch_bytes(std::uint64_t call_bytes, std::uint64_t half_bytes);

// The next batch from `at` on, which moves; replaces `parts`, whose capacity is enough if it is
// kMaxParts. A shard that fits a batch is never cut; parts begin and, but for a payload's end, end
// at multiples of 4096 of the payload. `batch` is a multiple of 4096.
void plan_batch(const PieceTable& table, std::span<const ShardCopy> copies, std::uint64_t batch,
                Position& at, std::vector<Part>& parts);

}  // namespace terrace::memory::cuda
