// Packs in use stay young, at a bounded cost.
#include <gmock/gmock.h>

#include "terrace/testing/memory_log.h"
#include "terrace/tier/object/object_tier.h"
#include "terrace/tier/object/object_tier_rig.h"

namespace terrace::tier::object {
namespace {

constexpr int kDay = 86'400;

class ObjectTouchTest : public ObjectTierRig {
 protected:
  ObjectTouchTest() {
    place_->wall_seconds = [this] { return clock_.wall_seconds(); };
    options_.present_for = seconds(100 * kDay);
    options_.layout.ranks = 1;
    options_.layout.groups = {{GroupId(0), {Bytes(512)}}};
    tier_ = open();
  }
  // So many packs of a chain lie there; what those after the first hold is nobody's business here.
  void lay(std::uint64_t packs) {
    chain_ = chain_of(1, packs * kPackBlocks);
    const ChainMemory memory(options_.layout, kPackBlocks, 5);
    EXPECT_EQ(write(*tier_, chain_, memory, 0).text(), Status().text());
    const std::size_t size = object().size();
    std::string start;
    for (const auto& [name, bytes] : place_->objects) {
      if (name.ends_with(".pack")) start = name.substr(0, name.size() - 40);
    }
    for (std::uint64_t pack = 1; pack < packs; ++pack) {
      const std::string hex = chain_[(pack + 1) * kPackBlocks - 1].hex();
      std::string name = start;
      name.append(hex.substr(0, 2)).append("/").append(hex).append(".pack");
      place_->objects[name].resize(size);
      place_->modified[name] = clock_.wall_seconds();
    }
    clock_.advance(seconds(2 * kDay));
  }
  void look_up(ObjectTier& tier) { EXPECT_EQ(probe(tier, chain_), chain_.size()); }
  void settle_all(ObjectTier& tier) {
    for (int i = 0; i < 200; ++i) (void)settle(tier);
  }

