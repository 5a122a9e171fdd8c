// One 4 KiB page of a payload, copied between pieces and staging and summed in the same pass by a
// crew of 32 threads: the body of the CUDA kernels, and the same code on the CPU for tests. A page
// is what docs/formats/checksum.md calls a piece; a piece here is a block's bytes in one region.
// nvcc reads this header: C++20, nothing of base/.
// Threading: pure but for the bytes copied.  Waits: never.
// Source: terrace/block/checksum_kernel.h, which defines the sums.
#pragma once

#include <cstdint>

#include "terrace/block/checksum_kernel.h"

// For both sides; APART: never inlined on the device, so that what is rare costs no registers.
#if defined(__CUDACC__)
#define TERRACE_BOTH __host__ __device__ inline
#define TERRACE_BOTH_APART __host__ __device__ inline __attribute__((noinline))
#define TERRACE_UNROLL _Pragma("unroll")
#else
#define TERRACE_BOTH inline
#define TERRACE_BOTH_APART inline
#define TERRACE_UNROLL
#endif

namespace terrace::memory::cuda {

inline constexpr std::uint32_t kCrew = 32;  // Threads of a warp.
inline constexpr std::uint64_t kPageBytes = checksum_kernel::kPieceBytes;
// A row is 1 KiB, 64 vectors of 16 bytes: two for each thread. Thread t takes vectors t and t + 32
// of every row, so always the same two of the eight accumulators: pair t % 4.
inline constexpr std::uint32_t kRows = checksum_kernel::kRowsPerPiece;
inline constexpr std::uint32_t kVectorsPerThread = 2 * kRows;
inline constexpr std::uint32_t kPairs = checksum_kernel::kLanes / 2;

// One region of a group, in payload order.
struct PieceEntry {
  std::uint64_t address;  // Of block 0's piece.
  std::uint64_t stride;   // From block to block.
  std::uint64_t end;      // Where the piece ends in the payload.
};

// Bytes from..to of one shard's payload, which lie in staging for one launch. `from` is a multiple
// of 4096; so is `to`, unless the payload ends there. The kernel adds what it did to `sum` and
// `pages`, whatever stands there before, and the whole entry goes back.
struct PartEntry {
  std::uint64_t staging;  // Address of byte `from`; aligned to 16.
  std::uint64_t from;
  std::uint64_t to;
  std::uint32_t first_piece;  // Of its group, in the table of pieces.
  std::uint32_t piece_count;
  std::uint32_t block;
  std::uint32_t first_page;  // Of the launch.
  std::uint64_t launch;
  std::uint64_t sum;    // Terms of its pages.
  std::uint64_t pages;  // How many were done.
};
static_assert(sizeof(PartEntry) == 64 && sizeof(PieceEntry) == 24);

struct alignas(16) Vector {
  std::uint64_t even = 0;
  std::uint64_t odd = 0;
};
using Pair = Vector;  // Two accumulators beside each other.

// The constants that one thread needs, for its pair.
struct ShareKeys {
  Vector near;  // Secret for its first vector of a row.
  Vector far;   // For its second one.
  Vector last;  // For its second one in the last row.
  Vector scramble;
  Vector merge;
  Vector start;
};

constexpr ShareKeys share_keys(std::uint32_t thread) {
  namespace sums = checksum_kernel;
  const std::uint32_t even = 2 * (thread % kPairs);
  const std::uint32_t stripe = thread / kPairs;
  const std::uint32_t far = stripe + kCrew / kPairs;
  const std::uint32_t last = (kRows - 1) * sums::kStripesPerRow + far;
  return {{sums::stripe_secret(stripe, even), sums::stripe_secret(stripe, even + 1)},
          {sums::stripe_secret(far, even), sums::stripe_secret(far, even + 1)},
          {sums::stripe_secret(last, even), sums::stripe_secret(last, even + 1)},
          {sums::kScrambleSecret[even], sums::kScrambleSecret[even + 1]},
          {sums::kMergeSecret[even], sums::kMergeSecret[even + 1]},
          {sums::kStart[even], sums::kStart[even + 1]}};
}

TERRACE_BOTH std::uint64_t product_of_halves(std::uint64_t key) {
  return (key & 0xFFFFFFFFU) * (key >> 32U);
}

// checksum_kernel::add_word for both words of a vector.
TERRACE_BOTH void add_vector(Pair& sums, const Vector& words, const Vector& secret) {
  sums.even += words.odd + product_of_halves(words.even ^ secret.even);
  sums.odd += words.even + product_of_halves(words.odd ^ secret.odd);
}

// checksum_kernel::scramble for one pair.
TERRACE_BOTH void scramble_pair(Pair& sums, const Vector& secret) {
  sums.even = (sums.even ^ (sums.even >> 47U) ^ secret.even) * checksum_kernel::kPrime32A;
  sums.odd = (sums.odd ^ (sums.odd >> 47U) ^ secret.odd) * checksum_kernel::kPrime32A;
}

// What one pair adds to a page's hash, and what follows once all four are added: together
// checksum_kernel::finish_piece.
TERRACE_BOTH std::uint64_t fold_pair(const Pair& sums, const Vector& secret) {
  const checksum_kernel::Wide product =
      static_cast<checksum_kernel::Wide>(sums.even ^ secret.even) * (sums.odd ^ secret.odd);
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64U);
}
TERRACE_BOTH std::uint64_t finish_folds(std::uint64_t folds) {
  std::uint64_t hash = kPageBytes * checksum_kernel::kPrime64A + folds;
  hash = (hash ^ (hash >> 37U)) * checksum_kernel::kPrimeXxh3;
  return hash ^ (hash >> 32U);
}

