#include "terrace/serve/metrics_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <set>
#include <sstream>

#include "terrace/base/file.h"
#include "terrace/serve/metric_table.h"

namespace terrace::serve {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

std::string line_of(const std::string& text, const std::string& start) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(start + " ")) return line;
  }
  return "(none)";
}

TEST(MetricsTextTest, SamplesOfOneMetricStandTogetherUnderHelpAndType) {
  MetricsText writer;
  writer.counter("terrace_hit_tokens_total", R"(tier="host")", 7);
  writer.counter("terrace_requests_total", "", 3);
  writer.counter("terrace_hit_tokens_total", R"(tier="disk")", 9);
  EXPECT_EQ(writer.text(),
            "# HELP terrace_requests_total Requests that asked for a look-up.\n"
            "# TYPE terrace_requests_total counter\n"
            "terrace_requests_total 3\n"
            "# HELP terrace_hit_tokens_total Tokens verified in the device, by the tier they came "
            "from.\n"
            "# TYPE terrace_hit_tokens_total counter\n"
            "terrace_hit_tokens_total{tier=\"host\"} 7\n"
            "terrace_hit_tokens_total{tier=\"disk\"} 9\n");
}

TEST(MetricsTextTest, SummaryHasOneHeadForSumAndCount) {
  MetricsText writer;
  writer.gauge("terrace_load_seconds_sum", "", 1.5);
  writer.counter("terrace_load_seconds_count", "", 2);
  const std::string text = writer.text();
  EXPECT_THAT(text, HasSubstr("# TYPE terrace_load_seconds summary\n"
                              "terrace_load_seconds_sum 1.5\nterrace_load_seconds_count 2\n"));
  EXPECT_THAT(writer.undocumented(), IsEmpty());
}

TEST(MetricsTextTest, SampleVisitedTwiceIsPrintedOnce) {
  MetricsText writer;
  writer.gauge("terrace_poisoned", "", 0);
  writer.gauge("terrace_poisoned", "", 1);
  EXPECT_EQ(line_of(writer.text(), "terrace_poisoned"), "terrace_poisoned 1");
  EXPECT_THAT(writer.text(), Not(HasSubstr("terrace_poisoned 0")));
}

TEST(MetricsTextTest, UnknownNameIsPrintedUntypedAndTold) {
  MetricsText writer;
  writer.counter("terrace_surprise_total", "", 1);
  EXPECT_THAT(writer.text(), HasSubstr("# TYPE terrace_surprise_total untyped\n"));
  EXPECT_THAT(writer.undocumented(), ElementsAre("terrace_surprise_total"));
}

TEST(MetricsTextTest, NumbersAndHelpFollowTheExpositionFormat) {
  EXPECT_EQ(metric_number(std::numeric_limits<double>::quiet_NaN()), "NaN");
  EXPECT_EQ(metric_number(std::numeric_limits<double>::infinity()), "+Inf");
  EXPECT_EQ(metric_number(-std::numeric_limits<double>::infinity()), "-Inf");
  EXPECT_EQ(metric_number(0.25), "0.25");
  EXPECT_EQ(escape_help("a\\b\nc"), "a\\\\b\\nc");
}

TEST(MetricsTextTest, KvbmNamesOfItsObjectTierAreFiguresOfTheSharedStore) {
  MetricsText writer(config::KvbmNames::kKvbm);
  constexpr std::string_view kPut = R"(op="offload",source="host",target="object")";
  writer.counter("terrace_transfer_blocks_total", kPut, 5);
  writer.counter("terrace_transfer_bytes_total", kPut, 50);
  writer.counter("terrace_transfer_bytes_total", R"(op="prefetch",source="object",target="host")",
                 60);
  writer.counter("terrace_hit_blocks_total", R"(tier="object")", 6);
  writer.counter("terrace_object_request_errors_total", R"(op="get")", 1);
  writer.counter("terrace_object_request_errors_total", R"(op="put")", 2);
  const std::string text = writer.text();
  for (const auto* line : {"kvbm_offload_blocks_d2o 5", "kvbm_offload_bytes_object 50",
                           "kvbm_onboard_bytes_object 60", "kvbm_onboard_blocks_o2d 6",
                           "kvbm_object_read_failures 1", "kvbm_object_write_failures 2"}) {
    EXPECT_THAT(text, HasSubstr(std::string("\n") + line + "\n"));
  }
}

