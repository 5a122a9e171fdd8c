#include "terrace/transfer/object_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "terrace/testing/fake_clock.h"

namespace terrace::transfer {
namespace {

using ::testing::HasSubstr;

// Holds what it was given until the test says how it ends.
class ScriptedStore final : public ObjectStore {
 public:
  explicit ScriptedStore(unsigned depth) : ObjectStore(depth) {}
  std::string_view name() const override { return "scripted"; }
  const std::string& place() const override { return place_; }
  void wake() override {}
  bool close(Nanoseconds) override { return true; }

  // The names of what is under way, in the order in which it came.
  std::vector<std::string> started() const {
    std::vector<std::string> names;
    names.reserve(held_.size());
    for (const ObjectRequest& request : held_) names.push_back(request.name);
    return names;
  }
  void answer(const Status& status, Nanoseconds retry_after = Nanoseconds(0)) {
    ASSERT_FALSE(held_.empty());
    ObjectAnswer answer;
    answer.status = status;
    answer.retry_after = retry_after;
    finished_.push_back({held_.front(), std::move(answer)});
    held_.erase(held_.begin());
  }
  // The one that came last.
  void answer_last(const Status& status) {
    ASSERT_FALSE(held_.empty());
    std::rotate(held_.begin(), held_.end() - 1, held_.end());
    answer(status);
  }
  // Everything but what has this name, which is never answered.
  void answer_all_but(const std::string& name) {
    const auto is_stuck = [&](const ObjectRequest& request) { return request.name == name; };
    const auto rest = std::ranges::stable_partition(held_, is_stuck);
    for (ObjectRequest& request : rest) {
      ObjectAnswer answer;
      answer.status = {Code::kNotFound, request.name};
      finished_.push_back({std::move(request), std::move(answer)});
    }
    held_.erase(rest.begin(), held_.end());
  }
  Nanoseconds paused{-1};

 protected:
  Status start(ObjectRequest request) override {
    held_.push_back(std::move(request));
    return {};
  }
  void collect(std::vector<Finished>& finished) override { finished.swap(finished_); }
  void pause(Nanoseconds limit) override { paused = limit; }

 private:
  std::string place_ = "a place";
  std::vector<ObjectRequest> held_;
  std::vector<Finished> finished_;
};

const Status kBusy(Code::kUnavailable, "503");

class ObjectQueueTest : public ::testing::Test {
 protected:
  ObjectQueueTest() { start({}); }
  void start(ObjectQueue::Options options) { start(options, store_); }
  void start(ObjectQueue::Options options, ObjectStore& store) {
    options.seed = 7;
    queue_.reset();
    queue_ = std::make_unique<ObjectQueue>(store, clock_, options);
  }
  void push(IoClass io_class, const std::string& name, Nanoseconds deadline = kNoDeadline) {
    ASSERT_EQ(try_push(io_class, name, deadline).text(), Status().text());
  }
  Status try_push(IoClass io_class, const std::string& name, Nanoseconds deadline = kNoDeadline) {
    ObjectRequest request;
    request.op = ObjectOp::kHead;
    request.name = name;
    request.token = ++token_;
    request.deadline = deadline;
    return queue_->push(io_class, std::move(request));
  }
  std::vector<ObjectAnswer> poll() {
    std::vector<ObjectAnswer> answers;
    queue_->poll(answers);
    return answers;
  }
  // Until nothing rests any more: the longest pause that is possible.
  void pass_a_pause() { clock_.advance(seconds(5)); }

