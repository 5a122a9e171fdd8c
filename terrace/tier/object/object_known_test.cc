// What a node goes on taking for true of packs that others have, too.
#include <gmock/gmock.h>

#include <algorithm>

#include "terrace/testing/memory_log.h"
#include "terrace/tier/object/object_tier.h"
#include "terrace/tier/object/object_tier_rig.h"
#include "terrace/wire/pack.h"

namespace terrace::tier::object {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class ObjectKnownTest : public ObjectTierRig {
 protected:
  static constexpr const char* kCorrupt = "terrace_object_corrupt_blocks_total";

  // Looks the chain up, as a request does, and reads its first block if that is there.
  void request(ObjectTier& tier) {
    std::uint64_t found = tier.match(GroupId(0), chain_);
    if (tier.may_hold_more(chain_, found)) found = probe(tier, chain_);
    ChainMemory into(options_.layout, 1, 0);
    if (found > 0) (void)read(tier, chain_[0], 0, into.at(0, 0));
  }
  void damage() {
    const wire::PackGeometry pack(options_.layout, kPackBlocks);
    object()[pack.shard_group(0, GroupId(0)).offset + 5000] ^= std::byte{1};
  }

  const ChainMemory memory_{options_.layout, 4, 5};
  const std::vector<SequenceHash> chain_ = chain_of(1, 4);
};

// Prompts that begin alike and part within a pack.
TEST_F(ObjectKnownTest, APackIsFoundWhateverBecomesOfAnotherWithItsHead) {
  auto other_chain = chain_of(2, 4);
  std::copy_n(chain_.begin(), 2, other_chain.begin());
  const std::span one_chain(chain_);
  ASSERT_EQ(write(*tier_, one_chain, memory_, 0).text(), Status().text());
  ASSERT_EQ(write(*tier_, other_chain, memory_, 0).text(), Status().text());
  const auto node = open();
  EXPECT_EQ(probe(*node, one_chain), 4U);
  EXPECT_EQ(probe(*node, other_chain), 4U);
  clock_.advance(seconds(601));
  EXPECT_EQ(probe(*node, one_chain), 4U) << "the other one is too old to count";
  EXPECT_EQ(node->match(GroupId(0), one_chain), 4U);
  EXPECT_EQ(probe(*node, other_chain), 4U);
  std::erase_if(place_->objects, [&](const auto& item) {
    return item.first.ends_with(one_chain.back().hex() + ".pack");
  });
  ChainMemory into(options_.layout, 1, 0);
  EXPECT_EQ(read(*node, one_chain[3], 0, into.at(0, 0)).code(), Code::kNotFound);
  EXPECT_EQ(node->match(GroupId(0), one_chain), 2U);
  EXPECT_EQ(node->match(GroupId(0), other_chain), 4U);
}

TEST_F(ObjectKnownTest, ADamagedPackIsReadOnceAnHourHoweverManyRequestsWantIt) {
  ASSERT_EQ(write(*tier_, chain_, memory_, 0).text(), Status().text());
  damage();
  testing::MemoryLog log;
  const auto node = *ObjectTier::create(
      options_, std::make_unique<testing::MemoryObjectStore>(place_, 8), clock_, log);
  (void)settle(*node);
  for (int i = 0; i < 100; ++i) {
    request(*node);
    clock_.advance(seconds(10));
    // Whoever computes it again offers it to the store, which says that it has it.
    if (i % 10 == 5) {
      EXPECT_EQ(write(*node, chain_, memory_, 0).code(), Code::kInvalid);
    }
    EXPECT_EQ(node->match(GroupId(0), chain_), 0U) << i;
  }
  EXPECT_EQ(counter(*node, kCorrupt), 1U);
  EXPECT_EQ(asked("get"), 2U) << "twice at once, to be sure";
  EXPECT_EQ(log.count("event=object_damaged"), 1U);
  EXPECT_FALSE(node->wants(chain_.back())) << "it would not be replaced";
  clock_.advance(seconds(3600));
  request(*node);
  EXPECT_EQ(counter(*node, kCorrupt), 2U) << "somebody may have put it anew";
}

TEST_F(ObjectKnownTest, ADamagedPackThatWasRemovedIsWrittenAnewAndFound) {
  ASSERT_EQ(write(*tier_, chain_, memory_, 0).text(), Status().text());
  damage();
  request(*tier_);
  EXPECT_EQ(tier_->match(GroupId(0), chain_), 0U);
  std::erase_if(place_->objects, [](const auto& item) { return item.first.ends_with(".pack"); });
  EXPECT_EQ(write(*tier_, chain_, memory_, 0).text(), Status().text());
  EXPECT_EQ(tier_->match(GroupId(0), chain_), 4U);
}

TEST_F(ObjectKnownTest, ManyDamagedPacksAreToldInFewLines) {
  for (std::uint64_t number = 0; number < 100; ++number) {
    ASSERT_EQ(write(*tier_, chain_of(number, 4), memory_, 0).text(), Status().text());
  }
  for (auto& [name, bytes] : place_->objects) {
    if (name.ends_with(".pack")) bytes.pop_back();
  }
  testing::MemoryLog log;
  const auto node = *ObjectTier::create(
      options_, std::make_unique<testing::MemoryObjectStore>(place_, 8), clock_, log);
  (void)settle(*node);
  for (std::uint64_t number = 0; number < 100; ++number) {
    EXPECT_EQ(probe(*node, chain_of(number, 4)), 0U);
  }
  EXPECT_LE(log.count("event=object_damaged"), 10U);
  clock_.advance(seconds(61));
  (void)settle(*node);
  EXPECT_LE(log.count("event=object_damaged"), 11U) << "and one that counts the rest";
  EXPECT_EQ(log.count("event=object_damaged left_out=90"), 1U);
  // Looked at twice, told once.
  EXPECT_EQ(probe(*node, chain_of(3, 4)), 0U);
  EXPECT_LE(log.count("event=object_damaged"), 11U);
}

// What came over the way to the store is not what lies there.
TEST_F(ObjectKnownTest, BytesThatAreRightAtTheSecondReadCondemnNoPack) {
  ASSERT_EQ(write(*tier_, chain_, memory_, 0).text(), Status().text());
  int gets = 0;
  place_->fault = [&](const transfer::ObjectRequest& request) {
    if (request.op == transfer::ObjectOp::kGet && ++gets <= 2) damage();  // Twice is not at all.
    return Status();
  };
  ChainMemory into(options_.layout, 1, 0);
  PackShards& block = into.at(0, 0);
  EXPECT_EQ(read(*tier_, chain_[0], 0, block).text(), Status().text());
  EXPECT_TRUE(ChainMemory::same(block, ChainMemory(options_.layout, 4, 5).at(0, 0)));
  EXPECT_EQ(gets, 2);
  EXPECT_THAT(tier_->problems(), IsEmpty());
  EXPECT_EQ(tier_->match(GroupId(0), chain_), 4U);
  EXPECT_EQ(counter(*tier_, kCorrupt), 0U);
}

TEST_F(ObjectKnownTest, AnAnswerThatMakesNoSenseCondemnsNoPack) {
  ASSERT_EQ(write(*tier_, chain_, memory_, 0).text(), Status().text());
  place_->fault = [](const transfer::ObjectRequest& request) {
    return request.op == transfer::ObjectOp::kGet ? Status(Code::kIo, "answered 200 to a range")
                                                  : Status();
  };
  ChainMemory into(options_.layout, 1, 0);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(read(*tier_, chain_[0], 0, into.at(0, 0)).code(), Code::kIo);
    EXPECT_EQ(probe(*tier_, chain_of(2, 4)), 0U) << "it answers";
    if (i < 2) {
      EXPECT_THAT(tier_->problems(), IsEmpty());
    } else {
      EXPECT_THAT(tier_->problems(),
                  ElementsAre(AllOf(HasSubstr("packs cannot be read, though it answers"),
                                    HasSubstr("answered 200 to a range"))));
    }
    clock_.advance(seconds(3));
  }
  place_->fault = {};
  EXPECT_EQ(tier_->match(GroupId(0), chain_), 4U);
  EXPECT_EQ(read(*tier_, chain_[0], 0, into.at(0, 0)).text(), Status().text());
  EXPECT_THAT(tier_->problems(), IsEmpty());
}

