// Replays a published workload through the production pool and compares with the published ratios.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>

#include "terrace/catalog/pool.h"
#include "terrace/testing/keys.h"
#include "terrace/testing/prefix_trace.h"

namespace terrace::catalog {
namespace {

struct Replay {
  std::uint64_t blocks = 0;
  std::uint64_t hits = 0;  // Prefix-contiguous.
  [[nodiscard]] double percent() const {
    return 100.0 * static_cast<double>(hits) / static_cast<double>(blocks);
  }
};

// One pool; a request pins its prefix, stores the rest and releases everything deepest first.
Replay replay(const testing::PrefixTrace& trace, const Pool::Options& options) {
  const auto pool = Pool::create(options).value();
  Replay result;
  for (std::size_t request = 0; request < trace.requests(); ++request) {
    const auto blocks = trace.blocks(request);
    std::vector<SequenceHash> hashes;
    for (const std::uint32_t block : blocks) hashes.push_back(testing::hash(block));
    PinRun run = pool->pin_run(NamespaceId(1), GroupId(0), hashes);
    result.blocks += hashes.size();
    result.hits += run.size();
    for (std::size_t i = run.size(); i < hashes.size(); ++i) {
      const BlockKey key{NamespaceId(1), GroupId(0), hashes[i]};
      if (auto pin = pool->pin(key)) {
        run.add(std::move(*pin));
        continue;
      }
      auto reserved = pool->reserve(key);
      if (!reserved) break;
      if (auto pin = std::move(*reserved).begin_fill().seal()) run.add(std::move(*pin));
    }
  }
  return result;
}

testing::PrefixTrace conversation() {
  auto trace =
      testing::PrefixTrace::read(TERRACE_SOURCE_DIR "/tests/data/mooncake/conversation.tree");
  if (!trace) ADD_FAILURE() << "tests/data/mooncake/conversation.tree is missing or malformed";
  return trace.value();
}

double rounded(double percent) { return std::round(percent * 100) / 100; }

TEST(TraceReplayTest, TheTraceIsThePublishedOne) {
  const auto trace = conversation();
  std::uint64_t references = 0;
  for (std::size_t i = 0; i < trace.requests(); ++i) references += trace.blocks(i).size();
  EXPECT_EQ(trace.requests(), 12'031U);
  EXPECT_EQ(references, 288'500U);
  EXPECT_EQ(trace.unique_blocks(), 182'790U);
}

TEST(TraceReplayTest, LruReproducesThePublishedHitRatios) {
  const auto trace = conversation();
  const std::pair<unsigned, double> published[] = {{1, 5.25}, {2, 7.93}, {5, 19.58}, {10, 27.89}};
  for (const auto& [share, percent] : published) {
    const auto slots = static_cast<std::uint32_t>(trace.unique_blocks() * share / 100);
    const Replay result = replay(trace, {.slots = slots, .eviction = "lru"});
    std::printf("lru %2u %%: %llu of %llu blocks = %.2f %%\n", share,
                static_cast<unsigned long long>(result.hits),
                static_cast<unsigned long long>(result.blocks), result.percent());
    EXPECT_EQ(rounded(result.percent()), percent) << share << " % of unique blocks";
  }
}

TEST(TraceReplayTest, ACacheThatHoldsEverythingHitsTheIdealRatio) {
  const auto trace = conversation();
  const auto slots = static_cast<std::uint32_t>(trace.unique_blocks());
  EXPECT_EQ(rounded(replay(trace, {.slots = slots}).percent()), 36.64);
}

}  // namespace
}  // namespace terrace::catalog
