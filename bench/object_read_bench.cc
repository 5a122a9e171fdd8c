// object.dir.read and object.s3.read: seconds of one verified read of 2 MiB out of a pack, alone,
// beside the plain read of the same bytes: open and pread; a signed request for the range by the
// same libcurl. The median of all reads, and the 99th percentile of each tenth of them.
//   object_read_bench dir DIRECTORY [medium|cache]
//   object_read_bench s3 ENDPOINT BUCKET KEY SECRET
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "terrace/base/check.h"
#include "terrace/base/file.h"
#include "terrace/base/rng.h"
#include "terrace/testing/bench_json.h"
#include "terrace/testing/scratch_directory.h"
#include "terrace/tier/object/object_tier.h"
#include "terrace/transfer/backends/dir/dir_store.h"
#include "terrace/transfer/backends/s3/plain_get_rig.h"
#include "terrace/transfer/backends/s3/s3_store.h"
#include "terrace/wire/pack.h"

namespace {

using namespace terrace;

constexpr std::size_t kShardBytes = 2U << 20U;
constexpr std::uint32_t kPackBlocks = 4;
constexpr std::uint64_t kPacks = 12;
constexpr int kReads = 400;
constexpr int kParts = 10;

struct Free {
  void operator()(std::byte* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<std::byte, Free>;

Memory make_memory(std::size_t bytes) {
  return Memory(static_cast<std::byte*>(std::aligned_alloc(4096, bytes)));
}

class Flow {
 public:
  explicit Flow(std::unique_ptr<transfer::ObjectStore> store)
      : geometry_(layout(), kPackBlocks), memory_(make_memory(kPackBlocks * kShardBytes)) {
    tier::ObjectTier::Options options;
    options.layout = layout();
    options.fingerprint.content = {{"model", "bench"}};
    options.pack_blocks = kPackBlocks;
    tier_ = tier::ObjectTier::create(options, std::move(store), clock_, log_).value();
    std::vector<tier::ObjectDone> done;
    while (!tier_->is_open() || !tier_->is_idle()) {
      tier_->poll(done);
      tier_->wait(milliseconds(1));
    }
    const auto names = wire::PackNames(options.fingerprint.content_digest_bytes(),
                                       options.fingerprint.layout_digest_bytes());
    for (std::uint64_t pack = 0; pack < kPacks; ++pack) put(pack, names);
  }

  double read(std::uint64_t pack, std::uint32_t block) {
    const tier::ShardMemory shard{memory_.get(), kShardBytes, kShardBytes};
    return testing::seconds_of(clock_, [&] {
      TERRACE_CHECK(tier_
                        ->begin_read(1, GroupId(0), hashes_[pack][block], {&shard, 1},
                                     transfer::IoClass::kTtftRead, kNoDeadline)
                        .is_ok());
      const tier::ObjectDone done = await();
      TERRACE_CHECK(done.status.is_ok() && done.checksums.size() == 1);
    });
  }
  [[nodiscard]] const std::string& name(std::uint64_t pack) const { return names_[pack]; }
  // Of the frame: its header, too.
  [[nodiscard]] wire::PackRange range(std::uint32_t block) const {
    return geometry_.shard_group(block, GroupId(0));
  }
  const Clock& clock() const { return clock_; }

 private:
  static Layout layout() {
    Layout made;
    made.block_tokens = Tokens(16);
    made.ranks = 1;
    made.groups = {{GroupId(0), {Bytes(kShardBytes)}}};
    return made;
  }
  tier::ObjectDone await() {
    std::vector<tier::ObjectDone> done;
    for (;;) {
      tier_->poll(done);
      if (!done.empty()) return done.front();
      tier_->wait(seconds(10));
    }
  }
  void put(std::uint64_t pack, const wire::PackNames& names) {
    Rng rng(pack + 1);
    std::vector<SequenceHash> hashes(kPackBlocks);
    std::vector<tier::PackShards> shards(kPackBlocks);
    for (std::uint32_t block = 0; block < kPackBlocks; ++block) {
      hashes[block] = {rng.next(), rng.next()};
      std::byte* payload = memory_.get() + block * kShardBytes;
      for (std::size_t at = 0; at < kShardBytes; at += 8) {
        const std::uint64_t word = rng.next();
        std::memcpy(payload + at, &word, 8);
      }
      shards[block].ranks = {{payload, kShardBytes, kShardBytes}};
      shards[block].checksums = {checksum_of({payload, kShardBytes})};
    }
    TERRACE_CHECK(tier_->begin_write(1, hashes, shards).is_ok());
    const tier::ObjectDone done = await();
    TERRACE_CHECK(done.status.is_ok());
    names_.push_back(names.pack(0, kPackBlocks, hashes.back()));
    hashes_.push_back(std::move(hashes));
  }

  SystemClock clock_;
  NullLog log_;
  wire::PackGeometry geometry_;
  Memory memory_;
  std::unique_ptr<tier::ObjectTier> tier_;
  std::vector<std::vector<SequenceHash>> hashes_;
  std::vector<std::string> names_;
};

std::vector<double> tails(const std::vector<double>& all) {
  std::vector<double> found;
  const std::size_t each = all.size() / kParts;
  for (std::size_t part = 0; part < kParts; ++part) {
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(part * each);
    std::vector<double> some(begin, begin + static_cast<std::ptrdiff_t>(each));
    std::ranges::sort(some);
    found.push_back(some[each * 99 / 100]);
  }
  return found;
}

using Plain = std::function<double(std::uint64_t pack, std::uint32_t block)>;
using Forget = std::function<void(std::uint64_t pack)>;

void measure(Flow& flow, const std::string& name, const std::string& limit_name,
             std::string_view from, const Plain& plain, const Forget& forget,
             const testing::Machine& machine) {
  std::vector<double> ours;
  std::vector<double> limit;
  Rng rng(7);
  for (int i = -20; i < kReads; ++i) {
    const std::uint64_t pack = rng.below(kPacks);
    const auto block = static_cast<std::uint32_t>(rng.below(kPackBlocks));
    double seen[2] = {0, 0};
    for (const int who : {i & 1, 1 - (i & 1)}) {
      forget(pack);
      seen[who] = who == 0 ? flow.read(pack, block) : plain(pack, block);
    }
    if (i < 0) continue;  // To warm up.
    ours.push_back(seen[0]);
    limit.push_back(seen[1]);
  }
  for (const int percentile : {50, 99}) {
    testing::BenchResult result;
    result.name = name;
    result.unit = "seconds";
    result.higher_is_better = false;
    result.samples = percentile == 50 ? ours : tails(ours);
    result.limit_name = limit_name;
    result.limit_samples = percentile == 50 ? limit : tails(limit);
    result.param("bytes", static_cast<std::int64_t>(kShardBytes))
        .param("depth", std::int64_t{1})
        .param("percentile", std::int64_t{percentile})
        .param("from", from);
    testing::print(result, machine);
  }
}

void bench_dir(const std::string& directory, bool is_cached) {
  const testing::ScratchDirectory scratch(directory);
  transfer::DirStoreOptions options;
  options.path = scratch.path();
  Flow flow(transfer::make_dir_store(options).value());
  const Memory memory = make_memory(kShardBytes + 4096);
  std::vector<std::string> paths;
  for (std::uint64_t pack = 0; pack < kPacks; ++pack) {
    const std::string leaf = std::filesystem::path(flow.name(pack)).filename();
    for (const auto& entry : std::filesystem::recursive_directory_iterator(scratch.path())) {
      if (entry.path().filename() == leaf) paths.push_back(entry.path());
    }
  }
  TERRACE_CHECK(paths.size() == kPacks);
  const auto plain = [&](std::uint64_t pack, std::uint32_t block) {
    const wire::PackRange range = flow.range(block);
    return testing::seconds_of(flow.clock(), [&] {
      const auto file = open_file(paths[pack], O_RDONLY);
      TERRACE_CHECK(file.has_value());
      const ssize_t moved =
          ::pread(file->get(), memory.get(), range.bytes, static_cast<off_t>(range.offset));
      TERRACE_CHECK(moved == static_cast<ssize_t>(range.bytes));
    });
  };
  const auto forget = [&](std::uint64_t pack) {
    if (is_cached) return;
    const auto file = open_file(paths[pack], O_RDONLY);
    TERRACE_CHECK(file.has_value());
    TERRACE_CHECK(::posix_fadvise(file->get(), 0, 0, POSIX_FADV_DONTNEED) == 0);
  };
  measure(flow, "object.dir.read", "open+pread", is_cached ? "cache" : "medium", plain, forget,
          testing::machine_facts(directory));
}

void bench_s3(const transfer::S3Options& options) {
  const SystemClock clock;
  NullLog log;
  Flow flow(transfer::make_s3_store(options, clock, log).value());
  transfer::s3::PlainGet client(options);
  const Memory memory = make_memory(kShardBytes + 4096);
  const auto plain = [&](std::uint64_t pack, std::uint32_t block) {
    const wire::PackRange range = flow.range(block);
    return testing::seconds_of(
        clock, [&] { client.get(flow.name(pack), range.offset, {memory.get(), range.bytes}); });
  };
  measure(
      flow, "object.s3.read", "least client", "server", plain, [](std::uint64_t) {},
      testing::machine_facts());
}

}  // namespace

int main(int argc, char** argv) {
  const std::string kind = argc > 1 ? argv[1] : "";
  if (kind == "s3" && argc >= 6) {
    transfer::S3Options options;
    options.endpoint = argv[2];
    options.bucket = argv[3];
    options.credentials = {argv[4], argv[5], ""};
    options.prefix = fmt::format("read-{:x}", random_u64());
    bench_s3(options);
    return 0;
  }
  const std::string directory =
      std::filesystem::absolute(kind == "dir" && argc > 2 ? argv[2] : ".");
  const std::string from = argc > 3 ? argv[3] : "";
  if (from != "cache") bench_dir(directory, false);
  if (from != "medium") bench_dir(directory, true);
  return 0;
}
