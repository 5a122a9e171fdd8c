// The core with a shared store below it: what is asked, waited for, read and put.
// One claim a test, with virtual time and made-up engines (core_rig_internal.h).
#include <gtest/gtest.h>

#include "terrace/manager/core_rig_internal.h"

namespace terrace::manager {
namespace {

using rig::Rig;
using rig::RigOptions;

class CoreObjectTest : public ::testing::Test {
 protected:
  // Another node's engine over the same store.
  std::unique_ptr<Rig> node(RigOptions given = {}) {
    given.store = place_;
    if (given.host_blocks == 16) given.host_blocks = 64;
    if (!given.tune) {
      given.tune = [](Options& options) { options.lookup_deadline = milliseconds(50); };
    }
    return std::make_unique<Rig>(given);
  }
  std::size_t packs() const {
    return static_cast<std::size_t>(std::ranges::count_if(
        place_->objects, [](const auto& item) { return item.first.ends_with(".pack"); }));
  }
  static constexpr auto kObject = static_cast<std::size_t>(Tier::kObject);

  std::shared_ptr<testing::MemoryPlace> place_ = std::make_shared<testing::MemoryPlace>();
};

TEST_F(CoreObjectTest, ASecondNodeIsServedByWhatTheFirstOneComputed) {
  const auto first = node();
  const auto tokens = Rig::make_tokens(10, 1);
  first->run_cold(tokens);
  EXPECT_EQ(packs(), 2U) << "of four blocks each; the last two are in no pack";
  EXPECT_EQ(first->counters.pack_blocks.value(), 8U);

  const auto second = node();
  const RequestId id = second->begin(tokens);
  EXPECT_EQ(second->look_up(id), 8U);
  ASSERT_TRUE(second->accept(id, 0, 8, Rig::make_table(10)).is_ok());
  second->step();
  for (std::uint64_t block = 0; block < 8; ++block) {
    EXPECT_TRUE(second->is_right(id, block, static_cast<std::uint32_t>(block)));
  }
  const Ledger ledger = second->end(id);
  EXPECT_EQ(ledger.hit[kObject], Tokens(8 * rig::kBlockTokens));
  EXPECT_EQ(ledger.first_miss, MissReason::kNeverStored);
  EXPECT_EQ(second->counters.hit_blocks[kObject].value(), 8U);
}

TEST_F(CoreObjectTest, AllRanksAreServed) {
  const auto tokens = Rig::make_tokens(4, 1);
  node({.ranks = 3})->run_cold(tokens);
  const auto second = node({.ranks = 3});
  const RequestId id = second->begin(tokens);
  EXPECT_EQ(second->look_up(id), 4U);
  ASSERT_TRUE(second->accept(id, 0, 4, Rig::make_table(4)).is_ok());
  second->step();
  for (std::uint64_t block = 0; block < 4; ++block) {
    EXPECT_TRUE(second->is_right(id, block, static_cast<std::uint32_t>(block)));
  }
}

TEST_F(CoreObjectTest, APackGrowsOverTheTurnsOfAConversationAndIsPutOnce) {
  const auto first = node();
  const auto tokens = Rig::make_tokens(8, 1);
  first->run_cold(std::span(tokens).first(3 * rig::kBlockTokens));
  EXPECT_EQ(packs(), 0U);
  first->run_cold(std::span(tokens).first(6 * rig::kBlockTokens));
  EXPECT_EQ(packs(), 1U);
  first->run_cold(tokens);
  EXPECT_EQ(packs(), 2U);
  first->run_cold(tokens);
  EXPECT_EQ(packs(), 2U);
  const auto puts = std::ranges::count_if(
      place_->asked, [](const std::string& text) { return text.starts_with("put v1/"); });
  EXPECT_EQ(puts, 2);
}

TEST_F(CoreObjectTest, APollWaitsForTheStoresAnswerAndNoLongerThanALookUpMay) {
  const auto tokens = Rig::make_tokens(4, 1);
  node()->run_cold(tokens);
  const auto second = node();
  place_->is_held = true;
  const RequestId id = second->begin(tokens);
  EXPECT_FALSE(second->offered(id).has_value());
  second->settle();
  EXPECT_FALSE(second->offered(id).has_value());
  second->clock.advance(second->options.lookup_deadline);
  EXPECT_EQ(second->offered(id), 0U);
  EXPECT_EQ(second->core.context().pool().pinned(), 0U);
  place_->is_held = false;
  second->settle();
  EXPECT_EQ(second->end(id).hit[kObject], Tokens(0));
}

TEST_F(CoreObjectTest, WhatTheStoreHasIsFetchedBeforeTheEngineAsks) {
  const auto tokens = Rig::make_tokens(4, 1);
  node()->run_cold(tokens);
  const auto second = node();
  const RequestId id = second->begin(tokens);
  for (int i = 0; i < 10; ++i) second->settle();
  EXPECT_TRUE(second->in_host(second->hashes(id)[3]));
  EXPECT_EQ(second->offered(id), 4U) << "the first poll has its answer";
}

// The answer may come at any time: the engine has all of it and computes, its chain growing.
TEST_F(CoreObjectTest, NothingIsFetchedForARequestThatComputesWhenTheStoreAnswers) {
  const auto tokens = Rig::make_tokens(8, 1);
  node()->run_cold(tokens);
  const auto second = node();
  place_->is_held = true;
  const RequestId id = second->begin(tokens);
  second->settle();
  EXPECT_EQ(second->offered(id, 8), 0U);
  ASSERT_TRUE(second->accept(id, 8, 0, {}).is_ok());
  const RequestId short_of_room = second->begin(tokens);
  second->settle();
  EXPECT_TRUE(second->poll(short_of_room, 0, 1).is_ready) << "less than a block may be loaded";
  ASSERT_TRUE(second->accept(short_of_room, 0, 0, {}).is_ok());
  const RequestId growing = second->begin(tokens);
  second->settle();
  ASSERT_NE(second->core.find_to_grow(growing), nullptr);
  place_->is_held = false;
  for (int i = 0; i < 10; ++i) second->settle();
  EXPECT_EQ(second->core.context().reserved(), 1U) << "the canary's";
}

TEST_F(CoreObjectTest, TheStoreIsNotAskedAboutAChainThatGrowsAndNobodyWaitsForIt) {
  const auto tokens = Rig::make_tokens(8, 1);
  node()->run_cold(tokens);
  const auto second = node();
  const std::size_t asked = place_->asked.size();
  const RequestId id = second->begin(tokens);
  Request* request = second->core.find_to_grow(id);
  second->settle();
  EXPECT_EQ(place_->asked.size(), asked);
  request->is_growing = false;
  EXPECT_EQ(second->offered(id), 0U);
}

TEST_F(CoreObjectTest, WhereNothingMoreCanBeThereNobodyWaits) {
  const auto second = node();
  const RequestId shorter = second->begin(Rig::make_tokens(3, 1));
  EXPECT_EQ(second->offered(shorter), 0U) << "shorter than a pack";
  const auto tokens = Rig::make_tokens(4, 2);
  second->run_cold(tokens);
  const std::size_t asked = place_->asked.size();
  EXPECT_EQ(second->offered(second->begin(tokens)), 4U) << "all in host";
  second->settle();
  EXPECT_EQ(place_->asked.size(), asked);
}

TEST_F(CoreObjectTest, AStoreThatIsAwayCostsNobodyAWait) {
  const auto tokens = Rig::make_tokens(4, 1);
  const auto second = node();
  place_->fault = [](const auto&) { return Status(Code::kIo, "reset by peer"); };
  for (std::uint32_t seed = 1; seed <= 10; ++seed) {
    const RequestId id = second->begin(Rig::make_tokens(4, seed));
    second->settle();
    EXPECT_EQ(second->offered(id), 0U);
    second->end(id);
  }
  EXPECT_FALSE(second->objects->problems().empty());
}

TEST_F(CoreObjectTest, UntilTheStoreHasAnsweredOnceTheFirstRequestsWait) {
  const auto tokens = Rig::make_tokens(4, 1);
  node()->run_cold(tokens);
  place_->is_held = true;
  const auto second = node();
  const RequestId id = second->begin(tokens);
  EXPECT_FALSE(second->offered(id).has_value());
  place_->is_held = false;
  EXPECT_EQ(second->look_up(id), 4U) << "the first request after a start hits";
}

TEST_F(CoreObjectTest, ADamagedPackIsAMissAndTheAnswerEndsBefore) {
  const auto tokens = Rig::make_tokens(8, 1);
  node()->run_cold(tokens);
  const auto second = node();
  const RequestId id = second->begin(tokens);
  const std::string last = second->hashes(id)[7].hex();
  for (auto& [name, bytes] : place_->objects) {
    // The payload of the pack's second block.
    if (name.ends_with(last + ".pack")) bytes.at(8192 + 4096 + 5) ^= std::byte{1};
  }
  EXPECT_EQ(second->look_up(id), 5U);
  EXPECT_EQ(second->counters.corrupt_blocks[kObject].value(), 1U);
  ASSERT_TRUE(second->accept(id, 0, 5, Rig::make_table(8)).is_ok());
  second->step();
  EXPECT_TRUE(second->is_right(id, 4, 4));
  EXPECT_EQ(second->end(id).first_miss, MissReason::kCorrupt);
}

TEST_F(CoreObjectTest, APackThatWentMeanwhileIsAMiss) {
  const auto tokens = Rig::make_tokens(4, 1);
  node()->run_cold(tokens);
  const auto second = node();
  const RequestId id = second->begin(tokens);
  place_->fault = [this](const transfer::ObjectRequest& request) {
    if (request.op == transfer::ObjectOp::kGet) place_->objects.clear();
    return Status();
  };
  EXPECT_EQ(second->look_up(id), 0U);
  ASSERT_TRUE(second->accept(id, 0, 0, {}).is_ok());
  EXPECT_EQ(second->end(id).first_miss, MissReason::kEvicted);
}

TEST_F(CoreObjectTest, TheDiskIsReadFirstAndTheStoreForTheRest) {
  const auto tokens = Rig::make_tokens(8, 1);
  node()->run_cold(tokens);
  const auto second = node({.has_disk = true});
  second->run_cold(std::span(tokens).first(4 * rig::kBlockTokens));
  for (std::uint32_t seed = 2; seed < 20; ++seed) second->run_cold(Rig::make_tokens(5, seed));
  const RequestId id = second->begin(tokens);
  ASSERT_FALSE(second->in_host(second->hashes(id)[0]));
  EXPECT_EQ(second->look_up(id), 8U);
  ASSERT_TRUE(second->accept(id, 0, 8, Rig::make_table(8)).is_ok());
  second->step();
  const Ledger ledger = second->end(id);
  EXPECT_EQ(ledger.hit[static_cast<std::size_t>(Tier::kDisk)], Tokens(4 * rig::kBlockTokens));
  EXPECT_EQ(ledger.hit[kObject], Tokens(4 * rig::kBlockTokens));
}

TEST_F(CoreObjectTest, AResetDropsThePacksHereAndForWhoStartsLater) {
  const auto tokens = Rig::make_tokens(4, 1);
  const auto first = node();
  first->run_cold(tokens);
  first->core.reset();
  EXPECT_FALSE(first->core.drop_outcome().has_value()) << "the store has not been told";
  first->settle();
  ASSERT_TRUE(first->core.drop_outcome().has_value());
  EXPECT_TRUE(first->core.drop_outcome()->is_ok());
  EXPECT_EQ(first->look_up(first->begin(tokens)), 0U);
  first->run_cold(tokens);
  const auto second = node();
  EXPECT_EQ(second->look_up(second->begin(tokens)), 0U) << "what came after it is not put, either";
}

TEST_F(CoreObjectTest, AStoreThatDoesNotTakeAResetIsNamed) {
  const auto first = node();
  place_->fault = [](const transfer::ObjectRequest& request) {
    return request.op == transfer::ObjectOp::kPut ? Status(Code::kRefused, "403") : Status();
  };
  first->core.reset();
  first->settle();
  const auto outcome = first->core.drop_outcome();
  ASSERT_TRUE(outcome.has_value());
  EXPECT_FALSE(outcome->is_ok());
  EXPECT_NE(outcome->message().find("403"), std::string::npos);
}

TEST_F(CoreObjectTest, AResetWaitsForAStoreThatIsOpeningAndIsNotOverWithoutIt) {
  Rig rig({.tune = [](Options& options) {
    options.object.open_store = [](const Clock&, LogSink&) {
      return fail(Code::kUnavailable, "never asked");
    };
  }});
  rig.core.reset();
  EXPECT_FALSE(rig.core.drop_outcome().has_value());
  EXPECT_NE(rig.core.undropped().message().find("it is opening"), std::string::npos);
  rig.core.close_objects("no such bucket");
  const auto outcome = rig.core.drop_outcome();
  ASSERT_TRUE(outcome.has_value());
  EXPECT_EQ(outcome->code(), Code::kUnavailable);
  EXPECT_NE(outcome->message().find("no such bucket"), std::string::npos);
  rig.core.begin_close();
  EXPECT_TRUE(rig.core.undropped().is_ok()) << "the store is closed with the rest";
}

TEST_F(CoreObjectTest, WhilePausedOrReadOnlyNothingIsPut) {
  const auto first = node();
  place_->is_held = true;
  first->run_cold(Rig::make_tokens(4, 1));
  first->core.set_mode(Mode::kReadOnly);
  place_->is_held = false;
  first->run_cold(Rig::make_tokens(4, 2));
  first->settle();
  EXPECT_LE(packs(), 1U) << "what had begun may end";
  first->core.set_mode(Mode::kOn);
  first->run_cold(Rig::make_tokens(4, 3));
  EXPECT_GE(packs(), 1U);
}

TEST_F(CoreObjectTest, PacksPinAtMostAQuarterOfTheHostAndTheRestIsDropped) {
  const auto first = node({.host_blocks = 32});
  place_->is_held = true;
  for (std::uint32_t seed = 1; seed <= 6; ++seed) first->run_cold(Rig::make_tokens(4, seed));
  EXPECT_EQ(first->core.packs().limit(), 2U);
  EXPECT_EQ(first->core.packs().size(), 2U);
  EXPECT_LE(first->core.context().pool().pinned(), 8U);
  EXPECT_EQ(first->counters.drop_pack.value(), 4U * 4U);
  place_->is_held = false;
  for (int i = 0; i < 10; ++i) first->settle();
  EXPECT_EQ(packs(), 2U);
  EXPECT_EQ(first->core.context().pool().pinned(), 0U);
}

TEST_F(CoreObjectTest, AHostTooSmallForPacksIsNamed) {
  const auto small = node({.host_blocks = 15});
  EXPECT_EQ(small->core.packs().limit(), 0U);
  EXPECT_NE(small->core.packs().problem().find("object.pack_blocks"), std::string::npos);
  const auto enough = node({.host_blocks = 20});
  EXPECT_EQ(enough->core.packs().limit(), 1U);
  EXPECT_EQ(enough->core.packs().problem(), "");
}

TEST_F(CoreObjectTest, ClosingDropsWhatWaitsAndLeaksNoPin) {
  const auto first = node();
  place_->is_held = true;
  for (std::uint32_t seed = 1; seed <= 4; ++seed) first->run_cold(Rig::make_tokens(4, seed));
  first->core.begin_close();
  first->core.stop_writes();
  first->objects->stop_writes();
  place_->is_held = false;
  for (int i = 0; i < 10; ++i) first->settle();
  EXPECT_EQ(first->core.packs().size(), 0U);
  EXPECT_EQ(first->core.context().pool().pinned(), 0U);
}

}  // namespace
}  // namespace terrace::manager
