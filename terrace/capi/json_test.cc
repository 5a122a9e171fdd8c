#include <gtest/gtest.h>

#include "terrace/capi/json_internal.h"

namespace terrace::capi {
namespace {

TEST(JsonTest, TextIsEscaped) { EXPECT_EQ(json_text("a\"b\\c\n\x7f"), R"("a\"b\\c\u000a\u007f")"); }

TEST(JsonTest, LedgerNamesTiersWithHitsAndTheFirstMiss) {
  manager::Ledger ledger;
  ledger.prompt = Tokens(100);
  ledger.local = Tokens(32);
  ledger.hit[static_cast<std::size_t>(Tier::kDisk)] = Tokens(64);
  ledger.pending = Tokens(16);
  ledger.first_miss = manager::MissReason::kNeverStored;
  EXPECT_EQ(ledger_to_json(ledger),
            R"({"prompt_tokens":100,"local_tokens":32,"hit_tokens":{"disk":64},"failed_tokens":0,)"
            R"("pending_tokens":16,"first_miss":"never_stored","lookup_wait_ns":0,"plan":null})");
}

TEST(JsonTest, ALedgerTellsWhatWasPlannedAndWhatCameOfIt) {
  manager::Ledger ledger;
  ledger.decision = manager::Decision{.found = Tokens(96),
                                      .planned = Tokens(64),
                                      .slowest = Tier::kDisk,
                                      .predicted_load = Nanoseconds(5),
                                      .predicted_recompute = Nanoseconds(9),
                                      .load = Nanoseconds(6),
                                      .recompute = Nanoseconds(4),
                                      .recomputed = Tokens(32),
                                      .is_abandoned = true};
  const std::string json = ledger_to_json(ledger);
  EXPECT_TRUE(json.ends_with(
      R"("plan":{"found_tokens":96,"planned_tokens":64,"slowest":"disk","predicted_load_ns":5,)"
      R"("load_ns":6,"predicted_recompute_ns":9,"recompute_ns":4,"recomputed_tokens":32,)"
      R"("abandoned":true}})"))
      << json;
}

TEST(JsonTest, EventsAreSelfDescribingAndNoneIsEmpty) {
  EXPECT_EQ(events_to_json({}), "");
  manager::Event stored;
  stored.hash = {1, 2};
  stored.alias = 7;
  stored.tokens = {5, 6};
  stored.extra_keys = {{ExtraKey::Kind::kSalt, "A", 0}, {ExtraKey::Kind::kMultimodal, "m", -3}};
  manager::Event removed;
  removed.kind = manager::Event::Kind::kRemoved;
  removed.tier = Tier::kDisk;
  EXPECT_EQ(events_to_json({stored, removed}),
            R"([{"op":"stored","tier":"host","group":0,"hash":"00000000000000010000000000000002",)"
            R"("alias":7,"locality":"local","parent":null,"parent_alias":null,"block_tokens":2,)"
            R"("tokens":[5,6],"extra_keys":[{"kind":1,"identity":"41"},)"
            R"({"kind":3,"identity":"6d","offset":-3}]},)"
            R"({"op":"removed","tier":"disk","group":0,"hash":"00000000000000000000000000000000",)"
            R"("alias":null,"locality":"local"}])");
}

}  // namespace
}  // namespace terrace::capi
