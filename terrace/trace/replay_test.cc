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

// Requests of three blocks each, whose answers add one that nobody asks for.
Workload answered(int requests) {
  Workload workload;
  (void)workload.set_block_tokens(64);
  for (int i = 0; i < requests; ++i) {
    std::uint32_t tip = 0;
    for (int block = 0; block < 3; ++block) tip = workload.add_block(tip);
    workload.add_request({.at = seconds(i),
                          .tip = tip,
                          .depth = 3,
                          .answer_tokens = 64,
                          .answer_tip = workload.add_block(tip)});
  }
  return workload;
}

TEST(TraceReplayTest, BlocksOfAnswersAreStoredUnlessOnlyPromptsAre) {
  const auto run = [](bool is_prompt_only) {
    auto replay =
        Replay::create({.host_slots = 8, .disk_slots = 8, .is_prompt_only = is_prompt_only});
    return replay.value().run(answered(2));
  };
  EXPECT_EQ(run(false).stores, 8U);
  EXPECT_EQ(run(false).disk_writes, 8U);
  EXPECT_EQ(run(true).stores, 6U);
  EXPECT_EQ(run(true).disk_writes, 6U);
  EXPECT_EQ(run(false).blocks, 6U) << "asked for are prompts alone";
}

TEST(TraceReplayTest, DemoteWritesWhatHostEvictsAndNothingBefore) {
  const auto run = [](int requests, const char* admission) {
    auto replay = Replay::create(
        {.host_slots = 64, .disk_slots = 256, .admission = admission, .is_demote = true});
    return replay.value().run(answered(requests));
  };
  EXPECT_EQ(run(14, "all").disk_writes, 0U) << "as many slots as are kept free are";
  const Counts counts = run(40, "all");
  EXPECT_EQ(counts.stores, 160U);
  EXPECT_EQ(counts.disk_writes, 160U - 64 + 4) << "what has left host, and four that are the next";
  EXPECT_EQ(run(40, "reuse").disk_writes, 0U) << "none of them was sighted twice";
}

// As in an engine: there is no time to write more than was chosen ahead.
TEST(TraceReplayTest, OfWhatOneStepPushesOutOnlyWhatWasChosenAheadIsWritten) {
  Workload workload = answered(15);
  std::uint32_t tip = 0;
  for (int block = 0; block < 40; ++block) tip = workload.add_block(tip);
  workload.add_request({.at = seconds(100), .tip = tip, .depth = 40});
  const auto writes = [&](std::uint32_t step_tokens) {
    auto replay = Replay::create(
        {.host_slots = 64, .disk_slots = 256, .is_demote = true, .step_tokens = step_tokens});
    return replay.value().run(workload).disk_writes;
  };
  EXPECT_EQ(writes(4 * 64), 40U);
  EXPECT_EQ(writes(0), 16U) << "a quarter of host, for the next one";
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
