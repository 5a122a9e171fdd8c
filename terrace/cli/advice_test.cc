#include "terrace/cli/advice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace terrace::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::uint64_t kGiB = 1ULL << 30U;

// 1,000 prompt tokens a second, a tenth of them the engine's; computes 2,000 a second.
std::string status(std::uint64_t blocks_asked = 50'000) {
  nlohmann::json curve = nlohmann::json::array();
  const std::pair<std::uint64_t, double> points[] = {{1, 8},   {2, 10},  {4, 20}, {8, 40},
                                                     {16, 41}, {32, 60}, {64, 60}};
  for (const auto& [size, percent] : points) {
    curve.push_back({{"bytes", size * kGiB}, {"hit_percent", percent}});
  }
  return nlohmann::json{{"uptime_seconds", 100},
                        {"prompt_tokens", 100'000},
                        {"engine_tokens", 10'000},
                        {"prefill_tokens_per_second", 2000},
                        {"forecast",
                         {{"blocks_asked", blocks_asked},
                          {"block_bytes", 1'600'000},
                          {"block_tokens", 16},
                          {"curve", curve}}}}
      .dump();
}

TEST(AdviceTest, TellsWhatSizesGainBeyondTheEngine) {
  const Advice advice = advice_of(status(), TierSizes{.host = 4 * kGiB, .disk = 32 * kGiB});
  EXPECT_EQ(advice.engine_percent, 10);
  EXPECT_EQ(advice.tokens_per_second, 1000);
  ASSERT_EQ(advice.rows.size(), 1U);
  const AdviceRow& row = advice.rows[0];
  EXPECT_EQ(row.hit_percent, 60);
  EXPECT_EQ(row.beyond_percent, 50);
  EXPECT_EQ(row.saved_seconds, 0.5 * 86'400 * 1000 / 2000);
  EXPECT_EQ(row.written_bytes, 0.4 * 86'400 * 1000 * 100'000);
  EXPECT_FALSE(advice.best);
}

TEST(AdviceTest, BetweenTwoSizesItIsBetweenTheirHits) {
  const auto hits = [](std::uint64_t bytes) {
    return advice_of(status(), TierSizes{.host = bytes}).rows[0].hit_percent;
  };
  EXPECT_GT(hits(6 * kGiB), 20);
  EXPECT_LT(hits(6 * kGiB), 40);
  EXPECT_EQ(hits(kGiB / 2), 4);
  EXPECT_EQ(hits(1000 * kGiB), 60);
  EXPECT_EQ(advice_of(status(), TierSizes{.host = 4 * kGiB}).rows[0].written_bytes, 0);
}

TEST(AdviceTest, TheLeastThatGainsNearlyAllIsToBePasted) {
  const Advice advice = advice_of(status(), std::nullopt);
  ASSERT_TRUE(advice.best);
  EXPECT_EQ(settings_of(*advice.best), R"({"host.size":"4GiB","disk.size":"64GiB"})");
  EXPECT_GT(advice.rows.size(), 4U);
  const std::string text = advice_text(advice, "chat (process 7)");
  EXPECT_THAT(text, HasSubstr("chat (process 7): 1000 prompt tokens a second, 10.0 % of them"));
  EXPECT_THAT(text, HasSubstr(R"(settings to paste: {"host.size":"4GiB","disk.size":"64GiB"})"));
  EXPECT_THAT(text, Not(HasSubstr("ask again")));
  const auto json = nlohmann::json::parse(advice_json(advice, "chat"));
  EXPECT_EQ(json["advice"]["host.size"], "4GiB");
  EXPECT_EQ(json["rows"].size(), advice.rows.size());
}

// The disk holds what host has, unless it is written when host gives it up.
TEST(AdviceTest, HostAddsNothingToADiskThatHoldsTheSame) {
  const auto hits = [](std::optional<bool> has_copies, std::uint64_t host, std::uint64_t disk) {
    auto json = nlohmann::json::parse(status());
    if (has_copies) json["forecast"]["disk_has_copies"] = *has_copies;
    return advice_of(json.dump(), TierSizes{.host = host * kGiB, .disk = disk * kGiB})
        .rows[0]
        .hit_percent;
  };
  for (const std::optional<bool> told : {std::optional<bool>(), std::optional(true)}) {
    EXPECT_EQ(hits(told, 4, 16), 41);
    EXPECT_EQ(hits(told, 15, 16), 41);
    EXPECT_EQ(hits(told, 16, 4), 41);
  }
  EXPECT_GT(hits(false, 15, 16), 45);
  EXPECT_LT(hits(false, 15, 16), 60);
}

// Else a table of the last minutes is multiplied by what came in all the days before.
TEST(AdviceTest, RatesAreOfTheTimeThatTheTableIsOf) {
  auto json = nlohmann::json::parse(status());
  json["forecast"]["window_seconds"] = 600;
  json["forecast"]["prompt_tokens"] = 60'000;
  json["forecast"]["engine_tokens"] = 12'000;
  const Advice advice = advice_of(json.dump(), TierSizes{.host = 32 * kGiB});
  EXPECT_EQ(advice.tokens_per_second, 100);
  EXPECT_EQ(advice.engine_percent, 20);
  EXPECT_EQ(advice.rows[0].saved_seconds, 0.4 * 86'400 * 100 / 2000);
  EXPECT_THAT(advice_text(advice, "x"), HasSubstr("the last 10 min"));
}

TEST(AdviceTest, NoHostIsAdvisedThatCutsUsualPrompts) {
  auto json = nlohmann::json::parse(status());
  json["forecast"]["least_host_bytes"] = 5 * kGiB;
  const Advice advice = advice_of(json.dump(), std::nullopt);
  ASSERT_TRUE(advice.best);
  EXPECT_EQ(advice.best->host, 8 * kGiB);
  for (const AdviceRow& row : advice.rows) EXPECT_GE(row.sizes.host, 8 * kGiB);
  EXPECT_THAT(advice_text(advice, "x"), Not(HasSubstr("lookup.pin_share")));
  const Advice asked = advice_of(json.dump(), TierSizes{.host = 4 * kGiB, .disk = 32 * kGiB});
  EXPECT_THAT(advice_text(asked, "x"), HasSubstr("lookup.pin_share"));
}

TEST(AdviceTest, FewRequestsAreSaid) {
  EXPECT_THAT(advice_text(advice_of(status(10), std::nullopt), "x"),
              HasSubstr("learned from 10 blocks only"));
}

// A zero would say that nothing is gained.
TEST(AdviceTest, WhatCannotBeToldYetIsNoZero) {
  auto json = nlohmann::json::parse(status());
  json["prefill_tokens_per_second"] = 0;
  const Advice advice = advice_of(json.dump(), std::nullopt);
  const std::string text = advice_text(advice, "x");
  EXPECT_THAT(text, Not(HasSubstr(" 0 s a day")));
  EXPECT_THAT(text, Not(HasSubstr("computes 0 a second")));
  EXPECT_THAT(text, HasSubstr("how fast it computes is not known yet"));
  const auto told = nlohmann::json::parse(advice_json(advice, "x"));
  EXPECT_EQ(told["prefill_tokens_per_second"], 0);
  EXPECT_EQ(told["rows"][0]["saved_prefill_seconds_per_day"], nullptr);
}

TEST(AdviceTest, WhereNothingReturnsNothingIsAdvised) {
  auto json = nlohmann::json::parse(status());
  for (auto& point : json["forecast"]["curve"]) point["hit_percent"] = 0.2;
  const Advice advice = advice_of(json.dump(), std::nullopt);
  EXPECT_FALSE(advice.best);
  EXPECT_EQ(nlohmann::json::parse(advice_json(advice, "x"))["advice"], nullptr);
}

TEST(AdviceTest, AStrangersStatusIsSurvived) {
  for (const char* text :
       {"", "[]", "{", "{}", R"({"forecast": 5})", R"({"forecast": {"curve": [1, {}, "x"]}})",
        R"({"forecast": {"curve": [{"bytes": -1}], "block_tokens": 0}, "uptime_seconds": 0})"}) {
    const Advice advice = advice_of(text, std::nullopt);
    EXPECT_THAT(advice_text(advice, "x"), HasSubstr("no prompt was asked for yet")) << text;
    EXPECT_FALSE(advice_of(text, TierSizes{.host = kGiB}).rows.empty());
  }
}

TEST(AdviceTest, SizesAreNamedInWholeUnits) {
  EXPECT_EQ(size_name(64ULL << 20U), "64MiB");
  EXPECT_EQ(size_name(3 * kGiB), "3GiB");
  EXPECT_EQ(size_name(kGiB + 1), "1073741825");
}

}  // namespace
}  // namespace terrace::cli
