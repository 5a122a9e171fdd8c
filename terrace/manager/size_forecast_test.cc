#include <gtest/gtest.h>

#include <map>

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
    forecast.ask(testing::chain(1, 20));
    forecast.ask(testing::chain(1000, 20));
  }
  EXPECT_TRUE(forecast.work());
  EXPECT_FALSE(forecast.work());
  EXPECT_EQ(forecast.status().blocks_asked, 4000U);
  EXPECT_EQ(percent_of(forecast, Tier::kHost, 0.5), 0);
  EXPECT_EQ(percent_of(forecast, Tier::kHost, 2), 0);
  EXPECT_NEAR(percent_of(forecast, Tier::kHost, 4), 99, 1);
  // Together with the ten of the host.
  EXPECT_NEAR(percent_of(forecast, Tier::kDisk, 1), 49.5, 1);
  EXPECT_NEAR(percent_of(forecast, Tier::kDisk, 2), 99, 1);
}

TEST(SizeForecastTest, SizesAreOfAllRanksAndGroups) {
  SizeForecast forecast(options_of(10, 0));
  forecast.ask(testing::chain(1, 1));
  EXPECT_TRUE(forecast.work());
  const auto status = forecast.status();
  ASSERT_EQ(status.sizes.size(), 4U);
  EXPECT_EQ(status.sizes[1].size, Bytes(10 * 2 * 1500));
  EXPECT_EQ(percent_of(forecast, Tier::kDisk, 1), -1);
}

TEST(SizeForecastTest, TheCurveIsToldForSizesThatNobodyHas) {
  SizeForecast forecast(options_of(10, 0));
  EXPECT_TRUE(forecast.status().curve.empty());
  for (int i = 0; i < 100; ++i) {
    forecast.ask(testing::chain(1, 100));
    forecast.ask(testing::chain(1000, 100));
  }
  EXPECT_TRUE(forecast.work());
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
      forecast.ask(testing::chain(1 + 1000 * user, 256));
    }
    EXPECT_TRUE(forecast.work());
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
  for (int i = 0; i < 5; ++i) forecast.ask(chain);
  Cells cells;
  forecast.visit_metrics(cells);
  EXPECT_EQ(cells.dropped, 3U);
  EXPECT_TRUE(forecast.work());
  forecast.ask(chain);  // There is room again.
  forecast.visit_metrics(cells);
  EXPECT_EQ(cells.dropped, 3U);
  EXPECT_EQ(cells.gauges.size(), 4U);
  EXPECT_TRUE(cells.gauges.contains("tier=\"host\",factor=\"0.5\""));
}

TEST(SizeForecastTest, WithoutTiersThereIsNothingToForecast) {
  SizeForecast forecast(options_of(0, 0));
  forecast.ask(testing::chain(1, 4));
  EXPECT_TRUE(forecast.work());
  EXPECT_TRUE(forecast.status().sizes.empty());
}

}  // namespace
}  // namespace terrace::manager
