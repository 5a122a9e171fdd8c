// How long a start takes with many blocks on disk: opening the tier, and until the first block is
// delivered verified, beside reading slots.meta once and doing nothing with it; and what the tier's
// tables take of memory. The directory is made by hand: real extents.meta, slots.meta and one real
// frame, in a slot file that is otherwise a hole. slots.meta is read past the page cache.
//   restart_bench [--directory=DIR] [--runs=N] [--blocks=N …]
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "terrace/base/check.h"
#include "terrace/base/file.h"
#include "terrace/base/thread.h"
#include "terrace/testing/bench_json.h"
#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/extent_table_internal.h"
#include "terrace/tier/disk/format_internal.h"
#include "terrace/tier/disk/geometry_internal.h"
#include "terrace/transfer/builtin.h"
#include "terrace/wire/frame.h"

namespace terrace::tier::disk {
namespace {

constexpr std::uint64_t kPayload = 4096;
constexpr std::uint64_t kRealSlot = 12'345;
constexpr std::size_t kThreads = 2;  // As the manager has them.

DiskTier::Options options_for(const std::string& directory, std::uint64_t blocks) {
  DiskTier::Options options;
  options.layout.block_tokens = Tokens(16);
  options.layout.groups = {{GroupId(0), {Bytes(kPayload)}}};
  options.fingerprint.content = {{"model", "bench"}};
  options.fingerprint.layout = {{"bytes", std::to_string(kPayload)}};
  options.blocks = blocks;
  options.paths = {directory};
  options.crew = thread_crew("load", kThreads);
  return options;
}

class File {
 public:
  explicit File(const std::string& path) : path_(path) {
    auto file = open_file(path, O_RDWR | O_CREAT);
    TERRACE_CHECK(file.has_value());
    file_ = *std::move(file);
  }
  void write(std::span<const std::byte> bytes, std::uint64_t offset) {
    TERRACE_CHECK(::pwrite(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset)) ==
                  static_cast<ssize_t>(bytes.size()));
  }
  void resize(std::uint64_t bytes) {
    TERRACE_CHECK(::ftruncate(file_.get(), static_cast<off_t>(bytes)) == 0);
  }
  // On the medium and out of the page cache.
  void settle() {
    TERRACE_CHECK(::fsync(file_.get()) == 0);
    TERRACE_CHECK(::posix_fadvise(file_.get(), 0, 0, POSIX_FADV_DONTNEED) == 0);
  }

 private:
  std::string path_;
  UniqueFd file_;
};

void write_frame(const DiskTier::Options& options, const std::string& owner, std::uint64_t offset) {
  wire::FrameHeader header;
  const auto parse = [](const std::string& hex) {
    std::array<std::uint8_t, 32> bytes{};
    for (std::size_t i = 0; i < 32; ++i) {
      bytes[i] = static_cast<std::uint8_t>(std::stoul(hex.substr(2 * i, 2), nullptr, 16));
    }
    return bytes;
  };
  header.content_digest = parse(options.fingerprint.content_digest());
  header.layout_digest = parse(options.fingerprint.layout_digest());
  header.hash = hash_of(kRealSlot);
  header.generation = Generation(1);
  header.payload_bytes = kPayload;
  BlockMemory block(1, kPayload);
  block.fill(kRealSlot);
  header.payload_checksum = block.checksums()[0];
  std::array<std::byte, wire::kFrameHeaderBytes> page{};
  wire::encode(header, page);
  File slots(owner + "/0.slots");
  slots.write(page, offset);
  slots.write({block.shards()[0].payload, kPayload}, offset + page.size());
  slots.settle();
}

void make_directory(const DiskTier::Options& options, std::uint64_t blocks) {
  const std::string owner = options.paths[0] + "/terrace-00";
  TERRACE_CHECK(make_directories(owner + "/ns-0001").is_ok());
  const std::uint64_t extent_bytes = choose_extent_bytes(blocks * block_bytes_of(options.layout));
  const auto geometry = plan_runs(options.layout, extent_bytes, kMostExtents);
  const std::uint64_t runs = (blocks + geometry->run_slots - 1) / geometry->run_slots;
  std::array<std::byte, kPageBytes> page{};
  File extents(owner + "/extents.meta");
  encode(VolumeHeader{extent_bytes, 0}, page);
  extents.write(page, 0);
  std::array<std::byte, kExtentRecordBytes> bytes{};
  for (std::uint32_t extent = 0; extent < runs * geometry->run_extents; ++extent) {
    const std::uint32_t first = extent - extent % geometry->run_extents;
    encode(ExtentRecord{1, first, geometry->run_extents, 1}, extent, bytes);
    extents.write(bytes, ExtentTable::offset(extent));
  }
  extents.settle();
  const std::string fingerprint = options.fingerprint.text();
  File(owner + "/ns-0001/fingerprint.txt").write(std::as_bytes(std::span(fingerprint)), 0);
  File meta(owner + "/ns-0001/slots.meta");
  encode(MetaHeader{1, 1, geometry->run_slots, geometry->run_extents}, page);
  meta.write(page, 0);
  meta.write(page, kPageBytes);
  std::vector<std::byte> records(kSlotRecordBytes * 16384);
  for (std::uint64_t slot = 0; slot < blocks;) {
    const std::uint64_t start = slot;
    for (std::size_t i = 0; i < 16384 && slot < blocks; ++i, ++slot) {
      SlotRecord record;
      record.hash = hash_of(slot);
      record.alias = slot * 3;
      record.sequence =
          2 + (slot * 7919) % blocks;  // Not in the order of slots, as after long use.
      record.stamp = 1;
      record.generation = 1;
      record.epoch = 1;
      record.name_space = 1;
      record.state = RecordState::kSealed;
      encode(record, static_cast<std::uint32_t>(slot),
             std::span(records).subspan(i * kSlotRecordBytes).first<kSlotRecordBytes>());
    }
    meta.write(std::span(records).first((slot - start) * kSlotRecordBytes),
               kRecordsOffset + start * kSlotRecordBytes);
  }
  meta.settle();
  File(owner + "/0.slots").resize(runs * geometry->run_bytes() * 9 / 8 + (64U << 20U));
  write_frame(options, owner, geometry->offset(0, kRealSlot, 0));
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

void bench(const std::string& directory, int runs, std::uint64_t blocks) {
  const ScratchDirectory scratch(directory);
  const DiskTier::Options options = options_for(scratch.path(), blocks);
  make_directory(options, blocks);
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
        .param("threads", static_cast<std::int64_t>(kThreads));
    testing::print(*result, machine);
  }
}

}  // namespace
}  // namespace terrace::tier::disk

int main(int argc, char** argv) {
  std::string directory = ".";
  int runs = 7;
  std::vector<std::uint64_t> sizes;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.starts_with("--directory=")) directory = argument.substr(12);
    if (argument.starts_with("--runs=")) runs = std::atoi(argument.c_str() + 7);
    if (argument.starts_with("--blocks=")) {
      sizes.push_back(std::strtoull(argument.c_str() + 9, nullptr, 10));
    }
  }
  if (sizes.empty()) sizes = {1'000'000, 10'000'000};
  for (const std::uint64_t blocks : sizes) terrace::tier::disk::bench(directory, runs, blocks);
}
