// What the admission filters do to a trace of real prompts, in exact counts (admission_bench prints
// more of them): the figures in docs are these.
#include <gtest/gtest.h>

#include "terrace/testing/prefix_trace.h"
#include "terrace/trace/replay.h"

namespace terrace::trace {
namespace {

Counts replay(const std::string& filter, unsigned host, unsigned disk,
              const std::string& eviction = "lru") {
  auto trace =
      testing::PrefixTrace::read(TERRACE_SOURCE_DIR "/tests/data/mooncake/conversation.tree");
  if (!trace) {
    ADD_FAILURE() << "tests/data/mooncake/conversation.tree is missing or malformed";
    return {};
  }
  const auto share = [&](unsigned percent) {
    return static_cast<std::uint32_t>(trace->unique_blocks() * percent / 100);
  };
  auto replay = Replay::create({.host_slots = share(host),
                                .disk_slots = share(disk),
                                .eviction = eviction,
                                .admission = filter});
  return replay.value().run(trace->workload(seconds(59 * 60)));
}

TEST(AdmissionReplayTest, ReuseWritesAFifthOfAllAndKeepsThreeQuartersOfTheHits) {
  const auto all = replay("all", 1, 10);
  const auto reuse = replay("reuse", 1, 10);
  EXPECT_EQ(all.disk_writes, 208'034U);
  EXPECT_EQ(reuse.disk_writes, 43'178U);
  EXPECT_EQ(all.host_hits + all.disk_hits, 80'466U);
  EXPECT_EQ(reuse.host_hits + reuse.disk_hits, 62'203U);
}

TEST(AdmissionReplayTest, ExpectedWritesLessThanAllAndHitsWithinAPoint) {
  for (const std::string eviction : {"lru", "hazard"}) {
    const auto all = replay("all", 2, 10, eviction);
    const auto expected = replay("expected", 2, 10, eviction);
    EXPECT_LT(static_cast<double>(expected.disk_writes), 0.7 * static_cast<double>(all.disk_writes))
        << eviction;
    EXPECT_GT(expected.percent(expected.host_hits + expected.disk_hits),
              all.percent(all.host_hits + all.disk_hits) - 1)
        << eviction;
  }
}

TEST(AdmissionReplayTest, FrequencyWritesLessAndHitsLess) {
  const auto frequency = replay("frequency", 1, 10);
  EXPECT_EQ(frequency.disk_writes, 32'754U);
  EXPECT_EQ(frequency.host_hits + frequency.disk_hits, 56'844U);
}

}  // namespace
}  // namespace terrace::trace
