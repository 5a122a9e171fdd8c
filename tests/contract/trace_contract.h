// What every eviction policy must do on workloads: hit not less than `lru` by more than 0.3 points
// of the blocks asked for: on recorded prompts; on short chats that are made up, whose users return
// without memory, so that a block's age says all that can be known, and `lru` goes by nothing else;
// while a batch job reads everything once beside such a chat, and in a rush; of several rushes by
// 0.5 on average.
// A policy's test instantiates it by its name, or with its factory:
//   INSTANTIATE_TEST_SUITE_P(Hazard, TraceContract, ::testing::Values(TraceMaker{"hazard", {}}));
// Threading: tests only.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "terrace/testing/prefix_trace.h"
#include "terrace/trace/replay.h"
#include "terrace/trace/scenario.h"

namespace terrace::trace {

struct TraceMaker {
  std::string name;
  std::function<std::unique_ptr<policy::EvictionPolicy>(std::uint32_t slots)> make = {};
};

class TraceContract : public ::testing::TestWithParam<TraceMaker> {
 protected:
  static constexpr double kMostBelowLru = 0.3;  // Points.

  // Hits of the workload's own requests in one pool of `slots`, in percent.
  static double hit_percent(const Workload& workload, std::uint32_t slots,
                            const TraceMaker& maker = {"lru", {}}) {
    auto replay = Replay::create({.host_slots = slots,
                                  .eviction = maker.make ? "lru" : maker.name,
                                  .make_policy = maker.make});
    (void)replay.value().run(workload);
    const Counts& own = replay.value().counts_of(Part::kTrace);
    return own.percent(own.host_hits);
  }
  // Pools of 1 to 10 % of the distinct blocks.
  static void expect_as_good_as_lru(const Workload& workload, std::uint64_t unique_blocks) {
    for (const std::uint64_t share : {1U, 2U, 5U, 10U}) {
      const auto slots = static_cast<std::uint32_t>(unique_blocks * share / 100);
      EXPECT_GE(hit_percent(workload, slots, GetParam()),
                hit_percent(workload, slots) - kMostBelowLru)
          << share << " % of " << unique_blocks << " distinct blocks";
    }
  }
};

TEST_P(TraceContract, OnRecordedPromptsItIsAsGoodAsLru) {
  const auto trace =
      testing::PrefixTrace::read(TERRACE_SOURCE_DIR "/tests/data/mooncake/conversation.tree");
  ASSERT_TRUE(trace) << "tests/data/mooncake/conversation.tree is missing or malformed";
  const Workload workload = trace->workload(seconds(59 * 60));
  expect_as_good_as_lru(workload, workload.unique_blocks());
}

TEST_P(TraceContract, OnChatsWithoutMemoryItIsAsGoodAsLru) {
  for (const std::uint64_t seed : {1U, 2U, 3U}) {
    for (const std::uint32_t conversations : {150U, 300U, 600U}) {
      SCOPED_TRACE(std::to_string(conversations) + " conversations, seed " + std::to_string(seed));
      const Workload chat = make_chat({.seed = seed, .conversations = conversations});
      expect_as_good_as_lru(chat, chat.unique_blocks());
    }
  }
}

TEST_P(TraceContract, WhileABatchJobScansItIsAsGoodAsLru) {
  Workload chat = make_chat({.seed = 3, .conversations = 600});
  const std::uint64_t unique_blocks = chat.unique_blocks();
  ASSERT_TRUE(mix_scan(chat, 3));
  expect_as_good_as_lru(chat, unique_blocks);
}

TEST_P(TraceContract, InARushItIsAsGoodAsLru) {
  Workload chat = make_chat({.seed = 4, .conversations = 600});
  const std::uint64_t unique_blocks = chat.unique_blocks();
  ASSERT_TRUE(mix_burst(chat, 4));
  expect_as_good_as_lru(chat, unique_blocks);
}

// Who rushes in comes and goes at the same moments as the others there, so what is counted of them
// looks surer than it is: single rushes may fall further behind.
TEST_P(TraceContract, InRushesItIsNearlyAsGoodAsLru) {
  constexpr std::uint64_t kRushes = 4;
  constexpr double kMostBelowInRushes = 0.5;  // Points, on average.
  for (const std::uint64_t share : {1U, 2U, 5U, 10U}) {
    double above = 0;
    for (std::uint64_t seed = 1; seed <= kRushes; ++seed) {
      Workload chat = make_chat({.seed = seed, .conversations = 600});
      const auto slots = static_cast<std::uint32_t>(chat.unique_blocks() * share / 100);
      ASSERT_TRUE(mix_burst(chat, seed));
      above += hit_percent(chat, slots, GetParam()) - hit_percent(chat, slots);
    }
    EXPECT_GE(above / kRushes, -kMostBelowInRushes) << share << " % of the distinct blocks";
  }
}

TEST_P(TraceContract, EqualTracesGiveEqualHits) {
  const Workload chat = make_chat({.seed = 5, .conversations = 200});
  const auto slots = static_cast<std::uint32_t>(chat.unique_blocks() / 20);
  EXPECT_EQ(hit_percent(chat, slots, GetParam()), hit_percent(chat, slots, GetParam()));
}

}  // namespace terrace::trace
