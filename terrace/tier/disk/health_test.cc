// The circuit breaker of each directory: what shuts and opens it, what is said, and when.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "terrace/testing/fake_clock.h"
#include "terrace/testing/memory_log.h"
#include "terrace/tier/disk/health_internal.h"

namespace terrace::tier::disk {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class HealthTest : public ::testing::Test {
 protected:
  void shut(std::uint32_t volume) {
    for (int i = 0; i < 5; ++i) health_.failed(volume, {Code::kIo, "preadv 0.slots: EIO (5)"});
  }
  [[nodiscard]] std::string problem() const {
    const auto problems = health_.problems();
    return problems.empty() ? "" : problems.front();
  }
  testing::FakeClock clock_;
  testing::MemoryLog log_;
  Health health_{{"/a", "/b"}, {}, clock_, log_};
};

TEST_F(HealthTest, AReadOnlyDirectoryIsReadAndNotWritten) {
  for (int i = 0; i < 20; ++i) {
    health_.write_failed(0, {Code::kRefused, "pwritev /a/0.slots: EROFS (30)"});
  }
  EXPECT_TRUE(health_.may_read(0));
  EXPECT_FALSE(health_.may_write(0));
  EXPECT_TRUE(health_.may_write(1));
  ASSERT_EQ(health_.problems().size(), 1U);
  EXPECT_THAT(health_.problems()[0], HasSubstr("state=read-only"));
  health_.succeeded(0, true);  // One that was under way.
  EXPECT_FALSE(health_.problems().empty());
  clock_.advance(seconds(30));
  EXPECT_TRUE(health_.may_write(0));
  health_.succeeded(0, true);
  EXPECT_THAT(health_.problems(), IsEmpty());
}

TEST_F(HealthTest, ASlowDirectoryTakesNoWritesWhileAnotherIsQuick) {
  health_.slow(0, 5e6, 2e9);
  EXPECT_TRUE(health_.may_read(0));
  EXPECT_FALSE(health_.may_write(0));
  EXPECT_TRUE(health_.may_write(1));
  EXPECT_THAT(health_.problems()[0], HasSubstr("5.0 MB/s where 2000 were usual"));
  health_.slow(1, 5e6, 2e9);
  EXPECT_TRUE(health_.may_write(0)) << "there is no better one";
  EXPECT_TRUE(health_.may_write(1));
  health_.quick(1);
  EXPECT_FALSE(health_.may_write(0));
  health_.quick(0);
  EXPECT_TRUE(health_.may_write(0));
  EXPECT_THAT(health_.problems(), IsEmpty());
}

TEST_F(HealthTest, ASlowDirectoryTakesWritesWhereTheQuickOneTakesNone) {
  health_.slow(0, 5e6, 2e9);
  health_.write_failed(1, {Code::kRefused, "pwritev /b/0.slots: EROFS (30)"});
  EXPECT_TRUE(health_.may_write(0));
}

TEST_F(HealthTest, OnlyErrorsInARowShutADirectory) {
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 4; ++i) health_.failed(0, {Code::kIo, "EIO"});
    EXPECT_TRUE(health_.may_read(0));
    health_.succeeded(0, false);
  }
  for (int i = 0; i < 10; ++i) health_.write_failed(0, {Code::kClosed, "the tier closes"});
  EXPECT_TRUE(health_.may_write(0)) << "that is nobody's fault";
}

TEST_F(HealthTest, TheSameProblemIsLoggedOnce) {
  for (int i = 0; i < 3; ++i) health_.write_failed(0, {Code::kExhausted, "ENOSPC"});
  EXPECT_EQ(log_.count("state=full"), 1U);
}

// Batches that were under way when it filled up would make health flap, and the log grow.
TEST_F(HealthTest, AFullPathIsHealthyOnlyWhenItIsWrittenAgain) {
  for (int i = 0; i < 3; ++i) {
    health_.write_failed(0, {Code::kExhausted, "no space"});
    health_.succeeded(0, true);
    EXPECT_EQ(health_.problems().size(), 1U);
  }
  EXPECT_EQ(log_.count("disk "), 1U);
  clock_.advance(seconds(11));
  ASSERT_TRUE(health_.may_write(0));
  health_.succeeded(0, true);
  EXPECT_TRUE(health_.problems().empty());
}

