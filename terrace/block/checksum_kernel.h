// Body of the payload checksum (docs/formats/checksum.md): XXH3-64 of each 4 KiB piece, mixed with
// the piece's index and summed. Compiled for the CPU; memory/device/cuda has the GPU twin: every
// function is constexpr C++20 on plain integers so that nvcc can read this header as it is. Any
// number of lanes may share a piece: within a 1 KiB row all additions commute, and pieces are
// combined by addition, so neither lanes nor pieces need an order.
// Threading: pure functions.  Waits: never.
// Source: the xxHash specification (XXH3, long input, seed 0); combination of our own.
#pragma once

#include <array>
#include <cstdint>

namespace terrace::checksum_kernel {

inline constexpr std::uint64_t kPieceBytes = 4096;
inline constexpr std::uint32_t kStripeBytes = 64;      // 8 accumulators of 8 bytes.
inline constexpr std::uint32_t kStripesPerPiece = 64;  // 4096 / 64
inline constexpr std::uint32_t kStripesPerRow =
    16;  // (192 - 64) / 8: secret consumed at 8 B a step.
inline constexpr std::uint32_t kRowsPerPiece = 4;
inline constexpr std::uint32_t kLanes = 8;

inline constexpr std::uint64_t kPrime32A = 0x9E3779B1U;
inline constexpr std::uint64_t kPrime32B = 0x85EBCA77U;
inline constexpr std::uint64_t kPrime32C = 0xC2B2AE3DU;
inline constexpr std::uint64_t kPrime64A = 0x9E3779B185EBCA87ULL;
inline constexpr std::uint64_t kPrime64B = 0xC2B2AE3D27D4EB4FULL;
inline constexpr std::uint64_t kPrime64C = 0x165667B19E3779F9ULL;
inline constexpr std::uint64_t kPrime64D = 0x85EBCA77C2B2AE63ULL;
inline constexpr std::uint64_t kPrime64E = 0x27D4EB2F165667C5ULL;
inline constexpr std::uint64_t kPrimeXxh3 = 0x165667919E3779F9ULL;  // Not kPrime64C.

// XXH3's default secret, as little-endian words.
inline constexpr std::array<std::uint64_t, 24> kSecret = {
    0xbe4ba423396cfeb8ULL, 0x1cad21f72c81017cULL, 0xdb979083e96dd4deULL, 0x1f67b3b7a4a44072ULL,
    0x78e5c0cc4ee679cbULL, 0x2172ffcc7dd05a82ULL, 0x8e2443f7744608b8ULL, 0x4c263a81e69035e0ULL,
    0xcb00c391bb52283cULL, 0xa32e531b8b65d088ULL, 0x4ef90da297486471ULL, 0xd8acdea946ef1938ULL,
    0x3f349ce33f76faa8ULL, 0x1d4f0bc7c7bbdcf9ULL, 0x3159b4cd4be0518aULL, 0x647378d9c97e9fc8ULL,
    0xc3ebd33483acc5eaULL, 0xeb6313faffa081c5ULL, 0x49daf0b751dd0d17ULL, 0x9e68d429265516d3ULL,
    0xfca1477d58be162bULL, 0xce31d07ad1b8f88fULL, 0x280416958f3acb45ULL, 0x7e404bbbcafbd7afULL};

using Accumulators = std::array<std::uint64_t, kLanes>;

// Eight words of the secret from a byte offset that need not be a multiple of 8.
constexpr Accumulators secret_at(unsigned byte_offset) {
  Accumulators words{};
  const unsigned first = byte_offset / 8;
  const unsigned shift = byte_offset % 8 * 8;
  for (unsigned i = 0; i < kLanes; ++i) {
    words[i] = kSecret[first + i] >> shift;
    if (shift != 0) words[i] |= kSecret[first + i + 1] << (64 - shift);
  }
  return words;
}
inline constexpr Accumulators kScrambleSecret = secret_at(128);  // 192 - 64
inline constexpr Accumulators kLastSecret = secret_at(121);      // 192 - 64 - 7
inline constexpr Accumulators kMergeSecret = secret_at(11);
inline constexpr Accumulators kStart = {kPrime32C, kPrime64A, kPrime64B, kPrime64C,
                                        kPrime64D, kPrime32B, kPrime64E, kPrime32A};

// The key word for accumulator `lane` of stripe `stripe` (0..63) of a piece. The piece's last
// stripe has a secret of its own.
constexpr std::uint64_t stripe_secret(std::uint32_t stripe, std::uint32_t lane) {
  return stripe == kStripesPerPiece - 1 ? kLastSecret[lane]
                                        : kSecret[stripe % kStripesPerRow + lane];
}

// Adds one 8-byte word (little-endian) to the sums. Calls commute within a row.
constexpr void add_word(Accumulators& sums, std::uint32_t stripe, std::uint32_t lane,
                        std::uint64_t word) {
  const std::uint64_t key = word ^ stripe_secret(stripe, lane);
  sums[lane ^ 1U] += word;
  sums[lane] += (key & 0xFFFFFFFFU) * (key >> 32U);
}

// Between rows 0|1, 1|2, 2|3; not after row 3.
constexpr void scramble(Accumulators& sums) {
  for (std::uint32_t i = 0; i < kLanes; ++i) {
    sums[i] = (sums[i] ^ (sums[i] >> 47U) ^ kScrambleSecret[i]) * kPrime32A;
  }
}

__extension__ using Wide = unsigned __int128;

// XXH3-64 of the piece whose four rows are in `sums`.
constexpr std::uint64_t finish_piece(const Accumulators& sums) {
  std::uint64_t hash = kPieceBytes * kPrime64A;
  for (std::uint32_t i = 0; i < kLanes; i += 2) {
    const Wide product =
        static_cast<Wide>(sums[i] ^ kMergeSecret[i]) * (sums[i + 1] ^ kMergeSecret[i + 1]);
    hash += static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64U);
  }
  hash = (hash ^ (hash >> 37U)) * kPrimeXxh3;
  return hash ^ (hash >> 32U);
}