  testing::FakeClock clock_;
  ScriptedStore store_{4};
  std::unique_ptr<ObjectQueue> queue_;
  std::uint64_t token_ = 0;
};

TEST_F(ObjectQueueTest, HigherClassesStartFirstAndLowerOnesFillOnlyTheirShare) {
  for (const char* name : {"w1", "w2", "w3"}) push(IoClass::kOffloadWrite, name);
  for (const char* name : {"r1", "r2"}) push(IoClass::kTtftRead, name);
  (void)poll();
  EXPECT_EQ(store_.started(), (std::vector<std::string>{"r1", "r2", "w1", "w2"}));
  store_.answer({});
  const auto answers = poll();
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_EQ(answers[0].token, 4U);
  EXPECT_EQ(store_.started().size(), 3U) << "writes fill at most half of the depth";
  push(IoClass::kTtftRead, "r3");
  (void)poll();
  EXPECT_EQ(store_.started().back(), "r3");
}

TEST_F(ObjectQueueTest, AClassAtItsShareLeavesPlacesToLowerOnesAndToTheHighest) {
  ScriptedStore store(16);
  start({}, store);
  for (int i = 0; i < 20; ++i) push(IoClass::kPrefetch, "p");
  for (int i = 0; i < 5; ++i) push(IoClass::kOffloadWrite, "w");
  push(IoClass::kScrub, "s");
  (void)poll();
  const auto count = [&](const std::string& name) {
    const auto started = store.started();
    return std::ranges::count(started, name);
  };
  EXPECT_EQ(count("p"), 12);
  EXPECT_EQ(count("w"), 2);
  for (int i = 0; i < 3; ++i) push(IoClass::kTtftRead, "r");
  (void)poll();
  EXPECT_EQ(count("r"), 2);
  EXPECT_EQ(store.started().size(), 16U);
}

TEST_F(ObjectQueueTest, NoClassStarvesBehindHigherOnesThatNeverStop) {
  for (const char* name : {"w1", "w2"}) push(IoClass::kOffloadWrite, name);
  push(IoClass::kScrub, "s");
  std::vector<std::string> order;
  for (unsigned i = 0; i < 3 * ObjectQueue::kFloorStarts; ++i) {
    while (queue_->waiting() < 10) push(IoClass::kTtftRead, "r");
    (void)poll();
    order.push_back(store_.started().front());
    store_.answer({});
  }
  EXPECT_EQ(std::ranges::count(order, "w1"), 1);
  EXPECT_EQ(std::ranges::count(order, "w2"), 1);
  EXPECT_EQ(std::ranges::count(order, "s"), 1);
}

TEST_F(ObjectQueueTest, WhatTheStoreCouldNotDoNowIsTriedAgainUntilItCan) {
  push(IoClass::kPrefetch, "x");
  (void)poll();
  for (int i = 0; i < 4; ++i) {
    store_.answer(kBusy);
    EXPECT_TRUE(poll().empty());
    EXPECT_TRUE(store_.started().empty()) << "it pauses first";
    pass_a_pause();
    EXPECT_TRUE(poll().empty());
    ASSERT_EQ(store_.started().size(), 1U);
  }
  store_.answer({});
  const auto answers = poll();
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_TRUE(answers[0].status.is_ok());
  EXPECT_EQ(answers[0].token, 1U);
  EXPECT_EQ(queue_->counters().retries.value(), 4U);
  EXPECT_TRUE(queue_->is_idle());
}

TEST_F(ObjectQueueTest, AfterTheLastTryTheAnswerIsPassedOn) {
  push(IoClass::kPrefetch, "x");
  std::vector<ObjectAnswer> answers;
  for (int i = 0; i < 5; ++i) {
    (void)poll();
    store_.answer(kBusy);
    answers = poll();
    pass_a_pause();
  }
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_EQ(answers[0].status.text(), kBusy.text());
}

TEST_F(ObjectQueueTest, OnlyWhatMayPassIsTriedAgain) {
  for (const Code code : {Code::kNotFound, Code::kCorrupt, Code::kRefused, Code::kExhausted,
                          Code::kDeadline, Code::kIo, Code::kInvalid}) {
    push(IoClass::kPrefetch, "x");
    (void)poll();
    store_.answer({code, "no"});
    const auto answers = poll();
    ASSERT_EQ(answers.size(), 1U) << to_string(code);
    EXPECT_EQ(answers[0].status.code(), code);
  }
}

TEST_F(ObjectQueueTest, PausesGrowAndTheStoresOwnWishIsTheLeast) {
  push(IoClass::kPrefetch, "x");
  (void)poll();
  store_.answer(kBusy, seconds(3));
  (void)poll();
  queue_->wait(seconds(60));
  EXPECT_EQ(store_.paused, seconds(3)) << "the first pause is at most 50 ms otherwise";
  clock_.advance(seconds(3) - Nanoseconds(1));
  (void)poll();
  EXPECT_TRUE(store_.started().empty());
  clock_.advance(Nanoseconds(1));
  (void)poll();
  EXPECT_EQ(store_.started().size(), 1U);
}

TEST_F(ObjectQueueTest, NoPauseIsLongerThanTheDeadlineLeaves) {
  push(IoClass::kPrefetch, "x", clock_.now() + seconds(2));
  (void)poll();
  store_.answer(kBusy, seconds(3));
  const auto answers = poll();
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_EQ(answers[0].status.code(), Code::kUnavailable);
}

TEST_F(ObjectQueueTest, WhatWaitsPastItsDeadlineEndsWithoutTheStore) {
  for (int i = 0; i < 4; ++i) push(IoClass::kTtftRead, "busy");
  push(IoClass::kTtftRead, "late", clock_.now() + seconds(1));
  (void)poll();
  queue_->wait(seconds(60));
  EXPECT_EQ(store_.paused, seconds(1));
  clock_.advance(seconds(1));
  const auto answers = poll();
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_EQ(answers[0].status.code(), Code::kDeadline);
  EXPECT_EQ(answers[0].token, 5U);
  EXPECT_EQ(queue_->counters().expired.value(), 1U);
}

TEST_F(ObjectQueueTest, AStoreThatKeepsFailingIsLeftAloneAndThenAskedOnce) {
  start({.most_tries = 1});
  for (int i = 0; i < 8; ++i) {
    push(IoClass::kTtftRead, "x");
    (void)poll();
    EXPECT_EQ(queue_->problem(), "");
    store_.answer({Code::kIo, "connection reset"});
    (void)poll();
  }
  EXPECT_THAT(queue_->problem(), HasSubstr("a place: left alone after 8 failures in a row"));
  EXPECT_THAT(queue_->problem(), HasSubstr("connection reset"));
  EXPECT_EQ(try_push(IoClass::kTtftRead, "x").code(), Code::kUnavailable);
  queue_->wait(seconds(60));
  EXPECT_EQ(store_.paused, seconds(5));
  clock_.advance(seconds(5));
  EXPECT_TRUE(poll().empty());
  EXPECT_EQ(store_.started(), std::vector<std::string>{"x"}) << "by nobody's request";
  EXPECT_EQ(try_push(IoClass::kTtftRead, "first").code(), Code::kUnavailable) << "not known yet";
  EXPECT_TRUE(queue_->is_idle());
  store_.answer({});
  EXPECT_TRUE(poll().empty());
  EXPECT_EQ(queue_->problem(), "");
  push(IoClass::kTtftRead, "second");
  (void)poll();
  EXPECT_EQ(store_.started(), std::vector<std::string>{"second"});
}

TEST_F(ObjectQueueTest, WhatWaitsWhenTheStoreGoesAwayEndsAtOnceAndARestFollowsARest) {
  start({.most_tries = 1, .failures_to_rest = 2});
  for (int i = 0; i < 6; ++i) push(IoClass::kTtftRead, "x");
  (void)poll();
  store_.answer(kBusy);
  store_.answer(kBusy);
  EXPECT_EQ(poll().size(), 4U) << "two that failed and two that waited";
  store_.answer({Code::kDeadline, "late"});
  EXPECT_EQ(poll().size(), 1U);
  EXPECT_EQ(queue_->counters().rests.value(), 1U) << "what was under way is no second rest";
  store_.answer({Code::kNotFound, "none"});
  EXPECT_EQ(poll().size(), 1U);
  EXPECT_EQ(queue_->problem(), "") << "an answer, if only that nothing is there";
}

TEST_F(ObjectQueueTest, AFailedQuestionAfterARestIsAnotherRest) {
  start({.most_tries = 1, .failures_to_rest = 1});
  push(IoClass::kTtftRead, "x");
  (void)poll();
  store_.answer(kBusy);
  (void)poll();
  clock_.advance(seconds(5));
  (void)poll();
  store_.answer(kBusy);
  EXPECT_TRUE(poll().empty());
  EXPECT_EQ(queue_->counters().rests.value(), 2U);
  EXPECT_TRUE(store_.started().empty());
  EXPECT_EQ(try_push(IoClass::kTtftRead, "x").code(), Code::kUnavailable);
}

TEST_F(ObjectQueueTest, NobodyWaitsForAStoreThatHangs) {
  for (int i = 0; i < 4; ++i) push(IoClass::kTtftRead, "stuck", clock_.now() + seconds(2));
  push(IoClass::kOffloadWrite, "waits", clock_.now() + seconds(60));
  EXPECT_TRUE(poll().empty());
  queue_->wait(seconds(60));
  EXPECT_EQ(store_.paused, seconds(2));
  clock_.advance(seconds(2));
  const auto answers = poll();
  ASSERT_EQ(answers.size(), 1U) << "what waited behind them";
  EXPECT_EQ(answers[0].status.code(), Code::kUnavailable);
  EXPECT_THAT(queue_->problem(), HasSubstr("a place: it hangs: head stuck has no answer"));
  // As long as it hangs, however long that is.
  for (int i = 0; i < 100; ++i) {
    clock_.advance(seconds(1));
    EXPECT_TRUE(poll().empty());
    ASSERT_EQ(try_push(IoClass::kTtftRead, "x").code(), Code::kUnavailable) << i;
  }
  EXPECT_THAT(queue_->problem(), HasSubstr("it hangs"));
  store_.answer({Code::kNotFound, "none"});
  EXPECT_EQ(poll().size(), 1U);
  EXPECT_EQ(queue_->problem(), "");
  push(IoClass::kTtftRead, "next");
  (void)poll();
  EXPECT_EQ(store_.started().back(), "next");
}

TEST_F(ObjectQueueTest, AStoreThatHangsIsAskedNowAndThenByNobodysRequest) {
  push(IoClass::kTtftRead, "stuck", clock_.now() + seconds(2));
  (void)poll();
  std::size_t most = 0;
  for (int i = 0; i < 600; ++i) {
    clock_.advance(milliseconds(100));
    EXPECT_TRUE(poll().empty());
    most = std::max(most, store_.started().size());
    if (i == 71) {
      EXPECT_EQ(most, 2U) << "after two seconds, and a rest of five";
    }
  }
  EXPECT_EQ(most, 3U) << "each may cost the store a thread";
  store_.answer_last({});
  EXPECT_TRUE(poll().empty());
  EXPECT_EQ(queue_->problem(), "");
  push(IoClass::kTtftRead, "next");
  (void)poll();
  EXPECT_EQ(store_.started().back(), "next");
}

// As a file on a part of a file system that is dead, on a node that asks for nothing else.
TEST_F(ObjectQueueTest, AStoreThatAnswersForAnythingElseIsNotLeftAloneForOneObject) {
  for (int round = 0; round < 3; ++round) {
    push(IoClass::kTtftRead, "stuck", clock_.now() + seconds(2));
    for (int i = 0; i < 600; ++i) {
      (void)poll();
      store_.answer_all_but("stuck");
      clock_.advance(milliseconds(100));
      if (i == 30) {
        EXPECT_THAT(queue_->problem(), HasSubstr("head stuck has no answer"));
      }
    }
    (void)poll();
    EXPECT_EQ(queue_->problem(), "") << round;
    push(IoClass::kTtftRead, "other");
    (void)poll();
    EXPECT_EQ(store_.started().back(), "other");
    store_.answer_all_but("stuck");
    EXPECT_EQ(poll().size(), 1U);
    // The request of this round ends; what the queue asked in the first one stays.
    round == 0 ? store_.answer({}) : store_.answer_last({});
    EXPECT_EQ(poll().size(), 1U);
  }
  EXPECT_EQ(store_.started().size(), 1U) << "one question that hangs";
}

TEST_F(ObjectQueueTest, OneObjectThatAlwaysFailsIsNotAllThatIsAskedFor) {
  start({.most_tries = 1, .failures_to_rest = 1});
  push(IoClass::kTtftRead, "bad");
  (void)poll();
  for (const char* name : {"bad", "bad", "trial", "bad"}) {
    ASSERT_EQ(store_.started().size(), 1U);
    EXPECT_THAT(store_.started()[0], ::testing::StartsWith(name));
    store_.answer({Code::kIo, "EIO"});
    (void)poll();
    EXPECT_NE(queue_->problem(), "");
    clock_.advance(seconds(5));
    (void)poll();
  }
  store_.answer({Code::kNotFound, "none"});
  (void)poll();
  EXPECT_EQ(queue_->problem(), "");
}

TEST_F(ObjectQueueTest, ARequestThatIsStuckBesideOthersThatAreAnsweredIsNoHang) {
  push(IoClass::kTtftRead, "stuck", clock_.now() + seconds(2));
  (void)poll();
  clock_.advance(seconds(1));
  push(IoClass::kTtftRead, "other");
  (void)poll();
  store_.answer_last({});
  EXPECT_EQ(poll().size(), 1U);
  clock_.advance(seconds(5));
  EXPECT_TRUE(poll().empty());
  EXPECT_EQ(queue_->problem(), "");
  EXPECT_EQ(queue_->counters().rests.value(), 0U);
}

TEST_F(ObjectQueueTest, AFullQueueRefusesRetriesIncluded) {
  start({.capacity = 2});
  push(IoClass::kPrefetch, "x");
  (void)poll();
  store_.answer(kBusy);
  (void)poll();
  push(IoClass::kPrefetch, "y");
  EXPECT_EQ(try_push(IoClass::kPrefetch, "z").code(), Code::kExhausted);
}

TEST_F(ObjectQueueTest, CancelEndsWhatWaitsAndLeavesWhatIsUnderWay) {
  for (int i = 0; i < 3; ++i) push(IoClass::kOffloadWrite, "w");
  push(IoClass::kTtftRead, "r");
  (void)poll();
  store_.answer(kBusy);  // The read, which rests now.
  (void)poll();
  std::vector<ObjectAnswer> answers;
  queue_->cancel(IoClass::kOffloadWrite, {Code::kClosed, "closing"}, answers);
  ASSERT_EQ(answers.size(), 1U);
  EXPECT_EQ(answers[0].status.code(), Code::kClosed);
  queue_->cancel(IoClass::kTtftRead, {Code::kClosed, "closing"}, answers);
  EXPECT_EQ(answers.size(), 2U);
  EXPECT_FALSE(queue_->is_idle());
  EXPECT_EQ(store_.started().size(), 2U);
}

}  // namespace
}  // namespace terrace::transfer
