// What one request waits for at the disk, beside fio in the very same file: a long prefix alone,
// one block alone, one block while the tier is given all writes that it takes; and what reading
// and verifying cost of the CPU.
//   disk_load_bench [--directory=DIR] [--runs=N] [--mebibytes=N] [--depth=N]
//                   [disk.read.prefix100|disk.read.latency|disk.read.loaded|disk.read.cpu|disk.tokens
//                   …]
#include <fcntl.h>

#include "terrace/base/file.h"
#include "terrace/tier/disk/disk_flow_rig.h"
#include "terrace/transfer/builtin.h"

namespace terrace::tier::disk {
namespace {

constexpr std::uint64_t kMi = 1ULL << 20U;
constexpr std::uint64_t kPrefixBlocks = 100;
constexpr std::uint64_t kReads = 200;     // Of each latency run.
constexpr std::size_t kApart = 7;         // Places of one latency run and the next.
constexpr std::uint64_t kHotBlocks = 16;  // Read in turn, so that writes do not push them out.

struct Bench {
  Bench(const FlowSetup& setup, std::uint64_t payload_bytes, const std::string& backend)
      : scratch(setup.directory), own(setup), payload(payload_bytes) {
    own.directory = scratch.path();
    own.backend = backend;
    flow = std::make_unique<DiskFlow>(own, FlowShape{payload_bytes});
  }
  [[nodiscard]] Fio::Job job(std::uint64_t blocks, unsigned depth) const {
    return {.file = own.directory + "/terrace-00/0.slots",
            .piece = flow->frame_bytes(),
            .bytes = blocks * flow->frame_bytes(),
            .depth = depth,
            .backend = own.backend};
  }
  void print(testing::BenchResult result) const {
    result.param("piece_bytes", static_cast<std::int64_t>(payload)).param("backend", own.backend);
    testing::print(result, testing::machine_facts(own.directory));
  }

