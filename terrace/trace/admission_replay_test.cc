// What the admission filters do to a trace of real prompts, in exact counts (admission_bench prints
// more of them): the figures in docs are these.
#include <gtest/gtest.h>

#include "terrace/testing/prefix_trace.h"
#include "terrace/trace/replay.h"
#include "terrace/trace/scenario.h"

namespace terrace::trace {
namespace {

Counts replay(const std::string& filter, unsigned host, unsigned disk,
              const std::string& eviction = "lru", std::uint64_t entries = 0,
              double loss = 0.0045) {
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
                                .admission = filter,
                                .admission_entries = entries,
                                .admission_loss = loss});
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

TEST(AdmissionReplayTest, ExpectedWritesLessTheMoreItMayLose) {
  const auto all = replay("all", 2, 10, "hazard");
  auto before = replay("expected", 2, 10, "hazard");
  for (const double loss : {0.02, 0.05}) {
    const auto counts = replay("expected", 2, 10, "hazard", 0, loss);
    EXPECT_LT(counts.percent(counts.disk_writes), before.percent(before.disk_writes) - 3) << loss;
    EXPECT_GT(counts.percent(counts.host_hits + counts.disk_hits),
              all.percent(all.host_hits + all.disk_hits) - 100 * loss - 1)
        << loss;
    before = counts;
  }
}

// Of 183,000 blocks: too few for host alone, or for what has left it.
TEST(AdmissionReplayTest, ExpectedHitsWithAPartOfTheLogWhatItHitsWithAll) {
  const auto hits = [](const Counts& counts) {
    return counts.percent(counts.host_hits + counts.disk_hits);
  };
  const auto whole = replay("expected", 5, 30, "hazard");
  for (const std::uint64_t entries : {4'000U, 14'000U, 20'000U}) {
    const auto part = replay("expected", 5, 30, "hazard", entries);
    EXPECT_GT(hits(part), hits(whole) - 1) << entries;
    EXPECT_LT(part.percent(part.disk_writes), whole.percent(whole.disk_writes) + 8) << entries;
  }
}

// The batch job makes the disk turn over many times between two turns of a conversation, but not
// that part of it which `hazard` keeps for them.
TEST(AdmissionReplayTest, ExpectedSparesABatchJobsWritesAndKeepsTheHitsBesideIt) {
  for (const std::uint32_t block_tokens : {64U, 256U}) {
    Workload workload = make_chat({.block_tokens = block_tokens});
    const auto unique = static_cast<std::uint32_t>(workload.unique_blocks());
    ASSERT_TRUE(mix_scan(workload, 1));
    const auto hits_and_writes = [&](const std::string& filter) {
      auto replay = Replay::create({.host_slots = unique / 50,
                                    .disk_slots = unique / 10,
                                    .eviction = "hazard",
                                    .admission = filter});
      const Counts all = replay.value().run(workload);
      const Counts& users = replay.value().counts_of(Part::kTrace);
      return std::pair(users.percent(users.host_hits + users.disk_hits),
                       static_cast<double>(all.disk_writes));
    };
    const auto [all_hits, all_writes] = hits_and_writes("all");
    const auto [hits, writes] = hits_and_writes("expected");
    EXPECT_GT(hits, all_hits - 1.5) << block_tokens;
    EXPECT_LT(writes, all_writes / 2) << block_tokens;
  }
}

TEST(AdmissionReplayTest, FrequencyWritesLessAndHitsLess) {
  const auto frequency = replay("frequency", 1, 10);
  EXPECT_EQ(frequency.disk_writes, 32'754U);
  EXPECT_EQ(frequency.host_hits + frequency.disk_hits, 56'844U);
}

}  // namespace
}  // namespace terrace::trace
