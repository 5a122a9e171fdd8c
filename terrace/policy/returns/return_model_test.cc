#include "terrace/policy/returns/return_model.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <deque>
#include <functional>
#include <map>
#include <set>

#include "terrace/base/rng.h"
#include "terrace/testing/keys.h"

namespace terrace::policy {
namespace {

using Chain = std::vector<SequenceHash>;

Chain chain(std::uint64_t conversation, std::size_t blocks) {
  Chain made;
  for (std::size_t i = 0; i < blocks; ++i) made.push_back(testing::hash(conversation << 20U | i));
  return made;
}

// A client of one model whose requests take no time.
class ReturnModelTest : public ::testing::Test {
 protected:
  ReturnClass serve(const Chain& blocks, std::int64_t second, std::uint64_t answer = 100,
                    Ending ending = Ending::kUnknown) {
    const Visit visit = model().arrive(blocks, seconds(second));
    return model().leave(visit, blocks, blocks.size(), answer, ending, seconds(second));
  }
  // So many conversations: each `returns` or not, 30 seconds later, by how its answer ended.
  void converse(std::uint64_t count, const std::function<bool(Ending)>& returns) {
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t number = next_ + i;
      const auto begin = static_cast<std::int64_t>(100 * number);
      const Ending ending = i % 2 == 0 ? Ending::kToolCall : Ending::kDone;
      serve(chain(number, 10), begin, 100, ending);
      if (returns(ending)) serve(chain(number, 12), begin + 30, 100, ending);
    }
    next_ += count;
  }
  ReturnModel& model() { return *model_; }
  // Ages in seconds.
  [[nodiscard]] float worth(ReturnClass of, std::uint32_t age) const {
    return model_->worth(of, age * kTicksPerSecond);
  }

