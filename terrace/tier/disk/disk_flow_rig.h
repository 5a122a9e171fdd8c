// A full disk tier in a directory on a real disk, for benchmarks: written, read and timed, and fio
// on the very same file with O_DIRECT, the same sizes and depth. fio's pieces are whole frames; its
// buffers and ours lie in huge pages (in scattered 4 KiB pages a virtual disk may be half as fast).
// Threading: thread-compatible.  Waits: for the disk.
#pragma once

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "terrace/base/check.h"
#include "terrace/base/file.h"
#include "terrace/testing/bench_json.h"
#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/format_internal.h"
#include "terrace/transfer/builtin.h"

namespace terrace::tier::disk {

struct FlowSetup {
  std::string directory = ".";
  int runs = 11;
  std::uint64_t mebibytes = 768;
  std::vector<std::string> names;
  std::string backend;  // Empty = both.
  // Of the tier; writes get half of it, prefetches three quarters.
  unsigned depth = 16;
  bool is_direct = true;                   // Past the page cache.
  std::uint64_t served_payload = 0;        // 0 = measured beside fio.
  static constexpr unsigned kThreads = 4;  // Of the `threads` backend, each with one transfer.

  static FlowSetup of(int argc, char** argv) {
    FlowSetup setup;
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
      } else if (argument.starts_with("--depth=")) {
        setup.depth = static_cast<unsigned>(std::atoi(value("--depth=").c_str()));
      } else if (argument.starts_with("--serve=")) {
        setup.served_payload = std::strtoull(value("--serve=").c_str(), nullptr, 10);
      } else if (argument == "--cached") {
        setup.is_direct = false;
      } else {
        setup.names.push_back(argument);
      }
    }
    return setup;
  }
  [[nodiscard]] bool wants(const std::string& name) const {
    if (names.empty()) return true;
    return std::ranges::any_of(names, [&](const std::string& wanted) {
      return name.starts_with(wanted) || wanted.starts_with(name);
    });
  }
  // Blocks that are asked for at once, by fio and of the tier, each with memory of its own: what a
  // device writes into a buffer that is still in the processor's cache comes sooner, so who has
  // fewer buffers is faster. More than the tier has at the device, so that this is not idle while
  // those that came are verified.
  [[nodiscard]] unsigned asked() const { return 2 * depth; }
  // Reads of the tier at the device.
  [[nodiscard]] unsigned device_depth(const std::string& of_backend) const {
    return of_backend == "threads" ? kThreads : std::max(1U, depth * 3 / 4);
  }
};

// One run of fio; what it says.
class Fio {
 public:
  struct Job {
    std::string file;
    bool is_read = true;
    std::uint64_t piece = 0;
    std::uint64_t bytes = 0;
    std::uint64_t offset = 0;
    unsigned depth = 1;
    std::uint64_t sync_bytes = 0;  // Writes: an fdatasync after so many.
    std::string backend = "io_uring";
    bool is_random = false;
  };
  explicit Fio(const Job& job) {
    const unsigned threads = job.backend == "threads" ? job.depth : 1;
    const std::uint64_t part = job.bytes / threads / job.piece * job.piece;
    const std::string how =
        job.backend == "threads"
            ? fmt::format("--ioengine=psync --thread --numjobs={} --size={} --offset_increment={}",
                          threads, part, part)
            : fmt::format("--ioengine=io_uring --iodepth={} --size={}", job.depth, job.bytes);
    const std::string command = fmt::format(
        "GLIBC_TUNABLES=glibc.malloc.hugetlb=1 fio --name=limit --filename={} "
        "--allow_file_create=0 --direct=1 --rw={}{} --bs={} --offset={} {} --group_reporting{} "
        "--iomem_align=2097152 --output-format=terse --terse-version=3 2>/dev/null",
        job.file, job.is_random ? "rand" : "", job.is_read ? "read" : "write", job.piece,
        job.offset, how,
        job.sync_bytes == 0 ? "" : fmt::format(" --fdatasync={}", job.sync_bytes / job.piece));
    FILE* const pipe = ::popen(command.c_str(), "re");
    TERRACE_CHECK(pipe != nullptr);
    char buffer[4096];
    while (std::fgets(buffer, sizeof buffer, pipe) != nullptr) text_ += buffer;
    const int status = ::pclose(pipe);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
      std::fprintf(stderr, "fio failed: %s\n", command.c_str());
      std::exit(1);
    }
    // Terse format 3: field 7 is the read bandwidth, field 48 the write bandwidth, in KiB/s.
    bytes_per_second_ = field(job.is_read ? 6 : 47) * 1024;
  }
  [[nodiscard]] double bytes_per_second() const { return bytes_per_second_; }
  // Of reads, from submission to completion, in seconds; `name` as "50.000000".
  [[nodiscard]] double latency(const std::string& name) const {
    const std::size_t at = text_.find(name + "%=");
    return at == std::string::npos
               ? 0
               : std::strtod(text_.c_str() + at + name.size() + 2, nullptr) * 1e-6;
  }

 private:
  [[nodiscard]] double field(int wanted) const {
    std::size_t at = 0;
    for (int number = 0; number < wanted; ++number) at = text_.find(';', at) + 1;
    return std::strtod(text_.c_str() + at, nullptr);
  }
  std::string text_;
  double bytes_per_second_ = 0;
};

