#include "terrace/serve/http/slow_requests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>

namespace terrace::serve {
namespace {

using Json = nlohmann::json;

Nanoseconds micro(std::uint64_t count) {
  return Nanoseconds(1000 * static_cast<std::int64_t>(count));
}

manager::Ledger ledger_of(std::uint64_t id, Nanoseconds wait) {
  manager::Ledger ledger;
  ledger.request = RequestId(id);
  ledger.prompt = Tokens(64);
  ledger.lookup_wait = wait;
  return ledger;
}

std::vector<std::uint64_t> ids(const SlowRequests& slow, Nanoseconds now) {
  std::vector<std::uint64_t> found;
  const Json all = Json::parse(slow.json(now));
  for (const Json& one : all["requests"]) found.push_back(one["request"]);
  return found;
}

TEST(SlowRequestsTest, TheSlowestComeFirst) {
  SlowRequests slow;
  for (const std::uint64_t id : {1U, 2U, 3U}) {
    slow.note(ledger_of(id, milliseconds(id == 2 ? 9 : static_cast<std::int64_t>(id))),
              seconds(10));
  }
  EXPECT_TRUE(ids(slow, seconds(11)).empty()) << "not taken in yet";
  slow.take_in();
  EXPECT_THAT(ids(slow, seconds(11)), ::testing::ElementsAre(2, 3, 1));
}

TEST(SlowRequestsTest, ALedgerIsShownWhole) {
  SlowRequests slow;
  manager::Ledger ledger = ledger_of(7, milliseconds(2));
  ledger.local = Tokens(16);
  ledger.hit[static_cast<std::size_t>(Tier::kDisk)] = Tokens(32);
  ledger.first_miss = manager::MissReason::kEvicted;
  ledger.decision = manager::Decision{.found = Tokens(32),
                                      .planned = Tokens(32),
                                      .slowest = Tier::kDisk,
                                      .predicted_load = milliseconds(4),
                                      .load = milliseconds(5),
                                      .recompute = milliseconds(3)};
  slow.note(ledger, seconds(10));
  slow.take_in();
  const Json one = Json::parse(slow.json(seconds(12)))["requests"][0];
  EXPECT_DOUBLE_EQ(one["seconds"], 0.010);
  EXPECT_EQ(one["age_seconds"], 2);
  EXPECT_EQ(one["hit_tokens"], Json::parse(R"({"disk":32})"));
  EXPECT_EQ(one["first_miss"], "evicted");
  EXPECT_EQ(one["plan"]["slowest"], "disk");
  EXPECT_DOUBLE_EQ(one["plan"]["load_seconds"], 0.005);
}

TEST(SlowRequestsTest, AnHourIsKeptAndOfEachWindowTheSlowest) {
  SlowRequests slow;
  for (std::uint64_t id = 1; id <= 100; ++id) {
    slow.note(ledger_of(id, micro(id)), seconds(10));
  }
  slow.take_in();
  EXPECT_EQ(ids(slow, seconds(20)).size(), SlowRequests::kKept);
  EXPECT_EQ(ids(slow, seconds(20)).front(), 100U);
  EXPECT_EQ(ids(slow, seconds(20)).back(), 81U);
  slow.note(ledger_of(101, micro(1)), seconds(3'000));
  slow.take_in();
  EXPECT_EQ(ids(slow, seconds(3'000)).size(), SlowRequests::kKept);
  EXPECT_THAT(ids(slow, seconds(4'000)), ::testing::ElementsAre(101));
  EXPECT_TRUE(ids(slow, seconds(40'000)).empty());
}

TEST(SlowRequestsTest, WhatNobodyTakesInIsLeftOutAndCounted) {
  SlowRequests slow;
  for (std::uint64_t id = 0; id < SlowRequests::kWaiting + 5; ++id) {
    slow.note(ledger_of(id, micro(1)), seconds(10));
  }
  slow.take_in();
  EXPECT_EQ(Json::parse(slow.json(seconds(10)))["left_out"], 5);
}

TEST(SlowRequestsTest, TwoThreadsLoseNothingThatIsNotCounted) {
  SlowRequests slow;
  constexpr std::uint64_t kRequests = 100'000;
  std::atomic<bool> is_over{false};
  std::jthread engine([&] {
    for (std::uint64_t id = 1; id <= kRequests; ++id) {
      slow.note(ledger_of(id, micro(id)), seconds(10));
    }
    is_over.store(true);
  });
  while (!is_over.load()) slow.take_in();
  slow.take_in();
  const Json json = Json::parse(slow.json(seconds(10)));
  EXPECT_EQ(json["requests"].size(), SlowRequests::kKept);
  EXPECT_LE(json["left_out"].get<std::uint64_t>(), kRequests);
  for (const Json& one : json["requests"]) {
    EXPECT_DOUBLE_EQ(one["seconds"].get<double>(), one["request"].get<double>() * 1e-6);
  }
}

}  // namespace
}  // namespace terrace::serve
