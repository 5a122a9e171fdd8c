#include "terrace/base/metric.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

namespace terrace {
namespace {

class Seen final : public MetricVisitor {
 public:
  void counter(std::string_view name, std::string_view labels, std::uint64_t value) override {
    names.emplace_back(name);
    counts[std::string(name) + "{" + std::string(labels) + "}"] = value;
  }
  void gauge(std::string_view name, std::string_view labels, double value) override {
    EXPECT_EQ(labels, "");
    sums[std::string(name)] = value;
  }
  std::vector<std::string> names;
  std::map<std::string, std::uint64_t> counts;
  std::map<std::string, double> sums;
};

TEST(TimeHistogramTest, BucketsAddUpAndABoundIsInside) {
  TimeHistogram times;
  times.add(Nanoseconds(0));
  times.add(milliseconds(1));
  times.add(milliseconds(1) + Nanoseconds(1));
  times.add(seconds(10));
  times.add(seconds(3600));
  Seen seen;
  times.visit("t_seconds", seen);
  EXPECT_EQ(seen.counts.at(R"(t_seconds_bucket{le="0.0001"})"), 1U);
  EXPECT_EQ(seen.counts.at(R"(t_seconds_bucket{le="0.001"})"), 2U);
  EXPECT_EQ(seen.counts.at(R"(t_seconds_bucket{le="0.002"})"), 3U);
  EXPECT_EQ(seen.counts.at(R"(t_seconds_bucket{le="5"})"), 3U);
  EXPECT_EQ(seen.counts.at(R"(t_seconds_bucket{le="10"})"), 4U);
  EXPECT_EQ(seen.counts.at(R"(t_seconds_bucket{le="+Inf"})"), 5U);
  EXPECT_EQ(seen.counts.at("t_seconds_count{}"), 5U);
  EXPECT_NEAR(seen.sums.at("t_seconds_sum"), 3610.002, 1e-6);
  EXPECT_EQ(seen.names.size(), 18U);
}

}  // namespace
}  // namespace terrace
