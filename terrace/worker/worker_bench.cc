// A whole step of a rank: orders decoded, 31 blocks of 30 pieces of 96 KiB saved to the host tier
// or loaded from it with their checksums, the report made; against the faster of memcpy and
// streaming copies of the same pieces by the same threads. Every way is followed by one read of the
// target.
//   worker_bench [--runs N] [--threads N]
#include <immintrin.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/attach/attach_server.h"
#include "terrace/base/rng.h"
#include "terrace/testing/bench_json.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/scratch_directory.h"
#include "terrace/worker/copy_pool.h"
#include "terrace/worker/worker.h"

namespace terrace::worker {
namespace {

constexpr std::size_t kLayers = 30;
constexpr std::size_t kPiece = std::size_t{96} << 10U;
constexpr std::uint32_t kMoved = 31;    // Blocks a step: 3,968 tokens of a 135M model in bfloat16.
constexpr std::uint32_t kBlocks = 128;  // Of the engine, so that none stays in a cache.
constexpr std::size_t kShard = kLayers * kPiece;
constexpr std::uint64_t kOwner = 1;

enum class Way { kMemcpy, kStreaming, kWorker };

void stream(std::byte* target, const std::byte* source, std::size_t bytes) {
  for (std::size_t at = 0; at < bytes; at += 16) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(target + at),
                     _mm_loadu_si128(reinterpret_cast<const __m128i*>(source + at)));
  }
  _mm_sfence();
}

std::uint64_t read_all(const std::byte* bytes, std::size_t count) {
  std::uint64_t sum = 0;
  for (std::size_t at = 0; at < count; at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes + at, 8);
    sum |= word;
  }
  return sum;
}

class Rig {
 public:
  explicit Rig(unsigned threads)
      : memory_(kShard * kBlocks), pool_(CopyPool::start(threads, log_)), threads_(threads) {
    Rng rng(1);
    for (std::size_t at = 0; at < memory_.size(); at += 8) {
      const std::uint64_t word = rng.next();
      std::memcpy(memory_.data() + at, &word, 8);
    }
    start();
  }

  // Bytes per second of one step that moves the blocks from `first` on.
  double step(bool is_save, Way way) {
    const std::uint32_t first = 1 + static_cast<std::uint32_t>(rng_.below(kBlocks - kMoved - 1));
    const std::string orders = encode(orders_of(is_save, first));
    const double seconds = testing::seconds_of(clock_, [&] {
      if (way == Way::kWorker) {
        run_worker(is_save, orders);
      } else {
        pool_->run(kMoved, [&](std::size_t i) {
          copy(is_save, way, static_cast<std::uint32_t>(i), first + static_cast<std::uint32_t>(i));
        });
      }
      pool_->run(kMoved, [&](std::size_t i) {
        read_target(is_save, static_cast<std::uint32_t>(i), first + static_cast<std::uint32_t>(i));
      });
    });
    return static_cast<double>(kMoved * kShard) / seconds;
  }
  [[nodiscard]] unsigned threads() const { return threads_; }

 private:
  std::byte* piece(std::size_t layer, std::uint32_t block) {
    return memory_.data() + (layer * kBlocks + block) * kPiece;
  }
  void copy(bool is_save, Way way, std::uint32_t slot, std::uint32_t block) {
    std::byte* host = lane_->slot(SlotIndex(slot)).data();
    for (std::size_t layer = 0; layer < kLayers; ++layer, host += kPiece) {
      std::byte* const target = is_save ? host : piece(layer, block);
      const std::byte* const source = is_save ? piece(layer, block) : host;
      way == Way::kMemcpy ? static_cast<void>(std::memcpy(target, source, kPiece))
                          : stream(target, source, kPiece);
    }
  }
  void read_target(bool is_save, std::uint32_t slot, std::uint32_t block) {
    if (is_save) {
      testing::keep(read_all(lane_->slot(SlotIndex(slot)).data(), kShard));
      return;
    }
    for (std::size_t layer = 0; layer < kLayers; ++layer) {
      testing::keep(read_all(piece(layer, block), kPiece));
    }
  }
  wire::Orders orders_of(bool is_save, std::uint32_t first) {
    wire::Orders orders;
    orders.owner = kOwner;
    orders.step = StepId(++step_);
    for (std::uint32_t i = 0; i < kMoved; ++i) {
      const SlotRef slot{SlotIndex(i), Generation(1)};
      if (is_save) {
        orders.saves.push_back({slot, GroupId(0), first + i});
      } else {
        const Checksum checksum = checksum_of(lane_->slot(SlotIndex(i)).first(kShard));
        orders.loads.push_back({slot, GroupId(0), first + i, false, {checksum}});
      }
    }
    return orders;
  }
  void run_worker(bool is_save, const std::string& orders) {
    const auto bytes = std::as_bytes(std::span(orders.data(), orders.size()));
    if (is_save) {
      if (!worker_->run_saves(bytes).is_ok()) std::abort();
    } else {
      const auto failed = worker_->run_loads(bytes);
      if (!failed.has_value() || !failed->empty()) std::abort();
    }
    testing::keep(worker_->build_report().size());
  }
  void start();

