#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <utility>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/block/checksum.h"
#include "terrace/memory/device/cuda/copy_plan_internal.h"
#include "terrace/memory/device/cuda/fake_driver_fixture.h"
#include "terrace/memory/device/cuda/page_kernel_internal.h"

namespace terrace::memory::cuda {
namespace {

// A payload that was cut at random into pieces at odd addresses.
struct Cut {
  std::vector<std::byte> memory;
  std::vector<std::byte> payload;
  std::vector<GroupRegions> groups;
};

Cut cut(std::size_t bytes, std::uint32_t block, Rng& rng) {
  Cut made;
  std::vector<std::size_t> pieces;
  for (std::size_t left = bytes; left > 0;) {
    const std::size_t most = rng.chance(20) ? 20 : bytes;
    pieces.push_back(std::min<std::size_t>(left, rng.below(most) + 1));
    left -= pieces.back();
  }
  std::size_t total = 0;
  for (const std::size_t piece : pieces) total += (piece + 32) * (block + 1);
  made.memory.resize(total);
  for (std::byte& byte : made.memory) byte = static_cast<std::byte>(rng.next());
  std::byte* at = made.memory.data();
  GroupRegions group;
  group.block_count = block + 1;
  for (const std::size_t piece : pieces) {
    at += rng.chance(50) ? rng.below(16) : 0;
    const std::size_t stride = piece + rng.below(8);
    group.regions.push_back({at, stride, piece});
    made.payload.insert(made.payload.end(), at + stride * block, at + stride * block + piece);
    at += stride * (block + 1);
  }
  made.groups = {group};
  return made;
}

// What a launch over all pages does, in an order of its own.
template <bool kIsOut>
void run_pages(PartEntry& part, const PieceTable& table) {
  const auto pages = (part.to - part.from + kPageBytes - 1) / kPageBytes;
  for (std::uint64_t page = pages; page-- > 0;) {
    part.sum += copy_page<kIsOut, kCrew>(part, table.pieces.data(),
                                         static_cast<std::uint32_t>(page), HostCrew());
    ++part.pages;
  }
}

struct alignas(16) Row {
  std::byte bytes[16];
};

TEST(PageKernelTest, SumsAndBytesAreThoseOfTheCpuForAnyCut) {
  constexpr std::uint64_t kSeed = 21;
  std::printf("seed %llu\n", static_cast<unsigned long long>(kSeed));
  Rng rng(kSeed);
  for (int round = 0; round < 300; ++round) {
    const std::size_t bytes = rng.below(round % 5 == 0 ? 40'000 : 9000) + 1;
    const auto block = static_cast<std::uint32_t>(rng.below(3));
    Cut made = cut(bytes, block, rng);
    const PieceTable table = piece_table(made.groups);
    std::vector<Row> staging((bytes + 15) / 16 + 1);
    auto* const staged = reinterpret_cast<std::byte*>(staging.data());
    // Cut in two, as what is larger than a half of the staging: the sums add up.
    const std::uint64_t middle = rng.below(bytes / kPageBytes + 1) * kPageBytes;
    const auto parts = [&] {
      const auto at = reinterpret_cast<std::uintptr_t>(staged);
      const auto count = table.groups[0].piece_count;
      return std::pair(PartEntry{at, 0, middle, 0, count, block, 0, 1, 0, 0},
                       PartEntry{at + middle, middle, bytes, 0, count, block, 0, 1, 0, 0});
    };
    auto [first, second] = parts();
    run_pages<true>(first, table);
    run_pages<true>(second, table);
    ASSERT_EQ(std::memcmp(staged, made.payload.data(), bytes), 0) << "round " << round;
    const std::uint64_t sum = first.sum + second.sum;
    ASSERT_EQ(Checksum{checksum_kernel::finish_payload(sum, bytes)}, checksum_of(made.payload))
        << "round " << round << " bytes " << bytes;

    const std::vector<std::byte> before = made.memory;
    for (const DeviceRegion& region : made.groups[0].regions) {
      std::memset(region.address + region.block_stride * block, 0, region.piece_bytes);
    }
    auto [first_back, second_back] = parts();
    run_pages<false>(first_back, table);
    run_pages<false>(second_back, table);
    ASSERT_EQ(first_back.sum + second_back.sum, sum);
    ASSERT_EQ(made.memory, before) << "round " << round;
  }
}

TEST(PageKernelTest, BytesBehindTheTailDoNotEnterTheSum) {
  for (const std::uint64_t bytes : {1U, 7U, 15U, 16U, 17U, 4095U, 4097U}) {
    std::vector<Row> staging(bytes / 16 + 2, Row{});
    auto* const staged = reinterpret_cast<std::byte*>(staging.data());
    std::vector<std::byte> memory(bytes + 64, std::byte{9});
    GroupRegions group;
    group.block_count = 1;
    group.regions = {{memory.data(), bytes, bytes}};
    const PieceTable table = piece_table({group});
    PartEntry clean{reinterpret_cast<std::uintptr_t>(staged), 0, bytes, 0, 1, 0, 0, 1, 0, 0};
    PartEntry dirty = clean;
    run_pages<false>(clean, table);
    std::memset(staged + bytes, 0xFF, staging.size() * 16 - bytes);
    run_pages<false>(dirty, table);
    EXPECT_EQ(clean.sum, dirty.sum) << bytes;
    EXPECT_EQ(memory[bytes], std::byte{9}) << bytes;
  }
}

TEST(PageKernelTest, PagesAndOffsetsAreFoundInTheirTables) {
  Rng rng(4);
  for (int round = 0; round < 200; ++round) {
    std::vector<PieceEntry> pieces(rng.below(90) + 1);
    std::vector<PartEntry> parts(rng.below(90) + 1);
    std::uint64_t end = 0;
    for (PieceEntry& piece : pieces) piece.end = end += rng.below(9) + 1;
    std::uint32_t page = 0;
    for (PartEntry& part : parts) {
      part.first_page = page;
      page += static_cast<std::uint32_t>(rng.below(9)) + 1;
    }
    for (std::uint64_t offset = 0; offset < end; ++offset) {
      const auto at = piece_at(pieces.data(), static_cast<std::uint32_t>(pieces.size()), offset);
      ASSERT_TRUE(offset < pieces[at].end && (at == 0 || pieces[at - 1].end <= offset));
    }
    for (std::uint32_t i = 0; i < page; ++i) {
      const auto at = part_at(parts.data(), static_cast<std::uint32_t>(parts.size()), i);
      ASSERT_TRUE(parts[at].first_page <= i);
      ASSERT_TRUE(at + 1 == parts.size() || i < parts[at + 1].first_page);
    }
  }
}

}  // namespace
}  // namespace terrace::memory::cuda
