#include "terrace/cli/why_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>
#include <string>

#include "terrace/manager/ledger.h"

namespace terrace::cli {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr std::int64_t kNow = 1'800'000'100;

std::string ledger(const std::string& more) {
  return R"({"request":"cmpl-1","number":3,"state":"ended","time":1800000088,"prompt_tokens":1034,)"
         R"("local_tokens":512,"hit_tokens":{"host":256,"disk":128},"failed_tokens":0,)"
         R"("pending_tokens":0,"lookup_wait_ns":3400000,"stages":{"queued_ns":1300000,)"
         R"("placed_ns":0,"copied_ns":900000,"computed_ns":45000000,"computed_tokens":138,)"
         R"("total_ns":812000000})" +
         more + "}";
}

std::string told(const std::string& more) { return why_text(ledger(more), "engine e", 16, kNow); }

void expect_columns(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(line.size(), 79U) << line;
    for (const char c : line) EXPECT_TRUE(c >= 0x20 && c < 0x7F) << line;
  }
}

TEST(WhyTextTest, TellsTokensPerTierReasonTimeAndPlan) {
  const std::string text = told(
      R"(,"first_miss":"evicted","plan":{"found_tokens":384,"planned_tokens":384,"slowest":"disk",)"
      R"("predicted_load_ns":4000000,"load_ns":4200000,"predicted_recompute_ns":62000000,)"
      R"("recompute_ns":45000000,"recomputed_tokens":138,"abandoned":false})");
  EXPECT_THAT(text, HasSubstr("request cmpl-1 of engine e: ended 12 s ago\n"));
  EXPECT_THAT(text, HasSubstr("the engine's own cache        512   49.5 %\n"));
  EXPECT_THAT(text, HasSubstr("host                          256   24.8 %\n"));
  EXPECT_THAT(text, HasSubstr("disk                          128   12.4 %\n"));
  EXPECT_THAT(text, HasSubstr("computed                      138   13.3 %\n"));
  EXPECT_THAT(text, HasSubstr("first miss: evicted\n"));
  EXPECT_THAT(text, HasSubstr("way out:\n    give the tiers more room"));
  EXPECT_THAT(text, HasSubstr("   1.3 ms  in the engine's queue"));
  EXPECT_THAT(text, HasSubstr("    45 ms  steps that computed 138 tokens"));
  EXPECT_THAT(text, HasSubstr("        -  until the engine had room"));
  EXPECT_THAT(text, HasSubstr("   812 ms  in all"));
  EXPECT_THAT(text, HasSubstr("plan: load 384 of 384 tokens found, the slowest from disk\n"));
  EXPECT_THAT(text, HasSubstr("loading them                     4.0 ms     4.2 ms\n"));
  EXPECT_THAT(text, HasSubstr("computing them instead            62 ms\n"));
  expect_columns(text);
}

// The core times steps that compute more than a block of a prompt; a hit often leaves less.
TEST(WhyTextTest, ARestThatWasNotTimedIsNotSaidToBeNothing) {
  const std::string text =
      why_text(R"({"request":"r","prompt_tokens":1370,"local_tokens":0,"hit_tokens":{"disk":1344},)"
               R"("stages":{"computed_ns":0,"computed_tokens":0,"total_ns":9}})",
               "e", 32, kNow);
  EXPECT_THAT(text, HasSubstr("    computed                       26    1.9 %\n"));
  EXPECT_THAT(text, Not(HasSubstr("computed 0 tokens")));
  EXPECT_THAT(text,
              HasSubstr("        -  to compute 26 tokens of the prompt: too few to be timed\n"));
  expect_columns(text);
  const std::string runs =
      why_text(R"({"state":"running","prompt_tokens":64,"stages":{}})", "e", 32, kNow);
  EXPECT_THAT(runs, HasSubstr("        -  steps that computed 0 tokens of the prompt\n"));
}

TEST(WhyTextTest, LongNamesTakeALineEach) {
  const std::string engine = "engine 55d3af49-0958-4108-8c78-70af0a215208 (process 4194304)";
  const std::string text = why_text(
      R"({"request":"chatcmpl-9ad9586267ccf7de3-bfce06eb","time":1800000088})", engine, 16, kNow);
  EXPECT_THAT(text,
              StartsWith("request chatcmpl-9ad9586267ccf7de3-bfce06eb: ended 12 s ago\n  of " +
                         engine + "\n"));
  expect_columns(text);
}