  SystemClock clock_;
  NullLog log_;
  testing::ScratchDirectory scratch_;
  std::vector<std::byte> memory_;
  Layout layout_;
  std::optional<memory::Lane> lane_;
  std::unique_ptr<attach::AttachServer> server_;
  std::unique_ptr<CopyPool> pool_;
  std::unique_ptr<Worker> worker_;
  Rng rng_{7};
  std::uint64_t step_ = 0;
  unsigned threads_;
};

void Rig::start() {
  layout_.block_tokens = Tokens(128);
  layout_.groups = {{GroupId(0), std::vector<Bytes>(kLayers, Bytes(kPiece))}};
  const memory::SegmentGeometry geometry{Bytes(kShard), kMoved, 1};
  lane_.emplace(memory::Lane::create(geometry, true, "bench").value());
  attach::AttachServer::Options server;
  server.directory = scratch_.path();
  server.engine_id = "bench";
  server.owner = kOwner;
  server.layout = layout_;
  server.geometry = geometry;
  server.lanes = {&*lane_};
  server_ = attach::AttachServer::start(std::move(server), clock_, log_).value();
  Worker::Options options;
  options.layout = layout_;
  options.threads = threads_;
  options.engine_id = "bench";
  options.attach_directory = scratch_.path();
  GroupRegions group;
  group.block_count = kBlocks;
  group.has_null_block = true;
  for (std::size_t layer = 0; layer < kLayers; ++layer) {
    group.regions.push_back({piece(layer, 0), kPiece, kPiece});
  }
  options.groups = {group};
  worker_ = Worker::open(std::move(options), clock_, log_).value();
  if (!testing::eventually([&] { return worker_->is_attached(); })) std::abort();
  for (std::uint32_t extent = 0; extent < geometry.extents(); ++extent) {
    if (!lane_->populate(extent).is_ok()) std::abort();
  }
  (void)step(true, Way::kWorker);  // Fills the slots.
}

void bench(unsigned threads, int runs, const testing::Machine& machine) {
  Rig rig(threads);
  for (const bool is_save : {true, false}) {
    std::vector<std::function<double()>> ways;
    for (const Way way : {Way::kMemcpy, Way::kStreaming, Way::kWorker}) {
      ways.emplace_back([&rig, is_save, way] { return rig.step(is_save, way); });
    }
    const auto samples = testing::alternate(runs, ways);
    const bool is_memcpy =
        testing::spread_of(samples[0]).median >= testing::spread_of(samples[1]).median;
    testing::BenchResult result;
    result.name = is_save ? "copy.worker.save" : "copy.worker.load";
    result.samples = samples[2];
    result.limit_name = is_memcpy ? "memcpy" : "streaming copy";
    result.limit_samples = is_memcpy ? samples[0] : samples[1];
    result.param("blocks", std::int64_t{kMoved})
        .param("pieces", static_cast<std::int64_t>(kLayers))
        .param("piece_bytes", static_cast<std::int64_t>(kPiece))
        .param("threads", std::int64_t{rig.threads()})
        .param("path", checksum_path());
    testing::print(result, machine);
  }
}

}  // namespace
}  // namespace terrace::worker

int main(int count, char** arguments) {
  int runs = 21;
  unsigned threads = 2;
  for (int i = 1; i + 1 < count; i += 2) {
    const std::string_view name = arguments[i];
    if (name == "--runs") runs = std::atoi(arguments[i + 1]);
    if (name == "--threads") threads = static_cast<unsigned>(std::atoi(arguments[i + 1]));
  }
  const auto machine = terrace::testing::machine_facts();
  for (unsigned n = 1; n <= threads; ++n) terrace::worker::bench(n, runs, machine);
}
