// Device <-> host copies of whole shards with their checksum, against the faster of memcpy and a
// streaming copy of the same pieces by the same threads, each followed by one read of the target:
// whoever copies first and checks then has to read it. Ours is taken twice: followed by that read
// too ("read_after": true), so that nobody gains by leaving the target out of the cache; and as it
// runs, checked on its way (no).
// `--cpu` counts CPU time instead of wall time, for a machine that others use too.
//   copy_bench [--runs N] [--mib M] [--threads N] [--quick] [--cpu]
#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <string_view>
#include <thread>

#include "terrace/base/rng.h"
#include "terrace/block/checksum.h"
#include "terrace/testing/bench_json.h"

namespace terrace {
namespace {

constexpr std::size_t kLayers = 30;

struct Options {
  int runs = 41;
  bool is_cpu_time = false;
  std::size_t bytes_per_side = std::size_t{384} << 20U;
  // Short, so that a busy machine disturbs neighbours in time alike.
  std::size_t bytes_per_sample = std::size_t{24} << 20U;
  std::size_t most_threads = 2;
  std::vector<std::size_t> piece_bytes = {24UL << 10U, 48UL << 10U, 96UL << 10U, 256UL << 10U,
                                          1UL << 20U};
};

enum class Direction { kOffload, kOnboard };
enum class Way { kMemcpy, kStreaming, kChecked, kUnchecked, kCheckedAlone };

class Mapping {
 public:
  explicit Mapping(std::size_t bytes) : bytes_(bytes) {
    address_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (address_ == MAP_FAILED) std::abort();
    Rng rng(bytes);
    for (std::size_t at = 0; at + 8 <= bytes; at += 8) {
      const std::uint64_t word = rng.next();
      std::memcpy(begin() + at, &word, 8);
    }
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { munmap(address_, bytes_); }
  [[nodiscard]] std::byte* begin() const { return static_cast<std::byte*>(address_); }

 private:
  std::size_t bytes_;
  void* address_;
};

// An engine's cache of kLayers regions and host slots of whole shards, as a worker sees them.
class Memory {
 public:
  Memory(const Options& options, std::size_t piece)
      : piece_(piece),
        blocks_(options.bytes_per_side / (kLayers * piece)),
        device_(blocks_ * kLayers * piece),
        host_(blocks_ * kLayers * piece) {}
  [[nodiscard]] std::size_t blocks() const { return blocks_; }
  [[nodiscard]] std::size_t piece() const { return piece_; }
  [[nodiscard]] std::byte* device(std::size_t layer, std::size_t block) const {
    return device_.begin() + (layer * blocks_ + block) * piece_;
  }
  [[nodiscard]] std::byte* host(std::size_t slot, std::size_t layer) const {
    return host_.begin() + (slot * kLayers + layer) * piece_;
  }

 private:
  std::size_t piece_;
  std::size_t blocks_;
  Mapping device_;
  Mapping host_;
};

std::uint64_t read_all(const std::byte* bytes, std::size_t count) {
  std::uint64_t words[8] = {};
  for (std::size_t at = 0; at < count; at += sizeof(words)) {
    std::uint64_t more[8];
    std::memcpy(more, bytes + at, sizeof(more));
    for (std::size_t i = 0; i < 8; ++i) words[i] |= more[i];
  }
  return std::accumulate(std::begin(words), std::end(words), std::uint64_t{0});
}

// The plainest streaming copy with the widest registers there are: nothing asked for ahead.
[[gnu::target("avx512f")]] void stream_wide(std::byte* target, const std::byte* source,
                                            std::size_t bytes) {
  for (std::size_t at = 0; at < bytes; at += 256) {
    __m512i data[4];
    for (std::size_t i = 0; i < 4; ++i) data[i] = _mm512_loadu_si512(source + at + i * 64);
    for (std::size_t i = 0; i < 4; ++i) {
      _mm512_stream_si512(reinterpret_cast<__m512i*>(target + at + i * 64), data[i]);
    }
  }
  _mm_sfence();
}

void stream_narrow(std::byte* target, const std::byte* source, std::size_t bytes) {
  for (std::size_t at = 0; at < bytes; at += 16) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(target + at),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(source + at)));
  }
  _mm_sfence();
}

void stream(std::byte* target, const std::byte* source, std::size_t bytes) {
  static const bool is_wide = __builtin_cpu_supports("avx512f") != 0;
  (is_wide ? stream_wide : stream_narrow)(target, source, bytes);
}

void copy_shard(const Memory& memory, Direction direction, Way way, std::size_t block,
                std::size_t slot) {
  ShardCopier copier;
  for (std::size_t layer = 0; layer < kLayers; ++layer) {
    std::byte* device = memory.device(layer, block);
    std::byte* host = memory.host(slot, layer);
    std::byte* target = direction == Direction::kOffload ? host : device;
    const std::byte* source = direction == Direction::kOffload ? device : host;
    const std::byte* next = source + memory.piece();
    if (direction == Direction::kOffload) {
      next = layer + 1 < kLayers ? memory.device(layer + 1, block) : nullptr;
    }
    switch (way) {
      case Way::kMemcpy:
        std::memcpy(target, source, memory.piece());
        break;
      case Way::kStreaming:
        stream(target, source, memory.piece());
        break;
      case Way::kChecked:
      case Way::kCheckedAlone:
        copier.copy(target, source, memory.piece(), next);
        break;
      case Way::kUnchecked:
        copy_unchecked(target, source, memory.piece(), next);
        break;
    }
  }
  if (way == Way::kChecked || way == Way::kCheckedAlone) testing::keep(copier.finish().value);
  if (way == Way::kCheckedAlone) return;
  for (std::size_t layer = 0; layer < kLayers; ++layer) {
    const std::byte* target =
        direction == Direction::kOffload ? memory.host(slot, layer) : memory.device(layer, block);
    testing::keep(read_all(target, memory.piece()));
  }
}