// What cannot be read once more in time is a miss, and no more than that.
TEST_F(ObjectKnownTest, APackThatDidNotVerifyOnceAndGaveNoSecondAnswerIsNotCondemned) {
  ASSERT_EQ(write(*tier_, chain_, memory_, 0).text(), Status().text());
  int gets = 0;
  place_->fault = [&](const transfer::ObjectRequest& request) {
    const bool is_late = request.op == transfer::ObjectOp::kGet && ++gets == 2;
    return is_late ? Status(Code::kDeadline, "late") : Status();
  };
  damage();
  ChainMemory into(options_.layout, 1, 0);
  EXPECT_EQ(read(*tier_, chain_[0], 0, into.at(0, 0)).code(), Code::kDeadline);
  EXPECT_THAT(tier_->problems(), IsEmpty());
  EXPECT_EQ(tier_->match(GroupId(0), chain_), 4U);
  EXPECT_EQ(read(*tier_, chain_[0], 0, into.at(0, 0)).code(), Code::kCorrupt);
  EXPECT_THAT(tier_->problems(), ElementsAre(HasSubstr("is damaged")));
}

// Shard groups that lie side by side, of which some arrive damaged.
class ObjectReadAgainTest : public ObjectKnownTest {
 protected:
  static constexpr std::size_t kReads = 8;  // Four blocks of two groups.

