#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "terrace/block/checksum_internal.h"

// Every function carries the instruction set it needs as an attribute, so that this file is built
// for the baseline like all others; none of them is called before available_paths() has asked the
// CPU.
namespace terrace::checksum_internal {
namespace {

namespace kernel = checksum_kernel;
constexpr std::size_t kStripe = kernel::kStripeBytes;

// Into the second-level cache: the first is too small to hold a page for later.
void ask_for(const std::byte* ahead) {
  _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T1);
}

// Store::kAsked: how far ahead of the stores.
constexpr std::size_t kTargetAheadBytes = 512;

template <Store kStore>
void ask_for_target(const std::byte* target) {
  if constexpr (kStore == Store::kAsked) {
    _mm_prefetch(reinterpret_cast<const char*>(target) + kTargetAheadBytes, _MM_HINT_T0);
  }
}

// A run of stripes that share one row, or the single last stripe of a piece, which has its own key.
struct Run {
  std::size_t stripes;
  const std::uint64_t* secret;  // Of its first stripe; 8 bytes further for each next one.
};

Run next_run(std::uint64_t stripes_before, std::size_t left) {
  const std::size_t position = stripes_before % kernel::kStripesPerPiece;
  if (position == kernel::kStripesPerPiece - 1) return {1, kernel::kLastSecret.data()};
  const std::size_t in_row = position % kernel::kStripesPerRow;
  const bool is_last_row = position >= kernel::kStripesPerPiece - kernel::kStripesPerRow;
  const std::size_t room = kernel::kStripesPerRow - in_row - (is_last_row ? 1 : 0);
  return {std::min(room, left), kernel::kSecret.data() + in_row};
}

bool ends_piece(std::uint64_t stripes) { return stripes % kernel::kStripesPerPiece == 0; }
bool ends_row(std::uint64_t stripes) { return stripes % kernel::kStripesPerRow == 0; }

template <Store kStore>
void stripes_scalar(kernel::PayloadState& state, const std::byte* source, std::byte* target,
                    std::size_t stripes, const std::byte* /*ahead*/) {
  for (std::size_t s = 0; s < stripes; ++s) {
    kernel::Accumulators words;
    std::memcpy(words.data(), source + s * kStripe, kStripe);
    const auto stripe = static_cast<std::uint32_t>(state.stripes % kernel::kStripesPerPiece);
    for (std::uint32_t lane = 0; lane < kernel::kLanes; ++lane) {
      kernel::add_word(state.sums, stripe, lane, words[lane]);
    }
    if constexpr (kStore != Store::kNone) {
      std::memcpy(target + s * kStripe, words.data(), kStripe);
    }
    ++state.stripes;
    kernel::close_stripe(state);
  }
}

// ---- SSE2, part of the baseline: four vectors of two accumulators
// ----------------------------------

template <Store kStore>
void stripe_sse2(__m128i (&sums)[4], const std::uint64_t* secret, const std::byte* source,
                 std::byte* target) {
  for (int i = 0; i < 4; ++i) {
    const __m128i data = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source) + i);
    const __m128i key =
        _mm_xor_si128(data, _mm_loadu_si128(reinterpret_cast<const __m128i*>(secret) + i));
    const __m128i product = _mm_mul_epu32(key, _mm_srli_epi64(key, 32));
    const __m128i crossed = _mm_shuffle_epi32(data, _MM_SHUFFLE(1, 0, 3, 2));
    sums[i] = _mm_add_epi64(sums[i], _mm_add_epi64(product, crossed));
    if constexpr (kStore == Store::kCached || kStore == Store::kAsked) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(target) + i, data);
    } else if constexpr (kStore == Store::kStreaming) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(target) + i, data);
    }
  }
}

template <Store kStore>
void stripes_sse2(kernel::PayloadState& state, const std::byte* source, std::byte* target,
                  std::size_t stripes, const std::byte* ahead) {
  __m128i sums[4];
  std::memcpy(sums, state.sums.data(), kStripe);
  while (stripes > 0) {
    const Run run = next_run(state.stripes, stripes);
    for (std::size_t s = 0; s < run.stripes; ++s) {
      ask_for(ahead);
      ask_for_target<kStore>(target);
      stripe_sse2<kStore>(sums, run.secret + s, source, target);
      source += kStripe;
      ahead += kStripe;
      if constexpr (kStore != Store::kNone) target += kStripe;
    }
    stripes -= run.stripes;
    state.stripes += run.stripes;
    if (!ends_row(state.stripes)) continue;
    // Four times a piece: not worth a vector form here.
    std::memcpy(state.sums.data(), sums, kStripe);
    kernel::close_stripe(state);
    std::memcpy(sums, state.sums.data(), kStripe);
  }
  std::memcpy(state.sums.data(), sums, kStripe);
  if constexpr (kStore == Store::kStreaming) _mm_sfence();
}

