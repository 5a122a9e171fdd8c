// Sealed writes and verified reads of the disk tier beside fio, alternating, with O_DIRECT, the
// same depth, both with their buffers in huge pages (in scattered 4 KiB pages a virtual disk may be
// half as fast), in the very same file: one whose blocks have all been written before, and where a
// file lies decides how fast some disks are. fio's pieces are whole frames, and it syncs as often
// as the tier syncs frames; the tier's records and their syncs come on top.
//   disk_bench [--directory=DIR] [--runs=N] [--mebibytes=N] [--backend=NAME] [disk.read|disk.write
//   …]
//   disk_bench --serve=PAYLOAD_BYTES …: for bench/peers. Each line of standard input, `write`,
//   `read` or `plain` (read, nothing checked), is done and answered by a line of bytes per second.
//   --cached: through the page cache.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "terrace/base/check.h"
#include "terrace/base/file.h"
#include "terrace/testing/bench_json.h"
#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/format_internal.h"
#include "terrace/transfer/builtin.h"

namespace terrace::tier::disk {
namespace {

struct Setup {
  std::string directory = ".";
  int runs = 11;
  std::uint64_t mebibytes = 768;
  std::vector<std::string> names;
  std::string backend;  // Empty = both.
  bool is_direct = true;
  std::uint64_t served_payload = 0;  // 0 = measured beside fio.
  [[nodiscard]] bool wants(const std::string& name) const {
    if (names.empty()) return true;
    for (const std::string& wanted : names) {
      if (name.starts_with(wanted) || wanted.starts_with(name)) return true;
    }
    return false;
  }
};

// Of the tier; writes get half of it, prefetches three quarters.
constexpr unsigned kDepth = 16;
constexpr unsigned kThreads = 4;  // Of the `threads` backend, each with one transfer.
constexpr std::uint64_t kSyncBytes = 32ULL << 20U;  // Of frames, at each of which the tier syncs.

// At the device, fio's and ours.
unsigned depth_of(bool is_read, const std::string& backend) {
  if (backend == "threads") return kThreads;
  return is_read ? kDepth * 3 / 4 : kDepth / 2;
}

// Bytes per second that fio reports. The frames are no frames any more when it wrote.
double run_fio(const std::string& file, bool is_read, std::uint64_t piece, std::uint64_t bytes,
               const std::string& backend) {
  const std::uint64_t part = bytes / kThreads / piece * piece;
  const std::string how =
      backend == "threads"
          ? fmt::format("--ioengine=psync --thread --numjobs={} --size={} --offset_increment={}",
                        kThreads, part, part)
          : fmt::format("--ioengine=io_uring --iodepth={} --size={}", depth_of(is_read, backend),
                        bytes);
  const std::string command = fmt::format(
      "GLIBC_TUNABLES=glibc.malloc.hugetlb=1 fio --name=limit --filename={} --allow_file_create=0 "
      "--direct=1 --rw={} --bs={} {} --group_reporting{} "
      "--output-format=terse --terse-version=3 2>/dev/null",
      file, is_read ? "read" : "write", piece, how,
      is_read ? "" : fmt::format(" --fdatasync={}", kSyncBytes / piece));
  FILE* const pipe = ::popen(command.c_str(), "re");
  TERRACE_CHECK(pipe != nullptr);
  std::string text;
  char buffer[4096];
  while (std::fgets(buffer, sizeof buffer, pipe) != nullptr) text += buffer;
  const int status = ::pclose(pipe);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    std::fprintf(stderr, "disk_bench: fio failed: %s\n", command.c_str());
    std::exit(1);
  }
  // Terse format 3: field 7 is the read bandwidth, field 48 the write bandwidth, in KiB/s.
  const int wanted = is_read ? 6 : 47;
  std::size_t at = 0;
  for (int field = 0; field < wanted; ++field) at = text.find(';', at) + 1;
  return std::strtod(text.c_str() + at, nullptr) * 1024;
}

class DiskFlow {
 public:
  DiskFlow(const Setup& setup, std::uint64_t payload_bytes)
      : payload_bytes_(payload_bytes),
        count_((setup.mebibytes << 20U) / payload_bytes),
        memory_(
            index::ZeroedArray<std::byte>::create((kSources + kTargets) * payload_bytes).value()) {
    options_.layout.block_tokens = Tokens(64);
    options_.layout.groups = {{GroupId(0), {Bytes(payload_bytes)}}};
    options_.fingerprint.content = {{"model", "bench"}};
    options_.fingerprint.layout = {{"bytes", std::to_string(payload_bytes)}};
    options_.blocks = count_;
    options_.paths = {setup.directory};
    options_.backend = setup.backend;
    options_.is_direct = setup.is_direct;
    options_.io.depth = kDepth;
    options_.io.threads = kThreads;
    options_.queue_blocks = 256;
    auto opened = DiskTier::open(options_, clock_, log_);
    if (!opened) {
      std::fprintf(stderr, "disk_bench: %s\n", opened.error().message().c_str());
      std::exit(1);
    }
    tier_ = *std::move(opened);
    checksums_.reserve(kSources);
    for (std::size_t i = 0; i < kSources; ++i) {
      const ShardMemory source = place(i);
      Rng rng(i);
      for (std::size_t at = 0; at < payload_bytes_; at += sizeof(std::uint64_t)) {
        const std::uint64_t word = rng.next();
        std::memcpy(source.payload + at, &word, sizeof word);
      }
      checksums_.push_back(checksum_of({source.payload, payload_bytes_}));
    }
    write_all();  // Every frame has been written once.
  }