TEST(WhyTextTest, EachReasonHasWordsAndAWayOut) {
  std::vector<std::string> reasons;
  reasons.reserve(manager::kMissReasonCount);
  for (int i = 0; i < manager::kMissReasonCount; ++i) {
    reasons.emplace_back(to_string(static_cast<manager::MissReason>(i)));
  }
  for (const auto why : {manager::NotAsked::kOptedOut, manager::NotAsked::kStoresOnly,
                         manager::NotAsked::kObserves, manager::NotAsked::kNotServing}) {
    reasons.emplace_back(to_string(why));
  }
  for (const std::string& reason : reasons) {
    EXPECT_FALSE(words_of(reason).what.empty()) << reason;
    EXPECT_FALSE(words_of(reason).way_out.empty()) << reason;
    const std::string text = told(",\"first_miss\":\"" + reason + "\"");
    EXPECT_THAT(text, AllOf(HasSubstr("first miss: " + reason + "\n"), HasSubstr("  way out:\n")));
    expect_columns(text);
  }
  EXPECT_THAT(told(R"(,"first_miss":null,"not_asked":"observes")"),
              HasSubstr("tiers not asked: observes\n"));
  EXPECT_THAT(told(R"(,"first_miss":"unkeyable","unkeyable":"prompt embeddings")"),
              HasSubstr("(prompt embeddings)"));
  EXPECT_THAT(told(R"(,"first_miss":"of the future")"), HasSubstr("does not know"));
}

TEST(WhyTextTest, WithoutAReasonItSaysWhatThatMeans) {
  EXPECT_THAT(told(R"(,"first_miss":null)"), HasSubstr("none was noted"));
  const auto of = [](const std::string& fields) {
    return why_text("{\"request\":\"r\"," + fields + "}", "e", 16, kNow);
  };
  EXPECT_THAT(of(R"("prompt_tokens":40,"hit_tokens":{"host":32},"stages":{"queued_ns":5})"),
              HasSubstr("nothing was missed"));
  EXPECT_THAT(of(R"("prompt_tokens":400,"state":"ended")"), HasSubstr("ended before its turn"));
  EXPECT_THAT(of(R"("prompt_tokens":400,"state":"running")"), HasSubstr("waits for its turn"));
  EXPECT_THAT(of(R"("prompt_tokens":400,"state":"running","stages":{"queued_ns":5})"),
              HasSubstr("not over yet"));
}

// What a client chose as its id, or another version answers.
TEST(WhyTextTest, NothingThatATerminalObeysComesThrough) {
  const std::string text = why_text(
      R"({"request":"\u001b[2Ja\nb\u009bé","state":7,"hit_tokens":{"\u001b[1m":3,"x":"y"},)"
      R"("prompt_tokens":"many","stages":[],"plan":3,"first_miss":"\u001b[1m"})",
      "engine \x1b[31m", 0, kNow);
  expect_columns(text);
  EXPECT_THAT(text, HasSubstr("request ?[2Ja?b"));
  expect_columns(ledger_line(R"({"request":"\u001b[2J"})", kNow));
  expect_columns(why_text("no JSON", "e", 16, kNow));
  expect_columns(ledger_line("[]", kNow));
}

TEST(WhyTextTest, AListFitsIntoEightyColumns) {
  const std::string line = ledger_line(
      R"({"request":")" + std::string(95, 'x') +
          R"(","time":1,"prompt_tokens":1e12,"local_tokens":1,"first_miss":"other_namespace"})",
      kNow);
  expect_columns(ledger_heading());
  expect_columns(line);
  EXPECT_THAT(line, HasSubstr("xxx~ "));
  EXPECT_THAT(ledger_line(ledger(R"(,"first_miss":"late")"), kNow),
              AllOf(HasSubstr("cmpl-1 "), HasSubstr("12 s    1034    50%    37%  late\n")));
}

TEST(WhyTextTest, DurationsAreShortAndPlain) {
  EXPECT_EQ(duration_name(0), "-");
  EXPECT_EQ(duration_name(800), "0.8 us");
  EXPECT_EQ(duration_name(1'230'000), "1.2 ms");
  EXPECT_EQ(duration_name(45e9), "45 s");
  EXPECT_EQ(duration_name(90e9), "90 s");
  EXPECT_EQ(duration_name(600e9), "10 min");
  EXPECT_EQ(duration_name(50 * 3600e9), "50 h");
  EXPECT_EQ(plain("abc", 3), "abc");
  EXPECT_EQ(plain("abcd", 3), "ab~");
  EXPECT_THAT(plain("a\x7f\xff", 9), Not(HasSubstr("\x7f")));
}

}  // namespace
}  // namespace terrace::cli