  ScratchDirectory scratch;
  FlowSetup own;
  std::uint64_t payload;
  std::unique_ptr<DiskFlow> flow;
};

void bench_prefix(const FlowSetup& setup, std::uint64_t payload, const std::string& backend) {
  Bench bench(setup, payload, backend);
  const unsigned depth = bench.own.asked();
  std::uint64_t ours = 0;
  std::uint64_t theirs = 0;
  const std::uint64_t places = bench.flow->count() - kPrefixBlocks;
  // Each run elsewhere; a stride that visits all.
  const auto next = [&](std::uint64_t& turn) { return turn++ * 37 % places; };
  const auto samples =
      testing::alternate(setup.runs, {[&] { return bench.flow->read(next(ours), kPrefixBlocks); },
                                      [&] {
                                        Fio::Job job = bench.job(kPrefixBlocks, depth);
                                        job.offset = next(theirs) * job.piece;
                                        return Fio(job).bytes_per_second();
                                      }});
  testing::BenchResult result{
      "disk.read.prefix100", "bytes/s", true, samples[0], "fio", samples[1], {}};
  result.param("depth", std::int64_t{depth});
  bench.print(std::move(result));
}

double quantile(std::vector<double> samples, double share) {
  std::ranges::sort(samples);
  return samples[static_cast<std::size_t>(static_cast<double>(samples.size() - 1) * share)];
}

void bench_latency(const FlowSetup& setup, std::uint64_t payload, const std::string& backend) {
  Bench bench(setup, payload, backend);
  testing::BenchResult p50{"disk.read.latency", "s", false, {}, "fio", {}, {}};
  testing::BenchResult p99 = p50;
  std::uint64_t block = 0;
  std::size_t place = 0;
  const auto run_ours = [&] {
    std::vector<double> times;
    // In memory of its own, as each run of fio: into some pages of a virtual machine a virtual disk
    // brings what it reads half as fast as into others, and neighbours are alike.
    place += kApart;
    for (std::uint64_t i = 0; i < kReads; ++i) {
      times.push_back(bench.flow->read_one(block++ * 37 % bench.flow->count(), false, place));
    }
    p50.samples.push_back(quantile(times, 0.5));
    p99.samples.push_back(quantile(times, 0.99));
    return 0.0;
  };
  const auto run_fio = [&] {
    Fio::Job job = bench.job(kReads, 1);
    job.is_random = true;
    const Fio fio(job);
    p50.limit_samples.push_back(fio.latency("50.000000"));
    p99.limit_samples.push_back(fio.latency("99.000000"));
    return 0.0;
  };
  (void)testing::alternate(setup.runs, {run_ours, run_fio});
  for (testing::BenchResult* result : {&p50, &p99}) {
    result->samples.erase(result->samples.begin());  // The warm-up.
    result->limit_samples.erase(result->limit_samples.begin());
    result->param("depth", std::int64_t{1}).param("quantile", result == &p50 ? "p50" : "p99");
    bench.print(std::move(*result));
  }
}

void bench_loaded(const FlowSetup& setup, std::uint64_t payload, const std::string& backend) {
  Bench bench(setup, payload, backend);
  testing::BenchResult p50{"disk.read.loaded", "s", false, {}, "idle", {}, {}};
  testing::BenchResult p99 = p50;
  double seconds_loaded = 0;
  std::uint64_t block = 0;
  const auto run = [&](bool has_writes, testing::BenchResult& half, testing::BenchResult& far) {
    std::vector<double> times;
    for (std::uint64_t i = 0; i < kHotBlocks; ++i) (void)bench.flow->read_one(i, false);
    const SystemClock clock;
    const double time = testing::seconds_of(clock, [&] {
      for (std::uint64_t i = 0; i < kReads; ++i) {
        bench.flow->pass(milliseconds(2), has_writes);
        times.push_back(bench.flow->read_one(block++ % kHotBlocks, has_writes));
      }
    });
    if (has_writes) seconds_loaded += time;
    bench.flow->end_writes();
    auto& of_half = has_writes ? half.samples : half.limit_samples;
    auto& of_far = has_writes ? far.samples : far.limit_samples;
    of_half.push_back(quantile(times, 0.5));
    of_far.push_back(quantile(times, 0.99));
    return 0.0;
  };
  (void)testing::alternate(
      setup.runs, {[&] { return run(true, p50, p99); }, [&] { return run(false, p50, p99); }});
  const double written = static_cast<double>(bench.flow->written() * payload) / seconds_loaded;
  const double alone = bench.flow->write_all();
  for (testing::BenchResult* result : {&p50, &p99}) {
    result->samples.erase(result->samples.begin());
    result->limit_samples.erase(result->limit_samples.begin());
    result->param("quantile", result == &p50 ? "p50" : "p99")
        .param("written_bytes_per_second", static_cast<std::int64_t>(written))
        .param("written_without_reads", static_cast<std::int64_t>(alone));
    bench.print(std::move(*result));
  }
}

// The backend alone, as the tier uses it: frames at its depth, nobody looks at the bytes.
double read_unverified(const Bench& bench) {
  auto backend = transfer::make_backend(bench.own.backend, {.depth = bench.own.depth});
  TERRACE_CHECK(backend.has_value());
  const auto file = open_file(bench.own.directory + "/terrace-00/0.slots", O_RDONLY | O_DIRECT);
  const std::uint64_t frame = bench.flow->frame_bytes();
  auto memory = index::ZeroedArray<std::byte>::create(bench.own.depth * frame);
  TERRACE_CHECK(file.has_value() && memory.has_value());
  std::vector<std::uint64_t> free;
  for (std::uint64_t i = 0; i < bench.own.device_depth(bench.own.backend); ++i) {
    free.push_back(i);
  }
  const std::size_t all = free.size();
  std::vector<transfer::Completion> completions;
  const double before = cpu_seconds();
  for (std::uint64_t block = 0; block < bench.flow->count() || free.size() < all;) {
    for (; block < bench.flow->count() && !free.empty(); ++block) {
      transfer::Transfer transfer;
      transfer.token = free.back();
      transfer.file = file->get();
      transfer.offset = block * frame;
      std::byte* const at = memory->all().data() + free.back() * frame;
      transfer.pieces[0] = {at + bench.payload, kPageBytes};
      transfer.pieces[1] = {at, bench.payload};
      transfer.piece_count = 2;
      TERRACE_CHECK(backend->backend->submit(transfer).is_ok());
      free.pop_back();
    }
    backend->backend->wait(seconds(1));
    completions.clear();
    backend->backend->poll(completions);
    for (const transfer::Completion& completion : completions) {
      TERRACE_CHECK(completion.status.is_ok());
      free.push_back(completion.token);
    }
  }
  return (cpu_seconds() - before) / static_cast<double>(bench.flow->bytes()) * 1e9;
}

void bench_cpu(const FlowSetup& setup, std::uint64_t payload, const std::string& backend) {
  Bench bench(setup, payload, backend);
  const auto cost_of = [&](const auto& work) {
    const double before = cpu_seconds();
    work();
    return (cpu_seconds() - before) / static_cast<double>(bench.flow->bytes()) * 1e9;
  };
  const auto samples = testing::alternate(
      setup.runs, {[&] { return read_unverified(bench); },
                   [&] { return cost_of([&] { (void)bench.flow->read_all(); }); },
                   [&] { return cost_of([&] { bench.flow->sum_up(); }); }});
  for (const bool is_verified : {false, true}) {
    testing::BenchResult result{
        "disk.read.cpu", "core s/GB", false, samples[is_verified ? 1 : 0], "", {}, {}};
    result.param("verified", is_verified ? "yes" : "no");
    bench.print(std::move(result));
  }
  // What verifying adds to a read beside the same sums of bytes that lie there.
  testing::BenchResult result{"disk.read.checksum", "core s/GB", false, {},
                              "the sums alone",     samples[2],  {}};
  for (std::size_t i = 0; i < samples[0].size(); ++i) {
    result.samples.push_back(samples[1][i] - samples[0][i]);
  }
  bench.print(std::move(result));
}

// A model's KV: what one block of one rank takes, and what a token takes of all.
struct Geometry {
  const char* model;
  FlowShape shape;
  std::uint64_t token_bytes;  // Of all ranks.
};
constexpr Geometry kGeometries[] = {
    // 32 layers, 8 KV heads of 128, K and V, bfloat16; blocks of 16 tokens.
    {"8B", {std::uint64_t{16} * 131'072, 1}, 131'072},
    // 80 layers, the same heads, eight ranks.
    {"70B-tp8", {std::uint64_t{16} * 40'960, 8}, 327'680},
    // Latent attention: 61 layers of 512 + 64, bfloat16, once; blocks of 64 tokens.
    {"MLA", {std::uint64_t{64} * 70'272, 1}, 70'272},
};

void bench_tokens(const FlowSetup& setup, const Geometry& geometry) {
  const ScratchDirectory scratch(setup.directory);
  FlowSetup own = setup;
  own.directory = scratch.path();
  own.backend = "io_uring";
  DiskFlow flow(own, geometry.shape);
  const auto tokens = [&](double bytes) {
    return bytes / static_cast<double>(geometry.token_bytes);
  };
  const Fio::Job job{.file = own.directory + "/terrace-00/0.slots",
                     .piece = flow.frame_bytes(),
                     .bytes = flow.count() * geometry.shape.ranks * flow.frame_bytes(),
                     .depth = own.asked()};
  const auto samples =
      testing::alternate(setup.runs, {[&] { return tokens(flow.read_all()); },
                                      [&] { return tokens(Fio(job).bytes_per_second()); }});
  testing::BenchResult result{"disk.tokens", "tokens/s", true, samples[0], "fio", samples[1], {}};
  result.param("model", geometry.model)
      .param("token_bytes", static_cast<std::int64_t>(geometry.token_bytes))
      .param("shard_bytes", static_cast<std::int64_t>(geometry.shape.shard_bytes))
      .param("ranks", std::int64_t{geometry.shape.ranks});
  testing::print(result, testing::machine_facts(setup.directory));
}

}  // namespace
}  // namespace terrace::tier::disk

int main(int argc, char** argv) {
  using namespace terrace::tier::disk;  // NOLINT(google-build-using-namespace)
  const FlowSetup setup = FlowSetup::of(argc, argv);
  for (const std::string backend : {"io_uring", "threads"}) {
    if (!setup.backend.empty() && setup.backend != backend) continue;
    for (const std::uint64_t payload : {kMi * 3 / 4, kMi * 3}) {
      if (setup.wants("disk.read.prefix100")) bench_prefix(setup, payload, backend);
      if (setup.wants("disk.read.cpu")) bench_cpu(setup, payload, backend);
    }
    if (setup.wants("disk.read.latency")) bench_latency(setup, 2 * kMi, backend);
    if (setup.wants("disk.read.loaded")) bench_loaded(setup, 2 * kMi, backend);
  }
  if (!setup.wants("disk.tokens")) return 0;
  for (const Geometry& geometry : kGeometries) bench_tokens(setup, geometry);
}
