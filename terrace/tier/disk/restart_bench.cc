// How long a start of the tier takes with many blocks on disk: opening it, and until the first
// block is delivered verified, beside reading slots.meta once and doing nothing with it; and what
// the tier's tables take of memory. slots.meta is read past the page cache. What a user waits for,
// owner and worker included, is measured by bench/first_hit_bench.cc.
//   restart_bench [--directory=DIR] [--runs=N] [--blocks=N …]
#include <fcntl.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "terrace/base/thread.h"
#include "terrace/testing/bench_json.h"
#include "terrace/testing/restart_options.h"
#include "terrace/tier/disk/full_disk_rig.h"
#include "terrace/transfer/builtin.h"

namespace terrace::tier::disk {
namespace {

constexpr std::uint64_t kPayload = 4096;
constexpr std::uint64_t kRealSlot = 345;
constexpr std::size_t kThreads = 2;  // As the manager has them.

DiskTier::Options options_for(const std::string& directory, std::uint64_t blocks) {
  DiskTier::Options options;
  options.layout.block_tokens = Tokens(16);
  options.layout.groups = {{GroupId(0), {Bytes(kPayload)}}};
  options.fingerprint.content = {{"model", "bench"}};
  options.fingerprint.layout = {{"bytes", std::to_string(kPayload)}};
  options.blocks = blocks;
  options.paths = {directory};
  options.eviction = "hazard";  // The default of an engine.
  options.crew = thread_crew("load", kThreads);
  return options;
}

// Of the whole process; on a busy machine it says more than the clock.
double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds_of = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
}

// RssAnon of this process.
double anonymous_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("RssAnon:")) return std::strtod(line.c_str() + 8, nullptr) * 1024;
  }
  return 0;
}

struct Times {
  double open = 0;
  double cpu = 0;
  double first_hit = 0;
  double memory = 0;  // Bytes per block.
};

Times start_once(const DiskTier::Options& options, std::uint64_t blocks) {
  const SystemClock clock;
  NullLog log;
  File meta(options.paths[0] + "/terrace-00/ns-0001/slots.meta");
  meta.settle();
  Times times;
  BlockMemory memory(1, kPayload);
  const double before = anonymous_bytes();
  const double cpu = cpu_seconds();
  const Nanoseconds begin = clock.now();
  auto tier = DiskTier::open(options, clock, log);
  TERRACE_CHECK(tier.has_value());
  times.open = static_cast<double>((clock.now() - begin).value()) * 1e-9;
  times.cpu = cpu_seconds() - cpu;
  TERRACE_CHECK((*tier)->count(catalog::SlotState::kSealed) == blocks);
  TERRACE_CHECK((*tier)
                    ->begin_read(1, GroupId(0), hash_of(kRealSlot), memory.shards(),
                                 transfer::IoClass::kTtftRead, kNoDeadline)
                    .is_ok());
  std::vector<DiskDone> done;
  while (done.empty()) {
    (*tier)->wait(seconds(1));
    (*tier)->poll(done);
  }
  times.first_hit = static_cast<double>((clock.now() - begin).value()) * 1e-9;
  TERRACE_CHECK(done[0].status.is_ok());
  times.memory = (anonymous_bytes() - before) / static_cast<double>(blocks);
  return times;
}

// The limit: the same bytes, through the same backend with as many reads under way.
double read_once(const DiskTier::Options& options, std::uint64_t blocks) {
  constexpr std::size_t kPiece = 2U << 20U;
  constexpr std::size_t kReads = 16;
  const SystemClock clock;
  const std::string path = options.paths[0] + "/terrace-00/ns-0001/slots.meta";
  File(path).settle();
  const std::uint64_t end = kRecordsOffset + blocks * kSlotRecordBytes;
  auto memory = index::ZeroedArray<std::byte>::create(kReads * kPiece);
  const Nanoseconds begin = clock.now();
  auto backend = transfer::make_backend(options.backend, options.io);
  const auto file = open_file(path, O_RDONLY | O_DIRECT);
  TERRACE_CHECK(memory.has_value() && backend.has_value() && file.has_value());
  std::vector<std::uint64_t> free;
  free.reserve(kReads);
  for (std::uint64_t i = 0; i < kReads; ++i) free.push_back(i);
  std::vector<transfer::Completion> completions;
  for (std::uint64_t at = 0; at < end || free.size() < kReads;) {
    for (; at < end && !free.empty(); at += kPiece) {
      transfer::Transfer transfer;
      transfer.token = free.back();
      transfer.file = file->get();
      transfer.offset = at;
      const std::uint64_t left = round_up(Bytes(end - at), Bytes(kPageBytes)).value();
      transfer.pieces[0] = {memory->all().data() + free.back() * kPiece, std::min(kPiece, left)};
      transfer.piece_count = 1;
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
  return static_cast<double>((clock.now() - begin).value()) * 1e-9;
}

void bench(const std::string& directory, int runs, std::uint64_t blocks, bool has_events) {
  const ScratchDirectory scratch(directory);
  const DiskTier::Options options = options_for(scratch.path(), blocks);
  const RealBlock real{kRealSlot, hash_of(kRealSlot)};
  make_full_directory(options, blocks, {&real, 1}, has_events);
  const std::string limit = "reading slots.meta once";
  testing::BenchResult open{"restart.disk_open", "s", false, {}, limit, {}, {}};
  testing::BenchResult cpu{"restart.disk_open_cpu", "s", false, {}, "", {}, {}};
  testing::BenchResult hit{"restart.disk_first_hit", "s", false, {}, limit, {}, {}};
  testing::BenchResult memory{"restart.disk_memory", "bytes/block", false, {}, "", {}, {}};
  std::vector<Times> times;
  const auto samples = testing::alternate(runs, {[&] {
                                                   times.push_back(start_once(options, blocks));
                                                   return times.back().open;
                                                 },
                                                 [&] { return read_once(options, blocks); }});
  times.erase(times.begin());  // The warm-up.
  open.samples = samples[0];
  open.limit_samples = hit.limit_samples = samples[1];
  for (const Times& time : times) {
    cpu.samples.push_back(time.cpu);
    hit.samples.push_back(time.first_hit);
    memory.samples.push_back(time.memory);
  }
  const auto machine = testing::machine_facts(directory);
  for (testing::BenchResult* result : {&open, &cpu, &hit, &memory}) {
    result->param("blocks", static_cast<std::int64_t>(blocks))
        .param("threads", static_cast<std::int64_t>(kThreads))
        .param("eviction", options.eviction)
        .param("events", has_events ? "yes" : "no");
    testing::print(*result, machine);
  }
}

}  // namespace
}  // namespace terrace::tier::disk

int main(int argc, char** argv) {
  const auto options = terrace::testing::restart_options(argc, argv);
  for (const std::uint64_t blocks : options.sizes) {
    for (const bool has_events : {false, true}) {
      terrace::tier::disk::bench(options.directory, options.runs, blocks, has_events);
    }
  }
}
