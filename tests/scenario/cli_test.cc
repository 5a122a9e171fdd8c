// The `terrace` command as people start it: what it prints, where, and its exit codes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "scenario/cli_run.h"
#include "terrace/base/rng.h"

namespace terrace {
namespace {

using scenario::Ran;
using scenario::terrace_command;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

TEST(CliTest, VersionSaysTheVersionAndTheAbi) {
  const Ran ran = terrace_command("version");
  EXPECT_EQ(ran.code, 0);
  EXPECT_THAT(ran.out, AllOf(StartsWith("terrace "), HasSubstr("(C ABI 1)")));
  const auto json = nlohmann::json::parse(terrace_command("version --json").out);
  EXPECT_EQ(json["abi"], 1);
  const Ran flag = terrace_command("--version");
  EXPECT_EQ(flag.code, 0);
  EXPECT_EQ(flag.out, ran.out);
}

TEST(CliTest, AWordThatIsNoSubCommandIsNamedAndTheyAreListed) {
  const Ran ran = terrace_command("bogus --json");
  EXPECT_EQ(ran.code, 2);
  EXPECT_THAT(ran.out, IsEmpty());
  EXPECT_THAT(ran.error,
              AllOf(HasSubstr("'bogus'"), HasSubstr("\n  config "), HasSubstr("\n  metrics "),
                    HasSubstr("\n  inspect "), HasSubstr("\n  version ")));
}

TEST(CliTest, ConfigPrintsEffectiveValuesAndTheirSources) {
  const Ran ran = terrace_command("config --json --set disk.size=8GiB",
                                  "HOME=/home/u TERRACE_LOG_LEVEL=warn DYN_KVBM_CPU_CACHE_GB=2");
  ASSERT_EQ(ran.code, 0) << ran.error;
  const auto json = nlohmann::json::parse(ran.out);
  EXPECT_EQ(json["settings"]["host.size"]["value"], "2GB");
  EXPECT_EQ(json["settings"]["host.size"]["origin"], "environment DYN_KVBM_CPU_CACHE_GB");
  EXPECT_EQ(json["settings"]["disk.size"]["level"], "command line");
  EXPECT_EQ(json["settings"]["log.level"]["value"], "warn");
}

TEST(CliTest, ConfigReadsAFileAndTheEnginesJson) {
  const std::string path =
      ::testing::TempDir() + "terrace_cli_" + std::to_string(random_u64()) + ".toml";
  std::ofstream(path) << "[host]\nsize = '1GiB'\n[disk]\ndepth = 5\n";
  const Ran ran =
      terrace_command("config --json --file " + path + " --engine '{\"disk.depth\":6}'");
  std::filesystem::remove(path);
  ASSERT_EQ(ran.code, 0) << ran.error;
  const auto json = nlohmann::json::parse(ran.out);
  EXPECT_EQ(json["settings"]["host.size"]["origin"], path + ":2");
  EXPECT_EQ(json["settings"]["disk.depth"]["value"], "6");
}

TEST(CliTest, RefusedSettingsGoToStandardErrorWithCodeOne) {
  const Ran ran = terrace_command("config", "HOME=/home/u TERRACE_HOTS_SIZE=2GiB");
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.out, IsEmpty());
  EXPECT_THAT(ran.error, AllOf(StartsWith("terrace config: the settings are refused\n"),
                               HasSubstr("TERRACE_HOTS_SIZE"), HasSubstr("TERRACE_HOST_SIZE?")));
}

TEST(CliTest, ExplainNeedsNoSettingsAndListsThemAll) {
  const Ran ran = terrace_command("config --explain");
  EXPECT_EQ(ran.code, 0);
  EXPECT_THAT(ran.out,
              AllOf(HasSubstr("host.size  (size, default 0)"), HasSubstr("TERRACE_DISK_DIRECT_AT"),
                    HasSubstr("DYN_KVBM_CPU_CACHE_GB")));
  EXPECT_GT(nlohmann::json::parse(terrace_command("config --explain --json").out).size(), 50U);
}

TEST(CliTest, MetricsListNamesThemAndKvbms) {
  const Ran ran = terrace_command("metrics --list");
  EXPECT_EQ(ran.code, 0);
  EXPECT_THAT(ran.out, HasSubstr("terrace_hit_tokens_total{tier}"));
  const auto json = nlohmann::json::parse(terrace_command("metrics --list --json").out);
  EXPECT_EQ(json["kvbm"][0]["name"], "matched_tokens");
}

TEST(CliTest, MisunderstoodCommandLineIsCodeTwo) {
  EXPECT_EQ(terrace_command("").code, 2);
  EXPECT_EQ(terrace_command("config --bogus").code, 2);
  EXPECT_EQ(terrace_command("nonsense").code, 2);
  const Ran ran = terrace_command("config --set host.size");
  EXPECT_EQ(ran.code, 2);
  EXPECT_THAT(ran.error, HasSubstr("give name=value"));
  EXPECT_EQ(terrace_command("--help").code, 0);
}

TEST(CliTest, SecretsStayHidden) {
  const Ran ran = terrace_command("config --set host.size=1GiB",
                                  "HOME=/home/u TERRACE_OBJECT_SECRET_KEY=s3cret");
  EXPECT_EQ(ran.code, 0) << ran.error;
  EXPECT_THAT(ran.out, AllOf(HasSubstr("<hidden>"), Not(HasSubstr("s3cret"))));
}

}  // namespace
}  // namespace terrace
