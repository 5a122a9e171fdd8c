// What clients say of their requests, in the core: counted, in the ledger, told to the policy, and
// no reason to fail anything.
// One claim a test, with virtual time and a made-up engine (core_rig_internal.h).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "terrace/manager/core_rig_internal.h"
#include "terrace/testing/keys.h"

namespace terrace::manager {
namespace {

using rig::Rig;
using rig::RigOptions;
using ::testing::HasSubstr;
using ::testing::Not;

RigOptions hazard(std::uint64_t host_blocks = 16) {
  RigOptions options{.host_blocks = host_blocks};
  options.tune = [](Options& of) { of.host.eviction = "hazard"; };
  return options;
}

class CoreHintsTest : public ::testing::Test {
 protected:
  // A request that computes everything, with hints.
  Ledger serve(std::span<const std::uint32_t> tokens, const GivenHints& given,
               const AnswerEnd& end = {}) {
    const RequestId id = rig.begin(tokens);
    hint(id, given);
    const std::uint64_t blocks = tokens.size() / rig::kBlockTokens;
    (void)rig.look_up(id);
    const auto table = Rig::make_table(blocks);
    (void)rig.accept(id, 0, 0, table);
    for (std::uint64_t block = 0; block < blocks; ++block) rig.compute(id, block, table[block]);
    rig.advance(id, blocks, table);
    rig.step();
    const Ledger ledger = rig.core.end_request(*rig.core.find(id), rig.clock.now(), end);
    rig.settle();
    return ledger;
  }
  void hint(RequestId id, const GivenHints& given) {
    rig.core.hint(*rig.core.find(id), given, rig.clock.now());
  }
  [[nodiscard]] std::uint64_t taken(std::size_t kind) const {
    return rig.counters.hints[kind].value();
  }
  Rig rig{hazard()};
};

TEST_F(CoreHintsTest, WhatIsSaidIsCountedAndInTheLedger) {
  const Ledger ledger = serve(Rig::make_tokens(2, 1),
                              {.hints = {.session = testing::hash(1),
                                         .is_tool_call = true,
                                         .returns_in = seconds(3),
                                         .priority = policy::Priority::kHigh}},
                              {.ending = policy::Ending::kToolCall, .answer = Tokens(100)});
  EXPECT_EQ(said(ledger.hints), (std::array{true, false, true, true, true}));
  EXPECT_EQ(ledger.ending, policy::Ending::kToolCall);
  EXPECT_EQ(ledger.turn, 1U);
  for (const std::size_t kind : {0U, 2U, 3U, 4U}) EXPECT_EQ(taken(kind), 1U) << hint_name(kind);
  EXPECT_EQ(taken(1), 0U);
  EXPECT_EQ(rig.counters.ignored_hints.value(), 0U);
  EXPECT_EQ(rig.counters.endings[1].value(), 1U);
}

TEST_F(CoreHintsTest, ASessionTellsTheTurnOfARewrittenHistory) {
  const GivenHints mine = {.hints = {.session = testing::hash(1)}};
  EXPECT_EQ(serve(Rig::make_tokens(2, 1), mine).turn, 1U);
  rig.clock.advance(seconds(5));
  EXPECT_EQ(serve(Rig::make_tokens(2, 2), mine).turn, 2U);
  EXPECT_EQ(serve(Rig::make_tokens(2, 3), {}).turn, 1U);
}

TEST_F(CoreHintsTest, TheEngineSaysHowLongTheAnswerWas) {
  const auto classes_after = [&](std::uint64_t tokens) {
    serve(Rig::make_tokens(2, static_cast<std::uint32_t>(50 + tokens)), {},
          {.ending = policy::Ending::kDone, .answer = Tokens(tokens)});
    return rig.core.returns()->classes();
  };
  const std::size_t before = classes_after(1);
  EXPECT_EQ(classes_after(2), before);
  EXPECT_GT(classes_after(500), before);
}

TEST_F(CoreHintsTest, HintsAtOddsAreBothIgnored) {
  const Ledger ledger =
      serve(Rig::make_tokens(2, 1),
            {.hints = {.session = testing::hash(1), .is_over = true, .returns_in = seconds(3)}});
  EXPECT_EQ(said(ledger.hints), (std::array{true, false, false, false, false}));
  EXPECT_EQ(ledger.ignored_hints, 1U);
  EXPECT_EQ(rig.counters.ignored_hints.value(), 1U);
}

TEST_F(CoreHintsTest, WrongOnesAreCountedAndToldOnceAMinute) {
  for (std::uint32_t i = 0; i < 1000; ++i) {
    const RequestId id = rig.begin(Rig::make_tokens(1, i));
    hint(id, {.hints = {}, .wrong = 2, .told = 1});
    EXPECT_EQ(rig.end(id).ignored_hints, 3U);
  }
  rig.settle();
  EXPECT_EQ(rig.counters.ignored_hints.value(), 3000U);
  EXPECT_THAT(rig.log.text, HasSubstr("event=hints_ignored hints=2 "));
  EXPECT_THAT(rig.log.text, HasSubstr("docs/hints.md"));
  const auto lines = [&] {
    std::size_t count = 0;
    for (std::size_t at = 0; (at = rig.log.text.find("hints_ignored", at)) != std::string::npos;
         ++at) {
      ++count;
    }
    return count;
  };
  EXPECT_EQ(lines(), 1U);
  rig.clock.advance(seconds(61));
  hint(rig.begin(Rig::make_tokens(1, 1)), {.hints = {}, .wrong = 1});
  rig.settle();
  EXPECT_EQ(lines(), 2U);
  EXPECT_THAT(rig.log.text, HasSubstr("hints=1999 "));
}

TEST_F(CoreHintsTest, WhatTheCallerHasToldOfIsOnlyCounted) {
  hint(rig.begin(Rig::make_tokens(1, 1)), {.hints = {}, .told = 5});
  rig.settle();
  EXPECT_EQ(rig.counters.ignored_hints.value(), 5U);
  EXPECT_THAT(rig.log.text, Not(HasSubstr("hints_ignored")));
}

TEST_F(CoreHintsTest, SaidTwiceTheLastCounts) {
  const RequestId id = rig.begin(Rig::make_tokens(1, 1));
  hint(id, {.hints = {.is_over = true}});
  hint(id, {.hints = {.is_tool_call = true}});
  EXPECT_EQ(said(rig.end(id).hints), (std::array{false, false, true, false, false}));
}

TEST_F(CoreHintsTest, OfLowPriorityGoesFirst) {
  const auto low = Rig::make_tokens(4, 1);
  const auto normal = Rig::make_tokens(4, 2);
  serve(normal, {});
  rig.clock.advance(seconds(20));
  serve(low, {.hints = {.priority = policy::Priority::kLow}});
  rig.clock.advance(seconds(10));
  serve(Rig::make_tokens(12, 3), {});  // 16 slots, less the canary's: some have to go.
  EXPECT_GT(rig.look_up(rig.begin(normal)), rig.look_up(rig.begin(low)));
}

TEST(CoreHintsWithoutModelTest, TheyAreCountedAllTheSame) {
  Rig rig;
  const RequestId id = rig.begin(Rig::make_tokens(2, 1));
  rig.core.hint(*rig.core.find(id), {.hints = {.is_over = true}}, rig.clock.now());
  (void)rig.look_up(id);
  const Ledger ledger = rig.end(id);
  EXPECT_EQ(ledger.turn, 0U);
  EXPECT_TRUE(ledger.hints.is_over);
  EXPECT_EQ(rig.counters.hints[1].value(), 1U);
}

}  // namespace
}  // namespace terrace::manager
