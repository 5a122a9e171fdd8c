// What the owner counts for hit rates, and KVBM's log line.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "terrace/manager/core_rig_internal.h"

namespace terrace::manager {
namespace {

using rig::Rig;

void run_hit(Rig& rig, const std::vector<std::uint32_t>& tokens, std::uint64_t blocks) {
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), blocks);
  ASSERT_TRUE(rig.accept(id, 0, blocks, Rig::make_table(blocks, 30)).is_ok());
  rig.step();
  static_cast<void>(rig.end(id));
}

std::vector<std::string> hit_lines(Rig& rig) {
  rig.core.tick(rig.clock.now());
  std::vector<std::string> lines;
  for (const Note& note : std::exchange(rig.core.context().notes, {})) {
    if (note.line.starts_with("KVBM ")) lines.push_back(note.line);
  }
  return lines;
}

TEST(HitRateTest, EndedRequestsMoveRatesAndCounters) {
  Rig rig;
  const auto tokens = Rig::make_tokens(4, 1);
  rig.run_cold(tokens);
  EXPECT_EQ(rig.counters.offload_blocks.value(), 4U);
  const auto before = rig.core.hits().totals();
  run_hit(rig, tokens, 4);
  EXPECT_EQ(rig.core.hits().totals().host - before.host, 4U);
  EXPECT_EQ(rig.core.hits().totals().asked - before.asked, 4U);
  EXPECT_EQ(rig.counters.match_tokens.value(), 4U * rig.options.layout.block_tokens.value());
  EXPECT_EQ(rig.counters.hit_blocks[static_cast<std::size_t>(Tier::kHost)].value(), 4U);
}

TEST(HitRateTest, ARequestThatEndsWithinTheStepOfItsLoadCountsWhenTheReportIsIn) {
  Rig rig({.ranks = 2});
  const auto tokens = Rig::make_tokens(4, 1);
  rig.run_cold(tokens);
  const auto before = rig.core.hits().totals();
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), 4U);
  ASSERT_TRUE(rig.accept(id, 0, 4, Rig::make_table(4, 30)).is_ok());
  const auto orders = rig.build();
  ASSERT_TRUE(orders.has_value());
  const Ledger ledger = rig.end(id);
  EXPECT_EQ(ledger.pending, rig.options.layout.block_tokens * 4);
  EXPECT_EQ(ledger.hit[static_cast<std::size_t>(Tier::kHost)], Tokens(0));
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *orders), rig.clock.now()).is_ok());
  EXPECT_EQ(rig.core.hits().totals().asked, before.asked) << "one rank is not all";
  ASSERT_TRUE(rig.core.take_report(rig.obey(1, *orders), rig.clock.now()).is_ok());
  EXPECT_EQ(rig.core.hits().totals().host - before.host, 4U);
  EXPECT_EQ(rig.core.hits().totals().asked - before.asked, 4U);
}

TEST(HitRateTest, ALoadThatFailsAfterItsRequestEndedIsNoHit) {
  Rig rig;
  const auto tokens = Rig::make_tokens(4, 1);
  rig.run_cold(tokens);
  const auto before = rig.core.hits().totals();
  const RequestId id = rig.begin(tokens);
  ASSERT_EQ(rig.look_up(id), 4U);
  ASSERT_TRUE(rig.accept(id, 0, 4, Rig::make_table(4, 30)).is_ok());
  const auto orders = rig.build();
  ASSERT_TRUE(orders.has_value());
  (void)rig.end(id);
  rig.kill(0);
  EXPECT_EQ(rig.core.hits().totals().host, before.host);
  EXPECT_EQ(rig.core.hits().totals().asked - before.asked, 4U);
}

TEST(HitRateTest, LineIsLoggedOncePerIntervalAndOnlyAfterARequestEnded) {
  Rig rig({.tune = [](Options& options) { options.log_hits_every = seconds(5); }});
  EXPECT_THAT(hit_lines(rig), ::testing::IsEmpty());
  rig.clock.advance(seconds(6));
  EXPECT_THAT(hit_lines(rig), ::testing::IsEmpty()) << "no request has ended";
  const auto tokens = Rig::make_tokens(2, 1);
  rig.run_cold(tokens);
  run_hit(rig, tokens, 2);
  EXPECT_THAT(hit_lines(rig), ::testing::IsEmpty()) << "the interval is not over";
  rig.clock.advance(seconds(5));
  const auto lines = hit_lines(rig);
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_THAT(lines[0],
              ::testing::HasSubstr("Cache Hit Rates - Host: 50.0% (2/4), Disk: 0.0% (0/4)"));
  rig.clock.advance(seconds(5));
  EXPECT_THAT(hit_lines(rig), ::testing::IsEmpty()) << "nothing new to say";
}

}  // namespace
}  // namespace terrace::manager