// Finaliser of XXH64: a bijection of 64 bits.
constexpr std::uint64_t avalanche(std::uint64_t h) {
  h = (h ^ (h >> 33U)) * kPrime64B;
  h = (h ^ (h >> 29U)) * kPrime64C;
  return h ^ (h >> 32U);
}

// What piece `index` adds to the payload's sum.
constexpr std::uint64_t piece_term(std::uint64_t piece_hash, std::uint64_t index) {
  return avalanche(piece_hash + (index + 1) * kPrime64A);
}

// The checksum of a payload of `bytes` bytes from the sum of its pieces' terms.
constexpr std::uint64_t finish_payload(std::uint64_t sum, std::uint64_t bytes) {
  return avalanche(sum + (bytes + 1) * kPrime64E);
}

// One lane's share of one row: words `lane`, `lane + lanes`, … of its 128. `load(w)` gives word w
// of the piece. Add the sums of all lanes, in any order, to the row's accumulators.
template <typename Load>
constexpr void add_row_share(Accumulators& sums, std::uint32_t row, std::uint32_t lane,
                             std::uint32_t lanes, const Load& load) {
  constexpr std::uint32_t kWordsPerRow = kStripesPerRow * kLanes;
  for (std::uint32_t w = row * kWordsPerRow + lane; w < (row + 1) * kWordsPerRow; w += lanes) {
    add_word(sums, w / kLanes, w % kLanes, load(w));
  }
}

// A payload under way: whole stripes only.
struct PayloadState {
  alignas(64) Accumulators sums = kStart;  // Of the piece begun.
  std::uint64_t sum = 0;                   // Terms of the pieces done.
  std::uint64_t stripes = 0;               // Stripes taken so far.
};

// After stripe number `state.stripes - 1` was added: closes its row and its piece where they end.
constexpr void close_stripe(PayloadState& state) {
  if (state.stripes % kStripesPerPiece == 0) {
    state.sum += piece_term(finish_piece(state.sums), state.stripes / kStripesPerPiece - 1);
    state.sums = kStart;
  } else if (state.stripes % kStripesPerRow == 0) {
    scramble(state.sums);
  }
}

}  // namespace terrace::checksum_kernel
