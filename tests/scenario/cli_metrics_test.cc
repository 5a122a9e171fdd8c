// What a real owner exports against the one table of metrics, and its status page.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "scenario/manager_rig.h"
#include "terrace/serve/metric_table.h"
#include "terrace/serve/metrics_text.h"
#include "terrace/serve/status_json.h"
#include "terrace/testing/memory_object_store.h"

namespace terrace::scenario {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

// The value of the line that starts with `sample`, or -1.
double value_of(const std::string& text, const std::string& sample) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(sample + " ")) return std::stod(line.substr(sample.size() + 1));
  }
  return -1;
}

class CliMetricsTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::string scrape() {
    serve::MetricsText writer(config::KvbmNames::kKvbm);
    engine_.manager().visit_metrics(writer);
    undocumented_ = writer.undocumented();
    return writer.text();
  }
  std::vector<std::string> undocumented_;
  Scratch scratch_;
  Engine engine_{scratch_, {.disk_path = scratch_.path() + "/d", .tune = add_store}};

 private:
  static void add_store(manager::Options& options) {
    options.object.pack_blocks = 8;  // Of which host has room for one.
    options.object.open_store = [](const Clock&,
                                   LogSink&) -> Result<std::unique_ptr<transfer::ObjectStore>> {
      return std::make_unique<testing::MemoryObjectStore>(std::make_shared<testing::MemoryPlace>(),
                                                          4);
    };
  }
};

TEST_F(CliMetricsTest, OwnerExportsExactlyTheMetricsOfTheTable) {
  ASSERT_TRUE(engine_.wait_ready());
  const std::string text = scrape();
  EXPECT_THAT(undocumented_, IsEmpty()) << "add rows to terrace/serve/metric_table.cc";
  for (const serve::MetricRow& row : serve::metric_rows()) {
    EXPECT_THAT(text, HasSubstr("# TYPE " + std::string(row.name) + " "))
        << "no part exports it: remove the row";
  }
}

TEST_F(CliMetricsTest, KvbmsCountersMoveWithTheBlocks) {
  ASSERT_TRUE(engine_.wait_ready());
  const std::string start = scrape();
  const auto moved = [&](const std::string& text, const std::string& name) {
    return value_of(text, name) - value_of(start, name);
  };
  const auto tokens = Engine::make_tokens(6, 1);
  engine_.run(tokens);
  EXPECT_EQ(engine_.run(tokens).loaded, 6U);
  ASSERT_TRUE(wait_until([&] { return moved(scrape(), "kvbm_offload_blocks_h2d") == 6; }));
  const std::string text = scrape();
  EXPECT_EQ(moved(text, "kvbm_matched_tokens"), 6.0 * Engine::kBlockTokens);
  EXPECT_EQ(moved(text, "kvbm_offload_blocks_d2h"), 6);
  EXPECT_EQ(moved(text, "kvbm_onboard_blocks_h2d"), 6);
  EXPECT_EQ(moved(text, "kvbm_onboard_blocks_d2d"), 0);
  EXPECT_DOUBLE_EQ(value_of(text, "kvbm_host_cache_hit_rate"), 0.5);
}

TEST_F(CliMetricsTest, StatusSaysGreenAndWhatTheTiersHold) {
  ASSERT_TRUE(engine_.wait_ready());
  engine_.run(Engine::make_tokens(6, 1));
  const auto report = engine_.manager().status();
  const auto json = nlohmann::json::parse(serve::status_json(report));
  EXPECT_EQ(json["health"], "green") << json["problems"];
  EXPECT_EQ(json["ready"], true);
  EXPECT_EQ(json["tiers"][0]["tier"], "host");
  EXPECT_GE(json["tiers"][0]["slots"]["sealed"], 6);
  EXPECT_EQ(json["tiers"][1]["state"], "open");
  EXPECT_EQ(json["attachments"][0]["attached"], true);
}

}  // namespace
}  // namespace terrace::scenario