  void SetUp() override {
    ASSERT_EQ(write(*tier_, chain_, memory_, 0).text(), Status().text());
    place_->fault = [this](const transfer::ObjectRequest& request) {
      if (request.op != transfer::ObjectOp::kGet) return Status();
      gets_.push_back(request.bytes());
      if (gets_.size() > 1) return second_;
      for (const std::size_t number : damaged_) flip(number);
      return Status();
    };
  }
  void flip(std::size_t number) { object()[place(number).offset + 5000] ^= std::byte{1}; }
  // All by one request; those of `damaged` are right again from the second one on. By their number.
  std::vector<Code> read_all(std::vector<std::size_t> damaged, Status second) {
    damaged_ = std::move(damaged);
    second_ = std::move(second);
    gets_.clear();
    for (std::size_t number = 0; number < kReads; ++number) {
      const auto group = static_cast<std::uint16_t>(number % 2);
      EXPECT_TRUE(tier_
                      ->begin_read(number, GroupId(group), chain_[number / 2],
                                   into_.at(number / 2, group).ranks, transfer::IoClass::kTtftRead,
                                   kNoDeadline)
                      .is_ok());
    }
    std::vector<ObjectDone> done;
    while (gets_.empty()) tier_->poll(done);
    for (const std::size_t number : damaged_) flip(number);
    for (ObjectDone& one : settle(*tier_)) done.push_back(std::move(one));
    std::vector<Code> codes(kReads, Code::kInternal);
    EXPECT_EQ(done.size(), kReads);
    for (const ObjectDone& one : done) {
      codes[one.token] = one.status.code();
      if (!one.status.is_ok()) continue;
      const PackShards& right = content_.at(one.token / 2, one.token % 2);
      EXPECT_TRUE(ChainMemory::same(into_.at(one.token / 2, one.token % 2), right)) << one.token;
      EXPECT_EQ(one.checksums, right.checksums) << one.token;
    }
    return codes;
  }
  [[nodiscard]] wire::PackRange place(std::size_t number) const {
    return pack_.shard_group(static_cast<std::uint32_t>(number / 2),
                             GroupId(static_cast<std::uint16_t>(number % 2)));
  }

  const wire::PackGeometry pack_{options_.layout, kPackBlocks};
  ChainMemory content_{options_.layout, 4, 5};
  ChainMemory into_{options_.layout, 4, 0};
  std::vector<std::size_t> damaged_;
  Status second_;
  std::vector<std::uint64_t> gets_;  // Bytes of each.
};

TEST_F(ObjectReadAgainTest, WhatVerifiedIsAHitWhenTheSecondReadOfItsNeighbourFails) {
  for (const Code code : {Code::kDeadline, Code::kIo, Code::kNotFound}) {
    SCOPED_TRACE(to_string(code));
    auto wanted = std::vector<Code>(kReads, Code::kOk);
    wanted[3] = code;
    EXPECT_EQ(read_all({3}, {code, "not now"}), wanted);
    EXPECT_THAT(tier_->problems(), IsEmpty());
    // What is gone is looked for again a little later.
    EXPECT_EQ(tier_->match(GroupId(0), chain_), code == Code::kNotFound ? 0U : 4U);
  }
}

TEST_F(ObjectReadAgainTest, OnlyWhatDoesNotVerifyIsReadAgainNeighboursTogether) {
  EXPECT_EQ(read_all({1, 2, 6}, {}), std::vector<Code>(kReads, Code::kOk));
  ASSERT_EQ(gets_.size(), 3U);
  EXPECT_EQ(gets_[1], place(1).bytes + place(2).bytes);
  EXPECT_EQ(gets_[2], place(6).bytes);
  EXPECT_EQ(counter(*tier_, kCorrupt), 0U);
  EXPECT_EQ(counter(*tier_, "terrace_object_blocks_total", "op=\"read\""), kReads);
}

TEST_F(ObjectReadAgainTest, WhatDoesNotVerifyTwiceCondemnsThePackAndNoNeighbour) {
  flip(0);
  flip(5);
  auto wanted = std::vector<Code>(kReads, Code::kOk);
  wanted[0] = wanted[5] = Code::kCorrupt;
  EXPECT_EQ(read_all({}, {}), wanted);
  EXPECT_THAT(tier_->problems(), ElementsAre(HasSubstr("is damaged")));
  EXPECT_EQ(tier_->match(GroupId(0), chain_), 0U);
}

