#include "terrace/config/value.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <set>

#include "terrace/base/rng.h"
#include "terrace/config/environment.h"
#include "terrace/config/load.h"
#include "terrace/config/nearest.h"

namespace terrace::config {
namespace {

using ::testing::HasSubstr;

TEST(ValueTest, SizesTakeAllUnitsAndFractions) {
  const std::pair<const char*, std::int64_t> good[] = {{"0", 0},
                                                       {"7", 7},
                                                       {"7B", 7},
                                                       {"1KB", 1000},
                                                       {"1KiB", 1024},
                                                       {"1MB", 1'000'000},
                                                       {"1MiB", 1 << 20},
                                                       {"1GB", 1'000'000'000},
                                                       {"2GiB", 2LL << 30},
                                                       {"1TB", 1'000'000'000'000},
                                                       {"1TiB", 1LL << 40},
                                                       {"1.5GiB", 3LL << 29},
                                                       {" 2 GiB ", 2LL << 30},
                                                       {"0.1KiB", 102},
                                                       {"9223372036854775807", INT64_MAX}};
  for (const auto& [text, bytes] : good) {
    const auto parsed = parse_size(text);
    ASSERT_TRUE(parsed.has_value()) << text << parsed.error().message();
    EXPECT_EQ(*parsed, bytes) << text;
  }
  for (const char* bad :
       {"", "GiB", "-1", "1.GiB", ".5GiB", "1.2.3GiB", "1gib", "1 G", "1e3", "0x10", "1.5",
        "9223372036854775808", "99999999TiB", "1GiB2", "1.0000000001GiB"}) {
    EXPECT_FALSE(parse_size(bad).has_value()) << bad;
  }
}

TEST(ValueTest, DurationsNeedAUnitUnlessZero) {
  const std::pair<const char*, std::int64_t> good[] = {{"0", 0},
                                                       {"1ns", 1},
                                                       {"1us", 1000},
                                                       {"250ms", 250'000'000},
                                                       {"1.5s", 1'500'000'000},
                                                       {"2min", 120'000'000'000},
                                                       {"1h", 3'600'000'000'000}};
  for (const auto& [text, ns] : good) {
    ASSERT_TRUE(parse_duration(text).has_value()) << text;
    EXPECT_EQ(*parse_duration(text), ns) << text;
  }
  for (const char* bad : {"", "5", "5m", "5 seconds", "-1s", "s", "9999999999h"}) {
    EXPECT_FALSE(parse_duration(bad).has_value()) << bad;
  }
}

TEST(ValueTest, BooleansAreTheEightWordsAndNothingElse) {
  for (const char* yes : {"1", "true", "on", "yes", "True", "ON"}) EXPECT_TRUE(*parse_bool(yes));
  for (const char* no : {"0", "false", "off", "no", "False"}) EXPECT_FALSE(*parse_bool(no));
  for (const char* bad : {"", "2", "y", "enabled", "truee"})
    EXPECT_FALSE(parse_bool(bad).has_value());
}

TEST(ValueTest, TableIsWellFormed) {
  std::set<std::string> variables;
  for (const Row& row : rows()) {
    const auto value = parse_value(row, row.fallback);
    ASSERT_TRUE(value.has_value()) << row.name << " " << value.error().message();
    EXPECT_EQ(format_value(row, *value), row.fallback == "600s"   ? "10min"
                                         : row.fallback == "120s" ? "2min"
                                                                  : row.fallback)
        << row.name;
    EXPECT_TRUE(variables.insert(environment_name(row.name)).second) << row.name;
    EXPECT_FALSE(row.text.empty());
    EXPECT_TRUE(row.text.ends_with(".")) << row.name;
    EXPECT_FALSE(allowed_text(row).empty());
  }
}

TEST(ValueTest, StoredValuesComeBackFromEveryField) {
  Settings settings = defaults();
  for (const Row& row : rows()) {
    std::vector<std::string> texts = {std::string(row.fallback)};
    if (row.type == Type::kChoice) {
      for (const auto word : split_words(row.choices, '|')) texts.emplace_back(word);
    }
    if (row.type == Type::kBool) texts = {"true", "false"};
    if (row.type == Type::kPathList || row.type == Type::kPath) texts = {"/a"};
    for (const std::string& text : texts) {
      const auto value = parse_value(row, text);
      ASSERT_TRUE(value.has_value()) << row.name;
      store_value(row, *value, settings);
      EXPECT_EQ(fetch_value(row, settings), *value) << row.name << " " << text;
    }
  }
}

TEST(ValueTest, ChoicesMatchTheirEnumerators) {
  Settings settings = defaults();
  const auto set = [&settings](std::string_view name, const char* text) {
    store_value(*find_row(name), *parse_value(*find_row(name), text), settings);
  };
  set("disk.direct_at", "fcntl");
  EXPECT_EQ(settings.disk.direct_at, DirectAt::kFcntl);
  set("disk.preallocate", "zerofill");
  EXPECT_EQ(settings.disk.preallocate, Preallocate::kZerofill);
  set("disk.backend", "threads");
  EXPECT_EQ(settings.disk.backend, DiskBackend::kThreads);
  set("disk.write", "demote");
  EXPECT_EQ(settings.disk.write, DiskWrite::kDemote);
  set("offload.scope", "prompt");
  EXPECT_EQ(settings.offload.scope, OffloadScope::kPrompt);
  set("events.mode", "passthrough");
  EXPECT_EQ(settings.events.mode, EventsMode::kPassthrough);
  set("metrics.kvbm_names", "both");
  EXPECT_EQ(settings.metrics.kvbm_names, KvbmNames::kBoth);
  set("log.level", "error");
  EXPECT_EQ(settings.log.level, LogLevel::kError);
  set("parallel.mla", "load_once");
  EXPECT_EQ(settings.parallel.mla, Mla::kLoadOnce);
  set("host.huge_pages", "off");
  EXPECT_EQ(settings.host.huge_pages, AutoOff::kOff);
}

TEST(ValueTest, PrintedNumbersParseToTheSameValue) {
  constexpr std::uint64_t kSeed = 20250101;
  RecordProperty("seed", std::to_string(kSeed));
  Rng rng(kSeed);
  const Row& size = *find_row("disk.size");
  const Row& duration = *find_row("attach.timeout");
  for (int i = 0; i < 20000; ++i) {
    const auto number = static_cast<std::int64_t>(rng.next() >> (1 + rng.below(62)));
    EXPECT_EQ(*parse_size(format_value(size, number)), number) << "seed " << kSeed;
    EXPECT_EQ(*parse_duration(format_value(duration, number)), number) << "seed " << kSeed;
  }
}

TEST(ValueTest, QuotedTextsAreCutAndEscaped) {
  EXPECT_EQ(quote("a\"b\n"), "\"a\\x22b\\x0a\"");
  EXPECT_THAT(quote(std::string(200, 'x')), HasSubstr("..."));
}

TEST(NearestTest, FindsMisspellingsAndRefusesToGuess) {
  const std::string_view known[] = {"host.size", "disk.size", "disk.paths"};
  EXPECT_EQ(nearest_of("hots.size", known), "host.size");
  EXPECT_EQ(nearest_of("DISK_SIZE", known), "disk.size");
  EXPECT_EQ(nearest_of("disk.path", known), "disk.paths");
  EXPECT_EQ(nearest_of("completely.different", known), "");
  EXPECT_EQ(nearest_of(std::string(100000, 'a'), known), "");
  EXPECT_EQ(nearest_of("", known), "");
}

TEST(EnvironmentTest, ReadsOnlyWhatCanMatter) {
  const Sources sources = read_sources("{}");
  EXPECT_EQ(sources.engine_json, "{}");
  EXPECT_FALSE(sources.environment.contains("PATH"));
}

}  // namespace
}  // namespace terrace::config
