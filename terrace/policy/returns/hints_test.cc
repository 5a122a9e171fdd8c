#include "terrace/policy/returns/hints.h"

#include <gtest/gtest.h>

#include <functional>

#include "terrace/policy/returns/return_model.h"
#include "terrace/testing/keys.h"

namespace terrace::policy {
namespace {

TEST(HintsTest, APromiseIsWhatIsSaidWithReturnsInStepsOfFour) {
  EXPECT_EQ(promise_of({}), kPromiseNothing);
  EXPECT_EQ(promise_of({.is_over = true}), kPromiseOver);
  EXPECT_EQ(promise_of({.is_tool_call = true}), kPromiseToolCall);
  const auto returning = [](Nanoseconds time) { return promise_of({.returns_in = time}); };
  EXPECT_EQ(returning(Nanoseconds(1)), kPromiseReturn);
  EXPECT_EQ(returning(seconds(1)), kPromiseReturn);
  EXPECT_EQ(returning(milliseconds(1001)), kPromiseReturn + 1);
  EXPECT_EQ(returning(seconds(17)), kPromiseReturn + 3);
  EXPECT_EQ(returning(seconds(1024)), kPromiseReturn + 5);
  EXPECT_EQ(returning(seconds(1025)), kPromiseCount - 1);
  EXPECT_EQ(returning(Nanoseconds(INT64_MAX)), kPromiseCount - 1);
  EXPECT_EQ(returning(Nanoseconds(-1)), kPromiseNothing);
}

using Chain = std::vector<SequenceHash>;

Chain chain(std::uint64_t conversation, std::size_t blocks) {
  Chain made;
  for (std::size_t i = 0; i < blocks; ++i) made.push_back(testing::hash(conversation << 20U | i));
  return made;
}

constexpr Hints kSaysOver = {.is_over = true};

// A client of one model whose requests take no time, and say something of themselves.
class HintedModelTest : public ::testing::Test {
 protected:
  ReturnClass serve(const Chain& blocks, std::int64_t second, const Hints& hints) {
    const Visit visit = model().arrive(blocks, seconds(second), hints);
    turn_ = visit.turn;
    return model().leave(visit, blocks, blocks.size(), 100, Ending::kDone, seconds(second), hints);
  }
  // So many conversations, half of which say `hints`; each returns after `delay` seconds or not.
  void converse(std::uint64_t count, const Hints& hints,
                const std::function<bool(std::uint64_t number, bool is_said)>& returns,
                std::int64_t delay = 30) {
    for (std::uint64_t i = 0; i < count; ++i) {
      const auto begin = static_cast<std::int64_t>(100 * next_);
      const bool is_said = i % 2 == 0;
      serve(chain(next_, 10), begin, is_said ? hints : Hints{});
      if (returns(i, is_said)) serve(chain(next_, 12), begin + delay, {});
      ++next_;
    }
  }
  float worth_after(const Hints& hints, std::uint32_t age) {
    ++next_;
    const auto now = static_cast<std::int64_t>(100 * next_);
    return model().worth(serve(chain(next_, 10), now, hints), age * kTicksPerSecond);
  }
  ReturnModel& model() { return *model_; }
  std::uint32_t turn_ = 0;

 private:
  std::shared_ptr<ReturnModel> model_ = ReturnModel::create().value();
  std::uint64_t next_ = 1;
};

TEST_F(HintedModelTest, ASessionThatIsSaidToBeOverIsWorthLittleOnceThatCameTrue) {
  converse(400, kSaysOver, [](std::uint64_t, bool is_over) { return !is_over; });
  EXPECT_GT(worth_after({}, 5), 10 * worth_after(kSaysOver, 5));
}

TEST_F(HintedModelTest, SayingItIsBelievedNoMoreThanItCameTrue) {
  converse(400, kSaysOver, [](std::uint64_t, bool) { return true; });
  EXPECT_GT(worth_after(kSaysOver, 5), worth_after({}, 5) / 2);
}

TEST_F(HintedModelTest, SayingItBeforeAnybodyDidChangesNothingYet) {
  converse(400, {}, [](std::uint64_t, bool) { return true; });
  EXPECT_GT(worth_after(kSaysOver, 5), worth_after({}, 5) / 4);
}

TEST_F(HintedModelTest, OneInFiveWrongLeavesMostOfIt) {
  converse(1000, kSaysOver,
           [](std::uint64_t number, bool is_over) { return is_over == (number % 10 < 2); });
  EXPECT_GT(worth_after({}, 5), 2 * worth_after(kSaysOver, 5));
  EXPECT_GT(worth_after(kSaysOver, 5), worth_after({}, 5) / 20);
}

TEST_F(HintedModelTest, AReturnThatIsExpectedSoonIsWorthMoreThanOneThatIsLate) {
  const Hints soon = {.is_tool_call = true, .returns_in = seconds(2)};
  const Hints late = {.is_tool_call = true, .returns_in = seconds(500)};
  converse(400, soon, [](std::uint64_t, bool is_said) { return is_said; }, 2);
  converse(400, late, [](std::uint64_t, bool is_said) { return is_said; }, 500);
  EXPECT_GT(worth_after(soon, 1), 10 * worth_after(late, 1));
  EXPECT_GT(worth_after(late, 300), 3 * worth_after(soon, 300));
}

TEST_F(HintedModelTest, ASessionKeepsItsTurnWhenItsHistoryIsRewritten) {
  const Hints mine = {.session = testing::hash(77)};
  serve(chain(1, 10), 1, mine);
  EXPECT_EQ(turn_, 1U);
  serve(chain(2, 10), 30, mine);
  EXPECT_EQ(turn_, 2U);
  serve(chain(3, 10), 60, {.session = testing::hash(78)});
  EXPECT_EQ(turn_, 1U);
}

TEST_F(HintedModelTest, ASessionThatComesBackWithOtherBlocksIsNoReturn) {
  for (std::int64_t i = 0; i < 400; ++i) {
    const Hints one = {.session = testing::hash(static_cast<std::uint64_t>(1'000'000 + i))};
    serve(chain(static_cast<std::uint64_t>(10'000 + 2 * i), 10), 100 * i, one);
    serve(chain(static_cast<std::uint64_t>(10'001 + 2 * i), 10), 100 * i + 30, one);
  }
  EXPECT_LT(worth_after({}, 5), 1e-3F);
}

// Names that many share say nothing, and cost no class.
TEST_F(HintedModelTest, WhoeverPromisesEverythingLeavesHalfOfTheClasses) {
  for (std::uint64_t i = 0; i < 20'000; ++i) {
    const Hints all = {.session = testing::hash(5),
                       .is_tool_call = true,
                       .returns_in = Nanoseconds(static_cast<std::int64_t>(i * i) * 1'000'000)};
    const auto blocks = chain(i, 1 + i % 300);
    const auto now = static_cast<std::int64_t>(i);
    const Visit visit = model().arrive(blocks, seconds(now), {});
    model().leave(visit, blocks, blocks.size(), i, static_cast<Ending>(i % kEndingCount),
                  seconds(now), all);
  }
  EXPECT_LT(model().classes(), 300U);  // Half of them; and a few of those that arrive.
  EXPECT_LT(model().memory(), 1_MiB);
}

}  // namespace
}  // namespace terrace::policy
