#include "terrace/cli/top_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

namespace terrace::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

using Json = nlohmann::ordered_json;

Json status() {
  return {
      {"engine", "vllm-0"},
      {"process", 77},
      {"health", "green"},
      {"mode", "on"},
      {"ready", true},
      {"uptime_seconds", 100},
      {"requests", 50},
      {"active_requests", 3},
      {"prompt_tokens", 100'000},
      {"engine_tokens", 20'000},
      {"prefill_tokens_per_second", 14'100.0},
      {"hit_tokens", {{"host", 30'000}, {"disk", 5'000}}},
      {"miss_blocks", {{"never_stored", 2'000}, {"late", 0}}},
      {"loads", 40},
      {"failed_loads", 1},
      {"slow_loads", 2},
      {"abandoned_loads", 0},
      {"tiers",
       {{{"tier", "host"},
         {"state", "open"},
         {"slots", {{"free", 25}, {"sealed", 75}, {"pinned", 9}}}},
        {{"tier", "disk"}, {"state", "off"}},
        {{"tier", "object"}, {"state", "open"}, {"detail", "s3://b"}, {"slots", {{"free", 0}}}}}},
      {"queues",
       {{{"name", "disk_read"}, {"waiting", 0}, {"dropped", 0}},
        {{"name", "disk_write"}, {"waiting", 12}, {"dropped", 3}}}}};
}

void expect_columns(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(line.size(), 79U) << line;
    for (const char c : line) EXPECT_TRUE(c >= 0x20 && c < 0x7F) << line;
  }
}

TEST(TopTextTest, ShowsRatesSharesTiersMissesAndQueues) {
  const std::string text = top_text({{.name = "engine vllm-0", .status = status().dump()}}, 5, 9);
  EXPECT_THAT(text, HasSubstr("engine vllm-0: health green, mode on, up 100 s\n"));
  EXPECT_THAT(text, HasSubstr("  rate    0.5 requests/s, 1.0k tokens/s since its start; 3 run; "
                              "computes 14k/s\n"));
  EXPECT_THAT(text, HasSubstr("  tokens  engine 20.0%, host 30.0%, disk 5.0%, object 0.0%, "
                              "computed 45.0%\n"));
  EXPECT_THAT(text, HasSubstr("  host    open    [############    ]  75%  75 blocks, 9 pinned, 25 "
                              "free\n"));
  EXPECT_THAT(text, HasSubstr("  object  open    s3://b\n"));
  EXPECT_THAT(text, Not(HasSubstr("disk    off")));
  EXPECT_THAT(text, HasSubstr("  missed  never_stored 2.0k blocks\n"));
  EXPECT_THAT(text, HasSubstr("  loads   40, 1 failed, 2 slower than computing"));
  EXPECT_THAT(text,
              AllOf(HasSubstr("disk_write 12 waiting, 3 dropped"), Not(HasSubstr("disk_read"))));
  expect_columns(text);
}

TEST(TopTextTest, BetweenTwoLooksItShowsWhatCameInBetween) {
  Json later = status();
  later["requests"] = 70;
  later["prompt_tokens"] = 110'000;
  later["engine_tokens"] = 20'000;
  later["hit_tokens"]["host"] = 40'000;
  later["miss_blocks"]["late"] = 4;
  const TopEngine engine{
      .name = "e", .status = later.dump(), .before = status().dump(), .seconds = 2, .ledgers = {}};
  const std::string text = top_text({engine}, 0, 9);
  EXPECT_THAT(text, HasSubstr("  rate    10 requests/s, 5.0k tokens/s; 3 run"));
  EXPECT_THAT(text, HasSubstr("engine 0.0%, host 100.0%, disk 0.0%"));
  EXPECT_THAT(text, AllOf(HasSubstr("  missed  late 4 blocks\n"), Not(HasSubstr("never_stored"))));
  // Another process has the socket now, and counts from 0.
  Json anew = status();
  anew["process"] = 78;
  TopEngine restarted = engine;
  restarted.status = anew.dump();
  EXPECT_THAT(top_text({restarted}, 0, 9), HasSubstr("since its start"));
}

TEST(TopTextTest, ShowsTheNewestRequestsAndHowRedItIs) {
  Json red = status();
  red["health"] = "red";
  red["problems"] = {"path=/mnt state=full: " + std::string(200, 'x')};
  const std::string ledgers =
      R"({"ledgers":[{"request":"cmpl-a","prompt_tokens":10},{"request":"cmpl-b"}]})";
  const TopEngine engine{
      .name = "e", .status = red.dump(), .before = {}, .seconds = 0, .ledgers = ledgers};
  const std::string one = top_text({engine}, 1, 9);
  EXPECT_THAT(one, AllOf(HasSubstr("health red"), HasSubstr("  problem: path=/mnt state=full"),
                         HasSubstr("cmpl-a "), Not(HasSubstr("cmpl-b"))));
  expect_columns(one);
  EXPECT_THAT(top_text({engine}, 0, 9), Not(HasSubstr("first miss")));
  EXPECT_THAT(top_text({engine, engine}, 9, 9), HasSubstr("\n\ne: health red"));
}

TEST(TopTextTest, WholeLinesFitWhereAllIsLarge) {
  Json large = status();
  for (const char* name : {"requests", "prompt_tokens", "active_requests"})
    large[name] = 987'654'321;
  large["engine_tokens"] = 100'000'000;
  large["hit_tokens"] = {{"host", 110'000'000}, {"disk", 120'000'000}, {"object", 130'000'000}};
  large["tiers"][0]["slots"] = {{"free", 123'456}, {"sealed", 999'888}, {"pinned", 123'456}};
  const std::string text = top_text({{.name = "e", .status = large.dump()}}, 0, 9);
  EXPECT_THAT(text, AllOf(HasSubstr("computed 53.4%\n"), HasSubstr("123k free\n")));
}

// An engine that nobody named bears a UUID: what matters is not what is cut off.
TEST(TopTextTest, HealthModeAndUptimeAreShownBesideALongName) {
  Json paused = status();
  paused["mode"] = "paused";
  const std::string name = "engine 55d3af49-0958-4108-8c78-70af0a215208_dp0 (process 4194304)";
  const std::string text = top_text({{.name = name, .status = paused.dump()}}, 0, 9);
  EXPECT_THAT(text, StartsWith(name + "\n  health green, mode paused, up 100 s\n"));
  expect_columns(text);
  const std::string longer(200, 'x');
  EXPECT_THAT(top_text({{.name = longer, .status = paused.dump()}}, 0, 9),
              HasSubstr("x~\n  health green, mode paused, up 100 s\n"));
}

TEST(TopTextTest, AnAnswerOfOtherTypesBreaksNothing) {
  for (const std::string strange :
       {"no JSON", "[]", "7", R"({"tiers":[1,{"slots":3},{"state":"open","tier":7}],"queues":{}})",
        R"({"miss_blocks":{"\u001b[2J":3,"x":"y"},"problems":[3],"health":"\u001b[2J"})"}) {
    const TopEngine engine{
        .name = "e", .status = strange, .before = strange, .seconds = 1, .ledgers = strange};
    expect_columns(top_text({engine}, 5, 9));
  }
}

TEST(TopTextTest, WhatDoesNotFitIntoTheWindowIsSaid) {
  EXPECT_EQ(cropped("aaaa\nbb\n", 2, 3), "aaa\nbb\n");
  EXPECT_EQ(cropped("a\nb\nc\n", 2, 80), "a\n(2 more lines: a taller window, or --engine)\n");
  EXPECT_EQ(cropped("a\nb\n", 1, 5), "(2 mo\n");
  EXPECT_EQ(cropped("", 5, 80), "");
}

}  // namespace
}  // namespace terrace::cli