// ---- AVX2: two vectors of four accumulators
// --------------------------------------------------------

template <Store kStore>
[[gnu::target("avx2"), gnu::always_inline]] inline __m256i half_avx2(__m256i sums, __m256i secret,
                                                                     const std::byte* source,
                                                                     std::byte* target) {
  const __m256i data = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source));
  const __m256i key = _mm256_xor_si256(data, secret);
  const __m256i product = _mm256_mul_epu32(key, _mm256_srli_epi64(key, 32));
  const __m256i crossed = _mm256_shuffle_epi32(data, _MM_SHUFFLE(1, 0, 3, 2));
  if constexpr (kStore == Store::kCached || kStore == Store::kAsked) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), data);
  } else if constexpr (kStore == Store::kStreaming) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(target), data);
  }
  return _mm256_add_epi64(sums, _mm256_add_epi64(product, crossed));
}

template <Store kStore>
[[gnu::target("avx2")]] void stripes_avx2(kernel::PayloadState& state, const std::byte* source,
                                          std::byte* target, std::size_t stripes,
                                          const std::byte* ahead) {
  __m256i low = _mm256_load_si256(reinterpret_cast<const __m256i*>(state.sums.data()));
  __m256i high = _mm256_load_si256(reinterpret_cast<const __m256i*>(state.sums.data() + 4));
  while (stripes > 0) {
    const Run run = next_run(state.stripes, stripes);
    for (std::size_t s = 0; s < run.stripes; ++s) {
      const auto* secret = reinterpret_cast<const __m256i*>(run.secret + s);
      ask_for(ahead);
      ask_for_target<kStore>(target);
      low = half_avx2<kStore>(low, _mm256_loadu_si256(secret), source, target);
      high = half_avx2<kStore>(high, _mm256_loadu_si256(secret + 1), source + kStripe / 2,
                               target + kStripe / 2);
      source += kStripe;
      ahead += kStripe;
      if constexpr (kStore != Store::kNone) target += kStripe;
    }
    stripes -= run.stripes;
    state.stripes += run.stripes;
    if (!ends_row(state.stripes)) continue;
    _mm256_store_si256(reinterpret_cast<__m256i*>(state.sums.data()), low);
    _mm256_store_si256(reinterpret_cast<__m256i*>(state.sums.data() + 4), high);
    kernel::close_stripe(state);
    low = _mm256_load_si256(reinterpret_cast<const __m256i*>(state.sums.data()));
    high = _mm256_load_si256(reinterpret_cast<const __m256i*>(state.sums.data() + 4));
  }
  _mm256_store_si256(reinterpret_cast<__m256i*>(state.sums.data()), low);
  _mm256_store_si256(reinterpret_cast<__m256i*>(state.sums.data() + 4), high);
  if constexpr (kStore == Store::kStreaming) _mm_sfence();
}

// ---- AVX-512: all eight accumulators in one vector
// -------------------------------------------------

template <Store kStore>
[[gnu::target("avx512f"), gnu::always_inline]] inline __m512i stripe_avx512(
    __m512i sums, const std::uint64_t* secret, const std::byte* source, std::byte* target) {
  const __m512i data = _mm512_loadu_si512(source);
  const __m512i key = _mm512_xor_si512(data, _mm512_loadu_si512(secret));
  const __m512i product = _mm512_mul_epu32(key, _mm512_srli_epi64(key, 32));
  const __m512i crossed = _mm512_shuffle_epi32(data, _MM_PERM_BADC);
  if constexpr (kStore == Store::kCached || kStore == Store::kAsked) {
    _mm512_storeu_si512(target, data);
  } else if constexpr (kStore == Store::kStreaming) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(target), data);
  }
  return _mm512_add_epi64(sums, _mm512_add_epi64(product, crossed));
}

[[gnu::target("avx512f"), gnu::always_inline]] inline __m512i scramble_avx512(__m512i sums) {
  const __m512i prime = _mm512_set1_epi64(static_cast<std::int64_t>(kernel::kPrime32A));
  const __m512i mixed = _mm512_xor_si512(_mm512_xor_si512(sums, _mm512_srli_epi64(sums, 47)),
                                         _mm512_loadu_si512(kernel::kScrambleSecret.data()));
  // 64 x 32 bits, low 64 bits of the product.
  const __m512i high = _mm512_mul_epu32(_mm512_srli_epi64(mixed, 32), prime);
  return _mm512_add_epi64(_mm512_mul_epu32(mixed, prime), _mm512_slli_epi64(high, 32));
}

