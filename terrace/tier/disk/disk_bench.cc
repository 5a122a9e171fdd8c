// Sealed writes and verified reads of the disk tier beside fio in the same directory: O_DIRECT, the
// same depth, files whose blocks have all been written before, alternating.
//   disk_bench [--directory=DIR] [--runs=N] [--mebibytes=N] [disk.read|disk.write …]
#include <fmt/format.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "terrace/base/check.h"
#include "terrace/testing/bench_json.h"
#include "terrace/tier/disk/disk_rig.h"

namespace terrace::tier::disk {
namespace {

struct Setup {
  std::string directory = ".";
  int runs = 7;
  std::uint64_t mebibytes = 768;
  std::vector<std::string> names;
  std::string backend = "io_uring";
  [[nodiscard]] bool wants(const std::string& name) const {
    if (names.empty()) return true;
    for (const std::string& wanted : names) {
      if (name.starts_with(wanted) || wanted.starts_with(name)) return true;
    }
    return false;
  }
};

constexpr unsigned kDepth = 8;  // At the device, fio's and ours.

// Bytes per second that fio reports for one job over its own, fully written file.
double run_fio(const std::string& file, const std::string& mode, std::uint64_t piece,
               std::uint64_t bytes, const std::string& backend) {
  const std::string engine =
      backend == "threads"
          ? fmt::format("--ioengine=psync --numjobs={} --offset_increment={} --size={}", 4,
                        bytes / 4 / piece * piece, bytes / 4 / piece * piece)
          : fmt::format("--ioengine=io_uring --iodepth={} --size={}", kDepth, bytes);
  const std::string command = fmt::format(
      "fio --name=limit --filename={} --direct=1 --rw={} --bs={} {} --group_reporting "
      "--output-format=terse --terse-version=3 2>/dev/null",
      file, mode, piece, engine);
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
  const int wanted = mode.ends_with("read") ? 6 : 47;
  std::size_t at = 0;
  for (int field = 0; field < wanted; ++field) at = text.find(';', at) + 1;
  return std::strtod(text.c_str() + at, nullptr) * 1024;
}

class DiskFlow {
 public:
  DiskFlow(const Setup& setup, std::uint64_t payload_bytes)
      : payload_bytes_(payload_bytes), count_((setup.mebibytes << 20U) / payload_bytes) {
    options_.layout.block_tokens = Tokens(64);
    options_.layout.groups = {{GroupId(0), {Bytes(payload_bytes)}}};
    options_.fingerprint.content = {{"model", "bench"}};
    options_.fingerprint.layout = {{"bytes", std::to_string(payload_bytes)}};
    options_.blocks = count_;
    options_.paths = {setup.directory};
    options_.backend = setup.backend;
    options_.io.depth = 2 * kDepth;  // Writes get half of it.
    options_.queue_blocks = 256;
    auto opened = DiskTier::open(options_, clock_, log_);
    if (!opened) {
      std::fprintf(stderr, "disk_bench: %s\n", opened.error().message().c_str());
      std::exit(1);
    }
    tier_ = *std::move(opened);
    for (std::size_t i = 0; i < 64; ++i) {
      memory_.emplace_back(1, payload_bytes);
      memory_.back().fill(i);
      checksums_.push_back(memory_.back().checksums());
    }
    write_all();  // Every frame has been written once, as fio's file.
  }

  // All slots anew, each sealed and durable. Bytes per second.
  double write_all() {
    first_ += count_;
    const double time = testing::seconds_of(clock_, [&] {
      std::uint64_t begun = 0;
      run([&](std::uint64_t under_way) {
        if (begun == count_ || under_way == options_.queue_blocks) return false;
        const std::size_t place = begun % memory_.size();
        const Status status = tier_->begin_write(begun, GroupId(0), hash_of(first_ + begun), 0,
                                                 memory_[place].shards(), checksums_[place]);
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
      for (std::size_t i = 0; i < 2 * kDepth; ++i) free.push_back(i);
      std::uint64_t begun = 0;
      run(
          [&](std::uint64_t) {
            if (begun == count_ || free.empty()) return false;
            const Status status = tier_->begin_read(
                free.back(), GroupId(0), hash_of(first_ + begun), reads_[free.back()].shards(),
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

  void prepare_reads() {
    for (std::size_t i = 0; i < 2 * kDepth; ++i) reads_.emplace_back(1, payload_bytes_);
  }
  [[nodiscard]] std::uint64_t bytes() const { return count_ * payload_bytes_; }
  [[nodiscard]] double batches() const {
    CellReader cells;
    tier_->visit_metrics(cells);
    return cells.value("terrace_disk_batches_total");
  }
  [[nodiscard]] std::string backend() const { return std::string(tier_->backend_name()); }

 private:
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
  std::vector<BlockMemory> memory_;
  std::vector<std::vector<Checksum>> checksums_;
  std::vector<BlockMemory> reads_;
};

void report(const Setup& setup, const std::string& name, const DiskFlow& flow,
            std::uint64_t payload_bytes, const std::vector<std::vector<double>>& samples) {
  testing::BenchResult result;
  result.name = name;
  result.samples = samples[0];
  result.limit_name = "fio";
  result.limit_samples = samples[1];
  result.param("piece_bytes", static_cast<std::int64_t>(payload_bytes))
      .param("depth", static_cast<std::int64_t>(kDepth))
      .param("bytes", static_cast<std::int64_t>(flow.bytes()))
      .param("batches", static_cast<std::int64_t>(flow.batches()))
      .param("backend", flow.backend());
  testing::print(result, testing::machine_facts(setup.directory));
}

void bench(const Setup& setup, std::uint64_t payload_bytes) {
  const ScratchDirectory scratch(setup.directory);
  Setup own = setup;
  own.directory = scratch.path();
  DiskFlow flow(own, payload_bytes);
  flow.prepare_reads();
  const std::string file = scratch.path() + "/fio.dat";
  (void)run_fio(file, "write", payload_bytes, flow.bytes(), "io_uring");
  for (const bool is_read : {false, true}) {
    const std::string name = is_read ? "disk.read" : "disk.write";
    if (!setup.wants(name)) continue;
    const auto samples = testing::alternate(
        setup.runs, {[&] { return is_read ? flow.read_all() : flow.write_all(); },
                     [&] {
                       return run_fio(file, is_read ? "read" : "write", payload_bytes, flow.bytes(),
                                      setup.backend);
                     }});
    report(own, name, flow, payload_bytes, samples);
  }
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
    } else {
      setup.names.push_back(argument);
    }
  }
  for (const std::uint64_t payload : {768ULL << 10U, 3ULL << 20U}) {
    terrace::tier::disk::bench(setup, payload);
  }
}
