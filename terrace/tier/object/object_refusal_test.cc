// A store that answers and will not do what it is asked: said, where everything would only be a
// miss.
#include <gmock/gmock.h>

#include "terrace/testing/memory_log.h"
#include "terrace/tier/object/object_tier.h"
#include "terrace/tier/object/object_tier_rig.h"

namespace terrace::tier::object {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using transfer::ObjectOp;
using transfer::ObjectRequest;

class ObjectRefusalTest : public ObjectTierRig {
 protected:
  ObjectRefusalTest() : chain_(chain_of(1, 12)), memory_(options_.layout, 12, 5) { open_at(8); }
  void open_at(unsigned depth) {
    auto store = std::make_unique<testing::MemoryObjectStore>(place_, depth);
    auto made = ObjectTier::create(options_, std::move(store), clock_, told_);
    EXPECT_TRUE(made.has_value());
    tier_ = *std::move(made);
    (void)settle(*tier_);
  }
  void refuse(const std::vector<ObjectOp>& ops, const Status& status) {
    place_->fault = [ops, status](const ObjectRequest& request) {
      return std::ranges::find(ops, request.op) == ops.end() ? Status() : status;
    };
  }
  void look_up() {
    EXPECT_TRUE(tier_->begin_probe(1, chain_, kNoDeadline).is_ok());
    (void)settle(*tier_);
  }
  std::size_t lines() const {
    std::size_t count = 0;
    const std::string text = told_.text();
    for (std::size_t at = text.find("event=object_refused"); at != std::string::npos;
         at = text.find("event=object_refused", at + 1)) {
      ++count;
    }
    return count;
  }

