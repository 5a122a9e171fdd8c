// What polls are told without the core's lock: the board by itself, then beside the core.
#include <gtest/gtest.h>

#include "terrace/manager/answer_board_internal.h"
#include "terrace/manager/core_rig_internal.h"

namespace terrace::manager {
namespace {

using rig::Rig;

constexpr Tokens kBlock{4};

class AnswerBoardTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::optional<MatchAnswer> read(std::uint64_t request, std::uint64_t local = 0,
                                                std::uint64_t limit = 64, std::int64_t now = 0) {
    return board.read(RequestId(request), Tokens(local), Tokens(limit), kBlock, Nanoseconds(now));
  }
  AnswerBoard board;
};

TEST_F(AnswerBoardTest, KnowsNothingOfARequestThatDoesNotWait) {
  EXPECT_FALSE(read(1).has_value());
  board.answer(RequestId(1), 7);
  EXPECT_FALSE(read(1).has_value());
}

TEST_F(AnswerBoardTest, TellsToWaitAndThenTheAnswer) {
  board.wait(RequestId(1), Tokens(0), Tokens(64), Nanoseconds(100));
  ASSERT_TRUE(read(1).has_value());
  EXPECT_FALSE(read(1)->is_ready);
  board.answer(RequestId(1), 7);
  ASSERT_TRUE(read(1).has_value());
  EXPECT_TRUE(read(1)->is_ready);
  EXPECT_EQ(read(1)->external, kBlock * 7);
}

TEST_F(AnswerBoardTest, AnotherQuestionOrALaterTimeIsForTheCore) {
  board.wait(RequestId(1), Tokens(4), Tokens(64), Nanoseconds(100));
  EXPECT_TRUE(read(1, 4).has_value());
  EXPECT_FALSE(read(1, 8).has_value());
  EXPECT_FALSE(read(1, 4, 60).has_value());
  EXPECT_TRUE(read(1, 4, 64, 99).has_value());
  EXPECT_FALSE(read(1, 4, 64, 100).has_value());
}

TEST_F(AnswerBoardTest, WhatWasRevokedIsNotAnsweredAfterwards) {
  board.wait(RequestId(1), Tokens(0), Tokens(64), Nanoseconds(100));
  board.revoke(RequestId(1));
  board.answer(RequestId(1), 7);
  EXPECT_FALSE(read(1).has_value());
  board.wait(RequestId(2), Tokens(0), Tokens(64), Nanoseconds(100));
  board.revoke_all();
  board.answer(RequestId(2), 7);
  EXPECT_FALSE(read(2).has_value());
}

TEST_F(AnswerBoardTest, OfTwoThatShareACellOneIsForTheCore) {
  const std::uint64_t other = 1 + 256;
  board.wait(RequestId(1), Tokens(0), Tokens(64), Nanoseconds(100));
  board.wait(RequestId(other), Tokens(0), Tokens(64), Nanoseconds(100));
  EXPECT_FALSE(read(1).has_value());
  board.answer(RequestId(1), 7);
  board.revoke(RequestId(1));
  ASSERT_TRUE(read(other).has_value());
  EXPECT_FALSE(read(other)->is_ready);
}

TEST_F(AnswerBoardTest, ALongerAnswerThanACellHoldsIsForTheCore) {
  board.wait(RequestId(1), Tokens(0), Tokens(64), Nanoseconds(100));
  board.answer(RequestId(1), std::uint64_t{1} << 24U);
  EXPECT_FALSE(read(1).has_value());
}

// ---- Beside the core: a request that waits for two blocks of a disk that is stuck.

struct Waiting {
  Waiting() : rig({.host_blocks = 16, .has_disk = true}), tokens(Rig::make_tokens(2, 1)) {
    rig.run_cold(tokens);
    for (std::uint32_t seed = 2; seed < 8; ++seed) rig.run_cold(Rig::make_tokens(4, seed));
    rig.disk.is_stuck = true;
    id = rig.begin(tokens);
    if (rig.poll(id).is_ready) throw std::runtime_error("it does not wait");
    rig.settle();
  }
  [[nodiscard]] std::optional<MatchAnswer> told() {
    return rig.shared.answers.read(id, Tokens(0), Tokens(1U << 30U), Tokens(rig::kBlockTokens),
                                   rig.clock.now());
  }
  void let_the_disk_answer() {
    rig.disk.is_stuck = false;
    rig.settle();
  }
  Rig rig;
  std::vector<std::uint32_t> tokens;
  RequestId id{};
};

TEST(CoreAnswerBoardTest, APollThatWaitsAndTheOneThatBringsTheAnswerNeedNoLock) {
  Waiting waiting;
  ASSERT_TRUE(waiting.told().has_value());
  EXPECT_FALSE(waiting.told()->is_ready);
  waiting.let_the_disk_answer();
  ASSERT_TRUE(waiting.told().has_value());
  EXPECT_TRUE(waiting.told()->is_ready);
  EXPECT_EQ(waiting.told()->external, Tokens(2 * rig::kBlockTokens));
  // Nobody asked the core since: it gives what was told.
  const auto table = Rig::make_table(2, 30);
  ASSERT_TRUE(waiting.rig.accept(waiting.id, 0, 2, table).is_ok());
  EXPECT_FALSE(waiting.told().has_value());
  waiting.rig.step();
  EXPECT_TRUE(waiting.rig.is_right(waiting.id, 0, 30));
  EXPECT_TRUE(waiting.rig.is_right(waiting.id, 1, 31));
}

TEST(CoreAnswerBoardTest, AnAnswerTakenWithoutTheLockIsHeldForPinTime) {
  Waiting waiting;
  waiting.let_the_disk_answer();
  while (waiting.told()) waiting.rig.clock.advance(milliseconds(1));
  waiting.rig.clock.advance(waiting.rig.options.pin_time - milliseconds(1));
  waiting.rig.settle();
  EXPECT_EQ(waiting.rig.core.context().pool().pinned(), 2U);
  waiting.rig.clock.advance(milliseconds(1));
  waiting.rig.settle();
  EXPECT_EQ(waiting.rig.core.context().pool().pinned(), 0U);
  EXPECT_FALSE(waiting.told().has_value());
}

TEST(CoreAnswerBoardTest, AnAnswerTakenFromTheCoreIsHeldForPinTimeFromThenOn) {
  Waiting waiting;
  waiting.let_the_disk_answer();
  while (waiting.told()) waiting.rig.clock.advance(milliseconds(1));
  waiting.rig.clock.advance(Nanoseconds(waiting.rig.options.pin_time.value() / 2));
  EXPECT_EQ(waiting.rig.offered(waiting.id), 2U);
  waiting.rig.clock.advance(waiting.rig.options.pin_time - milliseconds(1));
  waiting.rig.settle();
  EXPECT_EQ(waiting.rig.core.context().pool().pinned(), 2U);
}

TEST(CoreAnswerBoardTest, WhatChangesTheAnswerForAllIsForTheCore) {
  using Change = void (*)(Rig&);
  const std::pair<const char*, Change> changes[] = {
      {"poison", [](Rig& rig) { rig.core.poison("made up"); }},
      {"close", [](Rig& rig) { rig.core.begin_close(); }},
      {"pause", [](Rig& rig) { (void)rig.core.set_mode(Mode::kPaused); }},
      {"reset", [](Rig& rig) { rig.core.reset(); }},
      {"shut", [](Rig& rig) { rig.core.shut("made up"); }},
      {"death", [](Rig& rig) { rig.kill(0); }},
  };
  for (const auto& [name, change] : changes) {
    Waiting waiting;
    change(waiting.rig);
    EXPECT_FALSE(waiting.told().has_value()) << name;
    waiting.let_the_disk_answer();  // Does not bring it back.
    EXPECT_FALSE(waiting.told().has_value()) << name;
    Waiting answered;
    answered.let_the_disk_answer();
    ASSERT_TRUE(answered.told().has_value()) << name;
    change(answered.rig);
    EXPECT_FALSE(answered.told().has_value()) << name;
  }
}

TEST(CoreAnswerBoardTest, AFailedLoadOrTheEndOfTheRequestIsForTheCore) {
  Waiting failed;
  failed.rig.core.find(failed.id)->has_failed = true;
  EXPECT_EQ(failed.rig.core
                .poll(*failed.rig.core.find(failed.id), Tokens(0), Tokens(1U << 30U),
                      failed.rig.clock.now())
                .external,
            Tokens(0));
  EXPECT_FALSE(failed.told().has_value());
  Waiting ended;
  (void)ended.rig.end(ended.id);
  EXPECT_FALSE(ended.told().has_value());
  ended.let_the_disk_answer();
  EXPECT_FALSE(ended.told().has_value());
}

TEST(CoreAnswerBoardTest, APartThatCannotComeIsForTheCoreUnlessSomeBlocksLead) {
  Waiting waiting;
  const SequenceHash second = waiting.rig.hashes(waiting.id)[1];
  waiting.rig.disk.fault = [&](const SequenceHash& hash, bool is_read) {
    return is_read && hash == second ? Status(Code::kCorrupt, "made up") : Status();
  };
  waiting.let_the_disk_answer();
  ASSERT_TRUE(waiting.told().has_value());
  EXPECT_EQ(waiting.told()->external, Tokens(rig::kBlockTokens));
  Waiting none;
  none.rig.disk.fault = [](const SequenceHash& /*hash*/, bool is_read) {
    return is_read ? Status(Code::kCorrupt, "made up") : Status();
  };
  none.let_the_disk_answer();
  EXPECT_FALSE(none.told() && none.told()->is_ready);
  EXPECT_EQ(none.rig.look_up(none.id), 0U);
}

}  // namespace
}  // namespace terrace::manager