template <Store kStore>
[[gnu::target("avx512f")]] void stripes_avx512(kernel::PayloadState& state, const std::byte* source,
                                               std::byte* target, std::size_t stripes,
                                               const std::byte* ahead) {
  __m512i sums = _mm512_load_si512(state.sums.data());
  while (stripes > 0) {
    const Run run = next_run(state.stripes, stripes);
    for (std::size_t s = 0; s < run.stripes; ++s) {
      ask_for(ahead);
      ask_for_target<kStore>(target);
      sums = stripe_avx512<kStore>(sums, run.secret + s, source, target);
      source += kStripe;
      ahead += kStripe;
      if constexpr (kStore != Store::kNone) target += kStripe;
    }
    stripes -= run.stripes;
    state.stripes += run.stripes;
    if (ends_piece(state.stripes)) {
      _mm512_store_si512(state.sums.data(), sums);
      kernel::close_stripe(state);
      sums = _mm512_load_si512(state.sums.data());
    } else if (ends_row(state.stripes)) {
      sums = scramble_avx512(sums);
    }
  }
  _mm512_store_si512(state.sums.data(), sums);
  if constexpr (kStore == Store::kStreaming) _mm_sfence();
}

// ---- Copying alone
// ---------------------------------------------------------------------------------

void copy_sse2(std::byte* target, const std::byte* source, std::size_t stripes,
               const std::byte* ahead) {
  for (std::size_t s = 0; s < stripes; ++s) {
    ask_for(ahead + s * kStripe);
    __m128i data[4];
    std::memcpy(data, source + s * kStripe, kStripe);
    auto* to = reinterpret_cast<__m128i*>(target + s * kStripe);
    for (int i = 0; i < 4; ++i) _mm_stream_si128(to + i, data[i]);
  }
  _mm_sfence();
}

[[gnu::target("avx2")]] void copy_avx2(std::byte* target, const std::byte* source,
                                       std::size_t stripes, const std::byte* ahead) {
  for (std::size_t s = 0; s < stripes; ++s) {
    ask_for(ahead + s * kStripe);
    const auto* from = reinterpret_cast<const __m256i*>(source + s * kStripe);
    auto* to = reinterpret_cast<__m256i*>(target + s * kStripe);
    const __m256i low = _mm256_loadu_si256(from);
    const __m256i high = _mm256_loadu_si256(from + 1);
    _mm256_stream_si256(to, low);
    _mm256_stream_si256(to + 1, high);
  }
  _mm_sfence();
}

[[gnu::target("avx512f")]] void copy_avx512(std::byte* target, const std::byte* source,
                                            std::size_t stripes, const std::byte* ahead) {
  for (std::size_t s = 0; s < stripes; ++s) {
    ask_for(ahead + s * kStripe);
    const __m512i data = _mm512_loadu_si512(source + s * kStripe);
    _mm512_stream_si512(reinterpret_cast<__m512i*>(target + s * kStripe), data);
  }
  _mm_sfence();
}

struct PathList {
  std::array<Path, 4> paths{};
  std::size_t count = 0;
  void add(const Path& path) { paths[count++] = path; }
};

PathList probe() {
  PathList list;
  list.add({"scalar", stripes_scalar<Store::kNone>, stripes_scalar<Store::kCached>,
            stripes_scalar<Store::kAsked>, stripes_scalar<Store::kStreaming>, copy_sse2});
  list.add({"sse2", stripes_sse2<Store::kNone>, stripes_sse2<Store::kCached>,
            stripes_sse2<Store::kAsked>, stripes_sse2<Store::kStreaming>, copy_sse2});
  if (__builtin_cpu_supports("avx2")) {
    list.add({"avx2", stripes_avx2<Store::kNone>, stripes_avx2<Store::kCached>,
              stripes_avx2<Store::kAsked>, stripes_avx2<Store::kStreaming>, copy_avx2});
  }
  if (__builtin_cpu_supports("avx512f")) {
    list.add({"avx512", stripes_avx512<Store::kNone>, stripes_avx512<Store::kCached>,
              stripes_avx512<Store::kAsked>, stripes_avx512<Store::kStreaming>, copy_avx512});
  }
  return list;
}

}  // namespace

std::span<const Path> available_paths() {
  static const PathList list = probe();
  return std::span(list.paths).first(list.count);
}

const Path& best_path() { return available_paths().back(); }

}  // namespace terrace::checksum_internal