TEST(MetricsTextTest, KvbmNamesAreExportedFromTheStartWithTheChosenPrefix) {
  const auto text_with = [](config::KvbmNames names) { return MetricsText(names).text(); };
  EXPECT_THAT(text_with(config::KvbmNames::kOff), IsEmpty());
  const std::string kvbm = text_with(config::KvbmNames::kKvbm);
  EXPECT_EQ(line_of(kvbm, "kvbm_matched_tokens"), "kvbm_matched_tokens 0");
  EXPECT_EQ(line_of(kvbm, "kvbm_object_write_failures"), "kvbm_object_write_failures 0");
  EXPECT_THAT(kvbm, Not(HasSubstr("dynamo_kvbm_")));
  const std::string dashboard = text_with(config::KvbmNames::kDynamoKvbm);
  EXPECT_EQ(line_of(dashboard, "dynamo_kvbm_offload_blocks_d2h"),
            "dynamo_kvbm_offload_blocks_d2h 0");
  EXPECT_EQ(line_of(dashboard, "kvbm_offload_blocks_d2h"), "(none)");
  const std::string both = text_with(config::KvbmNames::kBoth);
  EXPECT_NE(line_of(both, "kvbm_matched_tokens"), "(none)");
  EXPECT_NE(line_of(both, "dynamo_kvbm_matched_tokens"), "(none)");
}

TEST(MetricsTextTest, KvbmNamesRepeatTerracesOwnValues) {
  MetricsText writer(config::KvbmNames::kKvbm);
  writer.counter("terrace_match_tokens_total", "", 64);
  writer.counter("terrace_transfer_blocks_total", R"(op="offload",source="device",target="host")",
                 5);
  writer.counter("terrace_transfer_blocks_total", R"(op="offload",source="host",target="disk")", 4);
  writer.counter("terrace_hit_blocks_total", R"(tier="host")", 3);
  writer.counter("terrace_hit_blocks_total", R"(tier="disk")", 2);
  writer.gauge("terrace_hit_rate", R"(tier="disk")", 0.5);
  const std::string text = writer.text();
  for (const std::string line :
       {"kvbm_matched_tokens 64", "kvbm_offload_blocks_d2h 5", "kvbm_offload_blocks_h2d 4",
        "kvbm_offload_blocks_d2d 0", "kvbm_onboard_blocks_h2d 3", "kvbm_onboard_blocks_d2d 2",
        "kvbm_disk_cache_hit_rate 0.5", "kvbm_host_cache_hit_rate 0"}) {
    EXPECT_EQ(line_of(text, line.substr(0, line.find(' '))), line);
  }
}

TEST(MetricTableTest, NamesAreWellFormedAndUnique) {
  std::set<std::string_view> seen;
  for (const MetricRow& row : metric_rows()) {
    EXPECT_THAT(std::string(row.name), StartsWith("terrace_"));
    EXPECT_TRUE(seen.insert(row.name).second) << row.name;
    EXPECT_EQ(row.name.ends_with("_total"), row.kind == MetricKind::kCounter) << row.name;
    EXPECT_FALSE(row.help.empty());
  }
  for (const KvbmMetricRow& row : kvbm_metric_rows()) {
    EXPECT_TRUE(seen.insert(row.name).second) << row.name;
    if (!row.source.name.empty()) {
      EXPECT_NE(find_metric(row.source.name), nullptr);
    }
  }
}

TEST(MetricTableTest, DocumentIsWhatTheTableMakes) {
  const auto page = read_file(std::string(TERRACE_DOCS) + "/metrics.md", 1_MiB);
  ASSERT_TRUE(page.has_value()) << page.error().message();
  EXPECT_EQ(*page, metrics_markdown())
      << "run: terrace metrics --list --markdown > docs/metrics.md";
}

}  // namespace
}  // namespace terrace::serve
