#include "terrace/serve/ledger_text.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace terrace::serve {
namespace {

TEST(LedgerTextTest, LedgerNamesTiersWithHitsAndTheFirstMiss) {
  manager::Ledger ledger;
  ledger.prompt = Tokens(100);
  ledger.local = Tokens(32);
  ledger.hit[static_cast<std::size_t>(Tier::kDisk)] = Tokens(64);
  ledger.pending = Tokens(16);
  ledger.first_miss = manager::MissReason::kNeverStored;
  ledger.stages = {.queued = Nanoseconds(1),
                   .placed = Nanoseconds(2),
                   .copied = Nanoseconds(3),
                   .computed = Nanoseconds(4),
                   .total = Nanoseconds(5),
                   .computed_tokens = Tokens(6)};
  EXPECT_EQ(ledger_json(ledger),
            R"({"prompt_tokens":100,"local_tokens":32,"hit_tokens":{"disk":64},"failed_tokens":0,)"
            R"("pending_tokens":16,"first_miss":"never_stored","not_asked":null,)"
            R"("lookup_wait_ns":0,"stages":{"queued_ns":1,"placed_ns":2,"copied_ns":3,)"
            R"("computed_ns":4,"computed_tokens":6,"total_ns":5},"plan":null,)"
            R"("turn":0,"ending":"unknown","hints":[],"ignored_hints":0})");
}

TEST(LedgerTextTest, ALedgerTellsWhatWasPlannedAndWhatCameOfIt) {
  manager::Ledger ledger;
  ledger.not_asked = manager::NotAsked::kObserves;
  ledger.decision = manager::Decision{.found = Tokens(96),
                                      .planned = Tokens(64),
                                      .slowest = Tier::kDisk,
                                      .predicted_load = Nanoseconds(5),
                                      .predicted_recompute = Nanoseconds(9),
                                      .load = Nanoseconds(6),
                                      .recompute = Nanoseconds(4),
                                      .recomputed = Tokens(32),
                                      .is_abandoned = true};
  const std::string json = ledger_json(ledger);
  EXPECT_NE(
      json.find(
          R"("plan":{"found_tokens":96,"planned_tokens":64,"slowest":"disk","predicted_load_ns":5,)"
          R"("load_ns":6,"predicted_recompute_ns":9,"recompute_ns":4,"recomputed_tokens":32,)"
          R"("abandoned":true})"),
      std::string::npos)
      << json;
  EXPECT_EQ(nlohmann::json::parse(json)["not_asked"], "observes");
}

TEST(LedgerTextTest, ALedgerTellsWhatWasSaidOfItsRequest) {
  manager::Ledger ledger;
  ledger.turn = 3;
  ledger.ending = policy::Ending::kToolCall;
  ledger.hints = {
      .session = SequenceHash{1, 2}, .returns_in = seconds(9), .priority = policy::Priority::kLow};
  ledger.ignored_hints = 2;
  const std::string json = ledger_json(ledger);
  EXPECT_TRUE(json.ends_with(R"("turn":3,"ending":"tool_call",)"
                             R"("hints":["session","return","priority"],"ignored_hints":2})"))
      << json;
}

TEST(LedgerTextTest, AKeptOneSaysWhoseItIsAndWhenItEnded) {
  manager::KeptLedger kept;
  kept.number = 7;
  kept.state = manager::LedgerState::kReporting;
  kept.name = manager::Label("a\x1b\"\xff");
  kept.unkeyable = manager::Label("prompt embeddings");
  kept.ended_wall_seconds = 1'799'999'988;
  const std::string text = kept_json(kept, "e");
  for (const char c : text) EXPECT_TRUE(c >= 0x20 && c < 0x7F) << text;
  const auto json = nlohmann::json::parse(text);
  EXPECT_EQ(json["request"], "a\x1b\"\xEF\xBF\xBD") << "what is no UTF-8 is replaced";
  EXPECT_EQ(json["number"], 7);
  EXPECT_EQ(json["state"], "reporting");
  EXPECT_EQ(json["time"], 1'799'999'988);
  EXPECT_EQ(json["engine"], "e");
  EXPECT_EQ(json["unkeyable"], "prompt embeddings");
  EXPECT_EQ(json["prompt_tokens"], 0);
  kept.unkeyable = {};
  EXPECT_TRUE(nlohmann::json::parse(kept_json(kept, "e"))["unkeyable"].is_null());
}

TEST(LedgerTextTest, AQueryIsReadAndAWrongOneNamesWhatThereIs) {
  EXPECT_EQ(ledger_query("")->most, 20U);
  EXPECT_EQ(ledger_query("")->request, "");
  EXPECT_EQ(ledger_query("request=cmpl%2D1%20a+b&most=0")->request, "cmpl-1 a b");
  EXPECT_EQ(ledger_query("most=1024")->most, 1024U);
  EXPECT_EQ(ledger_query("request=")->request, "");
  for (const char* wrong : {"most=", "most=-1", "most=1025", "most=3x", "most", "request=%2",
                            "request=%zz", "request=%", "x=1", "=", "&", "%", "request=a&&"}) {
    const auto query = ledger_query(wrong);
    ASSERT_FALSE(query.has_value()) << wrong;
    EXPECT_NE(query.error().message().find("/ledgers?request=ID&most=20"), std::string::npos);
  }
}

}  // namespace
}  // namespace terrace::serve
