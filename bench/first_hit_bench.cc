// What a user waits for after a restart with many blocks on disk: the owner opens its tiers, one
// worker attaches and runs the canary, and the first request's prefix is looked up until all its
// blocks are verified and pinned in host. Everything is production code, in one process, with real
// sockets, shared memory and files; the directory is made by hand (full_disk_rig.h). slots.meta and
// the prefix are read past the page cache. The limit is reading slots.meta once.
//   first_hit_bench [--directory=DIR] [--runs=N] [--blocks=N …]
#include <poll.h>

#include <cstdlib>
#include <numeric>

#include "terrace/index/zeroed_array.h"
#include "terrace/manager/block_manager.h"
#include "terrace/testing/bench_json.h"
#include "terrace/testing/memory_log.h"
#include "terrace/testing/restart_options.h"
#include "terrace/testing/scratch_directory.h"
#include "terrace/tier/disk/full_disk_rig.h"
#include "terrace/worker/worker.h"

namespace terrace {
namespace {

using tier::disk::File;
using tier::disk::RealBlock;

constexpr std::uint64_t kPayload = 4096;
constexpr std::uint64_t kBlockTokens = 16;
constexpr std::uint64_t kPrefixBlocks = 64;  // 1024 tokens.
constexpr std::uint64_t kFirstSlot = 345;
constexpr std::uint32_t kDeviceBlocks = 128;
constexpr std::uint64_t kHostBytes = 256ULL << 20U;
constexpr Nanoseconds kLimit = seconds(60);

std::vector<std::uint32_t> prompt() {
  std::vector<std::uint32_t> tokens(kPrefixBlocks * kBlockTokens);
  std::iota(tokens.begin(), tokens.end(), 1000U);
  return tokens;
}

std::vector<RealBlock> blocks_of_prompt() {
  SequenceChain chain(Tokens(kBlockTokens), {});
  const auto tokens = prompt();
  chain.append(tokens);
  std::vector<RealBlock> blocks;
  for (const SequenceHash& hash : chain.hashes()) {
    blocks.push_back({kFirstSlot + blocks.size(), hash});
  }
  return blocks;
}

class Start {
 public:
  Start(const std::string& directory, std::uint64_t blocks)
      : directory_(directory), device_(std::uint64_t{kDeviceBlocks} * kPayload) {
    options_.layout.block_tokens = Tokens(kBlockTokens);
    options_.layout.groups = {{GroupId(0), {Bytes(kPayload)}}};
    options_.fingerprint.content = {{"model", "bench"}};
    options_.fingerprint.layout = {{"bytes", std::to_string(kPayload)}};
    options_.engine_id = "bench";
    options_.attach_directory = sockets_.path() + "/attach";
    options_.host.size = Bytes(kHostBytes);
    options_.host.huge_pages = false;
    options_.disk.paths = {directory};
    options_.disk.blocks = blocks;
    options_.offload_step_bytes = Bytes(1ULL << 30U);
    tier::DiskTier::Options disk;
    disk.layout = options_.layout;
    disk.fingerprint = options_.fingerprint;
    disk.paths = options_.disk.paths;
    tier::disk::make_full_directory(disk, blocks, blocks_of_prompt());
  }

  struct Times {
    double serving = 0;    // Attached, and the canary came back.
    double first_hit = 0;  // The prefix verified and pinned in host.
  };
  // From nothing to the first hit; closed again afterwards.
  Times once() {
    File(meta()).settle();
    File(directory_ + "/terrace-00/0.slots").settle();
    const Nanoseconds begin = clock_.now();
    auto manager = manager::BlockManager::open(options_, clock_, log_);
    if (!manager) std::fprintf(stderr, "%s\n", manager.error().text().c_str());
    TERRACE_CHECK(manager.has_value());
    auto worker = worker::Worker::open(worker_options(), clock_, log_);
    TERRACE_CHECK(worker.has_value());
    const auto tokens = prompt();
    manager::RequestOptions request;
    request.tokens = tokens;
    request.prompt_tokens = Tokens(tokens.size());
    const auto id = (*manager)->begin_request(request);
    TERRACE_CHECK(id.has_value());
    Times times;
    manager::MatchAnswer answer;
    while (!answer.is_ready) {
      TERRACE_CHECK(clock_.now() - begin < kLimit);
      step(**manager, **worker);
      if (times.serving == 0 && (*manager)->status().is_ready) times.serving = since(begin);
      const auto polled = (*manager)->poll_request(*id, Tokens(0), Tokens(tokens.size()));
      TERRACE_CHECK(polled.has_value());
      answer = *polled;
      if (!answer.is_ready) wait(**manager);
    }
    times.first_hit = since(begin);
    if (answer.external != Tokens(tokens.size())) {
      std::fprintf(stderr, "first_hit: %llu of %zu tokens were found\n%s",
                   static_cast<unsigned long long>(answer.external.value()), tokens.size(),
                   log_.text().c_str());
      std::exit(1);
    }
    (void)(*manager)->end_request(*id);
    (*manager)->close(seconds(5));
    return times;
  }

