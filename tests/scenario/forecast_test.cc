// What an owner tells of its tiers, and of tiers of other sizes (manager_rig.h).
#include <gtest/gtest.h>

#include <algorithm>

#include "scenario/manager_rig.h"

namespace terrace::scenario {
namespace {

constexpr auto kHost = static_cast<std::size_t>(Tier::kHost);
constexpr auto kDisk = static_cast<std::size_t>(Tier::kDisk);

TEST(ForecastScenario, WhatOtherSizesWouldHoldIsLearnedFromTheRequests) {
  const Scratch scratch;
  Engine engine(scratch, {});
  ASSERT_TRUE(engine.wait_ready());
  EXPECT_EQ(engine.manager().status().forecast.blocks_asked, 0U);
  for (int i = 0; i < 4; ++i) (void)engine.run(Engine::make_tokens(6, 1));
  manager::ForecastStatus forecast;
  ASSERT_TRUE(wait_until([&] {
    forecast = engine.manager().status().forecast;
    return forecast.blocks_asked >= 24;
  }));
  ASSERT_FALSE(forecast.sizes.empty());
  EXPECT_GT(forecast.sizes.back().hit_percent, 50);  // All but the first time.
}

// Prompts of 4 and 7 blocks, the second one with the answer of 2 to the first.
TEST(ForecastScenario, AnswersAreForecastAsHitsAlsoByOneThatObserves) {
  for (const bool is_prompt_only : {false, true}) {
    const Scratch scratch;
    Engine engine(scratch, {.tune = [&](manager::Options& options) {
                    options.observed.emplace();
                    options.is_prompt_only = is_prompt_only;
                  }});
    ASSERT_TRUE(engine.wait_ready());
    manager::BlockManager& manager = engine.manager();
    const auto tokens = Engine::make_tokens(7, 1);
    const std::span<const std::uint32_t> all = tokens;
    const std::size_t block = tokens.size() / 7;
    for (const std::size_t prompt : {4U, 7U}) {
      const auto request = manager.begin_request({.tokens = all.first(prompt * block),
                                                  .extra_keys = {},
                                                  .prompt_tokens = Tokens(prompt * block)});
      ASSERT_TRUE(request);
      const std::size_t end = std::min<std::size_t>(prompt + 2, 7);
      manager::Progress progress;
      progress.request = *request;
      progress.computed = Tokens(end * block);
      progress.new_tokens = all.subspan(prompt * block, (end - prompt) * block);
      EXPECT_TRUE(manager.advance_request(progress).is_ok());
      EXPECT_TRUE(manager.end_request(*request));
    }
    manager::ForecastStatus forecast;
    ASSERT_TRUE(wait_until([&] {
      forecast = manager.status().forecast;
      return forecast.blocks_asked == 11 && forecast.prompt_tokens == 11 * block;
    }));
    EXPECT_NEAR(forecast.curve.back().hit_percent, 100.0 * (is_prompt_only ? 4 : 6) / 11, 0.1);
  }
}

TEST(ForecastScenario, WhatLiesInHostAndOnDiskIsNoTwoBlocks) {
  const Scratch scratch;
  Engine engine(scratch, {.disk_path = scratch.path() + "/d"});
  ASSERT_TRUE(engine.wait_ready());
  engine.run(Engine::make_tokens(6, 1));
  ASSERT_TRUE(wait_until([&] { return engine.disk_blocks_stored() >= 7; }));  // And the canary's.
  const auto spaces = engine.manager().status().namespaces;
  ASSERT_EQ(spaces.size(), 1U);
  EXPECT_EQ(spaces[0].slots[kHost], 6U);
  EXPECT_GE(spaces[0].slots[kDisk], 6U);
  EXPECT_LE(spaces[0].blocks, 7U);
}

}  // namespace
}  // namespace terrace::scenario
