// Random sources: load() always returns, never throws, and never gives settings out of range.
// `--seed=N --rounds=N` replays or lengthens a run.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>

#include "terrace/base/file.h"
#include "terrace/base/rng.h"
#include "terrace/config/explain.h"
#include "terrace/config/load.h"
#include "terrace/config/value.h"

namespace terrace::config {
namespace {

std::uint64_t g_seed = 7;
std::uint64_t g_rounds = 20000;

std::string random_bytes(Rng& rng, std::size_t most) {
  std::string out(rng.below(most + 1), '\0');
  for (char& c : out) c = static_cast<char>(rng.next());
  return out;
}

// Pieces of which real and broken settings are made.
std::string random_piece(Rng& rng) {
  static constexpr const char* kPieces[] = {
      "{",        "}",          "[",       "]",        ":",
      ",",        "\"",         "\"\"",    "null",     "true",
      "false",    "1",          "-1",      "1e999",    "2GiB",
      "\"2GiB\"", "\"5s\"",     "0.5",     "=",        "\n",
      "#",        "[host]",     "size",    "\"host\"", "\"disk.paths\"",
      "[[x]]",    "{\"a\":",    "\\u0000", "\\ud800",  "'",
      "'''",      "1979-05-27", "inf",     "nan",      "9999999999999"};
  if (rng.chance(20)) {
    const Row& row = rows()[rng.below(rows().size())];
    return rng.chance(50) ? std::string(row.name) : fmt::format("\"{}\":", row.name);
  }
  if (rng.chance(10)) return random_bytes(rng, 8);
  return kPieces[rng.below(std::size(kPieces))];
}

std::string random_text(Rng& rng) {
  std::string out = rng.chance(60) ? "{" : "";
  for (std::uint64_t i = rng.below(24); i > 0; --i) out += random_piece(rng);
  if (rng.chance(60)) out += "}";
  return out;
}

std::string random_name(Rng& rng) {
  const Row& row = rows()[rng.below(rows().size())];
  std::string name = environment_name(row.name);
  if (rng.chance(50) && row.aliases[0].kind != AliasKind::kNone) name = row.aliases[0].name;
  if (rng.chance(20)) name.at(rng.below(name.size())) = static_cast<char>('A' + rng.below(26));
  return name;
}

void expect_in_range(const Loaded& loaded) {
  for (const Row& row : rows()) {
    const Value value = fetch_value(row, loaded.settings);
    if (row.name == "disk.paths" || row.name == "attach.directory") continue;
    const std::string text =
        row.is_secret ? std::get<std::string>(value) : format_value(row, value);
    EXPECT_TRUE(parse_value(row, text).has_value()) << row.name << " " << text;
  }
  EXPECT_FALSE(effective_json(loaded).empty());
}

TEST(LoadPropertyTest, AnySourcesGiveSettingsInRangeOrAMessage) {
  std::printf("seed %llu\n", static_cast<unsigned long long>(g_seed));
  Rng rng(g_seed);
  std::uint64_t loads = 0;
  for (std::uint64_t round = 0; round < g_rounds; ++round) {
    Sources sources;
    sources.environment["HOME"] = "/home/u";
    if (rng.chance(50)) sources.environment["TERRACE_HOST_SIZE"] = "1GiB";
    for (std::uint64_t i = rng.below(3); i > 0; --i) {
      sources.environment[random_name(rng)] = rng.chance(50) ? random_piece(rng) : "1";
    }
    if (rng.chance(70)) sources.engine_json = random_text(rng);
    if (rng.chance(10)) sources.overrides.emplace_back(random_piece(rng), random_piece(rng));
    ASSERT_NO_THROW({
      const auto loaded = load(sources);
      if (loaded.has_value()) {
        ++loads;
        expect_in_range(*loaded);
      } else {
        EXPECT_EQ(loaded.error().code(), Code::kInvalid) << loaded.error().message();
        EXPECT_FALSE(loaded.error().message().empty());
      }
    }) << "seed "
       << g_seed << " round " << round;
    if (HasFailure()) FAIL() << "seed " << g_seed << " round " << round;
  }
  EXPECT_GT(loads, g_rounds / 20) << "the sources are too broken to test anything";
}

TEST(LoadPropertyTest, AnyFileGivesSettingsOrAMessage) {
  Rng rng(g_seed + 1);
  const std::string path =
      ::testing::TempDir() + "terrace_random_" + std::to_string(random_u64()) + ".toml";
  for (std::uint64_t round = 0; round < g_rounds / 40; ++round) {
    std::string text;
    for (std::uint64_t i = rng.below(12); i > 0; --i) text += random_piece(rng);
    std::FILE* file = std::fopen(path.c_str(), "w");
    ASSERT_NE(file, nullptr);
    std::fwrite(text.data(), 1, text.size(), file);
    std::fclose(file);
    Sources sources;
    sources.environment = {{"TERRACE_CONFIG_FILE", path}, {"TERRACE_HOST_SIZE", "1GiB"}};
    ASSERT_NO_THROW({
      const auto loaded = load(sources);
      if (!loaded.has_value()) {
        EXPECT_EQ(loaded.error().code(), Code::kInvalid) << loaded.error().message();
      }
    }) << "seed "
       << g_seed + 1 << " round " << round;
  }
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace terrace::config

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], "--seed=", 7) == 0) {
      terrace::config::g_seed = std::strtoull(argv[i] + 7, nullptr, 10);
    }
    if (std::strncmp(argv[i], "--rounds=", 9) == 0) {
      terrace::config::g_rounds = std::strtoull(argv[i] + 9, nullptr, 10);
    }
  }
  return RUN_ALL_TESTS();
}