TEST_F(HealthTest, ItIsLookedAtEverMoreRarelyAndNeverLessThanEveryEightMinutes) {
  shut(0);
  for (const int rest : {30, 60, 120, 240, 480, 480, 480}) {
    clock_.advance(seconds(rest - 1));
    EXPECT_FALSE(health_.is_check_due(0)) << rest;
    clock_.advance(seconds(1));
    EXPECT_TRUE(health_.is_check_due(0)) << rest;
    health_.check_failed(0, {Code::kIo, "EIO"});
  }
  health_.returned(0, "good_blocks=1");
  shut(0);
  clock_.advance(seconds(30));
  EXPECT_TRUE(health_.is_check_due(0)) << "and from the start the next time";
}

TEST_F(HealthTest, WhatIsGoneOrHangsIsNotLookedAtBeforeItIsBack) {
  health_.gone(0, "ENOENT");
  health_.hangs(1, "nothing came back");
  clock_.advance(seconds(10'000));
  EXPECT_FALSE(health_.is_check_due(0));
  EXPECT_FALSE(health_.is_check_due(1));
  health_.found(0);
  health_.let_go(1);
  EXPECT_TRUE(health_.is_check_due(0));
  EXPECT_TRUE(health_.is_check_due(1));
}

TEST_F(HealthTest, WhatIsThereAsBeforeHastensNoCheck) {
  shut(0);
  health_.found(0);
  health_.let_go(0);
  EXPECT_FALSE(health_.is_check_due(0));
}

TEST_F(HealthTest, AShutDirectorysProblemStaysWhateverElseHappensToIt) {
  health_.write_failed(0, {Code::kExhausted, "ENOSPC"});
  shut(0);
  clock_.advance(seconds(20));
  health_.succeeded(0, true);
  EXPECT_THAT(problem(), HasSubstr("state=failing"));
  health_.slow(0, 5e6, 2e9);
  EXPECT_THAT(problem(), HasSubstr("state=failing"));
  health_.quick(0);
  health_.stuck(0, {Code::kIo, "EIO"});
  health_.grew(0);
  EXPECT_THAT(problem(), HasSubstr("state=failing"));
}

TEST_F(HealthTest, OneThatComesBackIsAsSlowAsItWas) {
  health_.slow(0, 5e6, 2e9);
  shut(0);
  health_.returned(0, "good_blocks=1");
  EXPECT_TRUE(health_.may_read(0));
  EXPECT_FALSE(health_.may_write(0)) << "the other one is quick";
}

TEST_F(HealthTest, WhatIsStillWrongIsSaidWhenSomethingElseIsWellAgain) {
  health_.slow(0, 5e6, 2e9);
  health_.write_failed(0, {Code::kExhausted, "ENOSPC"});
  health_.stuck(0, {Code::kIo, "fallocate /a/0.slots: EIO (5)"});
  EXPECT_THAT(problem(), HasSubstr("state=full"));
  clock_.advance(seconds(30));
  health_.succeeded(0, true);
  EXPECT_THAT(problem(), HasSubstr("state=stuck"));
  health_.grew(0);
  EXPECT_THAT(problem(), HasSubstr("state=slow"));
  shut(0);
  EXPECT_THAT(problem(), HasSubstr("state=failing"));
  health_.returned(0, "good_blocks=1");
  EXPECT_THAT(problem(), HasSubstr("state=slow")) << "it takes no new blocks";
  health_.quick(0);
  EXPECT_EQ(problem(), "");
}

TEST_F(HealthTest, WithTheLastDirectoryNothingCanBeRead) {
  EXPECT_TRUE(health_.lost(0));
  EXPECT_FALSE(health_.lost(0));
  EXPECT_TRUE(health_.any_readable());
  shut(1);
  health_.distrusted(1, "of an earlier time");
  EXPECT_FALSE(health_.any_readable());
}

TEST_F(HealthTest, AStuckDirectoryIsSaidUntilItGrowsAndAFullOneIsFull) {
  health_.stuck(0, {Code::kIo, "fallocate /a/0.slots: EIO (5)"});
  EXPECT_THAT(problem(), HasSubstr("state=stuck"));
  EXPECT_TRUE(health_.may_write(0)) << "where space is reserved";
  health_.grew(0);
  EXPECT_EQ(problem(), "");
  health_.stuck(0, {Code::kExhausted, "ENOSPC"});
  EXPECT_THAT(problem(), HasSubstr("state=full"));
  EXPECT_TRUE(health_.may_write(0));
  health_.write_failed(0, {Code::kExhausted, "ENOSPC"});
  EXPECT_FALSE(health_.may_write(0)) << "a frame's space was no promise";
  health_.grew(0);
  EXPECT_THAT(problem(), HasSubstr("state=full"));
  health_.stuck(1, {Code::kClosed, "the tier closes"});
  EXPECT_EQ(health_.problems().size(), 1U);
}

TEST_F(HealthTest, AShutDirectoryDoesNotOpenByWhatWasUnderWay) {
  for (int i = 0; i < 5; ++i) health_.failed(0, {Code::kIo, "preadv /a/0.slots: EIO (5)"});
  EXPECT_FALSE(health_.may_read(0));
  health_.succeeded(0, false);
  clock_.advance(seconds(1000));
  EXPECT_FALSE(health_.may_read(0));
  EXPECT_TRUE(health_.is_check_due(0));
  EXPECT_FALSE(health_.is_check_due(1));
  health_.returned(0, "good_blocks=1");
  EXPECT_TRUE(health_.may_read(0));
}

TEST_F(HealthTest, AFullDirectoryTakesNoWritesForTenSeconds) {
  health_.write_failed(0, {Code::kExhausted, "ENOSPC"});
  clock_.advance(milliseconds(9'999));
  EXPECT_FALSE(health_.may_write(0));
  clock_.advance(milliseconds(1));
  EXPECT_TRUE(health_.may_write(0));
  health_.succeeded(0, false);
  EXPECT_THAT(problem(), HasSubstr("state=full")) << "that it can be read says nothing";
}

TEST_F(HealthTest, WhatWasUnderWayWhenItWasShutPutsNoCheckOff) {
  shut(0);
  const std::string said = problem();
  clock_.advance(seconds(20));
  for (int i = 0; i < 9; ++i) health_.failed(0, {Code::kIo, "pwritev /a/0.slots: EIO (5)"});
  EXPECT_EQ(problem(), said);
  clock_.advance(seconds(10));
  EXPECT_TRUE(health_.is_check_due(0));
}

// Looks come every second: each of them would put the check off, or say it again.
TEST_F(HealthTest, WhatIsGoneOrHangsIsToldOnceAndLookedAtAsSoonAsItIsBack) {
  for (int i = 0; i < 3; ++i) {
    health_.gone(0, "ENOENT");
    health_.hangs(1, "nothing came back");
    clock_.advance(seconds(1));
  }
  EXPECT_EQ(log_.count("state=gone"), 1U);
  EXPECT_EQ(log_.count("state=hanging"), 1U);
  health_.found(0);
  health_.let_go(1);
  EXPECT_TRUE(health_.is_check_due(0));
  EXPECT_TRUE(health_.is_check_due(1));
}

TEST_F(HealthTest, OneThatIsLostOrDistrustedStaysSoWhateverIsToldOfIt) {
  shut(0);
  EXPECT_TRUE(health_.lost(0));
  health_.distrusted(0, "of an earlier time");
  health_.gone(0, "ENOENT");
  health_.hangs(0, "nothing came back");
  health_.returned(0, "good_blocks=1");
  EXPECT_THAT(problem(), HasSubstr("state=lost"));
  EXPECT_FALSE(health_.may_read(0));
  EXPECT_TRUE(health_.any_readable()) << "there is the other one";
  shut(1);
  health_.distrusted(1, "of an earlier time");
  clock_.advance(seconds(10'000));
  EXPECT_FALSE(health_.is_check_due(0));
  EXPECT_FALSE(health_.is_check_due(1));
}

TEST_F(HealthTest, WhatWasWrongAtTheStartIsSaidBesideTheRest) {
  Health health({"/a"}, {"path=/b: not opened"}, clock_, log_);
  EXPECT_THAT(health.problems(), ElementsAre("path=/b: not opened"));
  health.gone(0, "ENOENT");
  EXPECT_THAT(health.problems(), ElementsAre("path=/b: not opened", HasSubstr("state=gone")));
}

}  // namespace
}  // namespace terrace::tier::disk