  // All slots anew, each sealed and durable. Bytes per second.
  double write_all() {
    first_ += count_;
    const double time = testing::seconds_of(clock_, [&] {
      std::uint64_t begun = 0;
      run([&](std::uint64_t under_way) {
        if (begun == count_ || under_way == options_.queue_blocks) return false;
        const std::size_t source = begun % kSources;
        const ShardMemory shard = place(source);
        const Status status = tier_->begin_write(begun, GroupId(0), hash_of(first_ + begun), 0,
                                                 {&shard, 1}, {&checksums_[source], 1});
        if (status.code() == Code::kExhausted) return false;
        TERRACE_CHECK(status.is_ok());
        ++begun;
        return true;
      });
    });
    return static_cast<double>(count_ * payload_bytes_) / time;
  }

  double read_all() {
    const double time = testing::seconds_of(clock_, [&] {
      std::vector<std::size_t> free;
      free.reserve(kTargets);
      for (std::size_t i = 0; i < kTargets; ++i) free.push_back(i);
      std::uint64_t begun = 0;
      run(
          [&](std::uint64_t) {
            if (begun == count_ || free.empty()) return false;
            const ShardMemory target = place(kSources + free.back());
            const Status status =
                tier_->begin_read(free.back(), GroupId(0), hash_of(first_ + begun), {&target, 1},
                                  transfer::IoClass::kPrefetch, kNoDeadline);
            TERRACE_CHECK(status.is_ok());
            free.pop_back();
            ++begun;
            return true;
          },
          [&](const DiskDone& done) { free.push_back(done.token); });
    });
    return static_cast<double>(count_ * payload_bytes_) / time;
  }

  // The same frames by the backend alone: neither looked up nor checked.
  double read_plain() {
    auto chosen = transfer::make_backend(options_.backend, {.depth = depth_of(true, backend())});
    TERRACE_CHECK(chosen.has_value());
    const std::string path = options_.paths[0] + "/terrace-00/0.slots";
    auto file = open_file(path, options_.is_direct ? O_RDONLY | O_DIRECT : O_RDONLY);
    TERRACE_CHECK(file.has_value());
    const std::uint64_t frame_bytes = payload_bytes_ + kPageBytes;
    auto pages = index::ZeroedArray<std::byte>::create(kTargets * kPageBytes).value();
    transfer::Backend& mover = *chosen->backend;
    const double time = testing::seconds_of(clock_, [&] {
      std::vector<transfer::Completion> done;
      std::vector<std::size_t> free;
      for (std::size_t i = 0; i < mover.depth(); ++i) free.push_back(i);
      for (std::uint64_t begun = 0, ended = 0; ended < count_; ended += done.size()) {
        for (; begun < count_ && !free.empty(); ++begun, free.pop_back()) {
          transfer::Transfer read;
          read.token = free.back();
          read.file = file->get();
          read.offset = begun * frame_bytes;
          read.pieces[0] = {pages.all().data() + free.back() * kPageBytes, kPageBytes};
          read.pieces[1] = {place(kSources + free.back()).payload, payload_bytes_};
          read.piece_count = 2;
          TERRACE_CHECK(mover.submit(read).is_ok());
        }
        mover.wait(milliseconds(100));
        done.clear();
        mover.poll(done);
        for (const transfer::Completion& one : done) {
          TERRACE_CHECK(one.status.is_ok());
          free.push_back(one.token);
        }
      }
    });
    return static_cast<double>(count_ * payload_bytes_) / time;
  }

  [[nodiscard]] std::uint64_t bytes() const { return count_ * payload_bytes_; }
  [[nodiscard]] std::uint64_t count() const { return count_; }
  [[nodiscard]] double batches() const {
    CellReader cells;
    tier_->visit_metrics(cells);
    return cells.value("terrace_disk_batches_total");
  }
  [[nodiscard]] std::string backend() const { return std::string(tier_->backend_name()); }

 private:
  static constexpr std::size_t kSources = 64;
  // More than the device has, so that it is not idle while those that came are verified.
  static constexpr std::size_t kTargets = std::size_t{2} * kDepth;