// What one thread holds of a page.
struct Share {
  Vector vectors[kVectorsPerThread];
};

// The page's hash from the shares of a whole crew, of which the caller runs kOwn threads: 1 on the
// device, 32 on the CPU. `crew.keys(i)`: of its i-th one; `crew.add_pairs(pairs)` gives every
// thread the sum over all threads of its pair; `crew.add_folds(folds)` the sum over the four pairs.
template <std::uint32_t kOwn, typename Crew>
TERRACE_BOTH std::uint64_t hash_page(const Share (&shares)[kOwn], const Crew& crew) {
  Pair sums[kOwn];
  for (std::uint32_t i = 0; i < kOwn; ++i) sums[i] = crew.keys(i).start;
  TERRACE_UNROLL for (std::uint32_t row = 0; row < kRows; ++row) {
    Pair added[kOwn];
    TERRACE_UNROLL for (std::uint32_t i = 0; i < kOwn; ++i) {
      const bool is_last = row + 1 == kRows;
      add_vector(added[i], shares[i].vectors[2 * row], crew.keys(i).near);
      add_vector(added[i], shares[i].vectors[2 * row + 1],
                 is_last ? crew.keys(i).last : crew.keys(i).far);
    }
    crew.add_pairs(added);
    TERRACE_UNROLL for (std::uint32_t i = 0; i < kOwn; ++i) {
      sums[i].even += added[i].even;
      sums[i].odd += added[i].odd;
      if (row + 1 < kRows) scramble_pair(sums[i], crew.keys(i).scramble);
    }
  }
  std::uint64_t folds[kOwn];
  for (std::uint32_t i = 0; i < kOwn; ++i) folds[i] = fold_pair(sums[i], crew.keys(i).merge);
  crew.add_folds(folds);
  return finish_folds(folds[0]);
}

// Addresses are numbers in the tables: nvcc's and the host's pointers are the same 64 bits.
template <typename T>
TERRACE_BOTH T* at(std::uint64_t address) {
  return reinterpret_cast<T*>(address);  // NOLINT(performance-no-int-to-ptr): as above.
}

// The first piece that ends behind `offset`.
TERRACE_BOTH std::uint32_t piece_at(const PieceEntry* pieces, std::uint32_t count,
                                    std::uint64_t offset) {
  std::uint32_t low = 0;
  while (count > 0) {
    const std::uint32_t half = count / 2;
    const bool is_before = pieces[low + half].end <= offset;
    low += is_before ? half + 1 : 0;
    count = is_before ? count - half - 1 : half;
  }
  return low;
}

// Where byte `offset` of the payload lies; `piece` moves on to the piece that holds it.
TERRACE_BOTH std::uint64_t address_of(const PieceEntry* pieces, std::uint32_t& piece,
                                      std::uint32_t block, std::uint64_t offset) {
  while (pieces[piece].end <= offset) ++piece;
  const std::uint64_t begin = piece == 0 ? 0 : pieces[piece - 1].end;
  return pieces[piece].address + pieces[piece].stride * block + (offset - begin);
}

// 16 bytes from payload offset `offset` on where they are cut, or lie at odd places, byte by byte;
// zeros from `part.to` on.
TERRACE_BOTH_APART Vector gather_bytes(const PartEntry& part, const PieceEntry* pieces,
                                       std::uint32_t piece, std::uint64_t offset) {
  Vector words;
  for (std::uint32_t i = 0; i < sizeof(Vector) && offset + i < part.to; ++i) {
    const std::uint64_t byte =
        *at<unsigned char>(address_of(pieces, piece, part.block, offset + i));
    (i < 8 ? words.even : words.odd) |= byte << (i % 8 * 8);
  }
  return words;
}
// The reverse; writes nothing from `part.to` on.
TERRACE_BOTH_APART void scatter_bytes(const PartEntry& part, const PieceEntry* pieces,
                                      std::uint32_t piece, std::uint64_t offset, Vector words) {
  for (std::uint32_t i = 0; i < sizeof(Vector) && offset + i < part.to; ++i) {
    const std::uint64_t word = i < 8 ? words.even : words.odd;
    *at<unsigned char>(address_of(pieces, piece, part.block, offset + i)) =
        static_cast<unsigned char>(word >> (i % 8 * 8));
  }
}
// The last bytes of a part in staging.
TERRACE_BOTH_APART Vector tail_bytes(const PartEntry& part, std::uint64_t offset) {
  Vector words;
  for (std::uint32_t i = 0; i < sizeof(Vector) && offset + i < part.to; ++i) {
    const std::uint64_t byte = *at<unsigned char>(part.staging + (offset - part.from) + i);
    (i < 8 ? words.even : words.odd) |= byte << (i % 8 * 8);
  }
  return words;
}