// Of the whole process.
[[nodiscard]] inline double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds_of = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
}

struct FlowShape {
  std::uint64_t shard_bytes = 0;
  std::uint16_t ranks = 1;
  [[nodiscard]] std::uint64_t block_bytes() const { return shard_bytes * ranks; }
};

class DiskFlow {
 public:
  DiskFlow(const FlowSetup& setup, const FlowShape& shape)
      : shape_(shape),
        count_((setup.mebibytes << 20U) / shape.block_bytes()),
        asked_(setup.asked()),
        memory_(index::ZeroedArray<std::byte>::create(2 * asked_ * shape.block_bytes()).value()) {
    options_.layout.block_tokens = Tokens(64);
    options_.layout.ranks = shape.ranks;
    options_.layout.groups = {{GroupId(0), {Bytes(shape.shard_bytes)}}};
    options_.fingerprint.content = {{"model", "bench"}};
    options_.fingerprint.layout = {{"bytes", std::to_string(shape.shard_bytes)},
                                   {"ranks", std::to_string(shape.ranks)}};
    options_.blocks = count_;
    options_.paths = {setup.directory};
    options_.backend = setup.backend;
    options_.is_direct = setup.is_direct;
    options_.io.depth = setup.depth;
    options_.io.threads = FlowSetup::kThreads;
    options_.queue_blocks = 256;
    auto opened = DiskTier::open(options_, clock_, log_);
    if (!opened) {
      std::fprintf(stderr, "%s\n", opened.error().message().c_str());
      std::exit(1);
    }
    tier_ = *std::move(opened);
    fill_sources();
    write_all();  // Every frame has been written once.
  }

