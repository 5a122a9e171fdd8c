// The candidates for the payload checksum, fused with the copy of 30 scattered pieces into a slot,
// one thread; each target is read once afterwards. The figures of
// docs/adr/0002-payload-checksum.md.
//   checksum_bench [runs]
#define XXH_INLINE_ALL
#include <immintrin.h>
#include <xxhash.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <string>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/block/checksum_internal.h"
#include "terrace/testing/bench_json.h"

namespace terrace {
namespace {

using checksum_internal::Path;
using checksum_internal::Store;
using Copy = std::function<void(std::byte* target, const std::byte* source, std::size_t bytes)>;

constexpr std::size_t kLayers = 30;
constexpr std::size_t kBytesPerSide = std::size_t{240} << 20U;
constexpr std::size_t kBytesPerSample = std::size_t{24} << 20U;

struct Candidate {
  std::string name;
  Copy copy;
};

// Three streams of CRC-32C over thirds of the piece, each line copied as it is taken. Joining the
// streams is left out, which favours it.
template <Store kStore>
[[gnu::target("sse4.2,avx2")]] std::uint64_t crc_three_streams(std::byte* target,
                                                               const std::byte* source,
                                                               std::size_t bytes) {
  const std::size_t third = bytes / 3 / 64 * 64;
  std::uint64_t sums[3] = {};
  for (std::size_t at = 0; at < third; at += 64) {
    for (std::size_t stream = 0; stream < 3; ++stream) {
      const std::byte* line = source + stream * third + at;
      auto* place = reinterpret_cast<__m256i*>(target + stream * third + at);
      for (std::size_t half = 0; half < 2; ++half) {
        const __m256i data = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line) + half);
        if constexpr (kStore == Store::kStreaming) {
          _mm256_stream_si256(place + half, data);
        } else {
          _mm256_storeu_si256(place + half, data);
        }
      }
      for (std::size_t word = 0; word < 8; ++word) {
        std::uint64_t value = 0;
        std::memcpy(&value, line + word * 8, 8);
        sums[stream] = _mm_crc32_u64(sums[stream], value);
      }
    }
  }
  std::memcpy(target + 3 * third, source + 3 * third, bytes - 3 * third);
  _mm_sfence();
  return sums[0] ^ sums[1] ^ sums[2];
}

std::vector<Candidate> candidates() {
  std::vector<Candidate> list;
  list.push_back({"memcpy", [](std::byte* target, const std::byte* source, std::size_t bytes) {
                    std::memcpy(target, source, bytes);
                  }});
  for (const Path& path : checksum_internal::available_paths()) {
    for (const bool is_streaming : {false, true}) {
      const auto stripes = is_streaming ? path.streaming : path.cached;
      const auto copy = [stripes](std::byte* target, const std::byte* source, std::size_t bytes) {
        checksum_kernel::PayloadState state;
        stripes(state, source, target, bytes / 64, source + 4096);
        testing::keep(state.sum);
      };
      list.push_back(
          {std::string("xxh3 fused, ") + path.name + (is_streaming ? ", streaming" : ""), copy});
    }
  }
  if (__builtin_cpu_supports("avx2")) {
    list.push_back(
        {"crc32c x3 fused", [](std::byte* target, const std::byte* source, std::size_t bytes) {
           testing::keep(crc_three_streams<Store::kCached>(target, source, bytes));
         }});
    list.push_back({"crc32c x3 fused, streaming",
                    [](std::byte* target, const std::byte* source, std::size_t bytes) {
                      testing::keep(crc_three_streams<Store::kStreaming>(target, source, bytes));
                    }});
  }
  list.push_back({"memcpy, then stock xxh3 of the target",
                  [](std::byte* target, const std::byte* source, std::size_t bytes) {
                    std::memcpy(target, source, bytes);
                    testing::keep(XXH3_64bits(target, bytes));
                  }});
  return list;
}

void bench(std::size_t piece, int runs, const testing::Machine& machine) {
  const std::size_t blocks = kBytesPerSide / (kLayers * piece);
  std::vector<std::byte> device(blocks * kLayers * piece, std::byte{1});
  std::vector<std::byte> host(device.size() + 64, std::byte{2});
  std::byte* slots = host.data() + (64 - reinterpret_cast<std::uintptr_t>(host.data()) % 64);
  Rng rng(piece);
  for (auto& byte : device) byte = static_cast<std::byte>(rng.next());
  const std::size_t shards =
      std::clamp<std::size_t>(kBytesPerSample / (kLayers * piece), 1, blocks);
  const ThreadCpuClock clock;
  const auto sample = [&](const Copy& copy) {
    const double seconds = testing::seconds_of(clock, [&] {
      for (std::size_t i = 0; i < shards; ++i) {
        const std::size_t block = rng.below(blocks);
        std::byte* slot = slots + rng.below(blocks) * kLayers * piece;
        for (std::size_t layer = 0; layer < kLayers; ++layer) {
          copy(slot + layer * piece, device.data() + (layer * blocks + block) * piece, piece);
        }
        const auto* words = reinterpret_cast<const std::uint64_t*>(slot);
        testing::keep(std::accumulate(words, words + kLayers * piece / 8, std::uint64_t{0}));
      }
    });
    return static_cast<double>(shards * kLayers * piece) / seconds;
  };
  const auto list = candidates();
  std::vector<std::function<double()>> functions;
  functions.reserve(list.size());
  for (const Candidate& candidate : list) {
    functions.emplace_back([&sample, &candidate] { return sample(candidate.copy); });
  }
  const auto samples = testing::alternate(runs, functions);
  for (std::size_t i = 0; i < list.size(); ++i) {
    testing::BenchResult result;
    result.name = "copy.candidate";
    result.samples = samples[i];
    result.limit_name = "memcpy";
    result.limit_samples = samples[0];
    result.param("piece_bytes", static_cast<std::int64_t>(piece)).param("way", list[i].name);
    testing::print(result, machine);
  }
}

}  // namespace
}  // namespace terrace

int main(int count, char** arguments) {
  const int runs = count > 1 ? std::atoi(arguments[1]) : 41;
  const auto machine = terrace::testing::machine_facts();
  for (const std::size_t piece : {24UL << 10U, 96UL << 10U, 1UL << 20U}) {
    terrace::bench(piece, runs, machine);
  }
}
