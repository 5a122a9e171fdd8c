#include "terrace/transfer/backends/fault/fault_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "terrace/testing/eventually.h"
#include "terrace/testing/scratch_directory.h"
#include "terrace/transfer/backends/dir/dir_store.h"

namespace terrace::transfer {
namespace {

class FaultStoreTest : public ::testing::Test {
 protected:
  FaultStoreTest() : store_(inner(), 7) {}
  std::unique_ptr<ObjectStore> inner() {
    DirStoreOptions options;
    options.path = scratch_.path();
    options.depth = 32;
    options.threads = 2;
    auto made = make_dir_store(options);
    if (!made) ADD_FAILURE() << made.error().message();
    return *std::move(made);
  }
  ObjectRequest make(ObjectOp op, const std::string& name) {
    ObjectRequest request;
    request.token = ++token_;
    request.op = op;
    request.name = name;
    if (op == ObjectOp::kPut) {
      out_.assign(4096, static_cast<std::byte>(name.back()));
      request.pieces = {{out_.data(), out_.size()}};
    } else if (op == ObjectOp::kGet) {
      in_.assign(4096, std::byte{0});
      request.pieces = {{in_.data(), 1000}, {in_.data() + 1000, 3096}};
    }
    return request;
  }
  std::vector<ObjectAnswer> collect(std::size_t count) {
    std::vector<ObjectAnswer> answers;
    EXPECT_TRUE(testing::eventually([&] {
      store_.wait(milliseconds(20));
      store_.poll(answers);
      return answers.size() >= count;
    }));
    return answers;
  }
  ObjectAnswer run(ObjectOp op, const std::string& name) {
    EXPECT_TRUE(store_.submit(make(op, name)).is_ok());
    ObjectAnswer answer = collect(1).at(0);
    EXPECT_EQ(answer.token, token_);
    return answer;
  }
  // Bits in which what was got differs from what was put under `name`.
  std::size_t differing(const std::string& name) const {
    std::size_t bits = 0;
    for (const std::byte byte : in_) {
      const auto wanted = static_cast<std::byte>(name.back());
      bits +=
          static_cast<std::size_t>(__builtin_popcount(std::to_integer<unsigned>(byte ^ wanted)));
    }
    return bits;
  }

