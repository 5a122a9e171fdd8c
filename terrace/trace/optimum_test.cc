#include "terrace/trace/optimum.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "terrace/base/rng.h"
#include "terrace/testing/prefix_trace.h"
#include "terrace/testing/property.h"

namespace terrace::trace {
namespace {

// The same by its definition: after each request, of all that lies there the blocks of the nearest
// next use stay, the shallowest first.
std::uint64_t naive_hits(const Workload& workload, std::size_t slots) {
  const auto& requests = workload.requests();
  std::vector<std::vector<std::uint32_t>> chains(requests.size());
  for (std::size_t i = 0; i < requests.size(); ++i) workload.chain(requests[i], chains[i]);
  std::set<std::uint32_t> cached;
  std::uint64_t hits = 0;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    for (const std::uint32_t block : chains[i]) {
      if (!cached.contains(block)) break;
      ++hits;
    }
    cached.insert(chains[i].begin(), chains[i].end());
    std::set<std::pair<std::pair<std::size_t, std::size_t>, std::uint32_t>> order;
    for (std::size_t next = i + 1; next < requests.size(); ++next) {
      for (std::size_t depth = 0; depth < chains[next].size(); ++depth) {
        if (cached.erase(chains[next][depth]) > 0) {
          order.insert({{next, depth}, chains[next][depth]});
        }
      }
    }
    cached.clear();
    for (const auto& [when, block] : order) {
      if (cached.size() < slots) cached.insert(block);
    }
  }
  return hits;
}

TEST(OptimumTest, EqualsTheDefinitionOnRandomTrees) {
  const auto [seed, steps] = testing::property(5, 300);
  Rng rng(seed);
  for (std::uint64_t round = 0; round < steps; ++round) {
    Workload workload;
    Scope scope(workload);
    for (std::uint64_t i = rng.below(40); i > 0; --i) {
      std::vector<std::uint64_t> ids;
      for (std::uint64_t deep = rng.below(8); deep > 0; --deep) ids.push_back(rng.below(3));
      workload.add_request(
          {Nanoseconds(0), scope.tip(ids), static_cast<std::uint32_t>(ids.size())});
    }
    const std::uint64_t slots = 1 + rng.below(20);
    ASSERT_EQ(optimum_hits(workload, slots), naive_hits(workload, slots)) << round;
  }
}

TEST(OptimumTest, ReproducesThePublishedHitRatios) {
  const auto trace =
      testing::PrefixTrace::read(TERRACE_SOURCE_DIR "/tests/data/mooncake/conversation.tree");
  ASSERT_TRUE(trace);
  const Workload workload = trace->workload();
  const std::pair<unsigned, double> published[] = {{1, 24.64}, {2, 31.43}, {5, 36.64}, {10, 36.64}};
  for (const auto& [share, percent] : published) {
    const auto hits =
        static_cast<double>(optimum_hits(workload, (workload.unique_blocks() * share + 50) / 100));
    const double all = 100 * hits / static_cast<double>(workload.references());
    EXPECT_EQ(std::round(all * 100) / 100, percent) << share << " % of unique blocks";
  }
}

}  // namespace
}  // namespace terrace::trace
