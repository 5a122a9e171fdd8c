#include "terrace/serve/http/slow_requests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "terrace/testing/fake_clock.h"

namespace terrace::serve {
namespace {

using Json = nlohmann::json;

Nanoseconds micro(std::uint64_t count) {
  return Nanoseconds(1000 * static_cast<std::int64_t>(count));
}

class SlowRequestsTest : public ::testing::Test {
 protected:
  // Ends a request called `id`, which waited that long, `at`.
  void end(std::uint64_t id, Nanoseconds wait, Nanoseconds at) {
    manager::KeptLedger kept;
    kept.name = manager::Label(std::to_string(id));
    kept.ended = at;
    kept.ledger.prompt = Tokens(64);
    kept.ledger.lookup_wait = wait;
    (void)ring_.add(kept);
  }
  [[nodiscard]] std::vector<std::string> names(Nanoseconds now) const {
    std::vector<std::string> found;
    const Json all = Json::parse(slow_.json(now));
    for (const Json& one : all["requests"]) found.push_back(one["request"]);
    return found;
  }

  testing::FakeClock clock_;
  manager::LedgerRing ring_{128, clock_};
  SlowRequests slow_{&ring_};
};

TEST_F(SlowRequestsTest, TheSlowestComeFirst) {
  for (const std::uint64_t id : {1U, 2U, 3U}) {
    end(id, milliseconds(id == 2 ? 9 : static_cast<std::int64_t>(id)), seconds(10));
  }
  EXPECT_TRUE(names(seconds(11)).empty()) << "not taken in yet";
  slow_.take_in();
  EXPECT_THAT(names(seconds(11)), ::testing::ElementsAre("2", "3", "1"));
  slow_.take_in();
  EXPECT_EQ(names(seconds(11)).size(), 3U) << "none twice";
}

TEST_F(SlowRequestsTest, ALedgerIsShownWhole) {
  manager::KeptLedger kept;
  kept.name = manager::Label("<b>\xff");
  kept.unkeyable = manager::Label("prompt embeddings");
  kept.ended = seconds(10);
  manager::Ledger& ledger = kept.ledger;
  ledger.lookup_wait = milliseconds(2);
  ledger.local = Tokens(16);
  ledger.hit[static_cast<std::size_t>(Tier::kDisk)] = Tokens(32);
  ledger.first_miss = manager::MissReason::kEvicted;
  ledger.decision = manager::Decision{.found = Tokens(32),
                                      .planned = Tokens(32),
                                      .slowest = Tier::kDisk,
                                      .predicted_load = milliseconds(4),
                                      .load = milliseconds(5),
                                      .recompute = milliseconds(3)};
  (void)ring_.add(kept);
  slow_.take_in();
  const Json one = Json::parse(slow_.json(seconds(12)))["requests"][0];
  EXPECT_EQ(one["request"], "<b>\xEF\xBF\xBD") << "what is no UTF-8 is replaced";
  EXPECT_EQ(one["number"], 1);
  EXPECT_EQ(one["unkeyable"], "prompt embeddings");
  EXPECT_DOUBLE_EQ(one["seconds"], 0.010);
  EXPECT_EQ(one["age_seconds"], 2);
  EXPECT_EQ(one["hit_tokens"], Json::parse(R"({"disk":32})"));
  EXPECT_EQ(one["first_miss"], "evicted");
  EXPECT_EQ(one["plan"]["slowest"], "disk");
  EXPECT_DOUBLE_EQ(one["plan"]["load_seconds"], 0.005);
}

TEST_F(SlowRequestsTest, AnHourIsKeptAndOfEachWindowTheSlowest) {
  for (std::uint64_t id = 1; id <= 100; ++id) end(id, micro(id), seconds(10));
  slow_.take_in();
  EXPECT_EQ(names(seconds(20)).size(), SlowRequests::kKept);
  EXPECT_EQ(names(seconds(20)).front(), "100");
  EXPECT_EQ(names(seconds(20)).back(), "81");
  end(101, micro(1), seconds(3'000));
  slow_.take_in();
  EXPECT_EQ(names(seconds(3'000)).size(), SlowRequests::kKept);
  EXPECT_THAT(names(seconds(4'000)), ::testing::ElementsAre("101"));
  EXPECT_TRUE(names(seconds(40'000)).empty());
}

TEST_F(SlowRequestsTest, WhatWentBeforeItWasTakenInIsCounted) {
  for (std::uint64_t id = 1; id <= ring_.capacity() + 5; ++id) end(id, micro(1), seconds(10));
  slow_.take_in();
  EXPECT_EQ(Json::parse(slow_.json(seconds(10)))["left_out"], 5);
}

TEST(NoLedgersTest, WhereNoneAreKeptNoneAreShown) {
  SlowRequests slow(nullptr);
  slow.take_in();
  EXPECT_TRUE(Json::parse(slow.json(seconds(10)))["requests"].empty());
}

}  // namespace
}  // namespace terrace::serve
