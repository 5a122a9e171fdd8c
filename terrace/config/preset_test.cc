#include "terrace/config/preset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "terrace/base/file.h"
#include "terrace/base/rng.h"
#include "terrace/config/explain.h"
#include "terrace/config/load.h"
#include "terrace/config/toml_file_rig.h"
#include "terrace/config/value.h"

namespace terrace::config {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

Sources engine(std::string json) {
  Sources sources;
  sources.environment = {{"HOME", "/home/u"}, {"TERRACE_DISK_SIZE", "1GB"}};
  sources.engine_json = std::move(json);
  return sources;
}

std::string level_of(const Loaded& loaded, std::string_view name) {
  const auto json = nlohmann::json::parse(effective_json(loaded));
  return json["settings"][std::string(name)]["level"];
}

TEST(PresetTest, EveryRowIsASettingOfTheTableWithAnotherValueThanItsDefault) {
  const auto known = split_words(find_row("preset")->choices, '|');
  std::set<std::pair<std::string_view, std::string_view>> seen;
  for (const PresetValue& item : preset_values()) {
    SCOPED_TRACE(std::string(item.preset) + " " + std::string(item.name));
    EXPECT_EQ(std::ranges::count(known, item.preset), 1);
    EXPECT_NE(item.preset, kNoPreset);
    EXPECT_FALSE(item.why.empty());
    EXPECT_TRUE(seen.emplace(item.preset, item.name).second) << "twice";
    const Row* row = find_row(item.name);
    ASSERT_NE(row, nullptr);
    const auto value = parse_value(*row, item.text);
    ASSERT_TRUE(value.has_value()) << value.error().message();
    EXPECT_EQ(format_value(*row, *value), item.text);
    EXPECT_NE(*value, *parse_value(*row, row->fallback)) << "it changes nothing";
    EXPECT_TRUE(row->missing.empty()) << "what is not built is no policy";
  }
}

// Sizes, places, ports and what guards bytes are the operator's to choose.
TEST(PresetTest, OnlyPoliciesAreSet) {
  const std::set<std::string_view> policies = {
      "disk.admission",  "disk.write",       "offload.scope",    "lookup.deadline",
      "lookup.pin_time", "lookup.pin_share", "object.admission", "object.promote"};
  for (const PresetValue& item : preset_values()) {
    EXPECT_TRUE(policies.contains(item.name)) << item.name;
  }
}

TEST(PresetTest, ItMovesDefaultsFromWhicheverSourceItComes) {
  const TomlFile file("preset = 'batch'\n");
  Sources by_file = engine("");
  by_file.environment["TERRACE_CONFIG_FILE"] = file.path();
  Sources by_environment = engine("");
  by_environment.environment["TERRACE_PRESET"] = "batch";
  Sources by_command_line = engine("");
  by_command_line.overrides = {{"preset", "batch"}};
  for (const Sources& sources :
       {by_file, by_environment, engine(R"({"preset":"batch"})"), by_command_line}) {
    const auto loaded = load(sources);
    ASSERT_TRUE(loaded.has_value()) << loaded.error().message();
    EXPECT_EQ(loaded->settings.preset, "batch");
    EXPECT_EQ(loaded->settings.disk.admission, "reuse");
    EXPECT_EQ(loaded->origins.at("disk.admission").level, Level::kPreset);
    EXPECT_EQ(loaded->origins.at("disk.admission").text, "preset batch");
    EXPECT_THAT(loaded->warnings, IsEmpty()) << "nobody is told off for what the preset chose";
    EXPECT_THAT(loaded->notes, IsEmpty());
  }
}

TEST(PresetTest, AllThatItSetsAndNothingElseDiffersFromTheDefaults) {
  const Settings usual = load(engine(""))->settings;
  for (const std::string_view preset : split_words(find_row("preset")->choices, '|')) {
    const auto loaded = load(engine(R"({"preset":")" + std::string(preset) + R"("})"));
    ASSERT_TRUE(loaded.has_value()) << loaded.error().message();
    for (const Row& row : rows()) {
      if (row.name == "preset") continue;
      Value expected = fetch_value(row, usual);
      for (const PresetValue& item : preset_values()) {
        if (item.preset == preset && item.name == row.name) expected = *parse_value(row, item.text);
      }
      EXPECT_EQ(fetch_value(row, loaded->settings), expected) << preset << " " << row.name;
    }
  }
}

TEST(PresetTest, WhatAnybodySaysIsAboveIt) {
  const TomlFile file("preset = 'batch'\ndisk.admission = 'expected'\n");
  Sources by_file = engine("");
  by_file.environment["TERRACE_CONFIG_FILE"] = file.path();
  Sources by_environment = engine(R"({"preset":"batch"})");
  by_environment.environment["TERRACE_DISK_ADMISSION"] = "expected";
  Sources by_command_line = engine(R"({"preset":"batch"})");
  by_command_line.overrides = {{"disk.admission", "expected"}};
  for (const Sources& sources :
       {by_file, by_environment, engine(R"({"disk.admission":"expected","preset":"batch"})"),
        by_command_line}) {
    const auto loaded = load(sources);
    ASSERT_TRUE(loaded.has_value()) << loaded.error().message();
    EXPECT_EQ(loaded->settings.disk.admission, "expected");
    EXPECT_NE(loaded->origins.at("disk.admission").level, Level::kPreset);
    EXPECT_EQ(loaded->settings.offload.scope, OffloadScope::kPrompt) << "the rest is the preset's";
    EXPECT_THAT(loaded->notes, IsEmpty());
  }
  // Said, even if it is what the default is anyway.
  const auto same = load(engine(R"({"disk.admission":"all","preset":"batch"})"));
  ASSERT_TRUE(same.has_value());
  EXPECT_EQ(same->settings.disk.admission, "all");
  EXPECT_EQ(same->origins.at("disk.admission").text, "engine JSON");
}

TEST(PresetTest, WhatKvbmsNamesSayOrImplyIsAboveIt) {
  Sources implied;
  implied.environment = {
      {"HOME", "/home/u"}, {"DYN_KVBM_DISK_CACHE_GB", "1"}, {"TERRACE_PRESET", "batch"}};
  const auto loaded = load(implied);
  ASSERT_TRUE(loaded.has_value()) << loaded.error().message();
  EXPECT_EQ(loaded->settings.disk.admission, "frequency");
  EXPECT_EQ(level_of(*loaded, "disk.admission"), "default moved by environment");
  ASSERT_EQ(loaded->notes.size(), 1U) << "nobody asked for it in so many words";
  EXPECT_THAT(loaded->notes[0], AllOf(HasSubstr("disk.admission stays frequency"),
                                      HasSubstr("DYN_KVBM_DISK_CACHE_GB"), HasSubstr("reuse")));
  Sources said = engine(R"({"preset":"batch"})");
  said.environment["DYN_KVBM_DISABLE_DISK_OFFLOAD_FILTER"] = "true";
  const auto all = load(said);
  ASSERT_TRUE(all.has_value()) << all.error().message();
  EXPECT_EQ(all->settings.disk.admission, "all");
  // KVBM's filter goes with KVBM's disk; where a higher source sizes it, there is nothing above.
  Sources resized = implied;
  resized.engine_json = R"({"disk.size":"2GB"})";
  const auto other = load(resized);
  ASSERT_TRUE(other.has_value()) << other.error().message();
  EXPECT_EQ(other->settings.disk.admission, "reuse");
}

TEST(PresetTest, TheHighestSourceNamesIt) {
  Sources sources = engine(R"({"preset":"none"})");
  sources.environment["TERRACE_PRESET"] = "batch";
  const auto loaded = load(sources);
  ASSERT_TRUE(loaded.has_value()) << loaded.error().message();
  EXPECT_EQ(loaded->settings.disk.admission, "all");
  EXPECT_EQ(level_of(*loaded, "disk.admission"), "default");
}

TEST(PresetTest, AnUnknownOneIsRefusedWithTheNearest) {
  const auto message = [](const Sources& sources) {
    const auto loaded = load(sources);
    return loaded.has_value() ? std::string("(loaded)") : loaded.error().message();
  };
  EXPECT_THAT(
      message(engine(R"({"preset":"agent"})")),
      AllOf(HasSubstr("setting preset (engine JSON): \"agent\" is no known choice"),
            HasSubstr("the nearest is agents"), HasSubstr("none, chat, agents, rag, batch")));
  Sources environment = engine("");
  environment.environment["TERRACE_PRESET"] = "cat";
  EXPECT_THAT(message(environment),
              AllOf(HasSubstr("environment TERRACE_PRESET"), HasSubstr("the nearest is chat")));
  const TomlFile file("\npreset = 'summaries'\n");
  environment.environment = {{"HOME", "/home/u"}, {"TERRACE_CONFIG_FILE", file.path()}};
  EXPECT_THAT(message(environment), AllOf(HasSubstr(file.path() + ":2"), HasSubstr("one of none"),
                                          Not(HasSubstr("nearest"))));
  EXPECT_THAT(message(engine(R"({"preset":["chat"]})")), HasSubstr("setting preset (engine JSON)"));
}

TEST(PresetTest, WhereAValueCameFromIsExplained) {
  const auto loaded = load(engine(R"({"preset":"batch"})"));
  ASSERT_TRUE(loaded.has_value()) << loaded.error().message();
  const auto json = nlohmann::json::parse(effective_json(*loaded));
  EXPECT_EQ(json["settings"]["disk.admission"]["value"], "reuse");
  EXPECT_EQ(json["settings"]["disk.admission"]["level"], "preset");
  EXPECT_EQ(json["settings"]["disk.admission"]["origin"], "preset batch");
  EXPECT_EQ(json["settings"]["preset"]["origin"], "engine JSON");
  EXPECT_THAT(effective_text(*loaded), HasSubstr("  preset batch\n"));
  const std::string text = explain_text();
  const std::string page = settings_markdown();
  const auto table = nlohmann::json::parse(explain_json());
  for (const PresetValue& item : preset_values()) {
    EXPECT_THAT(text, HasSubstr(std::string(item.why)));
    EXPECT_THAT(page, HasSubstr("| `" + std::string(item.preset) + "` | `" +
                                std::string(item.name) + "` | " + std::string(item.text) + " |"));
    const auto row = std::ranges::find_if(
        table, [&](const auto& one) { return one["name"] == std::string(item.name); });
    ASSERT_NE(row, table.end());
    EXPECT_EQ((*row)["presets"][std::string(item.preset)]["value"], std::string(item.text));
  }
}

}  // namespace
}  // namespace terrace::config
