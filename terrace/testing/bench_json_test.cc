#include "terrace/testing/bench_json.h"

#include <gtest/gtest.h>

namespace terrace::testing {
namespace {

TEST(BenchJsonTest, SpreadInterpolatesBetweenTheClosestRanks) {
  const Spread spread = spread_of({4, 1, 3, 2});
  EXPECT_DOUBLE_EQ(spread.p25, 1.75);
  EXPECT_DOUBLE_EQ(spread.median, 2.5);
  EXPECT_DOUBLE_EQ(spread.p75, 3.25);
  EXPECT_DOUBLE_EQ(spread_of({7}).p75, 7);
  EXPECT_DOUBLE_EQ(spread_of({}).median, 0);
}

TEST(BenchJsonTest, LineCarriesParametersMediansAndTheRatioToTheLimit) {
  BenchResult result{.name = "copy.\"x\"",
                     .samples = {1, 2, 3},
                     .limit_name = "memcpy",
                     .limit_samples = {4, 4, 4},
                     .params = {}};
  result.param("pieces", 30).param("mode", "plain");
  const std::string line =
      json_line(result, {.cpu = "c", .cores = 2, .memory_bytes = 8, .disk = "", .kernel = "6"});
  EXPECT_TRUE(line.starts_with(
      R"({"name":"copy.\"x\"","params":{"pieces":30,"mode":"plain"},"unit":"bytes/s","better":)"
      R"("higher","value":2,"p25":1.5,"p75":2.5,"runs":3,"limit_name":"memcpy","limit":4,)"
      R"("ratio":0.5000,"machine":{"cpu":"c","cores":2,"memory_bytes":8,"gpu":null,"disk":"",)"
      R"("kernel":"6"},"commit":")"))
      << line;
}

TEST(BenchJsonTest, LineWithoutLimitSaysNull) {
  const BenchResult result{.name = "restart",
                           .unit = "s",
                           .higher_is_better = false,
                           .samples = {1},
                           .limit_name = "",
                           .limit_samples = {},
                           .params = {}};
  const std::string line = json_line(result, {});
  EXPECT_NE(line.find(R"("better":"lower")"), std::string::npos);
  EXPECT_NE(line.find(R"("limit_name":null,"limit":null,"ratio":null)"), std::string::npos);
}

TEST(BenchJsonTest, AlternateWarmsUpOnceAndRotatesTheOrder) {
  std::string order;
  const auto samples = alternate(2, {[&] {
                                       order += 'a';
                                       return 1.0;
                                     },
                                     [&] {
                                       order += 'b';
                                       return 2.0;
                                     }});
  EXPECT_EQ(order,
            "abab"
            "ba");
  EXPECT_EQ(samples, (std::vector<std::vector<double>>{{1, 1}, {2, 2}}));
}

TEST(BenchJsonTest, MachineFactsNameTheDeviceOfAPath) {
  const Machine machine = machine_facts("/proc");
  EXPECT_TRUE(machine.disk.starts_with("proc ")) << machine.disk;
  EXPECT_GT(machine.memory_bytes, 0U);
  EXPECT_FALSE(machine.kernel.empty());
}

}  // namespace
}  // namespace terrace::testing
