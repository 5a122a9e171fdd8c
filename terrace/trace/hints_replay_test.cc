// What clients could have said of recorded requests, right and in part wrong: never worse than
// without a policy that learns.
#include <gtest/gtest.h>

#include "terrace/testing/prefix_trace.h"
#include "terrace/trace/foresight.h"
#include "terrace/trace/replay.h"

namespace terrace::trace {
namespace {

double hit_percent(const Workload& workload, std::uint32_t slots, std::string eviction = "hazard") {
  auto replay = Replay::create({.host_slots = slots, .eviction = std::move(eviction)});
  const Counts counts = replay.value().run(workload);
  return counts.percent(counts.host_hits);
}

// Two conversations of three and one requests, and somebody who goes on where another one did.
Workload small() {
  Workload workload;
  const auto below = [&](std::uint32_t tip, int count) {
    for (int i = 0; i < count; ++i) tip = workload.add_block(tip);
    return tip;
  };
  const std::uint32_t first = below(0, 3);
  const std::uint32_t second = below(first, 3);
  const std::uint32_t third = below(second, 3);
  const std::uint32_t branch = below(first, 3);
  const std::uint32_t other = below(0, 2);
  workload.add_request({.at = seconds(1), .tip = first, .depth = 3});
  workload.add_request({.at = seconds(2), .tip = other, .depth = 2});
  workload.add_request({.at = seconds(5), .tip = second, .depth = 6});
  workload.add_request({.at = seconds(6), .tip = branch, .depth = 6});
  workload.add_request({.at = seconds(25), .tip = third, .depth = 9});
  return workload;
}

TEST(ForesightTest, ConversationsFollowFromTheBlocks) {
  const Foresight known = foresee(small());
  EXPECT_EQ(known.session, (std::vector<std::uint32_t>{0, 1, 0, 3, 0}));
  EXPECT_EQ(known.next[0], 2U);
  EXPECT_EQ(known.next[2], 4U);
  for (const std::size_t last : {1U, 3U, 4U}) EXPECT_FALSE(known.next[last]) << last;
}

TEST(ForesightTest, HintsSayWhatIsForeseenOrTheOpposite) {
  const Workload workload = small();
  const auto said = [&](double wrong) {
    return with_hints(workload, {.over = true, .returns = true, .session = true, .wrong = wrong})
        .requests();
  };
  const auto right = said(0);
  const auto wrong = said(1);
  ASSERT_EQ(right.size(), 5U);
  EXPECT_EQ(right[2].hints.returns_in, seconds(20));
  for (std::size_t i = 0; i < right.size(); ++i) {
    const bool is_last = i == 1 || i >= 3;
    EXPECT_EQ(right[i].hints.is_over, is_last) << i;
    EXPECT_EQ(wrong[i].hints.is_over, !is_last) << i;
    EXPECT_EQ(right[i].tip, workload.requests()[i].tip);
  }
  EXPECT_EQ(right[0].hints.session, right[4].hints.session);
  EXPECT_NE(right[0].hints.session, right[1].hints.session);
}

class HintsReplayTest : public ::testing::TestWithParam<unsigned> {
 protected:
  HintsReplayTest() {
    const auto trace =
        testing::PrefixTrace::read(TERRACE_SOURCE_DIR "/tests/data/mooncake/conversation.tree");
    if (!trace) {
      ADD_FAILURE() << "tests/data/mooncake/conversation.tree is missing or malformed";
      return;
    }
    workload_ = trace->workload(seconds(59 * 60));
    slots_ = static_cast<std::uint32_t>(workload_.unique_blocks() * GetParam() / 100);
  }
  [[nodiscard]] double hits(const Saying& saying) const {
    return hit_percent(with_hints(workload_, saying), slots_);
  }
  Workload workload_;
  std::uint32_t slots_ = 0;
};

TEST_P(HintsReplayTest, WrongEndsOfSessionsCostNothingBesideLru) {
  const double lru = hit_percent(workload_, slots_, "lru");
  for (const std::uint64_t seed : {1U, 2U}) {
    EXPECT_GE(hits({.over = true, .wrong = 0.2, .seed = seed}), lru - 0.3) << "seed " << seed;
    EXPECT_GE(hits({.over = true, .returns = true, .session = true, .wrong = 0.2, .seed = seed}),
              lru - 0.3)
        << "seed " << seed;
  }
}

TEST_P(HintsReplayTest, ABitThatTellsNothingCostsLittle) {
  // But for half as many requests to learn from for each of the two.
  EXPECT_GE(hits({.over = true, .wrong = 0.5}), hit_percent(workload_, slots_) - 0.6);
}

TEST_P(HintsReplayTest, RightEndsOfSessionsGain) {
  const double without = hit_percent(workload_, slots_);
  const double least = GetParam() <= 2 ? 1 : 0;
  EXPECT_GT(hits({.over = true}), without + least);
}

INSTANTIATE_TEST_SUITE_P(Percent, HintsReplayTest, ::testing::Values(1U, 5U, 20U));

}  // namespace
}  // namespace terrace::trace
