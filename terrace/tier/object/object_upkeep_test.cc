// What an owner does for the store as a whole: old packs go, those in use stay young.
#include <gmock/gmock.h>

#include "terrace/tier/object/object_tier.h"
#include "terrace/tier/object/object_tier_rig.h"
#include "terrace/wire/pack.h"

namespace terrace::tier::object {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr int kDay = 86'400;

class ObjectUpkeepTest : public ObjectTierRig {
 protected:
  ObjectUpkeepTest() : chain_(chain_of(1, 12)), memory_(options_.layout, 12, 5) {
    place_->wall_seconds = [this] { return clock_.wall_seconds(); };
    options_.collect.requests_per_second = 1'000'000;
    options_.collect.bounds.max_age = seconds(10 * kDay);
  }
  void write_all(std::uint64_t packs = 3) {
    for (std::uint64_t pack = 0; pack < packs; ++pack) {
      ASSERT_EQ(write(*tier_, chain_, memory_, pack).text(), Status().text());
    }
  }
  // Time passes, and the tier is polled now and then.
  void live(ObjectTier& tier, int days) {
    for (int hour = 0; hour < 24 * days; ++hour) {
      clock_.advance(seconds(3600));
      (void)settle(tier);
    }
  }
  const std::vector<SequenceHash> chain_;
  ChainMemory memory_;
};

TEST_F(ObjectUpkeepTest, AnOwnerRemovesWhatNobodyHasUsedForTooLongAndWhoWantsItHasAMiss) {
  write_all();
  const auto reader = make([&] {
    auto options = options_;
    options.collect.bounds = {};
    options.present_for = seconds(100 * kDay);
    return options;
  }());
  (void)settle(*reader);
  EXPECT_EQ(probe(*reader, chain_), 12U);
  const auto owner = open();
  live(*owner, 9);
  EXPECT_EQ(packs(), 3U);
  live(*owner, 2);
  EXPECT_EQ(packs(), 0U);
  ChainMemory into(options_.layout, 1, 0);
  EXPECT_EQ(reader->match(GroupId(0), chain_), 12U) << "it has found them";
  EXPECT_EQ(read(*reader, chain_[0], 0, into.at(0, 0)).code(), Code::kNotFound);
  EXPECT_THAT(reader->problems(), IsEmpty());
  EXPECT_EQ(write(*owner, chain_, memory_, 0).text(), Status().text()) << "it may come back";
}

TEST_F(ObjectUpkeepTest, WithoutBoundsNothingIsListedOrRemoved) {
  options_.collect.bounds = {};
  write_all();
  const auto owner = open();
  const std::size_t lists = asked("list");
  live(*owner, 30);
  EXPECT_EQ(packs(), 3U);
  EXPECT_EQ(asked("list"), lists);
}

TEST_F(ObjectUpkeepTest, WhatIsLookedUpStaysAndIsTouchedOnceADayAtMost) {
  write_all();
  const auto owner = open();
  for (int day = 0; day < 30; ++day) {
    for (int time = 0; time < 3; ++time) {
      EXPECT_EQ(probe(*owner, std::span(chain_).first(8)), 8U);
      clock_.advance(seconds(kDay / 3));
      (void)settle(*owner);
    }
  }
  EXPECT_EQ(packs(), 2U) << "the third one was in no chain";
  EXPECT_GE(asked("touch"), 2U * 9U);
  EXPECT_LE(asked("touch"), 2U * 31U);
}

TEST_F(ObjectUpkeepTest, OfTwoNodesThatUseAPackOneTouchesIt) {
  write_all(1);
  const auto first = open();
  const auto second = open();
  clock_.advance(seconds(2 * kDay));
  (void)probe(*first, chain_);
  (void)settle(*first);
  (void)probe(*second, chain_);
  (void)settle(*second);
  EXPECT_EQ(asked("touch"), 1U);
}

TEST_F(ObjectUpkeepTest, APackThatIsComputedAgainIsInUse) {
  write_all(1);
  clock_.advance(seconds(2 * kDay));
  const auto other = open();
  EXPECT_EQ(write(*other, chain_, memory_, 0).code(), Code::kInvalid);
  (void)settle(*other);
  EXPECT_EQ(asked("touch"), 1U);
}

TEST_F(ObjectUpkeepTest, TouchesAreWellBeforeWhatIsTooOld) {
  options_.collect.bounds.max_age = seconds(4000);
  write_all(1);
  const auto owner = open();
  for (int i = 0; i < 100; ++i) {
    clock_.advance(seconds(700));
    EXPECT_EQ(probe(*owner, std::span(chain_).first(4)), 4U) << i;
    (void)settle(*owner);
  }
}

TEST_F(ObjectUpkeepTest, WhoMayNotTouchTriesOneAtATimeFromThenOn) {
  write_all();
  place_->fault = [](const auto& request) {
    return request.op == transfer::ObjectOp::kTouch ? Status(Code::kRefused, "EACCES") : Status();
  };
  options_.collect.bounds = {};
  const auto other = open();
  for (int day = 0; day < 20; ++day) {
    clock_.advance(seconds(kDay + 1));
    EXPECT_EQ(probe(*other, chain_), 12U);
    (void)settle(*other);
  }
  EXPECT_EQ(asked("touch"), 9U + 17U) << "eight in a row, one that was under way; then one a day";
  EXPECT_THAT(other->problems(), IsEmpty());
}

TEST_F(ObjectUpkeepTest, OfTwoOwnersOneCollectsInATurn) {
  write_all();
  const auto second = open();
  const auto lists = [&] { return std::ranges::count(place_->asked, std::string("list v1/")); };
  const auto third = open();
  const auto before = lists();
  EXPECT_LE(before, 2) << "one round of two listings at most by now";
  clock_.advance(options_.collect.every + seconds(2));
  (void)settle(*second);
  (void)settle(*third);
  EXPECT_EQ(lists(), before + 1) << "one of them; nothing was over a bound";
}

TEST_F(ObjectUpkeepTest, WhereRemovingIsRefusedTheStatusNamesTheSettingAndHealsByItself) {
  write_all();
  place_->fault = [](const auto& request) {
    return request.op == transfer::ObjectOp::kRemove ? Status(Code::kRefused, "403 AccessDenied")
                                                     : Status();
  };
  const auto owner = open();
  live(*owner, 11);
  ASSERT_THAT(owner->problems(), SizeIs(1));
  EXPECT_THAT(owner->problems()[0], HasSubstr("403 AccessDenied"));
  EXPECT_THAT(owner->problems()[0], HasSubstr("unset object.max_age"));
  place_->fault = nullptr;
  live(*owner, 1);
  EXPECT_THAT(owner->problems(), IsEmpty());
  EXPECT_EQ(packs(), 0U);
}

TEST_F(ObjectUpkeepTest, WhileStoringIsSwitchedOffNothingIsTouchedOrRemoved) {
  write_all();
  const auto owner = open();
  owner->allow_upkeep(false);
  for (int day = 0; day < 20; ++day) {
    clock_.advance(seconds(kDay));
    (void)probe(*owner, std::span(chain_).first(4));
  }
  EXPECT_EQ(packs(), 3U);
  EXPECT_EQ(asked("touch") + asked("remove"), 0U);
  owner->allow_upkeep(true);
  live(*owner, 1);
  EXPECT_EQ(packs(), 0U);
}

TEST_F(ObjectUpkeepTest, WhileStoringIsSwitchedOffNothingIsPutToTryTheStore) {
  const auto checks = [&] {
    return std::ranges::count(place_->asked, std::string("put writable/if-absent"));
  };
  const auto before = checks();
  const auto owner = make(options_);
  owner->allow_upkeep(false);
  (void)settle(*owner);
  EXPECT_EQ(checks(), before);
  owner->allow_upkeep(true);
  (void)settle(*owner);
  EXPECT_EQ(checks(), before + 1);
}

TEST_F(ObjectUpkeepTest, StoringThatIsSwitchedOffAmidARoundEndsIt) {
  write_all();
  const auto owner = open();
  clock_.advance(seconds(11 * kDay));
  std::vector<ObjectDone> done;
  const std::size_t lists = asked("list");
  while (asked("list") == lists) owner->poll(done);
  owner->allow_upkeep(false);
  (void)settle(*owner);
  EXPECT_TRUE(owner->is_idle());
  EXPECT_EQ(packs(), 3U);
  EXPECT_EQ(counter(*owner, "terrace_object_gc_rounds_total", "result=\"failed\""), 0U);
  EXPECT_THAT(owner->problems(), IsEmpty()) << "somebody wanted that";
}

TEST_F(ObjectUpkeepTest, WhoStopsOrHasResetRemovesNothingMore) {
  for (const bool is_reset : {false, true}) {
    SCOPED_TRACE(is_reset);
    place_->objects.clear();
    const auto writer = open();
    ASSERT_EQ(write(*writer, chain_, memory_, 0).text(), Status().text());
    const auto owner = open();
    clock_.advance(seconds(11 * kDay));
    if (is_reset) owner->forget_all();
    if (!is_reset) owner->stop_writes();
    (void)settle(*owner);
    EXPECT_TRUE(owner->is_idle());
    EXPECT_EQ(packs(), 1U);
  }
}

TEST_F(ObjectUpkeepTest, OfASpanTheTurnIsAskedForOnce) {
  const auto turns = [&] {
    return std::ranges::count_if(place_->asked, [](const std::string& text) {
      return text.starts_with("put " + std::string(wire::kTurns));
    });
  };
  const auto owner = open();
  const auto other = open();
  const auto before = turns();
  for (int i = 0; i < 10; ++i) (void)settle(*owner);
  EXPECT_EQ(turns(), before);
  clock_.advance(options_.collect.every + seconds(2));
  for (int i = 0; i < 10; ++i) (void)settle(*owner);
  for (int i = 0; i < 10; ++i) (void)settle(*other);
  EXPECT_EQ(turns(), before + 2) << "by each node";
}

TEST_F(ObjectUpkeepTest, WhatRoundsRemovedIsCountedOnceOverAllRounds) {
  const auto rounds = [](const ObjectTier& tier, const std::string& result) {
    return counter(tier, "terrace_object_gc_rounds_total", "result=\"" + result + "\"");
  };
  const auto owner = open();
  const auto other = open();
  const std::uint64_t done = rounds(*owner, "done");
  for (std::uint64_t round = 1; round <= 3; ++round) {
    // More than are removed at once, so that a round is looked at amid it.
    for (std::uint64_t number = 1; number <= 6; ++number) {
      const auto chain = chain_of(number, kPackBlocks);
      ASSERT_EQ(write(*owner, chain, memory_, 0).text(), Status().text());
    }
    clock_.advance(seconds(11 * kDay));
    for (int i = 0; i < 3; ++i) (void)settle(*owner);
    EXPECT_EQ(counter(*owner, "terrace_object_gc_packs_total"), 6 * round);
    EXPECT_EQ(rounds(*owner, "done"), done + round);
    (void)settle(*other);
  }
  EXPECT_EQ(counter(*other, "terrace_object_gc_packs_total"), 0U);
  EXPECT_EQ(rounds(*other, "done") + rounds(*other, "failed"), 0U) << "the turns were another's";
  place_->fault = [](const auto& request) {
    return request.op == transfer::ObjectOp::kList ? Status(Code::kRefused, "403") : Status();
  };
  clock_.advance(options_.collect.every + seconds(2));
  (void)settle(*owner);
  EXPECT_EQ(rounds(*owner, "failed"), 1U);
  EXPECT_EQ(rounds(*owner, "done"), done + 3);
}

TEST_F(ObjectUpkeepTest, TheStatusSaysWhatLiesThere) {
  write_all();
  const auto owner = open();
  clock_.advance(options_.collect.every);
  (void)settle(*owner);
  EXPECT_THAT(owner->summary(), HasSubstr("3 packs"));
  options_.collect.bounds = {};
  EXPECT_EQ(open()->summary(), "");
}

TEST_F(ObjectUpkeepTest, AStoreThatReplacesWhatIsThereIsNamedAndServesAllTheSame) {
  place_->replaces = true;
  options_.collect.bounds = {};
  const auto owner = open();
  EXPECT_THAT(owner->summary(), HasSubstr("no conditional puts"));
  EXPECT_THAT(owner->problems(), IsEmpty()) << "nobody need act";
  // Two nodes that put one pack: the second one replaces the first one's, by the same.
  const auto other = open();
  place_->is_held = true;
  const auto hashes = std::span(chain_).first(kPackBlocks);
  ASSERT_TRUE(owner->begin_write(1, hashes, memory_.range(0, 4)).is_ok());
  ASSERT_TRUE(other->begin_write(2, hashes, memory_.range(0, 4)).is_ok());
  place_->is_held = false;
  std::vector<ObjectDone> done;
  for (int i = 0; i < 10; ++i) {
    owner->poll(done);
    other->poll(done);
  }
  EXPECT_EQ(packs(), 1U);
  ChainMemory into(options_.layout, 4, 0);
  EXPECT_EQ(read(*owner, chain_[1], 0, into.at(1, 0)).text(), Status().text());
  EXPECT_TRUE(ChainMemory::same(into.at(1, 0), memory_.at(1, 0)));
}

TEST_F(ObjectUpkeepTest, AStoreThatKeepsWhatIsThereIsAskedOnceByEachNode) {
  const auto checks = [&] {
    return std::ranges::count(place_->asked, std::string("put writable/if-absent"));
  };
  EXPECT_EQ(checks(), 2) << "the first node of all puts it twice";
  const auto other = open();
  live(*other, 1);
  EXPECT_EQ(checks(), 3);
  EXPECT_EQ(other->summary().find("no conditional"), std::string::npos);
}

TEST_F(ObjectUpkeepTest, APackIsWantedUntilItIsKnownAndOnceADayAgain) {
  EXPECT_TRUE(tier_->wants(chain_[3]));
  write_all(1);
  EXPECT_FALSE(tier_->wants(chain_[3]));
  clock_.advance(options_.present_for + seconds(1));
  EXPECT_FALSE(tier_->wants(chain_[3])) << "it is asked about only where somebody needs it";
  clock_.advance(seconds(kDay));
  EXPECT_TRUE(tier_->wants(chain_[3])) << "somebody may have removed it";
  EXPECT_EQ(write(*tier_, chain_, memory_, 0).code(), Code::kInvalid);
  EXPECT_FALSE(tier_->wants(chain_[3]));
  place_->objects.clear();
  clock_.advance(seconds(kDay));
  EXPECT_TRUE(tier_->wants(chain_[3]));
  EXPECT_EQ(write(*tier_, chain_, memory_, 0).text(), Status().text());
}

}  // namespace
}  // namespace terrace::tier::object
