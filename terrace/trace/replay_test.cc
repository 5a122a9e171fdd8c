// Replays a published workload through the production pool and compares with the published ratios.
#include "terrace/trace/replay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "terrace/testing/prefix_trace.h"

namespace terrace::trace {
namespace {

// One pool, no disk.
double hit_percent(const Workload& workload, std::uint32_t slots, std::string eviction = "lru") {
  auto replay = Replay::create({.host_slots = slots, .eviction = std::move(eviction)});
  const Counts counts = replay.value().run(workload);
  return counts.percent(counts.host_hits);
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
  const Workload workload = conversation().workload();
  const std::pair<unsigned, double> published[] = {{1, 5.25}, {2, 7.93}, {5, 19.58}, {10, 27.89}};
  for (const auto& [share, percent] : published) {
    const auto slots = static_cast<std::uint32_t>(workload.unique_blocks() * share / 100);
    EXPECT_EQ(rounded(hit_percent(workload, slots)), percent) << share << " % of unique blocks";
  }
}

// Of the times of arrival only their order is known here, of the answers nothing.
TEST(TraceReplayTest, HazardHitsMoreThanLruAtEverySize) {
  const Workload workload = conversation().workload(seconds(59 * 60));
  const std::pair<unsigned, double> least[] = {{1, 8.9}, {2, 12.9}, {5, 20.9}, {10, 28.2}};
  for (const auto& [share, percent] : least) {
    const auto slots = static_cast<std::uint32_t>(workload.unique_blocks() * share / 100);
    EXPECT_GE(hit_percent(workload, slots, "hazard"), percent) << share << " % of unique blocks";
  }
}

TEST(TraceReplayTest, ACacheThatHoldsEverythingHitsTheIdealRatio) {
  const Workload workload = conversation().workload();
  const auto slots = static_cast<std::uint32_t>(workload.unique_blocks());
  EXPECT_EQ(rounded(hit_percent(workload, slots)), 36.64);
}

TEST(TraceReplayTest, AnUnknownPolicyIsRefusedWithTheKnownOnes) {
  const auto eviction = Replay::create({.host_slots = 1, .eviction = "fifo"});
  ASSERT_FALSE(eviction);
  EXPECT_THAT(eviction.error().message(), ::testing::HasSubstr("lru"));
  const auto admission = Replay::create({.host_slots = 1, .disk_slots = 1, .admission = "never"});
  ASSERT_FALSE(admission);
  EXPECT_THAT(admission.error().message(), ::testing::HasSubstr("reuse"));
  EXPECT_FALSE(Replay::create({.host_slots = 0}));
}

}  // namespace
}  // namespace terrace::trace
