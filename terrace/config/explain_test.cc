#include "terrace/config/explain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "terrace/base/file.h"
#include "terrace/config/table.h"

namespace terrace::config {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Sources sample() {
  Sources sources;
  sources.environment = {{"HOME", "/home/u"},
                         {"TERRACE_LOG_LEVEL", "debug"},
                         {"DYN_KVBM_LEADER_ZMQ_HOST", "127.0.0.1"},
                         {"TERRACE_OBJECT_SECRET_KEY", "s3cret"}};
  sources.engine_json = R"({"host.size":"2GiB","disk.size":"1GB"})";
  return sources;
}

TEST(ExplainTest, DocumentIsWhatTheTableMakes) {
  const auto page = read_file(std::string(TERRACE_DOCS) + "/settings.md", 1_MiB);
  ASSERT_TRUE(page.has_value()) << page.error().message();
  EXPECT_EQ(*page, settings_markdown()) << "run: terrace config --markdown > docs/settings.md";
}

TEST(ExplainTest, EverySettingAndEveryAliasIsExplained) {
  const std::string text = explain_text();
  const std::string page = settings_markdown();
  for (const Row& row : rows()) {
    EXPECT_THAT(text, HasSubstr(std::string(row.name) + "  ("));
    EXPECT_THAT(text, HasSubstr(environment_name(row.name)));
    EXPECT_THAT(page, HasSubstr("| `" + std::string(row.name) + "` |"));
    for (const Alias& alias : row.aliases) {
      EXPECT_THAT(text, HasSubstr(std::string(alias.name)));
      EXPECT_THAT(page, HasSubstr(std::string(alias.name)));
    }
  }
  for (const Ineffective& name : ineffective_names()) {
    EXPECT_THAT(page, HasSubstr(std::string(name.name)));
  }
}

TEST(ExplainTest, JsonOfTheTableHasAllRows) {
  const auto json = nlohmann::json::parse(explain_json());
  ASSERT_EQ(json.size(), rows().size());
  EXPECT_EQ(json[0]["name"], "mode");
}

TEST(ExplainTest, EffectiveValuesSayWhereTheyCameFrom) {
  const auto loaded = load(sample());
  ASSERT_TRUE(loaded.has_value()) << loaded.error().message();
  const auto json = nlohmann::json::parse(effective_json(*loaded));
  EXPECT_EQ(json["settings"]["host.size"]["value"], "2GiB");
  EXPECT_EQ(json["settings"]["host.size"]["level"], "engine");
  EXPECT_EQ(json["settings"]["log.level"]["origin"], "environment TERRACE_LOG_LEVEL");
  EXPECT_EQ(json["settings"]["disk.paths"]["value"], "/home/u/.cache/terrace");
  EXPECT_EQ(json["settings"]["disk.depth"]["origin"], "default");
  EXPECT_EQ(json["settings"].size(), rows().size());
  EXPECT_THAT(json["notes"][0].get<std::string>(), HasSubstr("DYN_KVBM_LEADER_ZMQ_HOST"));
  EXPECT_THAT(json["warnings"][0].get<std::string>(), HasSubstr("disk.size 1GB"));
  const std::string text = effective_text(*loaded);
  EXPECT_THAT(text, HasSubstr("engine JSON"));
  EXPECT_THAT(text, HasSubstr("warning: disk.size 1GB"));
  EXPECT_THAT(text, HasSubstr("note: environment DYN_KVBM_LEADER_ZMQ_HOST has no effect"));
}

TEST(ExplainTest, SecretsAreHidden) {
  const auto loaded = load(sample());
  ASSERT_TRUE(loaded.has_value());
  EXPECT_THAT(effective_text(*loaded), Not(HasSubstr("s3cret")));
  EXPECT_THAT(effective_json(*loaded), Not(HasSubstr("s3cret")));
  EXPECT_EQ(loaded->settings.object.secret_key, "s3cret");
}

}  // namespace
}  // namespace terrace::config