// What the status says of damaged packs, and for how long.
class ObjectDamageTest : public ObjectKnownTest {
 protected:
  void SetUp() override {
    ASSERT_EQ(write(*tier_, chain_, memory_, 0).text(), Status().text());
    damage();
    request(*tier_);
    ASSERT_THAT(tier_->problems(), ElementsAre(HasSubstr("is damaged")));
    pass(*tier_, 5);
    ASSERT_THAT(tier_->problems(), ElementsAre(HasSubstr("is damaged")));
  }
  void remove_all() {
    std::erase_if(place_->objects, [](const auto& item) { return item.first.ends_with(".pack"); });
  }
};

TEST_F(ObjectDamageTest, ADamagedPackThatWasRemovedIsToldNoMore) {
  remove_all();
  pass(*tier_, 31);
  EXPECT_THAT(tier_->problems(), IsEmpty());
  EXPECT_TRUE(tier_->wants(chain_.back())) << "it may be written anew";
}

TEST_F(ObjectDamageTest, ADamagedPackThatSomebodyReplacedIsToldNoMoreAndServed) {
  remove_all();
  const auto other = open();
  place_->wall_seconds = [] { return SystemClock().wall_seconds() + 100; };
  ASSERT_EQ(write(*other, chain_, memory_, 0).text(), Status().text());
  pass(*tier_, 31);
  EXPECT_THAT(tier_->problems(), IsEmpty());
  EXPECT_EQ(probe(*tier_, chain_), 4U);
}

TEST_F(ObjectDamageTest, ADamagedPackThatIsWrittenAnewIsToldNoMore) {
  remove_all();
  ASSERT_EQ(write(*tier_, chain_, memory_, 0).text(), Status().text());
  EXPECT_THAT(tier_->problems(), IsEmpty());
}

TEST_F(ObjectDamageTest, ADamagedPackThatIsReadWellAgainIsToldNoMore) {
  damage();  // Twice is not at all.
  pass(*tier_, 600);
  EXPECT_THAT(tier_->problems(), ElementsAre(HasSubstr("is damaged"))) << "it looks the same";
  clock_.advance(seconds(3600));
  ASSERT_EQ(probe(*tier_, chain_), 4U);
  ChainMemory into(options_.layout, 1, 0);
  ASSERT_EQ(read(*tier_, chain_[1], 0, into.at(0, 0)).text(), Status().text());
  EXPECT_THAT(tier_->problems(), ElementsAre(HasSubstr("is damaged"))) << "that is another block";
  request(*tier_);
  EXPECT_THAT(tier_->problems(), IsEmpty());
}

TEST_F(ObjectDamageTest, OfSeveralTheNewestIsNamedAndTheOthersAreCounted) {
  for (std::uint64_t number = 2; number < 5; ++number) {
    const auto chain = chain_of(number, 4);
    ASSERT_EQ(write(*tier_, chain, memory_, 0).text(), Status().text());
    object(chain.back().hex() + ".pack").pop_back();
  }
  const auto node = open();
  for (std::uint64_t number = 2; number < 5; ++number) (void)probe(*node, chain_of(number, 4));
  EXPECT_THAT(node->problems(), ElementsAre(AllOf(HasSubstr(chain_of(4, 4).back().hex()),
                                                  HasSubstr("(and 2 more)"))));
  std::erase_if(place_->objects, [](const auto& item) {
    return item.first.ends_with(chain_of(4, 4).back().hex() + ".pack");
  });
  pass(*node, 40);
  EXPECT_THAT(node->problems(), ElementsAre(AllOf(HasSubstr(chain_of(3, 4).back().hex()),
                                                  HasSubstr("(and 1 more)"))));
  const auto looks = asked("head");
  pass(*node, 300);
  EXPECT_LE(asked("head") - looks, 22U) << "each every thirty seconds";
}

// A pack that lies behind it speaks for all before it, but not for one that was seen damaged.
TEST_F(ObjectKnownTest, APackBehindADamagedOneDoesNotSpeakForIt) {
  const auto chain = chain_of(7, 80);
  const ChainMemory memory(options_.layout, 80, 5);
  for (std::uint64_t pack = 0; pack < 20; ++pack) {
    ASSERT_EQ(write(*tier_, chain, memory, pack).text(), Status().text());
  }
  object(chain[2 * kPackBlocks - 1].hex() + ".pack")[5000] ^= std::byte{1};
  const auto node = open();
  EXPECT_EQ(probe(*node, chain), 80U);
  ChainMemory into(options_.layout, 1, 0);
  EXPECT_EQ(read(*node, chain[4], 0, into.at(0, 0)).code(), Code::kCorrupt);
  for (int i = 0; i < 3; ++i) {
    clock_.advance(seconds(700));
    EXPECT_EQ(probe(*node, chain), 4U);
    EXPECT_FALSE(node->may_hold_more(chain, 4));
  }
}

}  // namespace
}  // namespace terrace::tier::object
