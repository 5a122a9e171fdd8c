#include "terrace/config/load.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <vector>

#include "terrace/base/file.h"
#include "terrace/base/rng.h"
#include "terrace/config/table.h"
#include "terrace/config/toml_file_rig.h"

namespace terrace::config {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

Sources engine(std::string json) {
  Sources sources;
  sources.environment["HOME"] = "/home/u";
  sources.engine_json = std::move(json);
  return sources;
}
Sources environment(std::string name, std::string text) {
  Sources sources = engine("");
  sources.environment.insert_or_assign(std::move(name), std::move(text));
  return sources;
}
std::string error_of(const Sources& sources) {
  const auto loaded = load(sources);
  if (loaded.has_value()) return "(loaded)";
  EXPECT_EQ(loaded.error().code(), Code::kInvalid);
  return loaded.error().message();
}

TEST(LoadTest, DefaultsOfTheTableFillWhatNobodySets) {
  const auto loaded = load(engine(R"({"host.size":"2GiB"})"));
  ASSERT_TRUE(loaded.has_value()) << loaded.error().message();
  const Settings& settings = loaded->settings;
  EXPECT_EQ(settings.host.size, 2_GiB);
  EXPECT_EQ(settings.disk.admission, "all");
  EXPECT_EQ(settings.lookup.deadline, seconds(2));
  EXPECT_EQ(settings.attach.lookup_wait, seconds(5));
  EXPECT_EQ(settings.attach.step_timeout, seconds(600));
  EXPECT_DOUBLE_EQ(settings.lookup.pin_share, 0.5);
  EXPECT_TRUE(settings.disk.direct);
  EXPECT_EQ(settings.log.level, LogLevel::kInfo);
  EXPECT_FALSE(settings.disk.is_used());
  EXPECT_EQ(loaded->origins.at("host.size").text, "engine JSON");
  EXPECT_EQ(loaded->origins.at("disk.size").text, "default");
  EXPECT_THAT(loaded->warnings, IsEmpty());
  EXPECT_THAT(loaded->notes, IsEmpty());
}

TEST(LoadTest, FlatAndNestedJsonMeanTheSame) {
  const auto flat = load(engine(R"({"disk.size":"8GiB","disk.paths":["/a","/b"],"disk.depth":3})"));
  const auto nested =
      load(engine(R"({"disk":{"size":8589934592,"paths":["/a","/b/"],"depth":"3"}})"));
  ASSERT_TRUE(flat.has_value() && nested.has_value());
  for (const auto* loaded : {&*flat, &*nested}) {
    EXPECT_EQ(loaded->settings.disk.size, 8_GiB);
    EXPECT_THAT(loaded->settings.disk.paths, ::testing::ElementsAre("/a", "/b"));
    EXPECT_EQ(loaded->settings.disk.depth, 3U);
  }
}

TEST(LoadTest, EachSourceOverridesTheOnesBelowIt) {
  const TomlFile file("[disk]\nthreads = 1\ndepth = 1\nqueue = 1\n[host]\nsize = '1GiB'\n");
  Sources sources = engine(R"({"disk.depth":3,"disk.queue":3})");
  sources.environment["TERRACE_CONFIG_FILE"] = file.path();
  sources.environment["TERRACE_DISK_THREADS"] = "2";
  sources.environment["TERRACE_DISK_DEPTH"] = "2";
  sources.environment["TERRACE_DISK_QUEUE"] = "2";
  sources.overrides = {{"disk.queue", "4"}};
  const auto loaded = load(sources);
  ASSERT_TRUE(loaded.has_value()) << loaded.error().message();
  EXPECT_EQ(loaded->settings.host.size, 1_GiB);
  EXPECT_EQ(loaded->origins.at("host.size").text, file.path() + ":6");
  EXPECT_EQ(loaded->settings.disk.threads, 2U);
  EXPECT_EQ(loaded->origins.at("disk.threads").text, "environment TERRACE_DISK_THREADS");
  EXPECT_EQ(loaded->settings.disk.depth, 3U);
  EXPECT_EQ(loaded->settings.disk.queue, Blocks(4));
  EXPECT_EQ(loaded->origins.at("disk.queue").text, "command line");
}

TEST(LoadTest, EngineSettingsMayNameTheFile) {
  const TomlFile file("host.size = '3GiB'\n");
  const auto loaded = load(engine(R"({"config.file":")" + file.path() + R"("})"));
  ASSERT_TRUE(loaded.has_value()) << loaded.error().message();
  EXPECT_EQ(loaded->settings.host.size, 3_GiB);
}

TEST(LoadTest, UnknownSettingIsRefusedWithTheNearestName) {
  EXPECT_THAT(error_of(engine(R"({"hots.size":"2GiB"})")),
              AllOf(HasSubstr("unknown setting \"hots.size\" (engine JSON)"),
                    HasSubstr("did you mean host.size?")));
  EXPECT_THAT(error_of(environment("TERRACE_HOST_SISE", "2GiB")),
              AllOf(HasSubstr("TERRACE_HOST_SISE"), HasSubstr("did you mean TERRACE_HOST_SIZE?")));
  // What all names begin with makes none of them near.
  EXPECT_THAT(error_of(environment("TERRACE_HOST", "1GiB")), Not(HasSubstr("did you mean")));
  const TomlFile file("[host]\n\nsizes = '1GiB'\n");
  EXPECT_THAT(error_of(environment("TERRACE_CONFIG_FILE", file.path())),
              AllOf(HasSubstr("\"host.sizes\" (" + file.path() + ":3)"),
                    HasSubstr("did you mean host.size?")));
  EXPECT_THAT(error_of(engine(R"({"qqqqqqqqqqqq":1})")),
              HasSubstr("`terrace config --explain` lists all settings"));
}

TEST(LoadTest, MalformedValueNamesSettingSourceValueAndWhatIsAllowed) {
  EXPECT_THAT(error_of(engine(R"({"host.size":"2Gib"})")),
              AllOf(HasSubstr("setting host.size (engine JSON): \"2Gib\""), HasSubstr("\"Gib\""),
                    HasSubstr("GiB"), HasSubstr("a size from 1MiB to 1024TiB, or 0")));
  EXPECT_THAT(error_of(environment("TERRACE_LOOKUP_DEADLINE", "2")),
              AllOf(HasSubstr("lookup.deadline (environment TERRACE_LOOKUP_DEADLINE): \"2\""),
                    HasSubstr("has no unit"), HasSubstr("set TERRACE_LOOKUP_DEADLINE to")));
  const TomlFile file("disk.write = 'sometimes'\n");
  EXPECT_THAT(error_of(environment("TERRACE_CONFIG_FILE", file.path())),
              AllOf(HasSubstr("disk.write (" + file.path() + ":1)"), HasSubstr("\"sometimes\""),
                    HasSubstr("one of through, demote")));
}

// Letters that are no part of a value, of each range in which some character is a blank.
TEST(LoadTest, AnAccentWhereABlankCouldStandIsRefused) {
  for (const char* letter :
       {"\xcc\xa7", "\xc3\xa9", "\xe1\x9a\x81", "\xe2\x98\x83", "\xe3\x80\x81", "\xef\xbb\xbe"}) {
    const TomlFile file(std::string("disk.depth = 3") + letter + "\n");
    EXPECT_THAT(error_of(environment("TERRACE_CONFIG_FILE", file.path())),
                HasSubstr(file.path() + ":1"))
        << letter;
  }
}

TEST(LoadTest, OutOfRangeIsRefused) {
  EXPECT_THAT(error_of(engine(R"({"disk.depth":0})")), HasSubstr("is out of range"));
  EXPECT_THAT(error_of(engine(R"({"disk.depth":1025})")), HasSubstr("from 1 to 1024"));
  EXPECT_THAT(error_of(engine(R"({"host.size":2})")), HasSubstr("is out of range"))
      << "2 bytes are a forgotten unit";
  EXPECT_THAT(error_of(engine(R"({"lookup.pin_share":1.5})")), HasSubstr("from 0.01 to 0.95"));
  EXPECT_THAT(error_of(engine(R"({"disk.depth":-1})")), HasSubstr("is negative"));
  EXPECT_THAT(error_of(environment("TERRACE_METRICS_PORT", "65536")), HasSubstr("65535"));
}

TEST(LoadTest, JsonTypesThatDoNotFitAreRefused) {
  EXPECT_THAT(error_of(engine(R"({"host.size":true})")), HasSubstr("true is a boolean"));
  EXPECT_THAT(error_of(engine(R"({"host.size":null})")),
              AllOf(HasSubstr("\"host.size\" (engine JSON) is null"),
                    HasSubstr("leave it out for its default, or give a size")));
  EXPECT_THAT(error_of(engine(R"({"host":{"sice":null}})")), HasSubstr("is null; leave it out"));
  EXPECT_THAT(error_of(engine(R"({"host.size":["2GiB"]})")), HasSubstr("is a list"));
  EXPECT_THAT(error_of(engine(R"({"disk.depth":1.5})")), HasSubstr("is not a whole number"));
  EXPECT_THAT(error_of(engine(R"({"disk.paths":[1]})")), HasSubstr("\"disk.paths\""));
  EXPECT_THAT(error_of(engine(R"({"disk.paths":[["/a"]]})")), HasSubstr("list in its list"));
  EXPECT_THAT(error_of(engine(R"({"disk.write":1})")), HasSubstr("where a text is expected"));
  EXPECT_THAT(error_of(engine(R"({"disk.paths":"rel/ative"})")), HasSubstr("absolute path"));
  EXPECT_THAT(error_of(engine(R"({"disk.paths":["/a","/a/"]})")), HasSubstr("names \"/a/\" twice"));
  EXPECT_THAT(error_of(engine(R"({"disk.paths":["/a/b","/.//a/./b/."]})")),
              HasSubstr("names \"/.//a/./b/.\" twice"));
  EXPECT_THAT(error_of(engine(R"({"disk.paths":["/a/b/c","/x","/a//b"]})")),
              HasSubstr("names \"/a/b\" and, inside it, \"/a/b/c\""));
  EXPECT_THAT(error_of(environment("TERRACE_DISK_PATHS", "/,/a")),
              HasSubstr("names \"/\" and, inside it, \"/a\""));
  EXPECT_TRUE(load(engine(R"({"disk.size":"8GiB","disk.paths":["/a/b","/a/bc","/a/.b"]})")));
}

TEST(LoadTest, BrokenSourcesAreRefusedWithTheirPlace) {
  EXPECT_THAT(error_of(engine(R"({"host.size")")),
              HasSubstr("engine JSON: not valid JSON at byte"));
  EXPECT_THAT(error_of(engine("[1]")), HasSubstr("is a list, not an object"));
  EXPECT_THAT(error_of(engine("3")), HasSubstr("is not an object"));
  EXPECT_THAT(error_of(engine(R"({"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":{"a":1}}}}}}}}})")),
              HasSubstr("is nested too deeply"));
  EXPECT_THAT(error_of(engine(std::string(2U << 20U, ' ') + "{}")), HasSubstr("bytes are more"));
  const TomlFile file("host.size = '1GiB'\nwhat now\n");
  EXPECT_THAT(error_of(environment("TERRACE_CONFIG_FILE", file.path())),
              AllOf(HasSubstr(file.path() + ":2: not valid TOML")));
  const TomlFile tables("[[host]]\nsize = '1GiB'\n");
  EXPECT_THAT(error_of(environment("TERRACE_CONFIG_FILE", tables.path())),
              HasSubstr("is a list of tables: write [host], not [[host]]"));
  std::string deep;
  while (deep.size() < 1'000'000) deep += "a.";
  for (const std::string& text : {deep + "a = 1\n", "[" + deep + "a]\nb = 1\n"}) {
    const TomlFile nested(text);
    EXPECT_THAT(error_of(environment("TERRACE_CONFIG_FILE", nested.path())),
                AllOf(HasSubstr(nested.path()), HasSubstr("nested too deeply")));
  }
  EXPECT_THAT(error_of(environment("TERRACE_CONFIG_FILE", "/nonexistent/t.toml")),
              AllOf(HasSubstr("setting config.file (environment TERRACE_CONFIG_FILE)"),
                    HasSubstr("ENOENT"), HasSubstr("name a readable TOML file")));
  const std::string pipe = ::testing::TempDir() + "settings-pipe" + std::to_string(::getpid());
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);  // Would be waited for, at the engine's start.
  EXPECT_THAT(error_of(environment("TERRACE_CONFIG_FILE", pipe)),
              AllOf(HasSubstr("setting config.file"), HasSubstr(pipe + ": it is a named pipe"),
                    HasSubstr("name a readable TOML file")));
  std::filesystem::remove(pipe);
  const TomlFile loop("config.file = '/x'\n");
  EXPECT_THAT(error_of(environment("TERRACE_CONFIG_FILE", loop.path())),
              HasSubstr("a file cannot name another"));
}

TEST(LoadTest, OneSourceThatSaysTwoThingsIsRefused) {
  EXPECT_THAT(error_of(engine(R"({"host.size":"1GiB","host":{"size":"2GiB"}})")),
              AllOf(HasSubstr("host.size"), HasSubstr("1GiB"), HasSubstr("2GiB")));
  EXPECT_THAT(error_of(engine(R"({"host.size":"1GiB","host.size":"2GiB"})")),
              HasSubstr("keep one of them"));
}

TEST(LoadTest, AllProblemsAreToldAtOnceAndBounded) {
  const std::string error = error_of(engine(R"({"host.size":"x","disk.size":"y"})"));
  EXPECT_THAT(error, AllOf(HasSubstr("host.size"), HasSubstr("disk.size")));
  std::string many = "{";
  for (int i = 0; i < 1000; ++i) many += "\"u" + std::to_string(i) + "\":1,";
  many.back() = '}';
  EXPECT_THAT(error_of(engine(many)), HasSubstr("and 984 more problems"));
}

TEST(LoadTest, NoTierIsAnErrorThatNamesBothSizes) {
  for (const Sources& sources : {engine(""), engine(R"({"host.size":0,"disk.size":"0"})"),
                                 environment("DYN_KVBM_CPU_CACHE_GB", "0")}) {
    EXPECT_THAT(error_of(sources), AllOf(HasSubstr("host.size"), HasSubstr("disk.size"),
                                         HasSubstr("TERRACE_HOST_SIZE"), Not(HasSubstr("object"))));
  }
}

TEST(LoadTest, DiskWithoutHostIsStagingOnly) {
  const auto loaded = load(engine(R"({"disk.size":"8GiB"})"));
  ASSERT_TRUE(loaded.has_value());
  EXPECT_TRUE(loaded->settings.host.is_staging);
  EXPECT_EQ(loaded->settings.host.staging, 256_MiB);
  const auto both = load(engine(R"({"disk.size":"8GiB","host.blocks":9})"));
  ASSERT_TRUE(both.has_value());
  EXPECT_FALSE(both->settings.host.is_staging);
}

TEST(LoadTest, DiskSmallerThanHostIsAWarningWithTheNumbers) {
  const auto loaded = load(engine(R"({"disk.size":"1GiB","host.size":"2GiB"})"));
  ASSERT_TRUE(loaded.has_value());
  EXPECT_THAT(loaded->warnings,
              Contains(AllOf(HasSubstr("disk.size 1GiB"), HasSubstr("host.size 2GiB"))));
  const auto blocks = load(engine(R"({"disk.blocks":1,"host.blocks":2})"));
  ASSERT_TRUE(blocks.has_value());
  EXPECT_THAT(blocks->warnings, Contains(HasSubstr("disk.blocks 1")));
}

TEST(LoadTest, DirectoriesWithoutASizeAreRefusedByBothNames) {
  for (const char* tier : {R"("host.size":"1GiB",)", ""}) {
    EXPECT_THAT(error_of(engine(std::string("{") + tier + R"("disk.paths":["/a"]})")),
                AllOf(HasSubstr("settings disk.paths (engine JSON), disk.size: "),
                      HasSubstr("TERRACE_DISK_SIZE")));
  }
  EXPECT_TRUE(load(engine(R"({"host.size":"1GiB","disk.paths":["/a"],"disk.size":0})")));
  EXPECT_TRUE(load(engine(R"({"disk.paths":["/a"],"disk.blocks":9})")));
  Sources kvbm = engine(R"({"host.size":"1GiB"})");  // As its images have it.
  kvbm.environment["DYN_KVBM_DISK_CACHE_DIR"] = "/a";
  const auto loaded = load(kvbm);
  ASSERT_TRUE(loaded.has_value()) << loaded.error().message();
  EXPECT_THAT(loaded->warnings, Contains(HasSubstr("DYN_KVBM_DISK_CACHE_DIR), disk.size")));
}

TEST(LoadTest, WaitsInTheWrongOrderAreRefusedByBothNames) {
  const std::string waits = R"({"host.size":"1GiB","attach.lookup_wait":"9s","attach.timeout":)";
  EXPECT_THAT(error_of(engine(waits + R"("8s"})")),
              AllOf(HasSubstr("settings attach.lookup_wait (engine JSON), attach.timeout (engine "
                              "JSON): "),
                    HasSubstr("wait 9s"), HasSubstr("after 8s"),
                    HasSubstr("at most attach.timeout"), HasSubstr("raise attach.timeout")));
  EXPECT_TRUE(load(engine(waits + R"("9s"})")));
  // The other one nobody chose: it is the shorter one that ends the waiting.
  EXPECT_TRUE(load(engine(R"({"host.size":"1GiB","attach.timeout":"1s"})")));
}

TEST(LoadTest, AWaitLongerThanTheDefaultLimitIsRefusedAndTheDefaultIsSaidToBeOne) {
  const std::string wait = R"({"host.size":"1GiB","attach.lookup_wait":)";
  EXPECT_THAT(
      error_of(engine(wait + R"("121s"})")),
      AllOf(HasSubstr("settings attach.lookup_wait (engine JSON), attach.timeout (default)"),
            HasSubstr("wait 121s"), HasSubstr("after 2min"), HasSubstr("raise attach.timeout")));
  EXPECT_TRUE(load(engine(wait + R"("120s"})")));
  EXPECT_TRUE(load(engine(wait + R"("121s","attach.timeout":"200s"})")));
  Sources kvbm = engine(wait + R"("121s"})");  // The limit as its images have it.
  kvbm.environment["DYN_KVBM_LEADER_WORKER_INIT_TIMEOUT_SECS"] = "100";
  const auto loaded = load(kvbm);
  ASSERT_TRUE(loaded.has_value()) << loaded.error().message();
  EXPECT_THAT(loaded->warnings, Contains(AllOf(HasSubstr("TIMEOUT_SECS): requests"),
                                               HasSubstr("wait 121s"), HasSubstr("after 100s"))));
  EXPECT_EQ(loaded->settings.attach.timeout, seconds(100));
}

TEST(LoadTest, ADiskThatNobodyWaitsForIsAWarning) {
  const std::string never = R"("host.size":"1GiB","lookup.deadline":"0s"})";
  const auto loaded = load(engine(R"({"disk.size":"2GiB",)" + never));
  ASSERT_TRUE(loaded.has_value());
  EXPECT_THAT(loaded->warnings, Contains(HasSubstr("lookup.deadline (engine JSON) is 0s: ")));
  const auto host = load(engine("{" + never));
  ASSERT_TRUE(host.has_value());
  EXPECT_THAT(host->warnings, IsEmpty());
}

TEST(LoadTest, WhatAnotherSettingMakesUselessIsSaidWithBothNames) {
  const std::vector<std::array<std::string, 3>> pairs = {
      {R"("host.staging":"64MiB")", "host.staging (engine JSON)", "host.size"},
      {R"("disk.direct_at":"fcntl","disk.direct":false)", "disk.direct_at", "disk.direct = true"},
      {R"("disk.admission_threshold":3)", "disk.admission_threshold", "disk.admission = frequency"},
      {R"("disk.admission_decay":"9s")", "disk.admission_decay", "disk.admission = frequency"},
      {R"("disk.admission_entries":9999)", "disk.admission_entries", "disk.admission = frequency"},
      {R"("disk.admission_loss":1,"disk.admission":"reuse")", "disk.admission_loss",
       "disk.admission = expected"},
      {R"("disk.admission_threshold":3,"disk.admission":"reuse")", "disk.admission_threshold",
       "disk.admission is reuse"},
      {R"("disk.threads":3,"disk.backend":"io_uring")", "disk.threads", "disk.backend"},
      {R"("object.size":"1GiB")", "object.size", "object.path"},
      {R"("object.max_age":"24h")", "object.max_age", "object.path"},
      {R"("object.admission":"frequency")", "object.admission", "object.path"},
      {R"("object.promote":false)", "object.promote", "object.path"},
      {R"("object.gc_every":"2h","object.path":"/kv")", "object.gc_every", "object.max_age"},
      {R"("disk.backend":"threads","disk.backend_library":"/x.so")", "disk.backend",
       "disk.backend_library"}};
  for (const auto& [given, name, other] : pairs) {
    const auto loaded = load(engine(R"({"host.size":"1GiB","disk.size":"2GiB",)" + given + "}"));
    ASSERT_TRUE(loaded.has_value()) << loaded.error().message();
    EXPECT_THAT(loaded->warnings,
                ::testing::ElementsAre(AllOf(HasSubstr("setting " + name), HasSubstr(other),
                                             HasSubstr("has no effect"))));
  }
  const auto fine = load(engine(R"({"disk.size":"2GiB","host.staging":"64MiB","disk.threads":3,
      "disk.direct_at":"fcntl","disk.admission":"frequency","disk.admission_threshold":3,
      "object.path":"/kv","object.max_age":"24h","object.gc_every":"2h","object.promote":false})"));
  ASSERT_TRUE(fine.has_value()) << fine.error().message();
  EXPECT_THAT(fine->warnings, IsEmpty());
  const auto reuse = load(
      engine(R"({"disk.size":"2GiB","disk.admission":"reuse","disk.admission_entries":2000})"));
  ASSERT_TRUE(reuse.has_value()) << reuse.error().message();
  EXPECT_THAT(reuse->warnings, IsEmpty());
  const auto expected =
      load(engine(R"({"disk.size":"2GiB","disk.admission":"expected","disk.admission_loss":1.5})"));
  ASSERT_TRUE(expected.has_value()) << expected.error().message();
  EXPECT_THAT(expected->warnings, IsEmpty());
}

TEST(LoadTest, DirectoriesFollowTheUsersEnvironment) {
  Sources sources = engine(R"({"disk.size":"8GiB"})");
  sources.user_id = 1234;
  auto loaded = load(sources);
  ASSERT_TRUE(loaded.has_value());
  EXPECT_THAT(loaded->settings.disk.paths, ::testing::ElementsAre("/home/u/.cache/terrace"));
  EXPECT_EQ(loaded->settings.attach.directory, "/tmp/terrace-1234");
  sources.environment["XDG_CACHE_HOME"] = "/xc";
  sources.environment["XDG_RUNTIME_DIR"] = "/run/user/1234";
  loaded = load(sources);
  ASSERT_TRUE(loaded.has_value());
  EXPECT_THAT(loaded->settings.disk.paths, ::testing::ElementsAre("/xc/terrace"));
  EXPECT_EQ(loaded->settings.attach.directory, "/run/user/1234/terrace");
  sources.environment["XDG_RUNTIME_DIR"] = "/" + std::string(70, 'r');
  loaded = load(sources);
  ASSERT_TRUE(loaded.has_value());
  EXPECT_EQ(loaded->settings.attach.directory, "/tmp/terrace-1234")
      << "a socket's path ends at 107 bytes";
  sources.environment.erase("XDG_CACHE_HOME");
  sources.environment.erase("HOME");
  EXPECT_THAT(error_of(sources), AllOf(HasSubstr("disk.paths"), HasSubstr("TERRACE_DISK_PATHS")));
}

// Who writes an empty list does not mean the directory of the one who writes nothing.
TEST(LoadTest, AnEmptyListOfPathsIsRefusedNotReplaced) {
  const auto says_why = AllOf(HasSubstr("the list is empty; name a directory"),
                              HasSubstr("leave the setting out for $XDG_CACHE_HOME/terrace"));
  EXPECT_THAT(error_of(engine(R"({"disk.size":"8GiB","disk.paths":[]})")),
              AllOf(HasSubstr("setting disk.paths (engine JSON)"), says_why));
  Sources sources = environment("TERRACE_DISK_PATHS", "");
  sources.environment["TERRACE_DISK_SIZE"] = "8GiB";
  EXPECT_THAT(error_of(sources),
              AllOf(HasSubstr("setting disk.paths (environment TERRACE_DISK_PATHS)"), says_why));
  EXPECT_TRUE(load(engine(R"({"host.size":"8GiB","disk.paths":[]})"))) << "no disk tier, no paths";
}

TEST(LoadTest, ABucketNeedsItsAddressAndCredentials) {
  EXPECT_THAT(error_of(engine(R"({"host.size":"1GiB","object.enabled":true})")),
              AllOf(HasSubstr("setting object.bucket: object.enabled needs it"),
                    HasSubstr("setting object.endpoint"),
                    HasSubstr("settings object.access_key, object.credentials_file")));
  const std::string whole =
      R"({"host.size":"1GiB","object.enabled":true,"object.bucket":"kv","object.access_key":"a",)";
  EXPECT_TRUE(load(engine(whole + R"("object.endpoint":"https://s3:9000"})")));
  EXPECT_THAT(error_of(engine(whole + R"("object.endpoint":"s3:9000"})")),
              AllOf(HasSubstr("object.endpoint"), HasSubstr("begin with http:// or https://")));
  EXPECT_THAT(error_of(engine(whole + R"("object.endpoint":"http://s3","object.path":"/mnt/kv"})")),
              HasSubstr("settings object.path, object.enabled: one owner has one shared store"));
  EXPECT_TRUE(load(engine(R"({"host.size":"1GiB","object.path":"/mnt/kv"})")));
}

TEST(LoadTest, WhatIsNotBuiltIsSaid) {
  const auto loaded = load(engine(R"({"host.size":"1GiB","trace.record":true})"));
  ASSERT_TRUE(loaded.has_value());
  EXPECT_THAT(loaded->warnings,
              Contains(AllOf(HasSubstr("trace.record (engine JSON)"), HasSubstr("not built"))));
}

TEST(LoadTest, APortIsOffByDefaultAndOneThatIsOffIsTold) {
  const auto loaded = load(engine(R"({"host.size":"1GiB"})"));
  ASSERT_TRUE(loaded.has_value());
  EXPECT_FALSE(loaded->settings.metrics.enabled);
  EXPECT_EQ(loaded->settings.metrics.port, 6880U);
  EXPECT_EQ(loaded->settings.metrics.address, "127.0.0.1");
  const auto useless = load(engine(R"({"host.size":"1GiB","metrics.port":7000})"));
  ASSERT_TRUE(useless.has_value());
  EXPECT_THAT(useless->warnings,
              Contains(AllOf(HasSubstr("metrics.port"), HasSubstr("metrics.enabled is false"))));
}

TEST(LoadTest, AnAddressIsInFigures) {
  for (const std::string wrong : {"localhost", "", "127.0.0.1:80", "[::1]", "256.0.0.1"}) {
    const std::string json = R"({"host.size":"1GiB","metrics.address":")" + wrong + "\"}";
    EXPECT_THAT(error_of(engine(json)),
                AllOf(HasSubstr("metrics.address (engine JSON)"), HasSubstr("such as 127.0.0.1")));
  }
  for (const std::string right : {"0.0.0.0", "::1", "::", "192.168.1.2"}) {
    const std::string json = R"({"host.size":"1GiB","metrics.address":")" + right + "\"}";
    EXPECT_TRUE(load(engine(json))) << right;
  }
}

TEST(LoadTest, WhoObservesNeedsNoTier) {
  EXPECT_TRUE(load(engine(R"({"mode":"observe"})")));
  EXPECT_TRUE(load(engine(R"({"mode":"observe","host.size":"1GiB"})")));
  EXPECT_FALSE(load(engine(R"({"mode":"on"})")));
}

TEST(LoadTest, SecretsAreNotRepeatedInMessages) {
  const std::string error = error_of(engine("{\"object.secret_key\":\"s3cr\\u0001t\"}"));
  EXPECT_THAT(error, AllOf(HasSubstr("object.secret_key"), Not(HasSubstr("s3cr"))));
  Sources two = environment("DYN_KVBM_OBJECT_SECRET_KEY", "s3crA");
  two.environment["TERRACE_OBJECT_SECRET_KEY"] = "s3crB";
  EXPECT_THAT(error_of(two), AllOf(HasSubstr("TERRACE_OBJECT_SECRET_KEY"), Not(HasSubstr("s3cr"))));
}

TEST(LoadTest, ToolVariablesAreNotSettings) {
  Sources sources = engine(R"({"host.size":"1GiB"})");
  sources.environment["TERRACE_LIBRARY"] = "/x/libterrace.so";
  sources.environment["TERRACE_PROGRAM"] = "/x/terrace";
  sources.environment["TERRACE_CACHE_DIR"] = "/x";
  EXPECT_TRUE(load(sources).has_value());
}

TEST(LoadTest, TheKeyItselfComesFromTheEnvironmentAloneAndIsNeverShown) {
  const std::string key(64, '5');
  // So many fives that no name of a temporary file has as many.
  const auto refuses = AllOf(HasSubstr("encryption.key"), HasSubstr("TERRACE_ENCRYPTION_KEY"),
                             HasSubstr("encryption.key_file"), Not(HasSubstr("5555555555")));
  EXPECT_THAT(error_of(engine(R"({"host.size":"1GiB","encryption.key":")" + key + "\"}")), refuses);
  const TomlFile file("[encryption]\nkey = \"" + key + "\"\n");
  EXPECT_THAT(error_of(environment("TERRACE_CONFIG_FILE", file.path())), refuses);
  Sources sources = engine(R"({"disk.size":"1GiB"})");
  sources.environment["TERRACE_ENCRYPTION_KEY"] = key;
  const auto loaded = load(sources);
  ASSERT_TRUE(loaded.has_value()) << loaded.error().message();
  EXPECT_EQ(loaded->settings.encryption.key, key);
  sources.environment["TERRACE_ENCRYPTION_KEY_FILE"] = "/etc/key";
  EXPECT_THAT(error_of(sources), AllOf(HasSubstr("keep one"), Not(HasSubstr("5555555555"))));
}

TEST(LoadTest, OldKeysAloneEncryptNothingSoTheyAreRefused) {
  EXPECT_THAT(error_of(engine(R"({"disk.size":"1GiB","encryption.old_key_files":["/etc/old"]})")),
              AllOf(HasSubstr("encryption.old_key_files"), HasSubstr("encryption.key_file")));
  const auto loaded = load(engine(R"({"disk.size":"1GiB","encryption.accept_plain":true})"));
  ASSERT_TRUE(loaded.has_value());
  EXPECT_THAT(loaded->warnings, Contains(HasSubstr("encryption.accept_plain")));
  const auto no_tier = load(engine(R"({"host.size":"1GiB","encryption.key_file":"/etc/key"})"));
  ASSERT_TRUE(no_tier.has_value());
  EXPECT_THAT(no_tier->warnings, Contains(HasSubstr("encryption.key_file")));
}

}  // namespace
}  // namespace terrace::config
