#include "terrace/tier/object/object_tier.h"

#include <gmock/gmock.h>

#include "terrace/tier/object/object_tier_rig.h"
#include "terrace/wire/pack.h"

namespace terrace::tier::object {
namespace {

using ::testing::HasSubstr;

class ObjectTierTest : public ObjectTierRig {
 protected:
  ObjectTierTest() : chain_(chain_of(1, 12)), memory_(options_.layout, 12, 5) {}
  void write_all(std::uint64_t packs = 3) {
    for (std::uint64_t pack = 0; pack < packs; ++pack) {
      ASSERT_EQ(write(*tier_, chain_, memory_, pack).text(), Status().text());
    }
  }
  const std::vector<SequenceHash> chain_;
  ChainMemory memory_;
};

TEST_F(ObjectTierTest, AnotherNodeFindsAndReadsWhatThisOneWrote) {
  write_all();
  const auto other = open();
  EXPECT_EQ(other->match(GroupId(0), chain_), 0U) << "nobody has asked yet";
  EXPECT_TRUE(other->may_hold_more(chain_, 0));
  EXPECT_EQ(probe(*other, chain_), 12U);
  EXPECT_EQ(other->match(GroupId(1), chain_), 12U);
  EXPECT_FALSE(other->may_hold_more(chain_, 12));
  ChainMemory into(options_.layout, 12, 0);
  for (std::uint64_t block = 0; block < 12; ++block) {
    for (std::uint16_t group = 0; group < 2; ++group) {
      PackShards& target = into.at(block, group);
      ASSERT_EQ(read(*other, chain_[block], group, target).text(), Status().text());
      EXPECT_TRUE(ChainMemory::same(target, memory_.at(block, group)));
      EXPECT_EQ(target.checksums, memory_.at(block, group).checksums);
    }
  }
}

TEST_F(ObjectTierTest, AProbeFindsTheLeadingPacksOnly) {
  write_all(2);
  const auto other = open();
  EXPECT_EQ(probe(*other, chain_), 8U);
  EXPECT_EQ(probe(*other, std::span(chain_).first(7)), 4U) << "half a pack is none";
  EXPECT_EQ(probe(*other, std::span(chain_).first(3)), 0U);
  EXPECT_EQ(probe(*other, chain_of(2, 12)), 0U);
  auto branch = chain_;
  for (std::size_t i = 4; i < 12; ++i) branch[i] = chain_of(3, 12)[i];
  EXPECT_EQ(probe(*other, branch), 4U);
}

TEST_F(ObjectTierTest, WhatIsKnownIsNotAskedForAgainUntilItIsTooOld) {
  write_all(2);
  const auto other = open();
  (void)probe(*other, chain_);
  const std::size_t asked_before = asked("head");
  EXPECT_EQ(probe(*other, chain_), 8U);
  EXPECT_EQ(asked("head"), asked_before) << "two packs there, the third one not";
  EXPECT_FALSE(other->may_hold_more(chain_, 8));
  clock_.advance(seconds(2));
  EXPECT_TRUE(other->may_hold_more(chain_, 8)) << "somebody may have put it meanwhile";
  EXPECT_EQ(probe(*other, chain_), 8U);
  EXPECT_EQ(asked("head"), asked_before + 1);
  clock_.advance(seconds(600));
  EXPECT_EQ(other->match(GroupId(0), chain_), 0U);
}

TEST_F(ObjectTierTest, NeighboursAreReadByOneRequest) {
  write_all(2);
  ChainMemory into(options_.layout, 8, 0);
  const std::size_t gets = asked("get");
  for (std::uint64_t block = 0; block < 8; ++block) {
    for (std::uint16_t group = 0; group < 2; ++group) {
      ASSERT_TRUE(tier_
                      ->begin_read(block * 2 + group, GroupId(group), chain_[block],
                                   into.at(block, group).ranks, transfer::IoClass::kTtftRead,
                                   kNoDeadline)
                      .is_ok());
    }
  }
  const auto done = settle(*tier_);
  ASSERT_EQ(done.size(), 16U);
  for (const ObjectDone& one : done) EXPECT_EQ(one.status.text(), Status().text());
  EXPECT_EQ(asked("get"), gets + 2) << "one for each pack";
  for (std::uint64_t block = 0; block < 8; ++block) {
    EXPECT_TRUE(ChainMemory::same(into.at(block, 1), memory_.at(block, 1)));
  }
}

TEST_F(ObjectTierTest, AWindowsShardsAreReadWithoutTheRest) {
  write_all(1);
  PackShards& target = memory_.at(3, 1);
  ChainMemory into(options_.layout, 4, 0);
  ASSERT_EQ(read(*tier_, chain_[3], 1, into.at(3, 1)).text(), Status().text());
  EXPECT_TRUE(ChainMemory::same(into.at(3, 1), target));
}

TEST_F(ObjectTierTest, WhatIsThereIsNotWrittenAgain) {
  write_all(1);
  EXPECT_EQ(write(*tier_, chain_, memory_, 0).code(), Code::kInvalid);
  const auto other = open();
  EXPECT_EQ(write(*other, chain_, memory_, 0).code(), Code::kInvalid);
  EXPECT_EQ(asked("put"), 1U) << "the other node asked first";
  EXPECT_EQ(other->match(GroupId(0), chain_), 4U) << "and knows it now";
}

TEST_F(ObjectTierTest, OfTwoThatWriteAtOnceTheFirstOneStaysAndBothKnowIt) {
  const auto other = open();
  place_->is_held = true;
  const auto hashes = std::span(chain_).first(kPackBlocks);
  ASSERT_TRUE(tier_->begin_write(1, hashes, memory_.range(0, 4)).is_ok());
  ASSERT_TRUE(other->begin_write(2, hashes, memory_.range(0, 4)).is_ok());
  place_->is_held = false;
  std::vector<ObjectDone> done;
  for (int i = 0; i < 10; ++i) {
    tier_->poll(done);
    other->poll(done);
  }
  ASSERT_EQ(done.size(), 2U);
  for (const ObjectDone& one : done) {
    EXPECT_TRUE(one.status.is_ok() || one.status.code() == Code::kInvalid) << one.status.text();
  }
  EXPECT_EQ(packs(), 1U);
  EXPECT_EQ(tier_->match(GroupId(0), chain_), 4U);
  EXPECT_EQ(other->match(GroupId(0), chain_), 4U);
}

TEST_F(ObjectTierTest, AnotherNamespaceFindsNothing) {
  write_all(1);
  for (const bool is_content : {true, false}) {
    ObjectTier::Options other = options_;
    (is_content ? other.fingerprint.content : other.fingerprint.layout)[0].value = "b";
    const auto tier = make(other);
    (void)settle(*tier);
    EXPECT_EQ(probe(*tier, chain_), 0U);
  }
  ObjectTier::Options longer = options_;
  longer.pack_blocks = 2;
  const auto tier = make(longer);
  (void)settle(*tier);
  EXPECT_EQ(probe(*tier, chain_), 0U) << "packs of another length are others";
}

TEST_F(ObjectTierTest, APackGoneMeanwhileIsAMissAndForgotten) {
  write_all(2);
  place_->objects.erase(place_->objects.begin(), place_->objects.end());
  ChainMemory into(options_.layout, 1, 0);
  EXPECT_EQ(read(*tier_, chain_[1], 0, into.at(0, 0)).code(), Code::kNotFound);
  EXPECT_EQ(tier_->match(GroupId(0), chain_), 0U);
  EXPECT_EQ(read(*tier_, chain_[1], 0, into.at(0, 0)).code(), Code::kNotFound);
  EXPECT_EQ(asked("get"), 1U);
  EXPECT_EQ(write(*tier_, chain_, memory_, 0).text(), Status().text()) << "and it may come back";
  EXPECT_EQ(tier_->match(GroupId(0), chain_), 8U) << "that the second one is gone, nobody saw";
}

TEST_F(ObjectTierTest, EveryFlippedBitIsCorruptOfItsOwnBlockAlone) {
  write_all(1);
  const wire::PackGeometry pack(options_.layout, kPackBlocks);
  const wire::PackRange range = pack.shard_group(1, GroupId(0));
  Rng rng(9);
  for (int round = 0; round < 60; ++round) {
    const auto other = open();
    (void)probe(*other, chain_);
    // Not into the padding: that is nobody's. Payload and header page of rank 0 or 1.
    const std::uint64_t at = range.offset + rng.below(range.bytes);
    object()[at] ^= std::byte{1};
    ChainMemory into(options_.layout, 4, 0);
    for (std::uint64_t block = 0; block < 4; ++block) {
      ASSERT_TRUE(other
                      ->begin_read(block, GroupId(0), chain_[block], into.at(block, 0).ranks,
                                   transfer::IoClass::kTtftRead, kNoDeadline)
                      .is_ok());
    }
    const auto done = settle(*other);
    ASSERT_EQ(done.size(), 4U);
    for (const ObjectDone& one : done) {
      EXPECT_EQ(one.status.code(), one.token == 1 ? Code::kCorrupt : Code::kOk) << at;
      EXPECT_EQ(one.checksums.empty(), one.token == 1);
    }
    EXPECT_EQ(other->match(GroupId(0), chain_), 0U) << "the pack is no good";
    ASSERT_EQ(other->problems().size(), 1U);
    EXPECT_THAT(other->problems()[0], HasSubstr("is damaged"));
    object()[at] ^= std::byte{1};
  }
}

TEST_F(ObjectTierTest, AnotherPacksBytesUnderThisNameAreCorrupt) {
  write_all(2);
  const auto first = place_->objects.begin();
  std::swap(first->second, std::next(first)->second);
  ChainMemory into(options_.layout, 1, 0);
  EXPECT_EQ(read(*tier_, chain_[0], 0, into.at(0, 0)).code(), Code::kCorrupt);
}

TEST_F(ObjectTierTest, ACutPackIsNoneAndIsTold) {
  write_all(1);
  object().resize(object().size() - 1);
  const auto other = open();
  EXPECT_EQ(probe(*other, chain_), 0U);
  ASSERT_EQ(other->problems().size(), 1U);
  EXPECT_THAT(other->problems()[0], HasSubstr("is damaged: it has"));
  ChainMemory into(options_.layout, 1, 0);
  object().resize(100);
  EXPECT_EQ(read(*tier_, chain_[0], 0, into.at(0, 0)).code(), Code::kCorrupt)
      << "cut after it was found";
}

TEST_F(ObjectTierTest, PaddingComesFromNobodysMemory) {
  write_all(1);
  const wire::PackGeometry pack(options_.layout, kPackBlocks);
  const auto& bytes = object();
  const wire::PackRange range = pack.shard_group(0, GroupId(1));
  for (std::uint64_t i = 4096 + 5000; i < pack.frame_bytes(GroupId(1)); ++i) {
    ASSERT_EQ(bytes[range.offset + i], std::byte{0});
  }
  const auto footer = wire::decode_pack_footer(bytes);
  ASSERT_TRUE(footer.has_value());
  EXPECT_EQ(footer->hashes, std::vector(chain_.begin(), chain_.begin() + 4));
  EXPECT_EQ(footer->payload_bytes, (std::vector<std::uint64_t>{8192, 5000}));
  EXPECT_EQ(bytes.size(), pack.bytes());
}

TEST_F(ObjectTierTest, BeforeTheStoreHasAnsweredNothingIsThere) {
  place_->fault = [](const auto&) { return Status(Code::kUnavailable, "connection refused"); };
  const auto tier = open();
  EXPECT_FALSE(tier->is_open());
  pass(*tier, 11);
  EXPECT_TRUE(tier->is_settled()) << "nobody waits for it";
  EXPECT_EQ(tier->begin_probe(1, chain_, kNoDeadline).code(), Code::kUnavailable);
  EXPECT_FALSE(tier->may_hold_more(chain_, 0));
  EXPECT_EQ(tier->begin_write(1, std::span(chain_).first(4), memory_.range(0, 4)).code(),
            Code::kUnavailable);
  ASSERT_EQ(tier->problems().size(), 1U);
  EXPECT_THAT(tier->problems()[0], HasSubstr("connection refused"));
  place_->fault = nullptr;
  pass(*tier, 11);
  EXPECT_TRUE(tier->is_open());
  EXPECT_TRUE(tier->problems().empty());
}

TEST_F(ObjectTierTest, AStoreWhoseListingsDoNotEndIsToldAndAskedAgain) {
  const auto twist = [](const transfer::ObjectRequest& request, transfer::ObjectAnswer& answer) {
    if (request.op == transfer::ObjectOp::kList)
      answer.next = std::string(request.after == "a" ? "b" : "a");
  };
  place_->twist = twist;
  const auto tier = open();
  EXPECT_FALSE(tier->is_open());
  ASSERT_EQ(tier->problems().size(), 1U);
  EXPECT_THAT(tier->problems()[0], HasSubstr("memory: "));
  EXPECT_THAT(tier->problems()[0], HasSubstr("/resets/: after page"));
  place_->twist = nullptr;
  pass(*tier, 11);
  EXPECT_TRUE(tier->is_open());
  EXPECT_TRUE(tier->problems().empty());
  place_->twist = twist;
  tier->forget_all();
  (void)settle(*tier);
  ASSERT_EQ(tier->undropped().size(), 1U);
  EXPECT_THAT(tier->undropped()[0], HasSubstr("round in a circle"));
  place_->twist = nullptr;
  pass(*tier, 11);
  EXPECT_TRUE(tier->undropped().empty());
}

TEST_F(ObjectTierTest, AStoreThatFailsInTheMiddleEndsProbesReadsAndWrites) {
  write_all(1);
  const auto other = open();
  (void)probe(*other, chain_);
  place_->fault = [](const auto&) { return Status(Code::kIo, "reset by peer"); };
  clock_.advance(seconds(3));
  ASSERT_TRUE(other->begin_probe(1, chain_, kNoDeadline).is_ok());
  ChainMemory into(options_.layout, 1, 0);
  ASSERT_TRUE(other
                  ->begin_read(2, GroupId(0), chain_[0], into.at(0, 0).ranks,
                               transfer::IoClass::kTtftRead, kNoDeadline)
                  .is_ok());
  ASSERT_TRUE(other->begin_write(3, std::span(chain_).subspan(4, 4), memory_.range(4, 4)).is_ok());
  const auto done = settle(*other);
  ASSERT_EQ(done.size(), 3U);
  for (const ObjectDone& one : done) EXPECT_EQ(one.status.code(), Code::kIo);
  EXPECT_TRUE(other->is_idle());
  EXPECT_EQ(other->match(GroupId(0), chain_), 4U) << "an error says nothing about what is there";
}

TEST_F(ObjectTierTest, AfterAResetNothingMatchesHereOrForWhoStartsLater) {
  write_all(2);
  tier_->forget_all();
  EXPECT_EQ(tier_->match(GroupId(0), chain_), 0U);
  EXPECT_FALSE(tier_->may_hold_more(chain_, 0));
  EXPECT_EQ(tier_->begin_probe(1, chain_, kNoDeadline).code(), Code::kUnavailable);
  EXPECT_EQ(tier_->begin_write(1, std::span(chain_).first(4), memory_.range(0, 4)).code(),
            Code::kUnavailable);
  EXPECT_TRUE(tier_->is_drop_pending());
  EXPECT_EQ(tier_->undropped().size(), 1U);
  EXPECT_TRUE(settle(*tier_).empty());
  EXPECT_FALSE(tier_->is_drop_pending());
  EXPECT_TRUE(tier_->undropped().empty());

  const auto later = open();
  EXPECT_EQ(probe(*later, chain_), 0U);
  EXPECT_EQ(write(*later, chain_, memory_, 0).text(), Status().text());
  const auto third = open();
  EXPECT_EQ(probe(*third, chain_), 4U) << "of the new generation";
}

TEST_F(ObjectTierTest, AResetThatTheStoreDoesNotTakeIsToldAndTriedAgain) {
  write_all(1);
  place_->fault = [](const auto& request) {
    return request.op == transfer::ObjectOp::kPut ? Status(Code::kRefused, "403 AccessDenied")
                                                  : Status();
  };
  tier_->forget_all();
  (void)settle(*tier_);
  EXPECT_FALSE(tier_->is_drop_pending()) << "who waits for it is told";
  ASSERT_EQ(tier_->undropped().size(), 1U);
  EXPECT_THAT(tier_->undropped()[0], HasSubstr("403 AccessDenied"));
  EXPECT_THAT(tier_->undropped()[0], HasSubstr("delete v1/"));
  place_->fault = nullptr;
  clock_.advance(seconds(5));
  (void)settle(*tier_);
  EXPECT_TRUE(tier_->undropped().empty());
  EXPECT_EQ(probe(*open(), chain_), 0U);
}

// Of a node whose clock is a day ahead, or was before it was set back.
TEST_F(ObjectTierTest, AResetCountsWhateverTheClocksOfOthersSay) {
  const testing::FakeClock ahead(seconds(1000), clock_.wall_seconds() + 86'400);
  const auto with_clock = [&] {
    auto tier = make(options_, ahead);
    (void)settle(*tier);
    return tier;
  };
  const auto other = with_clock();
  other->forget_all();
  (void)settle(*other);
  const auto restarted = with_clock();
  ASSERT_EQ(write(*restarted, chain_, memory_, 0).text(), Status().text());
  tier_->forget_all();
  (void)settle(*tier_);
  EXPECT_TRUE(tier_->undropped().empty());
  EXPECT_EQ(probe(*open(), chain_), 0U);
}

TEST_F(ObjectTierTest, OfTwoResetsInOneSecondTheLaterDropsWhatWasStoredBetween) {
  const auto other = open();
  other->forget_all();
  (void)settle(*other);
  ASSERT_EQ(write(*open(), chain_, memory_, 0).text(), Status().text());
  tier_->forget_all();
  (void)settle(*tier_);
  EXPECT_TRUE(tier_->undropped().empty());
  EXPECT_EQ(probe(*open(), chain_), 0U);
}

// Somebody who may write there leaves a name after which no other could follow.
TEST_F(ObjectTierTest, AResetOfTheHighestNumberStopsNoOther) {
  write_all(1);
  const std::string pack = place_->objects.begin()->first;
  const std::string resets = pack.substr(0, pack.find("/g0/")) + "/resets/";
  place_->objects[resets + "18446744073709551615"] = {std::byte{1}};
  const auto other = open();
  EXPECT_EQ(probe(*other, chain_), 4U) << "it is none";
  other->forget_all();
  (void)settle(*other);
  EXPECT_FALSE(other->is_drop_pending());
  EXPECT_TRUE(other->undropped().empty());
  EXPECT_EQ(probe(*open(), chain_), 0U);
  // The last that is one: said, not tried for ever.
  place_->objects[resets + "01000000000000000000"] = {std::byte{1}};
  const auto last = open();
  place_->asked.clear();
  last->forget_all();
  (void)settle(*last);
  EXPECT_LT(place_->asked.size(), 20U);
  ASSERT_EQ(last->undropped().size(), 1U);
  EXPECT_THAT(last->undropped()[0], HasSubstr("no generation is left: remove v1/"));
}

TEST_F(ObjectTierTest, AResetIsNotOverBeforeTheStoreHasShownThatItIsTheLast) {
  const auto no_lists = [](const auto& request) {
    return request.op == transfer::ObjectOp::kList ? Status(Code::kRefused, "403 AccessDenied")
                                                   : Status();
  };
  place_->fault = no_lists;
  tier_->forget_all();
  (void)settle(*tier_);
  EXPECT_FALSE(tier_->is_drop_pending());
  ASSERT_EQ(tier_->undropped().size(), 1U);
  EXPECT_THAT(tier_->undropped()[0], HasSubstr("403 AccessDenied"));
  place_->fault = nullptr;
  clock_.advance(seconds(5));
  (void)settle(*tier_);
  EXPECT_TRUE(tier_->undropped().empty());
  EXPECT_TRUE(tier_->is_idle());
}

TEST_F(ObjectTierTest, AReadThatAResetOvertakesIsAMiss) {
  write_all(1);
  ChainMemory into(options_.layout, 1, 0);
  ASSERT_TRUE(tier_
                  ->begin_read(2, GroupId(0), chain_[0], into.at(0, 0).ranks,
                               transfer::IoClass::kTtftRead, kNoDeadline)
                  .is_ok());
  tier_->forget_all();
  const auto done = settle(*tier_);
  ASSERT_EQ(done.size(), 1U);
  EXPECT_EQ(done[0].status.code(), Code::kNotFound);
}

TEST_F(ObjectTierTest, BoundsAreKept) {
  ObjectTier::Options options = options_;
  options.most_reads = 2;
  options.most_probes = 1;
  options.most_writes = 1;
  const auto tier = make(options);
  (void)settle(*tier);
  write_all(1);
  (void)probe(*tier, chain_);
  place_->is_held = true;
  ChainMemory into(options_.layout, 4, 0);
  const auto begin = [&](std::uint64_t block) {
    return tier->begin_read(block, GroupId(0), chain_[block], into.at(block, 0).ranks,
                            transfer::IoClass::kTtftRead, kNoDeadline);
  };
  EXPECT_TRUE(begin(0).is_ok());
  EXPECT_TRUE(begin(1).is_ok());
  EXPECT_EQ(begin(2).code(), Code::kExhausted);
  EXPECT_TRUE(tier->begin_probe(1, chain_, kNoDeadline).is_ok());
  EXPECT_EQ(tier->begin_probe(1, chain_, kNoDeadline).code(), Code::kExhausted);
  EXPECT_TRUE(tier->begin_write(1, std::span(chain_).subspan(4, 4), memory_.range(4, 4)).is_ok());
  EXPECT_EQ(tier->begin_write(1, std::span(chain_).subspan(8, 4), memory_.range(8, 4)).code(),
            Code::kExhausted);
  place_->is_held = false;
  EXPECT_EQ(settle(*tier).size(), 4U);
  EXPECT_TRUE(tier->is_idle());
  EXPECT_TRUE(begin(2).is_ok());
}

TEST_F(ObjectTierTest, WhatMakesNoSenseIsRefused) {
  ChainMemory into(options_.layout, 4, 0);
  write_all(1);
  EXPECT_EQ(read(*tier_, chain_[0], 1, into.at(0, 0)).code(), Code::kInvalid) << "other sizes";
  PackShards one_rank = into.at(0, 0);
  one_rank.ranks.pop_back();
  EXPECT_EQ(read(*tier_, chain_[0], 0, one_rank).code(), Code::kInvalid);
  EXPECT_EQ(tier_->begin_write(1, std::span(chain_).first(3), memory_.range(0, 3)).code(),
            Code::kInvalid);
  auto shards = memory_.range(4, 4);
  shards[2].checksums.clear();
  EXPECT_EQ(tier_->begin_write(1, std::span(chain_).subspan(4, 4), shards).code(), Code::kInvalid);
  EXPECT_EQ(tier_->match(GroupId(2), chain_), 0U);
  ObjectTier::Options wrong = options_;
  wrong.pack_blocks = 0;
  EXPECT_FALSE(ObjectTier::create(wrong, nullptr, clock_, log_).has_value());
}

TEST_F(ObjectTierTest, StoppingEndsWritesAndLetsReadsGoOn) {
  write_all(1);
  place_->is_held = true;
  ASSERT_TRUE(tier_->begin_write(1, std::span(chain_).subspan(4, 4), memory_.range(4, 4)).is_ok());
  tier_->stop_writes();
  EXPECT_EQ(tier_->begin_write(2, std::span(chain_).subspan(8, 4), memory_.range(8, 4)).code(),
            Code::kClosed);
  place_->is_held = false;
  const auto done = settle(*tier_);
  ASSERT_EQ(done.size(), 1U);
  EXPECT_EQ(done[0].status.code(), Code::kClosed);
  ChainMemory into(options_.layout, 1, 0);
  EXPECT_TRUE(read(*tier_, chain_[0], 0, into.at(0, 0)).is_ok());
}

}  // namespace
}  // namespace terrace::tier::object