  // The limit: the same bytes of slots.meta, once, past the page cache.
  double read_meta() {
    constexpr std::size_t kPiece = 2U << 20U;
    File(meta()).settle();
    auto memory = index::ZeroedArray<std::byte>::create(kPiece);
    const Nanoseconds begin = clock_.now();
    const auto file = open_file(meta(), O_RDONLY | O_DIRECT);
    TERRACE_CHECK(file.has_value() && memory.has_value());
    std::uint64_t at = 0;
    for (ssize_t got = 1; got > 0; at += static_cast<std::uint64_t>(got)) {
      got = ::pread(file->get(), memory->all().data(), kPiece, static_cast<off_t>(at));
      TERRACE_CHECK(got >= 0);
    }
    return since(begin);
  }

 private:
  [[nodiscard]] std::string meta() const { return directory_ + "/terrace-00/ns-0001/slots.meta"; }
  [[nodiscard]] double since(Nanoseconds begin) const {
    return static_cast<double>((clock_.now() - begin).value()) * 1e-9;
  }
  worker::Worker::Options worker_options() {
    worker::Worker::Options options;
    options.layout = options_.layout;
    options.engine_id = options_.engine_id;
    options.attach_directory = options_.attach_directory;
    worker::GroupRegions group;
    group.regions = {
        {.address = device_.data(), .block_stride = kPayload, .piece_bytes = kPayload}};
    group.block_count = kDeviceBlocks;
    group.has_null_block = true;
    options.groups = {group};
    return options;
  }
  // As an engine with nothing else to do: one step after the other.
  static void step(manager::BlockManager& manager, worker::Worker& worker) {
    const std::string orders = manager.build_orders().value();
    if (orders.empty()) return;
    const auto bytes = std::as_bytes(std::span(orders));
    (void)worker.run_canary(bytes);
    (void)worker.run_loads(bytes);
    (void)worker.run_saves(bytes);
    const std::string report = worker.build_report();
    if (!report.empty()) (void)manager.take_report(std::as_bytes(std::span(report)));
  }
  static void wait(manager::BlockManager& manager) {
    pollfd entry{manager.event_fd(), POLLIN, 0};
    (void)::poll(&entry, 1, 1);
  }

  const std::string directory_;
  const testing::ScratchDirectory sockets_;  // A socket's path must be short.
  SystemClock clock_;
  testing::MemoryLog log_;
  manager::Options options_;
  std::vector<std::byte> device_;
};

void bench(const std::string& directory, int runs, std::uint64_t blocks) {
  const tier::disk::ScratchDirectory scratch(directory);
  Start start(scratch.path(), blocks);
  const std::string limit = "reading slots.meta once";
  testing::BenchResult serving{"restart.serving", "s", false, {}, limit, {}, {}};
  testing::BenchResult hit{"restart.first_hit", "s", false, {}, limit, {}, {}};
  std::vector<Start::Times> times;
  const auto samples = testing::alternate(runs, {[&] {
                                                   times.push_back(start.once());
                                                   return times.back().first_hit;
                                                 },
                                                 [&] { return start.read_meta(); }});
  times.erase(times.begin());  // The warm-up; it wrote the canary's block.
  hit.samples = samples[0];
  serving.limit_samples = hit.limit_samples = samples[1];
  for (const Start::Times& time : times) serving.samples.push_back(time.serving);
  const auto machine = testing::machine_facts(directory);
  for (testing::BenchResult* result : {&serving, &hit}) {
    result->param("blocks", static_cast<std::int64_t>(blocks))
        .param("prefix_blocks", static_cast<std::int64_t>(kPrefixBlocks))
        .param("block_bytes", static_cast<std::int64_t>(kPayload))
        .param("host_bytes", static_cast<std::int64_t>(kHostBytes));
    testing::print(*result, machine);
  }
}

}  // namespace
}  // namespace terrace

int main(int argc, char** argv) {
  const auto options = terrace::testing::restart_options(argc, argv);
  for (const std::uint64_t blocks : options.sizes) {
    terrace::bench(options.directory, options.runs, blocks);
  }
}