  const std::vector<SequenceHash> chain_;
  ChainMemory memory_;
  testing::MemoryLog told_;
};

// As when a session token has expired.
TEST_F(ObjectRefusalTest, AskingThatIsRefusedIsAProblemUntilItIsNot) {
  EXPECT_THAT(tier_->problems(), IsEmpty());
  refuse({ObjectOp::kHead, ObjectOp::kGet, ObjectOp::kPut}, {Code::kRefused, "403 ExpiredToken"});
  look_up();
  look_up();
  EXPECT_THAT(tier_->problems(), ElementsAre(AllOf(HasSubstr("memory"), HasSubstr("ExpiredToken"),
                                                   HasSubstr("object.credentials_file"))));
  EXPECT_EQ(lines(), 1U) << told_.text();
  place_->fault = nullptr;
  look_up();
  EXPECT_THAT(tier_->problems(), IsEmpty()) << "an absent pack is an answer";
}

// As the s3 store's thread does when something escaped from it.
TEST_F(ObjectRefusalTest, AStoreThatHasEndedIsAProblem) {
  refuse({ObjectOp::kHead, ObjectOp::kGet, ObjectOp::kPut}, {Code::kClosed, "its thread ended"});
  look_up();
  EXPECT_THAT(tier_->problems(),
              ElementsAre(AllOf(HasSubstr("its thread ended"), HasSubstr("restart the engine"))));
  EXPECT_EQ(lines(), 1U) << told_.text();
}

TEST_F(ObjectRefusalTest, WhatEndsAsTheEngineDoesIsNoProblem) {
  open_at(1);
  place_->is_held = true;
  EXPECT_TRUE(tier_->begin_probe(9, chain_of(2, 12), kNoDeadline).is_ok());
  for (std::uint64_t pack = 0; pack < 3; ++pack) {
    ASSERT_TRUE(tier_
                    ->begin_write(pack, std::span(chain_).subspan(pack * kPackBlocks, kPackBlocks),
                                  memory_.range(pack * kPackBlocks, kPackBlocks))
                    .is_ok());
  }
  EXPECT_THAT(settle(*tier_), IsEmpty()) << "the looks before the puts wait for the probe's";
  tier_->stop_writes();
  place_->is_held = false;
  (void)settle(*tier_);
  EXPECT_THAT(tier_->problems(), IsEmpty());
  EXPECT_EQ(lines(), 0U) << told_.text();
}

TEST_F(ObjectRefusalTest, AReadThatIsRefusedIsAProblem) {
  ASSERT_TRUE(write(*tier_, chain_, memory_, 0).is_ok());
  refuse({ObjectOp::kGet}, {Code::kRefused, "403 AccessDenied"});
  ChainMemory into(options_.layout, 1, 0);
  EXPECT_EQ(read(*tier_, chain_[0], 0, into.at(0, 0)).code(), Code::kRefused);
  EXPECT_THAT(tier_->problems(), ElementsAre(HasSubstr("AccessDenied")));
  place_->fault = nullptr;
  EXPECT_TRUE(read(*tier_, chain_[0], 0, into.at(0, 0)).is_ok());
  EXPECT_THAT(tier_->problems(), IsEmpty());
}

TEST_F(ObjectRefusalTest, AFullStoreIsAProblemUntilItTakesAPack) {
  refuse({ObjectOp::kPut}, {Code::kExhausted, "pwritev /kv/x: ENOSPC"});
  EXPECT_EQ(write(*tier_, chain_, memory_, 0).code(), Code::kExhausted);
  EXPECT_EQ(write(*tier_, chain_, memory_, 1).code(), Code::kExhausted);
  EXPECT_THAT(tier_->problems(), ElementsAre(AllOf(HasSubstr("takes no more"), HasSubstr("ENOSPC"),
                                                   HasSubstr("object.max_age"))));
  EXPECT_EQ(lines(), 1U) << told_.text();
  look_up();
  EXPECT_THAT(tier_->problems(), ::testing::SizeIs(1)) << "to be asked needs no room";
  place_->fault = nullptr;
  EXPECT_TRUE(write(*tier_, chain_, memory_, 0).is_ok());
  EXPECT_THAT(tier_->problems(), IsEmpty());
}

// As the look-up before each put goes well, the queue never sees failures in a row.
TEST_F(ObjectRefusalTest, PacksThatNeverGoInAreAProblem) {
  refuse({ObjectOp::kPut}, {Code::kIo, "put x: 400 EntityTooLarge"});
  for (std::uint64_t pack = 0; pack < 2; ++pack) {
    EXPECT_EQ(write(*tier_, chain_, memory_, pack).code(), Code::kIo);
  }
  EXPECT_THAT(tier_->problems(), IsEmpty()) << "that may happen";
  EXPECT_EQ(write(*tier_, chain_, memory_, 2).code(), Code::kIo);
  EXPECT_THAT(tier_->problems(),
              ElementsAre(AllOf(HasSubstr("EntityTooLarge"), HasSubstr("object.pack_blocks"))));
  place_->fault = nullptr;
  EXPECT_TRUE(write(*tier_, chain_, memory_, 0).is_ok());
  EXPECT_THAT(tier_->problems(), IsEmpty());
  refuse({ObjectOp::kPut}, {Code::kIo, "put x: 400 EntityTooLarge"});
  EXPECT_EQ(write(*tier_, chain_, memory_, 1).code(), Code::kIo);
  EXPECT_THAT(tier_->problems(), IsEmpty()) << "it counts anew";
}

// With credentials that may only read an engine is served, and that may be meant.
TEST_F(ObjectRefusalTest, PutsThatAreRefusedAreSaidAndAreNoProblem) {
  refuse({ObjectOp::kPut}, {Code::kRefused, "403 AccessDenied"});
  EXPECT_EQ(write(*tier_, chain_, memory_, 0).code(), Code::kRefused);
  EXPECT_THAT(tier_->problems(), IsEmpty());
  EXPECT_THAT(tier_->summary(), HasSubstr("puts are refused: 403 AccessDenied"));
  EXPECT_THAT(told_.text(), HasSubstr("puts are refused"));
  place_->fault = nullptr;
  EXPECT_TRUE(write(*tier_, chain_, memory_, 0).is_ok());
  EXPECT_EQ(tier_->summary(), "");
}

}  // namespace
}  // namespace terrace::tier::object
