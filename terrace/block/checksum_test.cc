#include "terrace/block/checksum.h"

#define XXH_INLINE_ALL
#include <gtest/gtest.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/block/checksum_internal.h"
#include "terrace/testing/vectors.h"

namespace terrace {
namespace {

namespace kernel = checksum_kernel;
using checksum_internal::available_paths;
using checksum_internal::Path;
using checksum_internal::Store;

std::vector<std::byte> random_payload(std::uint64_t seed, std::size_t bytes) {
  Rng rng(seed);
  std::vector<std::byte> payload(bytes);
  for (std::size_t i = 0; i < bytes; i += 8) {
    const std::uint64_t word = rng.next();
    std::memcpy(payload.data() + i, &word, std::min<std::size_t>(8, bytes - i));
  }
  return payload;
}

std::uint64_t value_of(std::span<const std::byte> payload) { return checksum_of(payload).value; }

TEST(ChecksumTest, EqualsThePublishedVectors) {
  for (const auto& row : testing::read_vectors("checksum.tsv")) {
    const std::size_t bytes = std::stoull(row.at(2));
    const auto payload = row.at(0) == "zeros" ? std::vector<std::byte>(bytes)
                                              : random_payload(std::stoull(row.at(1)), bytes);
    EXPECT_EQ(value_of(payload), std::stoull(row.at(3), nullptr, 16)) << row[0] << " " << bytes;
  }
}

// The published half of the definition, against the published code.
TEST(ChecksumTest, PieceHashIsXxh3) {
  for (std::uint64_t seed = 0; seed < 50; ++seed) {
    const auto piece = random_payload(seed, kernel::kPieceBytes);
    const std::uint64_t term = kernel::piece_term(XXH3_64bits(piece.data(), piece.size()), 0);
    EXPECT_EQ(value_of(piece), kernel::finish_payload(term, piece.size()));
  }
}

TEST(ChecksumTest, SameValueHoweverThePayloadIsCut) {
  const auto payload = random_payload(1, 300'001);
  const std::uint64_t expected = value_of(payload);
  for (const std::size_t piece : {1UL, 63UL, 64UL, 65UL, 1000UL, 4096UL, 5000UL, 24UL << 10U,
                                  48UL << 10U, 100'000UL, 1UL << 20U}) {
    std::vector<std::byte> target(payload.size());
    ShardCopier copier;
    ShardCopier adder;
    for (std::size_t at = 0; at < payload.size(); at += piece) {
      const std::size_t bytes = std::min(piece, payload.size() - at);
      copier.copy(target.data() + at, payload.data() + at, bytes);
      adder.add(payload.data() + at, bytes);
    }
    EXPECT_EQ(copier.finish().value, expected) << piece;
    EXPECT_EQ(adder.finish().value, expected) << piece;
    EXPECT_EQ(target, payload) << piece;
  }
}

TEST(ChecksumTest, SameValueForRandomCutsWithCopiesAndAddsMixed) {
  const std::uint64_t seed = 31;
  SCOPED_TRACE(seed);
  Rng rng(seed);
  for (int round = 0; round < 300; ++round) {
    // Source and target at any alignment.
    const auto buffer = random_payload(rng.next(), 64 + rng.below(40'000));
    const auto payload = std::span(buffer).subspan(rng.below(64));
    std::vector<std::byte> target(payload.size() + 64, std::byte{0x5A});
    const std::size_t shift = rng.below(64);
    ShardCopier copier;
    for (std::size_t at = 0; at < payload.size();) {
      const std::size_t bytes = std::min<std::size_t>(
          rng.chance(30) ? rng.below(10'000) : rng.below(200), payload.size() - at);
      if (rng.chance(80)) {
        copier.copy(target.data() + shift + at, payload.data() + at, bytes);
      } else {
        copier.add(payload.data() + at, bytes);
        std::copy_n(payload.data() + at, bytes, target.data() + shift + at);
      }
      at += bytes;
    }
    ASSERT_EQ(copier.finish().value, value_of(payload));
    ASSERT_TRUE(std::equal(payload.begin(), payload.end(), target.begin() + shift));
    ASSERT_TRUE(std::all_of(target.begin(), target.begin() + shift,
                            [](std::byte b) { return b == std::byte{0x5A}; }));
    ASSERT_TRUE(std::all_of(target.begin() + shift + payload.size(), target.end(),
                            [](std::byte b) { return b == std::byte{0x5A}; }));
  }
}

TEST(ChecksumTest, FinishStartsTheCopierAfresh) {
  const auto payload = random_payload(3, 5000);
  ShardCopier copier;
  copier.add(payload.data(), payload.size());
  const Checksum first = copier.finish();
  copier.add(payload.data(), payload.size());
  EXPECT_EQ(copier.finish(), first);
}

TEST(ChecksumTest, NoBytesChangeNothing) {
  ShardCopier copier;
  copier.copy(nullptr, nullptr, 0);
  copier.add(nullptr, 0);
  EXPECT_EQ(copier.finish(), checksum_of({}));
}

TEST(ChecksumTest, EverySingleBitFlipIsSeen) {
  auto payload = random_payload(4, 2 * kernel::kPieceBytes + 100);
  const std::uint64_t expected = value_of(payload);
  for (std::size_t bit = 0; bit < payload.size() * 8; ++bit) {
    const auto mask = std::byte{1} << static_cast<int>(bit % 8);
    payload[bit / 8] ^= mask;
    ASSERT_NE(value_of(payload), expected) << "bit " << bit;
    payload[bit / 8] ^= mask;
  }
}

TEST(ChecksumTest, ExchangedPiecesAreSeen) {
  const auto payload = random_payload(5, 8 * kernel::kPieceBytes);
  for (std::size_t a = 0; a < 8; ++a) {
    for (std::size_t b = a + 1; b < 8; ++b) {
      auto other = payload;
      const auto at = [&](std::size_t piece) {
        return other.begin() + static_cast<std::ptrdiff_t>(piece * kernel::kPieceBytes);
      };
      std::swap_ranges(at(a), at(a + 1), at(b));
      ASSERT_NE(value_of(other), value_of(payload)) << a << " " << b;
    }
  }
}

TEST(ChecksumTest, ZeroedRangesAndShiftsAreSeen) {
  const auto payload = random_payload(6, 5 * kernel::kPieceBytes);
  const std::uint64_t expected = value_of(payload);
  for (std::size_t first = 0; first < payload.size(); first += 512) {
    auto other = payload;
    std::fill_n(other.begin() + static_cast<std::ptrdiff_t>(first), 512, std::byte{0});
    ASSERT_NE(value_of(other), expected);
  }
  auto turned = payload;
  std::rotate(turned.begin(), turned.begin() + 64, turned.end());
  EXPECT_NE(value_of(turned), expected);
}

TEST(ChecksumTest, LengthCountsEvenWhereOnlyZerosAreMissing) {
  const std::vector<std::byte> zeros(3 * kernel::kPieceBytes);
  std::set<std::uint64_t> values;
  for (std::size_t bytes = 0; bytes <= zeros.size(); ++bytes) {
    values.insert(value_of(std::span(zeros).first(bytes)));
  }
  EXPECT_EQ(values.size(), zeros.size() + 1);
}

TEST(ChecksumTest, EveryTruncationIsSeen) {
  const auto payload = random_payload(7, kernel::kPieceBytes + 300);
  std::set<std::uint64_t> values;
  for (std::size_t bytes = 0; bytes <= payload.size(); ++bytes) {
    values.insert(value_of(std::span(payload).first(bytes)));
  }
  EXPECT_EQ(values.size(), payload.size() + 1);
}

TEST(ChecksumTest, AllPathsGiveTheScalarStateAndCopyTheSameBytes) {
  constexpr std::size_t kStripes = 200;
  alignas(64) static std::byte source[64 + kStripes * 64];
  alignas(64) static std::byte target[kStripes * 64];
  const auto random = random_payload(8, sizeof(source));
  std::copy(random.begin(), random.end(), source);
  const Path& scalar = available_paths()[0];
  EXPECT_STREQ(scalar.name, "scalar");
  EXPECT_GE(available_paths().size(), 2U);
  const std::uint64_t seed = 9;
  SCOPED_TRACE(seed);
  Rng rng(seed);
  for (const Path& path : available_paths()) {
    for (const Store store : {Store::kNone, Store::kCached, Store::kAsked, Store::kStreaming}) {
      for (int round = 0; round < 200; ++round) {
        const std::byte* from = source + rng.below(64);
        std::fill_n(target, sizeof(target), std::byte{0});
        kernel::PayloadState expected;
        kernel::PayloadState state;
        scalar.none(expected, from, nullptr, kStripes, from);
        for (std::size_t at = 0; at < kStripes;) {
          const std::size_t part = std::min<std::size_t>(rng.below(90), kStripes - at);
          path.get(store)(state, from + at * 64, target + at * 64, part, from);
          at += part;
        }
        ASSERT_EQ(state.sums, expected.sums) << path.name;
        ASSERT_EQ(state.sum, expected.sum) << path.name;
        ASSERT_EQ(state.stripes, expected.stripes) << path.name;
        if (store == Store::kNone) continue;
        ASSERT_EQ(std::memcmp(target, from, sizeof(target)), 0) << path.name;
      }
    }
  }
}

// Every way to write a piece, also those of other CPUs: the bytes, the sum, and nothing beside
// them.
TEST(ChecksumTest, AllTuningsCopyAndCheckAlike) {
  constexpr std::size_t kMost = 5000;  // 320,000 bytes: past every threshold.
  const auto source = random_payload(12, 64 + kMost * 64);
  std::vector<std::byte> target(source.size() + 256);
  const std::uint64_t seed = 13;
  SCOPED_TRACE(seed);
  Rng rng(seed);
  std::set<checksum_internal::NearWrite> ways;
  for (const checksum_internal::Tuning& tuning : checksum_internal::tunings()) {
    ways.insert(tuning.near_write);
    for (int round = 0; round < 60; ++round) {
      const std::size_t stripes = 1 + rng.below(round % 4 == 0 ? kMost : 300);
      const std::byte* from = source.data() + rng.below(64);
      std::fill(target.begin(), target.end(), std::byte{0x5A});
      std::byte* to = target.data() + 64 - reinterpret_cast<std::uintptr_t>(target.data()) % 64;
      if (rng.chance(30)) to += rng.below(64);
      kernel::PayloadState expected;
      kernel::PayloadState state;
      available_paths()[0].none(expected, from, nullptr, stripes, from);
      checksum_internal::copy_stripes(state, checksum_internal::best_path(), tuning, to, from,
                                      stripes, rng.chance(50) ? source.data() : nullptr);
      ASSERT_EQ(state.sums, expected.sums) << tuning.name;
      ASSERT_EQ(state.sum, expected.sum) << tuning.name;
      ASSERT_EQ(std::memcmp(to, from, stripes * 64), 0) << tuning.name;
      ASSERT_EQ(to[-1], std::byte{0x5A}) << tuning.name;
      ASSERT_EQ(to[stripes * 64], std::byte{0x5A}) << tuning.name;
    }
  }
  EXPECT_EQ(ways.size(), 3U);
}

TEST(ChecksumTest, UncheckedCopiesMoveTheSameBytesAtAnyAlignmentAndLength) {
  const std::uint64_t seed = 21;
  SCOPED_TRACE(seed);
  Rng rng(seed);
  for (int round = 0; round < 200; ++round) {
    const auto source = random_payload(rng.next(), rng.chance(20) ? 300'000 : 1 + rng.below(9000));
    std::vector<std::byte> target(source.size() + 128, std::byte{0x5A});
    const std::size_t shift = rng.below(64);
    copy_unchecked(target.data() + shift, source.data(), source.size(), target.data());
    ASSERT_TRUE(std::equal(source.begin(), source.end(), target.begin() + shift));
    ASSERT_EQ(target[shift + source.size()], std::byte{0x5A});
  }
}

TEST(ChecksumTest, LargeAlignedPiecesAreCopiedAndCheckedAlike) {
  const auto payload = random_payload(22, 30 * (96UL << 10U));
  std::vector<std::byte> target(payload.size() + 64);
  auto* aligned = target.data();
  while (reinterpret_cast<std::uintptr_t>(aligned) % 64 != 0) ++aligned;
  ShardCopier copier;
  constexpr std::size_t kPiece = 96UL << 10U;
  for (std::size_t at = 0; at < payload.size(); at += kPiece) {
    copier.copy(aligned + at, payload.data() + at, kPiece, payload.data() + at + kPiece);
  }
  EXPECT_EQ(copier.finish().value, value_of(payload));
  EXPECT_TRUE(std::equal(payload.begin(), payload.end(), aligned));
}

// What a GPU would do: lanes share each row in any order, and pieces are summed in any order.
TEST(ChecksumTest, LanesAndPiecesNeedNoOrder) {
  constexpr std::size_t kPieces = 5;
  const auto payload = random_payload(10, kPieces * kernel::kPieceBytes);
  for (const std::uint32_t lanes : {1U, 7U, 32U, 128U, 200U}) {
    std::uint64_t sum = 0;
    for (std::size_t piece = kPieces; piece-- > 0;) {
      const auto load = [&](std::uint32_t word) {
        std::uint64_t value = 0;
        std::memcpy(&value, payload.data() + piece * kernel::kPieceBytes + std::size_t{word} * 8,
                    8);
        return value;
      };
      kernel::Accumulators sums = kernel::kStart;
      for (std::uint32_t row = 0; row < kernel::kRowsPerPiece; ++row) {
        for (std::uint32_t lane = lanes; lane-- > 0;) {
          kernel::Accumulators share{};
          kernel::add_row_share(share, row, lane, lanes, load);
          for (std::uint32_t i = 0; i < kernel::kLanes; ++i) sums[i] += share[i];
        }
        if (row + 1 < kernel::kRowsPerPiece) kernel::scramble(sums);
      }
      sum += kernel::piece_term(kernel::finish_piece(sums), piece);
    }
    EXPECT_EQ(kernel::finish_payload(sum, payload.size()), value_of(payload)) << lanes;
  }
}

}  // namespace
}  // namespace terrace
