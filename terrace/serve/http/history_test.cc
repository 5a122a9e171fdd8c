#include "terrace/serve/http/history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace terrace::serve {
namespace {

using Json = nlohmann::json;
using ::testing::ElementsAre;

constexpr std::string_view kHost = R"(terrace_hit_tokens_total{tier="host"})";
constexpr std::string_view kBucket = R"(terrace_lookup_seconds_bucket{le="0.001"})";

class HistoryTest : public ::testing::Test {
 protected:
  void take(std::uint64_t tokens) {
    history_.take(
        [&](MetricVisitor& visitor) {
          visitor.counter("terrace_hit_tokens_total", R"(tier="host")", tokens);
          visitor.counter("terrace_lookup_seconds_bucket", R"(le="0.001")", tokens / 10);
          visitor.gauge("terrace_active_requests", "", 0.5);
          visitor.counter("terrace_unknown_to_the_history_total", "", 1);
        },
        now_);
  }
  void run(std::uint64_t samples) {
    for (std::uint64_t i = 0; i < samples; ++i) {
      now_ += History::kFineStep;
      take(++taken_);
    }
  }
  [[nodiscard]] Json json(Nanoseconds span) const {
    return Json::parse(history_.json(span, now_, 1'800'000'000));
  }
  [[nodiscard]] static Json column(const Json& json, std::string_view name) {
    return json["columns"][std::string(name)];
  }

  History history_;
  Nanoseconds now_ = seconds(1000);
  std::uint64_t taken_ = 0;
};

TEST_F(HistoryTest, NothingTakenIsNothingShown) {
  const Json empty = json(seconds(3600));
  EXPECT_TRUE(empty["ages"].empty());
  EXPECT_TRUE(column(empty, kHost).empty());
  EXPECT_TRUE(empty["first"][std::string(kBucket)].is_null());
  EXPECT_EQ(empty["now"], 1'800'000'000);
}

TEST_F(HistoryTest, SamplesComeOldestFirstWithTheirAges) {
  take(10);
  now_ += seconds(5);
  take(30);
  now_ += seconds(2);
  const Json found = json(seconds(3600));
  EXPECT_THAT(found["ages"], ElementsAre(7, 2));
  EXPECT_THAT(column(found, kHost), ElementsAre(10, 30));
  EXPECT_THAT(column(found, "terrace_active_requests"), ElementsAre(0.5, 0.5));
  EXPECT_THAT(column(found, "terrace_requests_total"), ElementsAre(nullptr, nullptr));
  EXPECT_EQ(found["first"][std::string(kBucket)], 1);
  EXPECT_FALSE(found["columns"].contains("terrace_unknown_to_the_history_total"));
}

TEST_F(HistoryTest, OnlyTheSpanIsShown) {
  run(100);
  const Json found = json(seconds(50));
  EXPECT_EQ(found["ages"].size(), 11U);
  EXPECT_EQ(column(found, kHost).front(), 90);
  EXPECT_EQ(column(found, kHost).back(), 100);
}

TEST_F(HistoryTest, AnAnswerHasABoundAndAlwaysTheNewest) {
  run(History::kFineSamples);
  const Json found = json(seconds(3600));
  EXPECT_LE(found["ages"].size(), History::kMostPoints);
  EXPECT_GT(found["ages"].size(), History::kMostPoints / 2);
  EXPECT_EQ(found["ages"].back(), 0);
  EXPECT_EQ(column(found, kHost).back(), taken_);
  EXPECT_EQ(found["step_seconds"], 10);
}

TEST_F(HistoryTest, ADayIsKeptByTheMinuteAndNoMore) {
  const auto day = static_cast<std::uint64_t>(seconds(86'400) / History::kFineStep);
  run(day + day / 2);
  const Json found = json(seconds(86'400));
  EXPECT_LE(found["ages"].size(), History::kMostPoints);
  EXPECT_NEAR(found["ages"].front().get<double>(), 86'400, 400);
  EXPECT_NEAR(found["step_seconds"].get<double>(), 240, 1e-6);
  EXPECT_GE(column(found, kHost).front().get<std::uint64_t>(), day / 2 - 100);
  const Json hour = json(seconds(3600));
  EXPECT_NEAR(hour["ages"].front().get<double>(), 3'600, 20);
  EXPECT_LT(history_.bytes(), 2_MiB);
}

}  // namespace
}  // namespace terrace::serve
