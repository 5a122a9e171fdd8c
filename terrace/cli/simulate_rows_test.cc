#include "terrace/cli/simulate_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

namespace terrace::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

SimulateRow row(const std::string& policy, std::uint32_t host, std::uint64_t hits) {
  SimulateRow row{.trace = "chat.jsonl",
                  .policy = policy,
                  .admission = "all",
                  .host_blocks = host,
                  .unique_blocks = 1000,
                  .all_blocks = 2000,
                  .block_bytes = 1'000'000,
                  .optimum_hits = 800};
  row.counts = {.requests = 10, .blocks = 2000, .host_hits = hits};
  row.times.first_token = {milliseconds(100), milliseconds(300)};
  row.times.off = {milliseconds(200), milliseconds(1500)};
  row.times.saved_prefill = seconds(2);
  return row;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

TEST(SimulateRowsTest, JsonSaysHitsWritesAndTimes) {
  SimulateRow one = row("lru", 20, 400);
  one.disk_blocks = 100;
  one.counts.disk_hits = 200;
  one.counts.disk_writes = 500;
  one.counts.stores = 1500;
  one.write = "demote";
  one.scope = "prompt";
  const auto json = nlohmann::json::parse(row_json(one));
  EXPECT_EQ(json["host_hit_percent"], 20.0);
  EXPECT_EQ(json["disk_hit_percent"], 10.0);
  EXPECT_EQ(json["disk_writes_per_100"], 25.0);
  EXPECT_EQ(json["stores_per_100"], 75.0);
  EXPECT_EQ(json["write"], "demote");
  EXPECT_EQ(json["scope"], "prompt");
  EXPECT_EQ(json["disk_write_bytes"], 500'000'000);
  EXPECT_EQ(json["optimum_percent"], 40.0);
  EXPECT_EQ(json["saved_prefill_seconds"], 2.0);
  EXPECT_EQ(json["ttft_p50_seconds"], 0.1);
  EXPECT_EQ(json["ttft_p99_seconds"], 0.3);
  EXPECT_EQ(json["off_ttft_p50_seconds"], 0.2);
  EXPECT_EQ(json["off_ttft_p99_seconds"], 1.5);
  EXPECT_FALSE(json.contains("scenario"));
}

TEST(SimulateRowsTest, AScenarioStandsBesideTheTraceAlone) {
  SimulateRow one = row("lru", 20, 400);
  one.scenario = "scan";
  one.all_blocks = 3000;
  one.alone_hits = 600;
  const auto json = nlohmann::json::parse(row_json(one));
  EXPECT_EQ(json["scenario"], "scan");
  EXPECT_EQ(json["scenario_blocks"], 1000);
  EXPECT_EQ(json["alone_hit_percent"], 30.0);
  EXPECT_THAT(row_text(one), HasSubstr("chat.jsonl, with scan: lru"));
  EXPECT_THAT(row_text(one), HasSubstr("20.00 % host, 0.00 % disk (30.00 % alone)"));
}

TEST(SimulateRowsTest, TextSpeaksOfADiskOnlyWhereThereIsOne) {
  SimulateRow one = row("lru", 20, 400);
  EXPECT_THAT(row_text(one), Not(HasSubstr("disk writes")));
  EXPECT_THAT(row_text(one), HasSubstr("p50 100 ms (off 200 ms), p99 300 ms (off 1.50 s)"));
  one.disk_blocks = 100;
  one.counts.disk_writes = 500;
  EXPECT_THAT(row_text(one), HasSubstr("25.00 disk writes per 100 blocks, 0.5 GB"));
}

TEST(SimulateRowsTest, AChartDrawsEachPolicyBesideLruAndTheOptimum) {
  const std::vector<SimulateRow> rows{row("lru", 10, 200), row("hazard", 10, 500),
                                      row("lru", 50, 600), row("hazard", 50, 700)};
  const std::string chart = chart_text(rows);
  const auto lines = lines_of(chart);
  ASSERT_EQ(lines.size(), 3U + 2U * 3U);
  const auto bar = [&](std::size_t line, char mark) {
    return std::ranges::count(lines[line], mark);
  };
  EXPECT_THAT(lines[3], HasSubstr("10  1.00 %  lru         10.00"));
  EXPECT_THAT(lines[4], HasSubstr("hazard      25.00  50 %"));
  EXPECT_THAT(lines[5], HasSubstr("optimum     40.00"));
  EXPECT_NEAR(static_cast<double>(bar(4, '#')), 2.5 * static_cast<double>(bar(3, '#')), 3);
  EXPECT_EQ(lines[5].size(), 80U);
  EXPECT_GT(bar(8, '.'), bar(7, '#'));
}

TEST(SimulateRowsTest, NoLineOfAChartIsLongerThanATerminal) {
  SimulateRow one = row("a_policy_with_a_long_name", 2'000'000'000, 2000);
  one.trace = "/" + std::string(200, 'x') + "/conversation.jsonl.zst";
  one.scenario = "scan and burst";
  one.disk_blocks = 2'000'000'000;
  const std::vector<SimulateRow> rows{row("lru", 2'000'000'000, 0), one};
  for (const auto& some : {rows, std::vector{one}}) {
    for (const std::string& line : lines_of(chart_text(some))) {
      EXPECT_LE(line.size(), 80U) << line;
    }
  }
  EXPECT_THAT(chart_text(std::vector{one}),
              HasSubstr("conversation.jsonl.zst, with scan and burst"));
  EXPECT_EQ(chart_text({}), "");
}

}  // namespace
}  // namespace terrace::cli