 private:
  std::shared_ptr<ReturnModel> model_ = ReturnModel::create().value();
  std::uint64_t next_ = 1;
};

TEST_F(ReturnModelTest, BeforeAnythingIsKnownTheOldestIsWorthLeast) {
  float before = model().worth(ReturnClass(0), 0);
  for (std::uint32_t age = 4; age < 1U << 24U; age *= 2) {
    const float worth = model().worth(ReturnClass(0), age);
    EXPECT_LT(worth, before) << age;
    before = worth;
  }
  EXPECT_GT(before, 0);
}

// What is worth another than a tick before has come into the next bucket: two to an octave, the
// first of a sixteenth of a second.
TEST_F(ReturnModelTest, AgesAreToldApartByHalvesOfAnOctave) {
  constexpr std::uint32_t kFirst = kTicksPerSecond / 16;
  constexpr std::uint32_t kLast = 1U << 24U;
  std::uint32_t edges = 0;
  for (std::uint32_t age = 1; age <= 2 * kLast; ++age) {
    const auto squared = std::uint64_t{age} * age;
    const auto before = std::uint64_t{age - 1} * (age - 1);
    const bool is_edge =
        std::bit_width(squared) != std::bit_width(before) && age >= kFirst && age <= kLast;
    ASSERT_EQ(model().worth(ReturnClass(0), age) != model().worth(ReturnClass(0), age - 1), is_edge)
        << age;
    edges += is_edge ? 1 : 0;
  }
  EXPECT_EQ(edges, 45U);
  EXPECT_EQ(model().worth(ReturnClass(0), UINT32_MAX), model().worth(ReturnClass(0), kLast));
}

TEST_F(ReturnModelTest, WhatComesBackWithinASecondIsToldByItsTicks) {
  Nanoseconds now(0);
  for (std::uint64_t i = 0; i < 2'000; ++i) {
    const Visit visit = model().arrive(chain(i, 10), now);
    model().leave(visit, chain(i, 10), 10, 100, Ending::kUnknown, now);
    now = now + milliseconds(100);
    if (i % 2 == 0) model().arrive(chain(i, 12), now);
  }
  const auto worth_after = [this](Nanoseconds age) {
    return model().worth(ReturnClass(0), static_cast<std::uint32_t>(ticks_of(age)));
  };
  EXPECT_GT(worth_after(milliseconds(70)), 10 * worth_after(milliseconds(400)));
}

TEST_F(ReturnModelTest, ARequestThatGoesOnIsTheNextTurn) {
  const Visit first = model().arrive(chain(1, 10), seconds(1));
  EXPECT_EQ(first.turn, 1U);
  model().leave(first, chain(1, 10), 10, 50, Ending::kDone, seconds(2));
  const Visit second = model().arrive(chain(1, 14), seconds(30));
  EXPECT_EQ(second.turn, 2U);
  EXPECT_NE(second.of, first.of);
  EXPECT_EQ(model().arrive(chain(2, 14), seconds(30)).turn, 1U);
}

TEST_F(ReturnModelTest, TheNextTurnIsKnownThoughItsLastBlockOrItsAnswerIsAnother) {
  const Visit first = model().arrive(chain(1, 10), seconds(1));
  Chain answered = chain(1, 10);
  for (const SequenceHash& hash : chain(7, 5)) answered.push_back(hash);
  model().leave(first, answered, 10, 500, Ending::kDone, seconds(2));
  Chain without_answer = chain(1, 9);
  for (const SequenceHash& hash : chain(8, 5)) without_answer.push_back(hash);
  EXPECT_EQ(model().arrive(without_answer, seconds(9)).turn, 2U);
}

TEST_F(ReturnModelTest, SharingAPrefixIsNoReturn) {
  serve(chain(1, 10), 1);
  Chain other = chain(1, 5);
  for (const SequenceHash& hash : chain(2, 5)) other.push_back(hash);
  EXPECT_EQ(model().arrive(other, seconds(2)).turn, 1U);
}

// One block beyond what all begin with: the block before the last is nobody's own.
TEST_F(ReturnModelTest, WhereAnotherEndedAlikeAReturnIsKnownByTheLastBlock) {
  const auto begins_alike = [](std::uint64_t conversation, std::size_t own) {
    Chain blocks = chain(1, 12);
    for (const SequenceHash& hash : chain(conversation, own)) blocks.push_back(hash);
    return blocks;
  };
  serve(begins_alike(2, 1), 1);
  serve(begins_alike(3, 5), 2);  // Taken for its return: nothing tells them apart yet.
  serve(begins_alike(4, 1), 3);
  EXPECT_EQ(model().arrive(begins_alike(5, 5), seconds(4)).turn, 1U);
  EXPECT_EQ(model().arrive(begins_alike(4, 6), seconds(5)).turn, 2U);
}

TEST_F(ReturnModelTest, AClassThatReturnsIsWorthMoreThanOneThatDoesNot) {
  converse(400, [](Ending ending) { return ending == Ending::kToolCall; });
  const ReturnClass calls = serve(chain(100'001, 10), 100'000, 100, Ending::kToolCall);
  const ReturnClass done = serve(chain(100'002, 10), 100'000, 100, Ending::kDone);
  ASSERT_NE(calls, done);
  EXPECT_GT(worth(calls, 5), 10 * worth(done, 5));
  // What has not come back after the thirty seconds that they all take never does.
  EXPECT_GT(worth(calls, 5), 10 * worth(calls, 300));
}

// Else blocks would go in the order of noise, and not of their ages.
TEST_F(ReturnModelTest, WhatTellsNobodyApartIsNotBelieved) {
  Rng rng(1);
  constexpr std::int64_t kConversations = 4000;
  const auto answer = [](std::uint64_t step) { return std::uint64_t{16} << 2 * step; };
  for (std::int64_t i = 1; i <= kConversations; ++i) {
    const auto number = static_cast<std::uint64_t>(i);
    serve(chain(number, 10), 100 * i, answer(rng.below(4)), static_cast<Ending>(rng.below(3)));
    if (rng.chance(50)) serve(chain(number, 40), 100 * i + 30);
  }
  float least = 1e9F;
  float most = 0;
  for (std::uint64_t i = 0; i < 12; ++i) {
    const ReturnClass of = serve(chain(10'000 + i, 10), 100 * kConversations + 200, answer(i % 4),
                                 static_cast<Ending>(i / 4));
    least = std::min(least, worth(of, 5));
    most = std::max(most, worth(of, 5));
  }
  EXPECT_LT(most / least, 1.08);
}

// Conversations that go on three times of four, a minute later on average, whatever is known.
TEST_F(ReturnModelTest, WhereNothingIsKnownButTheAgeTheOlderIsWorthLess) {
  Rng rng(3);
  struct Turn {
    std::uint64_t conversation;
    std::size_t blocks;
  };
  std::multimap<std::int64_t, Turn> turns;
  for (std::uint64_t i = 0; i < 600; ++i) {
    turns.emplace(static_cast<std::int64_t>(rng.below(3600)),
                  Turn{.conversation = i, .blocks = 12});
  }
  std::set<ReturnClass> classes{ReturnClass(0)};
  for (; !turns.empty(); turns.erase(turns.begin())) {
    const auto [at, turn] = *turns.begin();
    classes.insert(serve(chain(turn.conversation, turn.blocks), at, 64 * (1 + rng.below(8))));
    if (rng.chance(25)) continue;
    const double gap = -60 * std::log(static_cast<double>(1 + rng.below(1'000'000)) / 1'000'001);
    turns.emplace(
        at + static_cast<std::int64_t>(gap),
        Turn{.conversation = turn.conversation, .blocks = turn.blocks + 2 + rng.below(18)});
  }
  EXPECT_GT(classes.size(), 50U);
  for (const ReturnClass of : classes) {
    for (std::uint32_t age = 1; age < 3600; age += 1 + age / 4) {
      ASSERT_EQ(worth(of, age), worth(ReturnClass(0), age)) << of.value();
      // Half a bucket is not told apart from a whole one.
      ASSERT_LT(worth(of, age + 1 + age / 4), 1.02F * worth(of, age)) << age;
    }
  }
}

TEST_F(ReturnModelTest, WhereThoseWhoWaitedSurelyReturnSoonerTheOlderIsWorthMore) {
  converse(100, [](Ending) { return true; });  // After thirty seconds.
  EXPECT_GT(worth(ReturnClass(0), 20), 2 * worth(ReturnClass(0), 2));
}

TEST_F(ReturnModelTest, WhatIsStillToReturnCountsNeitherWay) {
  converse(200, [](Ending) { return true; });
  const ReturnClass of = serve(chain(50'000, 10), 30'000, 100, Ending::kDone);
  const float before = worth(of, 5);
  for (std::uint64_t i = 0; i < 2000; ++i) serve(chain(60'000 + i, 10), 30'001, 100, Ending::kDone);
  EXPECT_GT(worth(of, 5), 0.8F * before);
}

TEST_F(ReturnModelTest, WhatWasLongAgoWeighsLess) {
  converse(1000, [](Ending) { return true; });
  const ReturnClass of = serve(chain(1'000'000, 10), 200'000, 100, Ending::kDone);
  const float then = worth(of, 5);
  for (std::uint64_t i = 0; i < 60'000; ++i) {
    serve(chain(2'000'000 + i, 10), 200'000 + static_cast<std::int64_t>(i) * 10, 100,
          Ending::kDone);
  }
  EXPECT_LT(worth(of, 5), then / 20);
}

TEST_F(ReturnModelTest, AClockThatStandsOrStepsBackIsSurvived) {
  serve(chain(1, 10), 100);
  serve(chain(1, 12), 50);
  EXPECT_EQ(model().arrive(chain(1, 14), seconds(50)).turn, 3U);
  EXPECT_EQ(model().arrive({}, seconds(0)).turn, 1U);
  model().leave({}, {}, 3, 0, Ending::kUnknown, seconds(0));
  EXPECT_GT(model().worth(ReturnClass(0), UINT32_MAX), 0);
}

TEST_F(ReturnModelTest, ManyClassesFallBackToTheirParents) {
  Rng rng(1);
  for (std::uint64_t i = 0; i < 20'000; ++i) {
    const Chain blocks = chain(rng.below(400), 1 + (rng.next() & 1023U) * rng.below(4));
    const ReturnClass of = serve(blocks, static_cast<std::int64_t>(i + rng.below(50'000)),
                                 rng.below(100'000), static_cast<Ending>(rng.below(3)));
    const float told = worth(of, static_cast<std::uint32_t>(rng.below(100'000)));
    ASSERT_TRUE(told > 0 && told < 1000) << told;
  }
  EXPECT_EQ(model().classes(), 512U);
}

// Beside others that take places in all of the tree, and come back at once or not at all.
class BusyModelTest : public ReturnModelTest {
 protected:
  void serve_another() {
    now_ += 1 + static_cast<std::int64_t>(rng_.below(8));
    blocks_ *= 2;
    if (blocks_ == 0 || blocks_ > 1000 || rng_.chance(30)) {
      ++conversation_;
      blocks_ = 1 + rng_.below(300);
    }
    serve(chain(conversation_, blocks_), now_, rng_.below(2'000),
          static_cast<Ending>(rng_.below(3)));
  }
  // Who says to return after 1,000 seconds.
  ReturnClass promise(std::uint64_t conversation, std::uint64_t answer) {
    const Hints hints{.returns_in = seconds(1'000)};
    const Chain blocks = chain(conversation, 10);
    const Visit visit = model().arrive(blocks, seconds(now_), hints);
    return model().leave(visit, blocks, 10, answer, Ending::kDone, seconds(now_), hints);
  }
  Rng rng_{1};
  std::int64_t now_ = 0;
  std::uint64_t conversation_ = 0;
  std::uint64_t blocks_ = 0;
};

TEST_F(BusyModelTest, TrafficThatBeginsLaterGetsClassesOfItsOwn) {
  for (int i = 0; i < 20'000; ++i) serve_another();
  ASSERT_EQ(model().classes(), 512U);
  std::uint64_t late = 1'000'000;
  for (int i = 0; i < 4'000; ++i) {
    serve_another();
    const bool returns = i % 2 == 0;
    serve(chain(++late, 10), now_, 100, returns ? Ending::kAborted : Ending::kLength);
    now_ += 30;
    if (returns) serve(chain(late, 12), now_, 100, Ending::kLength);
  }
  const ReturnClass returning = serve(chain(++late, 10), now_, 100, Ending::kAborted);
  const ReturnClass gone = serve(chain(++late, 10), now_, 100, Ending::kLength);
  ASSERT_NE(returning, gone);
  EXPECT_GT(worth(returning, 5), 10 * worth(gone, 5));
}

// A pool bears places alone, without what tells the classes apart that have had them: but what was
// used before a class began is not of it.
TEST_F(BusyModelTest, ABlockOlderThanTheClassOfItsPlaceIsNotWorthWhatThatOneIs) {
  std::deque<std::pair<std::int64_t, std::uint64_t>> promised;
  std::uint64_t number = 1'000'000;
  const auto go_on = [&] {
    serve_another();
    for (; !promised.empty() && promised.front().first <= now_; promised.pop_front()) {
      serve(chain(promised.front().second, 12), promised.front().first + 1);
    }
  };
  for (int i = 0; i < 20'000; ++i) {
    go_on();
    if (i % 20 != 0) continue;
    (void)promise(++number, 100);
    promised.emplace_back(now_ + 1'000, number);
  }
  ASSERT_EQ(model().classes(), 512U);
  const float known = worth(promise(++number, 100), 700);
  ReturnClass born{0};
  for (int i = 0; i < 1'000 && born.value() < 512; ++i) {
    go_on();
    born = promise(++number, 20'000);  // As nobody did before.
  }
  ASSERT_GE(born.value(), 512) << "in the place of another";
  EXPECT_EQ(model().present(born), born);
  EXPECT_EQ(model().present(ReturnClass(born.value() % 512)), ReturnClass(0));
  EXPECT_LT(worth(born, 700), known / 10);
  for (const std::int64_t end = now_ + 1'100; now_ < end;) go_on();
  (void)promise(++number, 20'000);
  EXPECT_GT(worth(born, 700), known / 2);
}

TEST_F(ReturnModelTest, TakesLessThanAMebibyte) { EXPECT_LT(model().memory(), 1_MiB); }

TEST_F(ReturnModelTest, CountsSurviveAsBytes) {
  converse(400, [](Ending ending) { return ending == Ending::kToolCall; });
  const ReturnClass calls = serve(chain(100'001, 10), 100'000, 100, Ending::kToolCall);
  const std::string bytes = model().save();
  const auto other = ReturnModel::create().value();
  // Numbered otherwise there.
  const Visit visit = other->arrive(chain(5, 900), seconds(1));
  other->leave(visit, chain(5, 900), 900, 7, Ending::kDone, seconds(1));
  ASSERT_TRUE(other->load(bytes).is_ok());
  const Visit again = other->arrive(chain(9, 10), seconds(1));
  const ReturnClass there =
      other->leave(again, chain(9, 10), 10, 100, Ending::kToolCall, seconds(1));
  EXPECT_NEAR(other->worth(there, 5 * kTicksPerSecond) / worth(calls, 5), 1, 0.1);
}

// The classes that were made last stand among the others then.
TEST_F(BusyModelTest, CountsSurviveAsBytesWhenPlacesHaveBeenTakenAgain) {
  for (int i = 0; i < 20'000; ++i) serve_another();
  for (int i = 0; i < 2'000; ++i) {
    serve_another();
    serve(chain(1'000'000 + static_cast<std::uint64_t>(i), 10), now_, 100, Ending::kAborted);
  }
  const std::string bytes = model().save();
  const auto other = ReturnModel::create().value();
  ASSERT_TRUE(other->load(bytes).is_ok());
  EXPECT_EQ(other->classes(), 512U);
  EXPECT_EQ(other->save(), bytes);
}

TEST_F(ReturnModelTest, BytesThatAreNoCountsChangeNothing) {
  converse(50, [](Ending) { return true; });
  const std::string bytes = model().save();
  const auto refused = [&](std::string_view wrong) {
    const std::string before = model().save();
    EXPECT_EQ(model().load(wrong).code(), Code::kInvalid);
    EXPECT_EQ(model().save(), before);
  };
  refused("");
  for (std::size_t length = 0; length < bytes.size(); length += 97) {
    refused(std::string_view(bytes).substr(0, length));
  }
  refused(bytes + "x");
  std::string newer = bytes;
  ++newer[7];
  refused(newer);
  std::string stranger = bytes;  // Of a level that there is not: counts all the same.
  for (std::size_t at = 0; at < 4; ++at) stranger[12 + (8 + 2 * 46 * 4) + 4 + at] = '\xFF';
  EXPECT_TRUE(model().load(stranger).is_ok());
  EXPECT_TRUE(model().load(bytes).is_ok());
  std::string negative = bytes;
  negative[12 + 8 + 3] = '\xBF';  // The first count of the root's returns: about -0.5.
  refused(negative);
  std::string orphan = bytes;
  orphan[12 + 2 * (8 + 2 * 46 * 4)] = 9;  // The third class's parent stands behind it.
  refused(orphan);
}

}  // namespace
}  // namespace terrace::policy