  // To other pages: not all memory of a virtual machine is alike to its disk, and fio's is new at
  // each run. Nothing is under way.
  void move_memory() {
    auto elsewhere = index::ZeroedArray<std::byte>::create(memory_.all().size()).value();
    std::ranges::copy(memory_.all(), elsewhere.all().begin());
    memory_ = std::move(elsewhere);
  }
  // All slots anew, each sealed and durable. Bytes per second.
  double write_all() {
    first_ += count_;
    std::uint64_t begun = 0;
    const double time = testing::seconds_of(
        clock_, [&] { run(count_, [&](std::uint64_t) { return begin_write(begun); }); });
    return static_cast<double>(bytes()) / time;
  }
  double read_all() { return read(0, count_); }
  // `count` neighbouring blocks of one sequence, all asked for at once. Bytes per second.
  double read(std::uint64_t from, std::uint64_t count) {
    const double time = testing::seconds_of(clock_, [&] {
      std::vector<std::size_t> free;
      free.reserve(asked_);
      for (std::size_t i = 0; i < asked_; ++i) free.push_back(i);
      std::uint64_t begun = 0;
      run(
          count,
          [&](std::uint64_t) {
            if (begun == count || free.empty()) return false;
            begin_read(from + begun, free.back(), transfer::IoClass::kPrefetch);
            free.pop_back();
            ++begun;
            return true;
          },
          [&](const DiskDone& done) { free.push_back(done.token - kReadToken); });
    });
    return static_cast<double>(count * shape_.block_bytes()) / time;
  }
  // All frames of one rank by the backend alone, `depth` at a time: neither looked up nor checked.
  double read_plain(unsigned depth) {
    auto chosen = transfer::make_backend(options_.backend, {.depth = depth});
    TERRACE_CHECK(chosen.has_value());
    const std::string path = options_.paths[0] + "/terrace-00/0.slots";
    auto file = open_file(path, options_.is_direct ? O_RDONLY | O_DIRECT : O_RDONLY);
    TERRACE_CHECK(file.has_value());
    auto pages = index::ZeroedArray<std::byte>::create(asked_ * kPageBytes).value();
    transfer::Backend& mover = *chosen->backend;
    const double time = testing::seconds_of(clock_, [&] {
      std::vector<transfer::Completion> done;
      std::vector<std::size_t> free;
      for (std::size_t i = 0; i < std::min<std::size_t>(mover.depth(), asked_); ++i)
        free.push_back(i);
      for (std::uint64_t begun = 0, ended = 0; ended < count_; ended += done.size()) {
        for (; begun < count_ && !free.empty(); ++begun, free.pop_back()) {
          transfer::Transfer read;
          read.token = free.back();
          read.file = file->get();
          read.offset = begun * frame_bytes();
          read.pieces[0] = {pages.all().data() + free.back() * kPageBytes, kPageBytes};
          read.pieces[1] = {place(asked_ + free.back())[0].payload, shape_.shard_bytes};
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
    return static_cast<double>(bytes()) / time;
  }
  // As many bytes as read_all() brings, where it brings them.
  void sum_up() {
    for (std::uint64_t block = 0; block < count_; ++block) {
      for (const ShardMemory& shard : place(asked_ + block % asked_)) {
        testing::keep(checksum_of({shard.payload, shard.payload_bytes}).value);
      }
    }
  }
  // One verified read, alone, in seconds. With `has_writes` the tier is given all that it takes.
  // Where it goes: one of asked() places, `place` of them in turn.
  double read_one(std::uint64_t block, bool has_writes, std::size_t place = 0) {
    const Nanoseconds begin = clock_.now();
    begin_read(block, place % asked_, transfer::IoClass::kTtftRead);
    for (bool is_done = false; !is_done;) {
      if (has_writes) keep_writing();
      tier_->wait(milliseconds(100));
      is_done = poll_for_read();
    }
    return static_cast<double>((clock_.now() - begin).value()) * 1e-9;
  }
  // Lets writes go on, or nothing, for a while.
  void pass(Nanoseconds time, bool has_writes) {
    const Nanoseconds end = clock_.now() + time;
    while (clock_.now() < end) {
      if (has_writes) keep_writing();
      const Nanoseconds limit = end - clock_.now();
      tier_->wait(limit);
      (void)poll_for_read();
    }
  }
  void end_writes() {
    while (writing_ > 0) {
      tier_->wait(milliseconds(100));
      (void)poll_for_read();
    }
  }

  [[nodiscard]] std::uint64_t bytes() const { return count_ * shape_.block_bytes(); }
  [[nodiscard]] std::uint64_t count() const { return count_; }
  [[nodiscard]] std::uint64_t written() const { return written_; }
  [[nodiscard]] std::uint64_t frame_bytes() const { return shape_.shard_bytes + kPageBytes; }
  [[nodiscard]] double metric(const std::string& name) const {
    CellReader cells;
    tier_->visit_metrics(cells);
    return cells.value(name);
  }
  [[nodiscard]] std::string backend() const { return std::string(tier_->backend_name()); }

 private:
  static constexpr std::uint64_t kMostWriting = 64;  // More than the device takes.
  static constexpr std::uint64_t kReadToken = std::uint64_t{1} << 40U;

  void fill_sources() {
    for (std::size_t i = 0; i < asked_; ++i) {
      std::vector<Checksum> sums;
      for (const ShardMemory& shard : place(i)) {
        Rng rng(i);
        for (std::size_t at = 0; at < shape_.shard_bytes; at += sizeof(std::uint64_t)) {
          const std::uint64_t word = rng.next();
          std::memcpy(shard.payload + at, &word, sizeof word);
        }
        sums.push_back(checksum_of({shard.payload, shape_.shard_bytes}));
      }
      checksums_.push_back(std::move(sums));
    }
  }
  [[nodiscard]] std::vector<ShardMemory> place(std::size_t number) {
    std::vector<ShardMemory> shards;
    std::byte* const block = memory_.all().data() + number * shape_.block_bytes();
    for (std::size_t rank = 0; rank < shape_.ranks; ++rank) {
      shards.push_back({block + rank * shape_.shard_bytes, shape_.shard_bytes, shape_.shard_bytes});
    }
    return shards;
  }
  bool begin_write(std::uint64_t& begun) {
    if (begun == count_) return false;
    const std::size_t source = begun % asked_;
    const Status status = tier_->begin_write(begun, GroupId(0), hash_of(first_ + begun), 0,
                                             place(source), checksums_[source]);
    if (status.code() == Code::kExhausted) return false;
    TERRACE_CHECK(status.is_ok());
    ++begun;
    return true;
  }
  void begin_read(std::uint64_t block, std::size_t target, transfer::IoClass io_class) {
    const Status status =
        tier_->begin_read(kReadToken + target, GroupId(0), hash_of(first_ + block),
                          place(asked_ + target), io_class, kNoDeadline);
    if (!status.is_ok()) {
      std::fprintf(stderr, "read of block %llu: %s\n", static_cast<unsigned long long>(block),
                   status.message().c_str());
    }
    TERRACE_CHECK(status.is_ok());
  }
  // New blocks in the place of the oldest, which is no block that is read: they are touched.
  void keep_writing() {
    while (writing_ < kMostWriting) {
      const std::size_t source = extra_ % asked_;
      const Status status = tier_->begin_write(extra_, GroupId(0), hash_of(~extra_), 0,
                                               place(source), checksums_[source]);
      if (status.code() == Code::kExhausted) return;
      TERRACE_CHECK(status.is_ok());
      ++extra_;
      ++writing_;
    }
  }
  // True when a read came back.
  bool poll_for_read() {
    bool is_done = false;
    done_.clear();
    tier_->poll(done_);
    for (const DiskDone& item : done_) {
      TERRACE_CHECK(item.status.is_ok());
      is_done = is_done || item.is_read;
      if (item.is_read) continue;
      --writing_;
      ++written_;
    }
    return is_done;
  }
  void run(
      std::uint64_t count, const std::function<bool(std::uint64_t)>& begin,
      const std::function<void(const DiskDone&)>& on_done = [](const DiskDone&) {}) {
    std::uint64_t under_way = 0;
    std::uint64_t finished = 0;
    while (finished < count) {
      while (begin(under_way)) ++under_way;
      tier_->wait(milliseconds(100));
      done_.clear();
      tier_->poll(done_);
      for (const DiskDone& item : done_) {
        TERRACE_CHECK(item.status.is_ok());
        on_done(item);
        --under_way;
        ++finished;
      }
    }
  }

  const FlowShape shape_;
  std::uint64_t count_;
  const std::size_t asked_;
  std::uint64_t first_ = 0;
  std::uint64_t extra_ = 0;
  std::uint64_t writing_ = 0;
  std::uint64_t written_ = 0;
  SystemClock clock_;
  NullLog log_;
  DiskTier::Options options_;
  std::unique_ptr<DiskTier> tier_;
  index::ZeroedArray<std::byte> memory_;  // Sources, then targets.
  std::vector<std::vector<Checksum>> checksums_;
  std::vector<DiskDone> done_;
};

}  // namespace terrace::tier::disk