  [[nodiscard]] ShardMemory place(std::size_t number) {
    return {memory_.all().data() + number * payload_bytes_, payload_bytes_, payload_bytes_};
  }
  void run(
      const std::function<bool(std::uint64_t)>& begin,
      const std::function<void(const DiskDone&)>& on_done = [](const DiskDone&) {}) {
    std::uint64_t under_way = 0;
    std::uint64_t finished = 0;
    std::vector<DiskDone> done;
    while (finished < count_) {
      while (begin(under_way)) ++under_way;
      tier_->wait(milliseconds(100));
      done.clear();
      tier_->poll(done);
      for (const DiskDone& item : done) {
        TERRACE_CHECK(item.status.is_ok());
        on_done(item);
        --under_way;
        ++finished;
      }
    }
  }

  std::uint64_t payload_bytes_;
  std::uint64_t count_;
  std::uint64_t first_ = 0;
  SystemClock clock_;
  NullLog log_;
  DiskTier::Options options_;
  std::unique_ptr<DiskTier> tier_;
  index::ZeroedArray<std::byte> memory_;  // Sources, then targets.
  std::vector<Checksum> checksums_;
};

void report(const Setup& setup, bool is_read, const DiskFlow& flow, std::uint64_t payload_bytes,
            const std::vector<std::vector<double>>& samples) {
  testing::BenchResult result;
  result.name = is_read ? "disk.read" : "disk.write";
  result.samples = samples[0];
  result.limit_name = "fio";
  result.limit_samples = samples[1];
  result.param("piece_bytes", static_cast<std::int64_t>(payload_bytes))
      .param("depth", std::int64_t{depth_of(is_read, setup.backend)})
      .param("bytes", static_cast<std::int64_t>(flow.bytes()))
      .param("backend", flow.backend());
  if (!is_read) {
    // Of both; the tier's number of groups in all runs and the warm-up says whether that is so.
    result.param("sync_bytes", static_cast<std::int64_t>(kSyncBytes))
        .param("groups", static_cast<std::int64_t>(flow.batches()));
  }
  testing::print(result, testing::machine_facts(setup.directory));
}

void bench(const Setup& setup, std::uint64_t payload_bytes, const std::string& backend) {
  const ScratchDirectory scratch(setup.directory);
  Setup own = setup;
  own.directory = scratch.path();
  own.backend = backend;
  DiskFlow flow(own, payload_bytes);
  const std::uint64_t frame_bytes = payload_bytes + kPageBytes;
  const std::string file = scratch.path() + "/terrace-00/0.slots";
  for (const bool is_read : {true, false}) {  // Reads first: fio's writes leave nothing to verify.
    if (!setup.wants(is_read ? "disk.read" : "disk.write")) continue;
    const auto samples = testing::alternate(
        setup.runs,
        {[&] { return is_read ? flow.read_all() : flow.write_all(); },
         [&] { return run_fio(file, is_read, frame_bytes, flow.count() * frame_bytes, backend); }});
    report(own, is_read, flow, payload_bytes, samples);
  }
}

int serve(const Setup& setup) {
  const ScratchDirectory scratch(setup.directory);
  Setup own = setup;
  own.directory = scratch.path();
  if (own.backend.empty()) own.backend = "io_uring";
  DiskFlow flow(own, setup.served_payload);
  std::cout << "ready" << std::endl;
  for (std::string verb; std::getline(std::cin, verb);) {
    double rate = 0;
    if (verb == "write") rate = flow.write_all();
    if (verb == "read") rate = flow.read_all();
    if (verb == "plain") rate = flow.read_plain();
    if (rate == 0) return 1;
    std::cout << fmt::format("{:.6g}", rate) << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace terrace::tier::disk

int main(int argc, char** argv) {
  terrace::tier::disk::Setup setup;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const auto value = [&](const std::string& name) { return argument.substr(name.size()); };
    if (argument.starts_with("--directory=")) {
      setup.directory = value("--directory=");
    } else if (argument.starts_with("--runs=")) {
      setup.runs = std::atoi(value("--runs=").c_str());
    } else if (argument.starts_with("--mebibytes=")) {
      setup.mebibytes = std::strtoull(value("--mebibytes=").c_str(), nullptr, 10);
    } else if (argument.starts_with("--backend=")) {
      setup.backend = value("--backend=");
    } else if (argument.starts_with("--serve=")) {
      setup.served_payload = std::strtoull(value("--serve=").c_str(), nullptr, 10);
    } else if (argument == "--cached") {
      setup.is_direct = false;
    } else {
      setup.names.push_back(argument);
    }
  }
  if (setup.served_payload > 0) return terrace::tier::disk::serve(setup);
  for (const std::string backend : {"io_uring", "threads"}) {
    if (!setup.backend.empty() && setup.backend != backend) continue;
    for (const std::uint64_t payload : {768ULL << 10U, 3ULL << 20U}) {
      terrace::tier::disk::bench(setup, payload, backend);
    }
  }
}