TERRACE_BOTH Vector load_pieces(const PartEntry& part, const PieceEntry* pieces,
                                std::uint32_t piece, std::uint64_t offset) {
  if (offset >= part.to) return {};
  const std::uint64_t address = address_of(pieces, piece, part.block, offset);
  if (offset + sizeof(Vector) > pieces[piece].end || address % 8 != 0) {
    return gather_bytes(part, pieces, piece, offset);
  }
  if (address % 16 == 0) return *at<const Vector>(address);
  const auto* const words = at<const std::uint64_t>(address);
  return {words[0], words[1]};
}

// Writes nothing beside the pieces.
TERRACE_BOTH void store_pieces(const PartEntry& part, const PieceEntry* pieces, std::uint32_t piece,
                               std::uint64_t offset, const Vector& vector) {
  if (offset >= part.to) return;
  const std::uint64_t address = address_of(pieces, piece, part.block, offset);
  if (offset + sizeof(Vector) > pieces[piece].end || address % 8 != 0) {
    scatter_bytes(part, pieces, piece, offset, vector);
  } else if (address % 16 == 0) {
    *at<Vector>(address) = vector;
  } else {
    auto* const words = at<std::uint64_t>(address);
    words[0] = vector.even;
    words[1] = vector.odd;
  }
}

TERRACE_BOTH Vector load_staging(const PartEntry& part, std::uint64_t offset) {
  if (offset + sizeof(Vector) > part.to) return tail_bytes(part, offset);
  return *at<const Vector>(part.staging + (offset - part.from));
}

// Writes up to 15 bytes from `part.to` on: staging has that room behind each part.
TERRACE_BOTH void store_staging(const PartEntry& part, std::uint64_t offset, const Vector& words) {
  if (offset >= part.to) return;
  *at<Vector>(part.staging + (offset - part.from)) = words;
}

// Page `page` of the part: copies it (out = pieces to staging) and gives its term of the checksum.
// A byte is read once and goes from there to the target and into the sum. `crew.thread(i)`: the
// number, 0..31, of the caller's i-th thread.
template <bool kIsOut, std::uint32_t kOwn, typename Crew>
TERRACE_BOTH std::uint64_t copy_page(const PartEntry& part, const PieceEntry* table,
                                     std::uint32_t page, const Crew& crew) {
  const PieceEntry* const pieces = table + part.first_piece;
  const std::uint64_t begin = part.from + page * kPageBytes;
  const std::uint32_t piece = piece_at(pieces, part.piece_count, begin);
  Share shares[kOwn];
  TERRACE_UNROLL for (std::uint32_t i = 0; i < kOwn; ++i) {
    TERRACE_UNROLL for (std::uint32_t k = 0; k < kVectorsPerThread; ++k) {
      const std::uint64_t offset = begin + (crew.thread(i) + k * kCrew) * sizeof(Vector);
      shares[i].vectors[k] =
          kIsOut ? load_pieces(part, pieces, piece, offset) : load_staging(part, offset);
    }
  }
  TERRACE_UNROLL for (std::uint32_t i = 0; i < kOwn; ++i) {
    TERRACE_UNROLL for (std::uint32_t k = 0; k < kVectorsPerThread; ++k) {
      const std::uint64_t offset = begin + (crew.thread(i) + k * kCrew) * sizeof(Vector);
      if (kIsOut) {
        store_staging(part, offset, shares[i].vectors[k]);
      } else {
        store_pieces(part, pieces, piece, offset, shares[i].vectors[k]);
      }
    }
  }
  return checksum_kernel::piece_term(hash_page<kOwn>(shares, crew), begin / kPageBytes);
}

// The part that page `page` of the launch belongs to.
TERRACE_BOTH std::uint32_t part_at(const PartEntry* parts, std::uint32_t count,
                                   std::uint32_t page) {
  std::uint32_t low = 0;
  while (count > 1) {
    const std::uint32_t half = count / 2;
    const bool is_behind = parts[low + half].first_page <= page;
    low += is_behind ? half : 0;
    count = is_behind ? count - half : half;
  }
  return low;
}

}  // namespace terrace::memory::cuda
