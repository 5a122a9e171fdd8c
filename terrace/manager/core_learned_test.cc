// What eviction by `hazard` learns in the core: it begins with what the disk was told before, and
// the disk is told in time; blocks sealed late have their place in the chain.
// One claim a test, with virtual time and a made-up engine (core_rig_internal.h).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "terrace/manager/core_rig_internal.h"

namespace terrace::manager {
namespace {

using rig::Rig;
using rig::RigOptions;
using ::testing::HasSubstr;
using ::testing::Not;

RigOptions hazard() {
  RigOptions options{.has_disk = true};
  options.tune = [](Options& of) { of.host.eviction = "hazard"; };
  return options;
}

// Counts of conversations of three turns.
std::string lessons() {
  const auto model = *policy::ReturnModel::create();
  std::vector<SequenceHash> chain;
  for (std::uint64_t turn = 0; turn < 3; ++turn) {
    for (std::uint64_t block = 0; block < 4; ++block) chain.push_back({.high = turn, .low = block});
    const Nanoseconds now = seconds(static_cast<std::int64_t>(60 * turn));
    const policy::Visit visit = model->arrive(chain, now);
    (void)model->leave(visit, chain, chain.size() - 1, 100, policy::Ending::kUnknown, now);
  }
  return model->save();
}

// As the opening thread does it.
void open_disk(Rig& rig, const std::string& known) {
  rig.disk.known = known;
  rig.core.open_lower(rig.disk);
  rig.driver.set_lower(rig.disk);
}

TEST(CoreLearnedTest, WhatWasLearnedIsThereBeforeTheFirstLookUp) {
  RigOptions options = hazard();
  options.has_disk = false;
  options.is_disk_opening = true;
  options.opens = false;
  Rig rig(options);
  ASSERT_NE(rig.core.returns()->save(), lessons());
  open_disk(rig, lessons());
  EXPECT_EQ(rig.core.returns()->save(), lessons());
  rig.open();
  EXPECT_THAT(rig.log.text, HasSubstr("event=learned_found"));
}

TEST(CoreLearnedTest, WhatIsNotUnderstoodIsSaidAndLeftOut) {
  RigOptions options = hazard();
  options.has_disk = false;
  options.is_disk_opening = true;
  Rig rig(options);
  const std::string before = rig.core.returns()->save();
  open_disk(rig, lessons() + "more");
  rig.settle();
  EXPECT_EQ(rig.core.returns()->save(), before);
  EXPECT_THAT(rig.log.text, HasSubstr("event=learned_refused"));
  (void)rig.run_cold(Rig::make_tokens(2, 1));
  EXPECT_EQ(rig.look_up(rig.begin(Rig::make_tokens(2, 1))), 2U);
}

TEST(CoreLearnedTest, TheDiskIsToldEveryTenMinutesInWhichRequestsEnded) {
  Rig rig(hazard());
  rig.clock.advance(seconds(590));
  (void)rig.run_cold(Rig::make_tokens(2, 1));
  EXPECT_TRUE(rig.disk.kept.empty());
  rig.clock.advance(seconds(10));
  rig.settle();
  ASSERT_EQ(rig.disk.kept.size(), 1U);
  EXPECT_EQ(rig.disk.kept[0], rig.core.returns()->save());
  rig.clock.advance(seconds(1000));
  rig.settle();
  EXPECT_EQ(rig.disk.kept.size(), 1U) << "nothing ended since";
  (void)rig.run_cold(Rig::make_tokens(2, 2));
  EXPECT_EQ(rig.disk.kept.size(), 2U);
}

TEST(CoreLearnedTest, AtTheCloseItIsToldOnceMoreAndThatIsAwaited) {
  Rig rig(hazard());
  (void)rig.run_cold(Rig::make_tokens(2, 1));
  const RequestId other = rig.begin(Rig::make_tokens(2, 2));
  rig.advance(other, 2, Rig::make_table(2));
  EXPECT_FALSE(rig.core.has_queued_writes());
  rig.core.begin_close();
  EXPECT_TRUE(rig.core.has_queued_writes());
  rig.settle();
  EXPECT_FALSE(rig.core.has_queued_writes());
  ASSERT_EQ(rig.disk.kept.size(), 1U);
  EXPECT_EQ(rig.disk.kept[0], rig.core.returns()->save());
  (void)rig.end(other);
  rig.settle();
  EXPECT_EQ(rig.disk.kept.size(), 1U);
}

TEST(CoreLearnedTest, ACloseInWhichNothingEndedTellsNothing) {
  Rig rig(hazard());
  rig.core.begin_close();
  EXPECT_FALSE(rig.core.has_queued_writes());
  rig.settle();
  EXPECT_TRUE(rig.disk.kept.empty());
}

TEST(CoreLearnedTest, WhereNobodyMayWriteNothingIsKept) {
  const auto kept_after = [](const std::function<void(Rig&)>& change) {
    Rig rig(hazard());
    (void)rig.run_cold(Rig::make_tokens(2, 1));
    change(rig);
    rig.clock.advance(seconds(700));
    rig.settle();
    rig.core.begin_close();
    rig.settle();
    return rig.disk.kept.size();
  };
  EXPECT_EQ(kept_after([](Rig&) {}), 1U);
  EXPECT_EQ(kept_after([](Rig& rig) { rig.core.set_mode(Mode::kReadOnly); }), 0U);
  EXPECT_EQ(kept_after([](Rig& rig) { rig.core.set_mode(Mode::kPaused); }), 0U);
  EXPECT_EQ(kept_after([](Rig& rig) { rig.core.poison("test"); }), 0U);
  EXPECT_EQ(kept_after([](Rig& rig) { rig.core.on_lower_canary("other bytes"); }), 0U);
}

TEST(CoreLearnedTest, WithoutAPolicyThatAsksNothingIsLoadedOrKept) {
  Rig rig({.has_disk = true, .opens = false});
  open_disk(rig, lessons());
  rig.open();
  (void)rig.run_cold(Rig::make_tokens(2, 1));
  rig.clock.advance(seconds(700));
  rig.settle();
  EXPECT_TRUE(rig.disk.kept.empty());
  EXPECT_THAT(rig.log.text, Not(HasSubstr("learned")));
}

// Its last step's report comes when the engine has ended the request.
TEST(CoreLearnedTest, BlocksSealedAfterTheirRequestEndedHaveTheirPlaceInTheChain) {
  RigOptions options{.host_blocks = 8};
  options.tune = [](Options& of) { of.host.eviction = "hazard"; };
  Rig rig(options);
  const RequestId id = rig.begin(Rig::make_tokens(8, 1));
  (void)rig.look_up(id);
  const auto hashes = rig.hashes(id);
  rig.advance(id, 8, Rig::make_table(8));
  const auto orders = rig.build();
  (void)rig.end(id);
  ASSERT_TRUE(rig.core.take_report(rig.obey(0, *orders), rig.clock.now()).is_ok());
  ASSERT_EQ(rig.count(catalog::SlotState::kSealed), 8U);
  for (std::uint32_t gone = 1; gone <= 4; ++gone) {
    rig.clock.advance(seconds(1));
    (void)rig.run_cold(Rig::make_tokens(1, 10 + gone), 20);
    std::size_t left = 0;
    while (left < hashes.size() && rig.in_host(hashes[left])) ++left;
    for (std::size_t i = left; i < hashes.size(); ++i) {
      EXPECT_FALSE(rig.in_host(hashes[i])) << "block " << i << " without its parent";
    }
    EXPECT_GT(left, 0U) << "the root went";
  }
}

}  // namespace
}  // namespace terrace::manager