  testing::ScratchDirectory scratch_;
  FaultStore store_;
  std::vector<std::byte> out_;
  std::vector<std::byte> in_;
  std::uint64_t token_ = 0;
};

TEST_F(FaultStoreTest, AimedErrorsFailThatRequestAloneAndDoNothing) {
  store_.aim(ObjectFault::kError, ObjectOp::kPut);
  const ObjectAnswer failed = run(ObjectOp::kPut, "x");
  EXPECT_EQ(failed.status.code(), Code::kIo);
  EXPECT_EQ(failed.status.message(), "put x: EIO (injected)");
  EXPECT_EQ(run(ObjectOp::kHead, "x").status.code(), Code::kNotFound);
  store_.aim(ObjectFault::kFull, ObjectOp::kPut);
  EXPECT_EQ(run(ObjectOp::kPut, "x").status.code(), Code::kExhausted);
  store_.aim(ObjectFault::kBusy, ObjectOp::kPut);
  const ObjectAnswer busy = run(ObjectOp::kPut, "x");
  EXPECT_EQ(busy.status.code(), Code::kUnavailable);
  EXPECT_EQ(busy.retry_after, FaultStore::kPatience);
  EXPECT_FALSE(run(ObjectOp::kPut, "x").was_there);
}

TEST_F(FaultStoreTest, ACutGetLacksItsTailAndABrokenOneSaysSo) {
  ASSERT_TRUE(run(ObjectOp::kPut, "x").status.is_ok());
  store_.aim(ObjectFault::kCut, ObjectOp::kGet);
  EXPECT_TRUE(run(ObjectOp::kGet, "x").status.is_ok());
  EXPECT_GT(differing("x"), 0U);
  EXPECT_EQ(in_.back(), std::byte{0});
  store_.aim(ObjectFault::kBreak, ObjectOp::kGet);
  EXPECT_EQ(run(ObjectOp::kGet, "x").status.code(), Code::kIo);
  EXPECT_TRUE(run(ObjectOp::kGet, "x").status.is_ok());
  EXPECT_EQ(differing("x"), 0U);
}

TEST_F(FaultStoreTest, WhatIsThereMayNotBeFound) {
  ASSERT_TRUE(run(ObjectOp::kPut, "x").status.is_ok());
  for (const ObjectOp op : {ObjectOp::kHead, ObjectOp::kGet}) {
    store_.aim(ObjectFault::kFalseAbsent, op);
    EXPECT_EQ(run(op, "x").status.code(), Code::kNotFound);
    EXPECT_TRUE(run(op, "x").status.is_ok());
  }
}

TEST_F(FaultStoreTest, AStaleListingLacksTheLastNames) {
  for (const char* name : {"a", "b", "c"}) ASSERT_TRUE(run(ObjectOp::kPut, name).status.is_ok());
  std::size_t least = 3;
  for (int i = 0; i < 40; ++i) {
    store_.aim(ObjectFault::kStaleList, ObjectOp::kList);
    const ObjectAnswer answer = run(ObjectOp::kList, "");
    ASSERT_TRUE(answer.status.is_ok());
    least = std::min(least, answer.found.size());
  }
  EXPECT_LT(least, 3U);
  EXPECT_EQ(run(ObjectOp::kList, "").found.size(), 3U);
}

TEST_F(FaultStoreTest, AnAnswerThatComesTwiceCountsOnce) {
  store_.aim(ObjectFault::kDuplicate, ObjectOp::kHead);
  EXPECT_EQ(run(ObjectOp::kHead, "x").status.code(), Code::kNotFound);
  store_.aim(ObjectFault::kLose, ObjectOp::kHead);
  ASSERT_TRUE(store_.submit(make(ObjectOp::kHead, "x")).is_ok());
  std::vector<ObjectAnswer> answers;
  ASSERT_TRUE(testing::eventually([&] {
    store_.poll(answers);
    return store_.counters().stray.value() == 1 && store_.lost() == 1;
  }));
  EXPECT_TRUE(answers.empty());
  EXPECT_EQ(store_.in_flight(), 1U);
  store_.release_lost();
  EXPECT_EQ(collect(1).size(), 1U);
}

TEST_F(FaultStoreTest, ReorderedAnswersChangePlaces) {
  ObjectFaultRates rates;
  rates.reordered = 100;
  store_.set_rates(rates);
  bool is_reordered = false;
  for (int i = 0; i < 50 && !is_reordered; ++i) {
    store_.hold(true);
    const std::uint64_t first = token_ + 1;
    for (int n = 0; n < 4; ++n) ASSERT_TRUE(store_.submit(make(ObjectOp::kHead, "x")).is_ok());
    store_.hold(false);
    std::vector<std::uint64_t> tokens;
    for (const ObjectAnswer& answer : collect(4)) tokens.push_back(answer.token);
    is_reordered = !std::is_sorted(tokens.begin(), tokens.end());
    std::sort(tokens.begin(), tokens.end());
    EXPECT_EQ(tokens, (std::vector<std::uint64_t>{first, first + 1, first + 2, first + 3}));
  }
  EXPECT_TRUE(is_reordered);
}

TEST_F(FaultStoreTest, AFlippedGetDiffersInOneBitAndSaysOk) {
  ASSERT_TRUE(run(ObjectOp::kPut, "x").status.is_ok());
  store_.aim(ObjectFault::kFlip, ObjectOp::kGet);
  EXPECT_TRUE(run(ObjectOp::kGet, "x").status.is_ok());
  EXPECT_EQ(differing("x"), 1U);
  EXPECT_TRUE(run(ObjectOp::kGet, "x").status.is_ok());
  EXPECT_EQ(differing("x"), 0U);
}

// Else the store below shows what is right, and it is spoiled once nobody looks any more.
TEST_F(FaultStoreTest, OfAGetNothingIsShownBeforeItIsSpoiled) {
  struct Shown final : Arrivals {
    void on_bytes(std::uint64_t, std::uint64_t) override { ++calls; }
    int calls = 0;
  } shown;
  ASSERT_TRUE(run(ObjectOp::kPut, "x").status.is_ok());
  const auto below = inner();
  ASSERT_TRUE(below->shows_arrivals());
  for (const ObjectFault fault : {ObjectFault::kNone, ObjectFault::kFlip, ObjectFault::kCut}) {
    store_.aim(fault, ObjectOp::kGet);
    ObjectRequest get = make(ObjectOp::kGet, "x");
    get.arrivals = &shown;
    ASSERT_TRUE(store_.submit(std::move(get)).is_ok());
    (void)collect(1);
    EXPECT_EQ(shown.calls, 0) << to_string(fault);
  }
}

TEST_F(FaultStoreTest, AShortObjectIsCorrupt) {
  ASSERT_TRUE(run(ObjectOp::kPut, "x").status.is_ok());
  store_.aim(ObjectFault::kShort, ObjectOp::kGet);
  EXPECT_EQ(run(ObjectOp::kGet, "x").status.code(), Code::kCorrupt);
}

TEST_F(FaultStoreTest, AMisplacedGetBringsAnotherObjectsBytes) {
  ASSERT_TRUE(run(ObjectOp::kPut, "x").status.is_ok());
  store_.aim(ObjectFault::kMisplace, ObjectOp::kGet);
  EXPECT_TRUE(run(ObjectOp::kGet, "x").status.is_ok());
  EXPECT_EQ(differing("x"), 0U);  // There is no other yet.
  EXPECT_EQ(store_.injected(ObjectFault::kMisplace), 0U);
  ASSERT_TRUE(run(ObjectOp::kPut, "y").status.is_ok());
  store_.aim(ObjectFault::kMisplace, ObjectOp::kGet);
  EXPECT_TRUE(run(ObjectOp::kGet, "x").status.is_ok());
  EXPECT_EQ(differing("y"), 0U);
  EXPECT_EQ(store_.injected(ObjectFault::kMisplace), 1U);
}

TEST_F(FaultStoreTest, APutMayLandAndSayThatItFailed) {
  store_.aim(ObjectFault::kLandAndFail, ObjectOp::kPut);
  EXPECT_EQ(run(ObjectOp::kPut, "x").status.code(), Code::kIo);
  EXPECT_TRUE(run(ObjectOp::kPut, "x").was_there);
  EXPECT_TRUE(run(ObjectOp::kGet, "x").status.is_ok());
  EXPECT_EQ(differing("x"), 0U);
}

TEST_F(FaultStoreTest, APutMaySayThatItWasThereAndStoreNothing) {
  store_.aim(ObjectFault::kFalseThere, ObjectOp::kPut);
  const ObjectAnswer answer = run(ObjectOp::kPut, "x");
  EXPECT_TRUE(answer.status.is_ok());
  EXPECT_TRUE(answer.was_there);
  EXPECT_EQ(run(ObjectOp::kHead, "x").status.code(), Code::kNotFound);
}

TEST_F(FaultStoreTest, LostAnswersComeWhenReleasedAndKeepTheirPlace) {
  ASSERT_TRUE(run(ObjectOp::kPut, "x").status.is_ok());
  store_.aim(ObjectFault::kLose, ObjectOp::kHead);
  ASSERT_TRUE(store_.submit(make(ObjectOp::kHead, "x")).is_ok());
  const std::uint64_t lost = token_;
  ASSERT_TRUE(testing::eventually([&] {
    std::vector<ObjectAnswer> answers;
    store_.poll(answers);
    EXPECT_TRUE(answers.empty());
    return store_.lost() == 1;
  }));
  EXPECT_EQ(store_.in_flight(), 1U);
  EXPECT_TRUE(run(ObjectOp::kHead, "x").status.is_ok());
  store_.release_lost();
  const auto released = collect(1);
  ASSERT_EQ(released.size(), 1U);
  EXPECT_EQ(released[0].token, lost);
  EXPECT_TRUE(released[0].status.is_ok());
  EXPECT_EQ(store_.in_flight(), 0U);
}

TEST_F(FaultStoreTest, AHeldStoreAnswersNothingUntilItIsLetGo) {
  store_.hold(true);
  ASSERT_TRUE(store_.submit(make(ObjectOp::kHead, "x")).is_ok());
  std::vector<ObjectAnswer> answers;
  for (int polls = 0; polls < 20; ++polls) {
    store_.wait(milliseconds(2));
    store_.poll(answers);
  }
  EXPECT_TRUE(answers.empty());
  store_.hold(false);
  EXPECT_EQ(collect(1).at(0).status.code(), Code::kNotFound);
}

TEST_F(FaultStoreTest, AimsOnlyAtWhatEndsSo) {
  store_.aim(ObjectFault::kError, ObjectOp::kHead, 1, ".pack");
  EXPECT_EQ(run(ObjectOp::kHead, "x").status.code(), Code::kNotFound);
  EXPECT_EQ(run(ObjectOp::kHead, "x.pack").status.code(), Code::kIo);
  EXPECT_EQ(run(ObjectOp::kHead, "x.pack").status.code(), Code::kNotFound);
}

// Every fault comes, every request is answered once, and the same seed does the same.
TEST_F(FaultStoreTest, RatesBreakASeededShareOfAllRequests) {
  const auto injected_by = [this](std::uint64_t seed) {
    FaultStore faulty(inner(), seed);
    ObjectFaultRates rates;
    rates.error = rates.busy = rates.full = rates.flipped = rates.short_object = 5;
    rates.misplaced = rates.landed_and_failed = rates.falsely_there = rates.delayed = 5;
    rates.cut = rates.broken = rates.falsely_absent = rates.duplicated = rates.reordered = 5;
    faulty.set_rates(rates);
    std::map<std::uint64_t, int> answered;
    for (std::uint64_t i = 0; i < 400; ++i) {
      ObjectRequest request =
          make(i % 2 == 0 ? ObjectOp::kPut : ObjectOp::kGet, std::to_string(i % 20));
      request.token = i;
      EXPECT_TRUE(faulty.submit(std::move(request)).is_ok());
      EXPECT_TRUE(testing::eventually([&] {
        std::vector<ObjectAnswer> answers;
        faulty.wait(milliseconds(20));
        faulty.poll(answers);
        for (const ObjectAnswer& answer : answers) ++answered[answer.token];
        return answered.contains(i);
      }));
    }
    EXPECT_EQ(answered.size(), 400U);
    for (const auto& [token, times] : answered) EXPECT_EQ(times, 1) << token;
    std::vector<std::uint64_t> counts;
    for (int fault = 1; fault < kObjectFaultCount; ++fault) {
      counts.push_back(faulty.injected(static_cast<ObjectFault>(fault)));
    }
    return counts;
  };
  const auto counts = injected_by(3);
  EXPECT_EQ(injected_by(3), counts);
  EXPECT_NE(injected_by(4), counts);
  for (int fault = 1; fault < kObjectFaultCount; ++fault) {
    const auto kind = static_cast<ObjectFault>(fault);
    if (kind == ObjectFault::kLose || kind == ObjectFault::kStaleList) continue;  // No rate here.
    EXPECT_GT(counts.at(static_cast<std::size_t>(fault) - 1), 0U) << to_string(kind);
  }
}

}  // namespace
}  // namespace terrace::transfer