  std::vector<SequenceHash> chain_;
};

TEST_F(ObjectTouchTest, APackIsAskedAboutOnceADayHoweverOftenItIsLookedUp) {
  lay(3);
  const auto node = open();
  look_up(*node);
  (void)settle(*node);
  EXPECT_EQ(asked("touch"), 3U);
  const std::size_t before = place_->asked.size();
  for (int i = 0; i < 10; ++i) {
    look_up(*node);
    (void)settle(*node);
  }
  EXPECT_EQ(place_->asked.size(), before);
}

TEST_F(ObjectTouchTest, WithoutATimeForItNothingIsTouched) {
  lay(3);
  options_.collect.touch_every = {};
  const auto node = open();
  const std::size_t writes = asked("touch");
  for (int day = 0; day < 5; ++day) {
    look_up(*node);
    clock_.advance(seconds(kDay));
    (void)settle(*node);
  }
  EXPECT_EQ(asked("touch"), writes);
}

TEST_F(ObjectTouchTest, OfALongChainNoMoreAreUnderWayOrWaitThanMayAndTheRestComesLater) {
  lay(1'100);
  const auto node = open();
  look_up(*node);
  settle_all(*node);
  EXPECT_EQ(asked("touch"), 1'024U);
  look_up(*node);
  settle_all(*node);
  EXPECT_EQ(asked("touch"), 1'100U);
}

TEST_F(ObjectTouchTest, EightAreUnderWayAtMost) {
  lay(40);
  const auto node = open();
  look_up(*node);
  settle_all(*node);
  clock_.advance(seconds(2 * kDay));
  look_up(*node);  // All is known: nothing is asked but how old they are.
  place_->is_held = true;
  const std::size_t before = place_->asked.size();
  settle_all(*node);
  EXPECT_LE(place_->asked.size() - before, 8U);
  place_->is_held = false;
  settle_all(*node);
  EXPECT_EQ(asked("touch"), 80U);
}

TEST_F(ObjectTouchTest, WhoStopsTouchesNothingMore) {
  lay(100);
  const auto node = open();
  look_up(*node);
  const std::size_t before = asked("touch");
  ASSERT_LT(before, 100U);
  node->stop_writes();
  settle_all(*node);
  EXPECT_LE(asked("touch"), before + 8) << "those that were under way";
  EXPECT_TRUE(node->is_idle());
}

TEST_F(ObjectTouchTest, RefusalsNowAndThenDoNotEndIt) {
  lay(1);
  int touches = 0;
  place_->fault = [&](const auto& request) {
    const bool is_it = request.op == transfer::ObjectOp::kTouch && ++touches % 4 != 0;
    return is_it ? Status(Code::kRefused, "403 now and then") : Status();
  };
  const auto node = open();
  for (int day = 0; day < 60; ++day) {
    clock_.advance(seconds(kDay + 1));
    look_up(*node);
    (void)settle(*node);
  }
  EXPECT_GT(touches, 30);
}

// Credentials that had run out, say.
TEST_F(ObjectTouchTest, ManyRefusalsInARowMakeAPauseNotAnEnd) {
  lay(20);
  bool is_refusing = true;
  place_->fault = [&](const auto& request) {
    const bool is_it = is_refusing && request.op == transfer::ObjectOp::kTouch;
    return is_it ? Status(Code::kRefused, "403 expired") : Status();
  };
  const auto node = open();
  look_up(*node);
  settle_all(*node);
  const std::size_t before = asked("touch");
  EXPECT_LE(before, 16U) << "eight in a row, and those under way";
  // Known for two days: all are due again. Asked now and then, but for one thing each time.
  clock_.advance(seconds(2 * kDay));
  look_up(*node);
  settle_all(*node);
  EXPECT_EQ(asked("touch"), before + 1);
  clock_.advance(seconds(3599));
  look_up(*node);
  settle_all(*node);
  EXPECT_EQ(asked("touch"), before + 1);
  is_refusing = false;
  clock_.advance(seconds(1));
  look_up(*node);
  settle_all(*node);
  EXPECT_GT(counter(*node, "terrace_object_touches_total", "result=\"touched\""), 0U);
  clock_.advance(seconds(2 * kDay));
  look_up(*node);
  settle_all(*node);
  EXPECT_GE(counter(*node, "terrace_object_touches_total", "result=\"touched\""), 20U);
}

TEST_F(ObjectTouchTest, APauseIsToldOnceUntilOneIsTouchedAgain) {
  lay(20);
  bool is_refusing = true;
  place_->fault = [&](const auto& request) {
    const bool is_it = is_refusing && request.op == transfer::ObjectOp::kTouch;
    return is_it ? Status(Code::kRefused, "403 expired") : Status();
  };
  testing::MemoryLog log;
  auto store = std::make_unique<testing::MemoryObjectStore>(place_, 8);
  const auto node = *ObjectTier::create(options_, std::move(store), clock_, log);
  settle_all(*node);
  const auto days = [&](int count) {
    for (int day = 0; day < count; ++day) {
      clock_.advance(seconds(kDay + 1));
      look_up(*node);
      settle_all(*node);
    }
  };
  days(5);
  EXPECT_EQ(log.count("event=object_untouched"), 1U);
  is_refusing = false;
  days(1);
  is_refusing = true;
  days(2);
  EXPECT_EQ(log.count("event=object_untouched"), 2U);
}

// Somebody else's round removed it: no look-up finds it any more, though it was known to be there.
TEST_F(ObjectTouchTest, APackThatIsGoneWhenItIsToBeTouchedIsForgotten) {
  lay(1);
  const auto node = open();
  look_up(*node);
  (void)settle(*node);
  EXPECT_EQ(node->match(GroupId(0), chain_), kPackBlocks);
  std::erase_if(place_->objects, [](const auto& item) { return item.first.ends_with(".pack"); });
  clock_.advance(seconds(2 * kDay));
  ASSERT_EQ(node->begin_probe(1, chain_, kNoDeadline).text(), Status().text());
  (void)settle(*node);
  EXPECT_EQ(node->match(GroupId(0), chain_), 0U);
}

}  // namespace
}  // namespace terrace::tier::object