// Bytes per second over `shards` shards of random blocks, shared out to `threads` threads; the
// slowest thread's time counts.
double sample(const Memory& memory, Direction direction, Way way, std::size_t threads,
              std::size_t shards, const Clock& clock, Rng& rng) {
  std::vector<std::size_t> blocks(memory.blocks());
  std::iota(blocks.begin(), blocks.end(), std::size_t{0});
  for (std::size_t i = blocks.size(); i > 1; --i) std::swap(blocks[i - 1], blocks[rng.below(i)]);
  std::vector<double> seconds(threads);
  const auto work = [&](std::size_t thread) {
    seconds[thread] = testing::seconds_of(clock, [&] {
      for (std::size_t i = thread; i < shards; i += threads) {
        copy_shard(memory, direction, way, blocks[i], blocks[blocks.size() - 1 - i]);
      }
    });
  };
  {
    std::vector<std::jthread> others;
    for (std::size_t thread = 1; thread < threads; ++thread) others.emplace_back(work, thread);
    work(0);
  }
  return static_cast<double>(shards * kLayers * memory.piece()) /
         *std::max_element(seconds.begin(), seconds.end());
}

struct Case {
  std::string_view direction;
  std::size_t piece;
  std::size_t threads;
  bool is_cpu_time;
};

void report(std::string_view name, const Case& what, bool is_read_after,
            const std::vector<double>& ours, const std::vector<double>& plain,
            const std::vector<double>& streamed, const testing::Machine& machine) {
  const bool is_memcpy = testing::spread_of(plain).median >= testing::spread_of(streamed).median;
  testing::BenchResult result;
  result.name = name;
  result.samples = ours;
  result.limit_name = is_memcpy ? "memcpy" : "streaming copy";
  result.limit_samples = is_memcpy ? plain : streamed;
  result.param("piece_bytes", static_cast<std::int64_t>(what.piece))
      .param("pieces", static_cast<std::int64_t>(kLayers))
      .param("threads", static_cast<std::int64_t>(what.threads))
      .param("direction", what.direction)
      .param("read_after", is_read_after ? "yes" : "no")
      .param("time", what.is_cpu_time ? "cpu" : "wall")
      .param("path", checksum_path());
  testing::print(result, machine);
}

void bench(const Options& options, std::size_t piece, const testing::Machine& machine) {
  const Memory memory(options, piece);
  const std::size_t shards = std::clamp<std::size_t>(options.bytes_per_sample / (kLayers * piece),
                                                     options.most_threads, memory.blocks() / 2);
  Rng rng(piece);
  const SystemClock wall_clock;
  const ThreadCpuClock cpu_clock;
  const Clock& clock = options.is_cpu_time ? static_cast<const Clock&>(cpu_clock) : wall_clock;
  for (const Direction direction : {Direction::kOffload, Direction::kOnboard}) {
    for (std::size_t threads = 1; threads <= options.most_threads; ++threads) {
      std::vector<std::function<double()>> ways;
      for (const Way way :
           {Way::kMemcpy, Way::kStreaming, Way::kChecked, Way::kUnchecked, Way::kCheckedAlone}) {
        ways.emplace_back(
            [&, way] { return sample(memory, direction, way, threads, shards, clock, rng); });
      }
      const auto samples = testing::alternate(options.runs, ways);
      const bool is_offload = direction == Direction::kOffload;
      const std::string_view name = is_offload ? "copy.offload" : "copy.onboard";
      const Case what{is_offload ? "offload" : "onboard", piece, threads, options.is_cpu_time};
      report(name, what, true, samples[2], samples[0], samples[1], machine);
      report(name, what, false, samples[4], samples[0], samples[1], machine);
      report("copy.plain", what, true, samples[3], samples[0], samples[1], machine);
    }
  }
}

Options parse(int count, char** arguments) {
  Options options;
  for (int i = 1; i < count; ++i) {
    const std::string_view name = arguments[i];
    const auto value = [&] {
      return i + 1 < count ? std::strtoull(arguments[++i], nullptr, 10) : 1;
    };
    if (name == "--runs") {
      options.runs = static_cast<int>(value());
    } else if (name == "--threads") {
      options.most_threads = value();
    } else if (name == "--mib") {
      options.bytes_per_side = value() << 20U;
    } else if (name == "--cpu") {
      options.is_cpu_time = true;
    } else if (name == "--quick") {
      options.runs = 9;
      options.piece_bytes = {24UL << 10U, 1UL << 20U};
    } else {
      std::fputs("usage: copy_bench [--runs N] [--threads N] [--mib M] [--quick] [--cpu]\n",
                 stderr);
      std::exit(2);
    }
  }
  return options;
}

}  // namespace
}  // namespace terrace

int main(int count, char** arguments) {
  const auto options = terrace::parse(count, arguments);
  const auto machine = terrace::testing::machine_facts();
  for (const std::size_t piece : options.piece_bytes) terrace::bench(options, piece, machine);
}
