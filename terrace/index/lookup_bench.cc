// lookup.prefix: the longest prefix of 1,000 blocks in a full index of 10^7, against as many
// prefetched random reads of an equally large table, both in huge pages: what the memory allows to
// anyone who keeps entries of a key and a slot, 24 bytes, each within one line of the cache.
#include <cstdio>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/index/block_index.h"
#include "terrace/testing/bench_json.h"
#include "terrace/testing/keys.h"

namespace terrace::index {
namespace {

constexpr std::uint64_t kBlocks = 10'000'000;
constexpr std::size_t kChain = 1000;
constexpr std::size_t kLookupsPerSample = 100;
constexpr int kRuns = 15;

struct alignas(32) Entry {
  std::uint64_t words[3];
};

// A sample is the median of its look-ups, so that a preempted one does not count. The prompts are
// met with hashes just computed, so they are warm; the index is cold, as 100 look-ups of 1,000
// blocks touch more than the caches hold.
class Bench {
 public:
  Bench(BlockIndex index, ZeroedArray<Entry> table)
      : index_(std::move(index)), table_(std::move(table)) {
    for (std::uint64_t n = 0; n < kBlocks; ++n) {
      index_.insert(testing::key(n), SlotIndex(static_cast<std::uint32_t>(n)));
    }
    for (std::uint64_t i = 0; i < table_.size(); ++i) table_[i].words[0] = i;
  }
  [[nodiscard]] Bytes memory() const { return index_.memory(); }

  double lookup() {
    const SystemClock clock;
    std::vector<SlotIndex> slots(kChain);
    std::vector<double> spent;
    for (std::size_t i = 0; i < kLookupsPerSample; ++i) {
      const auto hashes = testing::chain(rng_.below(kBlocks / kChain) * kChain, kChain);
      std::size_t length = 0;
      spent.push_back(testing::seconds_of(
          clock, [&] { length = index_.match(NamespaceId(1), GroupId(0), hashes, slots); }));
      if (length != kChain) std::abort();
      testing::keep(slots[kChain - 1]);
    }
    return testing::spread_of(spent).median;
  }

  double random_reads() {
    const SystemClock clock;
    std::vector<double> spent;
    std::vector<std::uint32_t> places(kChain);
    for (std::size_t i = 0; i < kLookupsPerSample; ++i) {
      for (auto& place : places) place = static_cast<std::uint32_t>(rng_.below(table_.size()));
      std::uint64_t sum = 0;
      spent.push_back(testing::seconds_of(clock, [&] { sum = read(places); }));
      testing::keep(sum);
    }
    return testing::spread_of(spent).median;
  }

 private:
  std::uint64_t read(const std::vector<std::uint32_t>& places) const {
    constexpr std::size_t kAhead = 32;  // 16 and 40 are slower.
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < places.size(); ++i) {
      if (i + kAhead < places.size()) {
        __builtin_prefetch(table_.data() + places[i + kAhead]);
      }
      const Entry& entry = table_[places[i]];
      sum += entry.words[0] + entry.words[1] + entry.words[2];
    }
    return sum;
  }

  BlockIndex index_;
  ZeroedArray<Entry> table_;
  Rng rng_{20261122};
};

int run() {
  auto index = BlockIndex::create(kBlocks);
  if (!index) {
    std::fprintf(stderr, "lookup_bench: %s\n", index.error().text().c_str());
    return 1;
  }
  auto table = ZeroedArray<Entry>::create(index->memory().value() / sizeof(Entry));
  if (!table) {
    std::fprintf(stderr, "lookup_bench: %s\n", table.error().text().c_str());
    return 1;
  }
  Bench bench(std::move(*index), std::move(*table));
  const auto samples = testing::alternate(
      kRuns, {[&] { return bench.lookup(); }, [&] { return bench.random_reads(); }});
  const auto machine = testing::machine_facts();
  testing::BenchResult result;
  result.name = "lookup.prefix";
  result.unit = "s";
  result.higher_is_better = false;
  result.param("blocks", std::int64_t{kChain}).param("index_blocks", std::int64_t{kBlocks});
  result.samples = samples[0];
  result.limit_name = "1000 prefetched random reads of 24 bytes";
  result.limit_samples = samples[1];
  testing::print(result, machine);

  testing::BenchResult memory;
  memory.name = "lookup.index_memory";
  memory.unit = "bytes/block";
  memory.higher_is_better = false;
  memory.param("index_blocks", std::int64_t{kBlocks});
  memory.samples = {static_cast<double>(bench.memory().value()) / static_cast<double>(kBlocks)};
  testing::print(memory, machine);
  return 0;
}

}  // namespace
}  // namespace terrace::index

int main() { return terrace::index::run(); }
