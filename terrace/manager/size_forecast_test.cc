#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <string_view>

#include "terrace/manager/size_forecast_internal.h"
#include "terrace/testing/keys.h"

namespace terrace::manager {
namespace {

Options options_of(std::uint64_t host, std::uint64_t disk) {
  Options options;
  options.layout.block_tokens = Tokens(16);
  options.layout.ranks = 2;
  options.layout.groups = {{GroupId(0), {Bytes(1000)}}, {GroupId(1), {Bytes(500)}}};
  options.host.blocks = host;
  options.disk.blocks = disk;
  if (disk > 0) options.disk.paths = {"/kv"};
  return options;
}

void learn(SizeForecast& forecast, Nanoseconds now = {}) {
  while (forecast.work(now)) {
  }
}

double percent_of(const SizeForecast& forecast, Tier tier, double factor) {
  const auto status = forecast.status();
  for (const SizeForecastStatus& one : status.sizes) {
    if (one.tier == tier && one.factor == factor) return one.hit_percent;
  }
  return -1;
}

TEST(SizeForecastTest, WhatALargerTierWouldHaveHeldIsTold) {
  SizeForecast forecast(options_of(10, 20));
  EXPECT_EQ(forecast.status().blocks_asked, 0U);
  EXPECT_EQ(percent_of(forecast, Tier::kHost, 4), 0);
  // Two chains of 20 blocks in turn: 40 blocks are needed to hit at all.
  for (int i = 0; i < 100; ++i) {
    forecast.ask({.chain = testing::chain(1, 20)});
    forecast.ask({.chain = testing::chain(1000, 20)});
  }
  learn(forecast);
  EXPECT_EQ(forecast.status().blocks_asked, 4000U);
  EXPECT_EQ(percent_of(forecast, Tier::kHost, 0.5), 0);
  EXPECT_EQ(percent_of(forecast, Tier::kHost, 2), 0);
  EXPECT_NEAR(percent_of(forecast, Tier::kHost, 4), 99, 1);
  // The disk has what host has.
  EXPECT_NEAR(percent_of(forecast, Tier::kDisk, 1), 0, 1);
  EXPECT_NEAR(percent_of(forecast, Tier::kDisk, 2), 99, 1);
}

// Ten blocks that everybody asks for, then 25 of three in turn: what host has need not lie on disk
// where it is written when host gives it up.
TEST(SizeForecastTest, HostAndDiskAddUpAsFarAsTheDiskIsWrittenAtEviction) {
  const auto told = [](const std::function<void(DiskOptions&)>& tune) {
    Options options = options_of(30, 60);
    tune(options.disk);
    SizeForecast forecast(options);
    for (std::uint64_t i = 0; i < 300; ++i)
      forecast.ask({.chain = testing::chain(100 * (i % 3), 25)});
    learn(forecast);
    const bool is_late = options.disk.is_demote || options.disk.admission == "expected";
    EXPECT_NE(forecast.status().disk_has_copies, is_late);
    return percent_of(forecast, Tier::kDisk, 1);
  };
  const double through = told([](DiskOptions&) {});
  EXPECT_GT(told([](DiskOptions& disk) { disk.is_demote = true; }), through + 5);
  EXPECT_GT(told([](DiskOptions& disk) { disk.admission = "expected"; }), through + 5);
  // They refuse some, and what they take is written at once.
  EXPECT_EQ(told([](DiskOptions& disk) { disk.admission = "reuse"; }), through);
}

// 1,000 tokens, an answer of 300, and 100 more.
TEST(SizeForecastTest, AnswersThatAreStoredAreHits) {
  const auto told = [](std::size_t stored) {
    SizeForecast forecast(options_of(1000, 0));
    for (std::uint64_t user = 0; user < 20; ++user) {
      const auto chain = testing::chain(10'000 * user, 140);
      const std::span<const SequenceHash> all = chain;
      forecast.ask({.chain = all.first(100)});
      forecast.end({.chain = all.first(stored)});
      forecast.ask({.chain = all});
    }
    learn(forecast);
    EXPECT_EQ(forecast.status().blocks_asked, 20U * 240);
    return percent_of(forecast, Tier::kHost, 1);
  };
  EXPECT_NEAR(told(130), 100.0 * 130 / 240, 0.5);
  EXPECT_NEAR(told(100), 100.0 * 100 / 240, 0.5);  // offload.scope = prompt.
}

TEST(SizeForecastTest, WhatIsNotStoredIsNoHit) {
  SizeForecast forecast(options_of(1000, 0));
  const auto chain = testing::chain(1, 100);
  for (int i = 0; i < 3; ++i) {
    forecast.ask({.chain = chain, .is_stored = false});
    forecast.end({.chain = chain, .is_stored = false});
  }
  learn(forecast);
  EXPECT_EQ(percent_of(forecast, Tier::kHost, 1), 0);
}

// The table of a day and the tokens that are multiplied with it are of the same time.
TEST(SizeForecastTest, RatesAreOfTheTimeThatTheCurveIsOf) {
  SizeForecast forecast(options_of(10, 0));
  std::int64_t second = 0;
  const auto live = [&](std::int64_t seconds_each) {
    for (std::uint64_t i = 0; i < 1000; ++i) {
      forecast.ask({.chain = testing::chain(1000 * i, 1000)});
      forecast.note_tokens(Tokens(16'000), Tokens(4000));
      learn(forecast, seconds(second += seconds_each));
    }
  };
  const auto rate = [&] {
    const ForecastStatus status = forecast.status();
    EXPECT_NEAR(static_cast<double>(status.engine_tokens),
                static_cast<double>(status.prompt_tokens) / 4, 1);
    return static_cast<double>(status.prompt_tokens) /
           (static_cast<double>(status.window.value()) * 1e-9);
  };
  live(100);
  EXPECT_NEAR(rate(), 160, 5);
  live(1);  // It was an idle night.
  EXPECT_NEAR(rate(), 16'000, 500);
}

TEST(SizeForecastTest, WithoutSizesMinutesAgoAreNotForgotten) {
  Options options = options_of(0, 0);
  options.layout.groups = {{GroupId(0), {1_MiB}}};
  SizeForecast forecast(options);
  const auto hot = testing::chain(1, 100);
  for (int i = 0; i < 1000; ++i) {
    forecast.ask({.chain = hot});
    learn(forecast);
  }
  for (std::uint64_t i = 1; i <= 1000; ++i) {
    forecast.ask({.chain = testing::chain(1000 * i, 100)});
    learn(forecast);
  }
  const auto status = forecast.status();
  EXPECT_EQ(status.blocks_asked, 200'000U);
  EXPECT_NEAR(status.curve.back().hit_percent, 50, 1);
}

TEST(SizeForecastTest, TheLeastHostLendsWhatLongPromptsAskFor) {
  Options options = options_of(10, 0);
  options.pin_share = 0.25;
  SizeForecast forecast(options);
  EXPECT_EQ(forecast.status().least_host, Bytes(0));
  for (std::uint64_t i = 0; i < 1000; ++i) {
    const std::size_t length = i % 200 == 0 ? 5000 : i % 20 == 0 ? 1000 : 30;
    forecast.ask({.chain = testing::chain(10'000 * i, length)});
    learn(forecast);
  }
  const auto status = forecast.status();
  EXPECT_GE(status.longest_usual, 1000U);
  EXPECT_LE(status.longest_usual, 1250U);
  EXPECT_EQ(status.least_host, Bytes(4 * status.longest_usual * 3000));
}

// Between two rounds of the I/O thread.
TEST(SizeForecastTest, ALongChainIsLearnedAPartAtATime) {
  for (const char* eviction : {"lru", "hazard"}) {
    Options options = options_of(10, 0);
    options.host.eviction = eviction;
    SizeForecast forecast(options);
    const auto chain = testing::chain(1, 40'000);
    for (int i = 0; i < 2; ++i) forecast.ask({.chain = chain});
    forecast.end({.chain = chain});
    EXPECT_TRUE(forecast.work({}));
    EXPECT_GT(forecast.status().blocks_asked, 0U);
    EXPECT_LT(forecast.status().blocks_asked, 10'000U);
    int rounds = 1;
    while (forecast.work({})) ++rounds;
    EXPECT_GT(rounds, 2 * 2 * 40'000 / 10'000);
    EXPECT_EQ(forecast.status().blocks_asked, 80'000U);
    EXPECT_NEAR(forecast.status().curve.back().hit_percent, 50, 0.5);
  }
}

// Each costs more than its blocks.
TEST(SizeForecastTest, ManyShortRequestsAreLearnedAPartAtATime) {
  Options options = options_of(10, 0);
  options.host.eviction = "hazard";
  SizeForecast forecast(options);
  for (std::uint64_t i = 0; i < 1000; ++i) forecast.ask({.chain = testing::chain(i, 1)});
  EXPECT_TRUE(forecast.work({}));
  EXPECT_LT(forecast.status().blocks_asked, 100U);
}

// Twenty users who ask the same each five minutes, and between them those who come once: what they
// ask for pushes the users' blocks out of an `lru` pool.
void live_with_loyal_users(SizeForecast& forecast) {
  std::uint64_t second = 0;
  for (int round = 0; round < 20; ++round) {
    for (std::uint64_t user = 0; user < 300; ++user) {
      const auto chain = testing::chain(user < 20 ? 100 * user : 1'000'000 + 100 * second, 16);
      const RequestId id(++second);
      const Nanoseconds now = seconds(static_cast<std::int64_t>(second));
      forecast.ask({.id = id, .at = now, .chain = chain});
      forecast.end({.id = id, .at = now, .chain = chain, .prompt_blocks = 16});
    }
    learn(forecast, seconds(static_cast<std::int64_t>(second)));
  }
}

TEST(SizeForecastTest, WhatEvictionHoldsBeyondLruIsTold) {
  struct Tiers {
    const char* host;
    const char* disk;
  };
  for (const Tiers& tiers : {Tiers{"lru", "lru"}, {"hazard", "lru"}, {"hazard", "hazard"}}) {
    for (const bool observes : {false, true}) {
      Options options = options_of(512, 1024);
      options.host.eviction = tiers.host;
      options.disk.eviction = tiers.disk;
      if (observes) {
        options.disk = {};
        options.host.blocks = ObservedTiers::kPool;
        options.observed = ObservedTiers{.host = {},
                                         .host_blocks = 512,
                                         .disk = {},
                                         .disk_blocks = 1024,
                                         .disk_eviction = tiers.disk};
      }
      SizeForecast forecast(options);
      live_with_loyal_users(forecast);
      // 6.7 % of what is asked for is theirs.
      const double host = percent_of(forecast, Tier::kHost, 2);
      const double disk = percent_of(forecast, Tier::kDisk, 1);
      const bool has_hazard = std::string_view(tiers.host) == "hazard";
      EXPECT_GE(host, has_hazard ? 4.0 : 0.0) << tiers.host;
      EXPECT_LE(host, has_hazard ? 7.0 : 0.0) << tiers.host;
      EXPECT_GE(disk, std::string_view(tiers.disk) == "hazard" ? 4.0 : 0.0) << tiers.disk;
      EXPECT_LE(disk, std::string_view(tiers.disk) == "hazard" ? 7.0 : 0.0) << tiers.disk;
      // The table of sizes is of host's.
      for (const CurvePoint& point : forecast.status().curve) {
        const std::uint64_t blocks = point.size.value() / 3000;
        if (blocks < 500 || blocks > 2000) continue;
        EXPECT_EQ(point.hit_percent > 3, has_hazard) << blocks;
      }
    }
  }
}

// A curve of 2,048 blocks halves its counts with each 100,000 that are asked for.
TEST(SizeForecastTest, WhatEvictionHeldLongAgoIsForgotten) {
  Options options = options_of(512, 0);
  options.host.eviction = "hazard";
  SizeForecast forecast(options);
  live_with_loyal_users(forecast);
  EXPECT_GT(percent_of(forecast, Tier::kHost, 2), 4);
  for (std::uint64_t i = 0; i < 400; ++i) {
    forecast.ask({.at = seconds(10'000), .chain = testing::chain(9'000'000 + 10'000 * i, 1000)});
    learn(forecast);
  }
  EXPECT_LT(percent_of(forecast, Tier::kHost, 2), 0.7);
}

// Half of what host gave up was lost on the way: half of what the disk adds is not there.
TEST(SizeForecastTest, WhatIsLostOnTheWayDownIsNoHit) {
  Options options = options_of(30, 60);
  options.disk.is_demote = true;
  SizeForecast forecast(options);
  for (std::uint64_t i = 0; i < 300; ++i) {
    forecast.ask({.chain = testing::chain(100 * (i % 3), 25)});
  }
  learn(forecast);
  const double host = percent_of(forecast, Tier::kHost, 1);
  const double both = percent_of(forecast, Tier::kDisk, 1);
  EXPECT_GT(both, host + 10);
  EXPECT_FALSE(forecast.work({}, {.written = 500, .lost = 500}));
  EXPECT_NEAR(percent_of(forecast, Tier::kDisk, 1), (host + both) / 2, 0.01);
  EXPECT_EQ(percent_of(forecast, Tier::kHost, 1), host);
}

TEST(SizeForecastTest, SizesAreOfAllRanksAndGroups) {
  SizeForecast forecast(options_of(10, 0));
  forecast.ask({.chain = testing::chain(1, 1)});
  learn(forecast);
  const auto status = forecast.status();
  ASSERT_EQ(status.sizes.size(), 4U);
  EXPECT_EQ(status.sizes[1].size, Bytes(10 * 2 * 1500));
  EXPECT_EQ(percent_of(forecast, Tier::kDisk, 1), -1);
}

TEST(SizeForecastTest, TheCurveIsToldForSizesThatNobodyHas) {
  SizeForecast forecast(options_of(10, 0));
  EXPECT_TRUE(forecast.status().curve.empty());
  for (int i = 0; i < 100; ++i) {
    forecast.ask({.chain = testing::chain(1, 100)});
    forecast.ask({.chain = testing::chain(1000, 100)});
  }
  learn(forecast);
  const auto status = forecast.status();
  EXPECT_EQ(status.block, Bytes(3000));
  EXPECT_EQ(status.block_tokens, Tokens(16));
  ASSERT_GT(status.curve.size(), 40U);
  Bytes before{0};
  for (const CurvePoint& point : status.curve) {
    EXPECT_GT(point.size, before);
    before = point.size;
    const std::uint64_t blocks = point.size.value() / 3000;
    // Between the two part of a chain is left when it comes round.
    if (blocks < 100) {
      EXPECT_NEAR(point.hit_percent, 0, 1) << blocks;
    } else if (blocks > 210) {
      EXPECT_NEAR(point.hit_percent, 99, 1) << blocks;
    }
  }
  EXPECT_GT(before, Bytes(1ULL << 40U));
}

// A block of 512 tokens of a model of 8 billion weights is 64 MiB: the users of an hour fill more
// than a terabyte.
TEST(SizeForecastTest, TheCurveGoesOnWhereLargeDisksEnd) {
  Options options = options_of(10, 0);
  options.layout.ranks = 1;
  options.layout.groups = {{GroupId(0), {64_MiB}}};
  SizeForecast forecast(options);
  constexpr std::uint64_t kUsers = 128;  // Of 256 blocks, 16 GiB: 2 TiB of them.
  for (int turn = 0; turn < 3; ++turn) {
    for (std::uint64_t user = 0; user < kUsers; ++user) {
      forecast.ask({.chain = testing::chain(1 + 1000 * user, 256)});
    }
    learn(forecast);
  }
  const auto status = forecast.status();
  ASSERT_GT(status.curve.back().size, Bytes(32ULL << 40U));
  for (const CurvePoint& point : status.curve) {
    if (point.size < Bytes(3ULL << 39U)) {
      EXPECT_NEAR(point.hit_percent, 0, 1) << point.size.value();
    } else if (point.size > Bytes(5ULL << 39U)) {
      EXPECT_NEAR(point.hit_percent, 66.7, 0.1) << point.size.value();
    }
  }
}

class Cells final : public MetricVisitor {
 public:
  void counter(std::string_view name, std::string_view, std::uint64_t value) override {
    if (name == "terrace_forecast_dropped_requests_total") dropped = value;
  }
  void gauge(std::string_view, std::string_view labels, double value) override {
    gauges.emplace(labels, value);
  }
  std::uint64_t dropped = 0;
  std::map<std::string, double, std::less<>> gauges;
};

TEST(SizeForecastTest, WhatWaitsIsBoundedAndTheRestCounted) {
  SizeForecast forecast(options_of(10, 0));
  const auto chain = testing::chain(1, 100'000);
  for (int i = 0; i < 5; ++i) forecast.ask({.chain = chain});
  Cells cells;
  forecast.visit_metrics(cells);
  EXPECT_EQ(cells.dropped, 3U);
  forecast.end({.chain = chain});
  forecast.visit_metrics(cells);
  EXPECT_EQ(cells.dropped, 4U);
  learn(forecast);
  forecast.ask({.chain = chain});  // There is room again.
  forecast.visit_metrics(cells);
  EXPECT_EQ(cells.dropped, 4U);
  EXPECT_EQ(cells.gauges.size(), 4U);
  EXPECT_TRUE(cells.gauges.contains("tier=\"host\",factor=\"0.5\""));
}

TEST(SizeForecastTest, WithoutTiersThereIsNothingToForecast) {
  SizeForecast forecast(options_of(0, 0));
  forecast.ask({.chain = testing::chain(1, 4)});
  learn(forecast);
  EXPECT_TRUE(forecast.status().sizes.empty());
}

}  // namespace
}  // namespace terrace::manager
