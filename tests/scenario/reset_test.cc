// Resets of a whole owner: nothing old matches at once, in this process and after a restart, and
// host and disk go on serving.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "scenario/manager_rig.h"

namespace terrace::scenario {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using transfer::Fault;
using transfer::IoOp;

constexpr Nanoseconds kLong = seconds(30);
constexpr Nanoseconds kShort = milliseconds(30);
constexpr auto kDisk = static_cast<std::size_t>(Tier::kDisk);

// Other prompts, until the host has only those.
void push_out_of_host(Engine& engine, std::uint32_t seed) {
  for (std::uint32_t i = 0; i < 4; ++i) engine.run(Engine::make_tokens(6, seed + i));
}

TEST(ResetScenario, NothingOldMatchesAndTheDiskGoesOnServingUntilTheRestart) {
  const Scratch scratch;
  const EngineOptions options{.host_blocks = 16, .disk_path = scratch.path() + "/d"};
  const auto before = Engine::make_tokens(4, 1);
  const auto after = Engine::make_tokens(4, 2);
  {
    Engine engine(scratch, options);
    ASSERT_TRUE(engine.wait_ready());
    engine.run(before);
    ASSERT_TRUE(engine.wait_on_disk(5));
    EXPECT_EQ(engine.manager().reset(kLong).text(), Status().text());
    EXPECT_TRUE(engine.manager().status().is_healthy);
    EXPECT_EQ(engine.run(before).loaded, 0U);
    ASSERT_TRUE(engine.wait_on_disk(4));
    engine.run(after);
    ASSERT_TRUE(engine.wait_on_disk(8));
    push_out_of_host(engine, 10);
    const Outcome hit = engine.run(after);
    EXPECT_EQ(hit.loaded, 4U);
    EXPECT_TRUE(hit.is_right);
    EXPECT_GT(hit.ledger.hit[kDisk].value(), 0U);
    engine.kill();
  }
  {
    Engine engine(scratch, options);
    ASSERT_TRUE(engine.wait_ready());
    EXPECT_EQ(engine.run(before).loaded, 0U);
    ASSERT_TRUE(engine.wait_on_disk(5));
    EXPECT_EQ(engine.run(after).loaded, 0U);
  }
  Engine engine(scratch, options);  // What it stored outlives it again.
  ASSERT_TRUE(engine.wait_ready());
  EXPECT_EQ(engine.run(before).loaded, 4U);
}

TEST(ResetScenario, SeveralInARow) {
  const Scratch scratch;
  const EngineOptions options{.host_blocks = 16, .disk_path = scratch.path() + "/d"};
  {
    Engine engine(scratch, options);
    ASSERT_TRUE(engine.wait_ready());
    for (std::uint32_t round = 0; round < 8; ++round) {
      const auto tokens = Engine::make_tokens(4, 100);
      EXPECT_EQ(engine.run(tokens).loaded, 0U) << round;
      push_out_of_host(engine, 10);
      EXPECT_EQ(engine.manager().reset(kLong).text(), Status().text());
      if (round % 2 == 0) {
        EXPECT_EQ(engine.manager().reset(kLong).text(), Status().text());
      }
    }
  }
  Engine engine(scratch, options);
  ASSERT_TRUE(engine.wait_ready());
  EXPECT_EQ(engine.run(Engine::make_tokens(4, 100)).loaded, 0U);
  EXPECT_EQ(engine.run(Engine::make_tokens(6, 10)).loaded, 0U);
}

// A prompt lies on disk, and the disk of the next owner opens no sooner than it may.
class ResetWhileTheDiskOpens : public ::testing::Test {
 protected:
  void SetUp() override {
    {
      Engine engine(scratch_, options_);
      ASSERT_TRUE(engine.wait_ready());
      engine.run(tokens_);
      ASSERT_TRUE(engine.wait_on_disk(5));
    }
    base::set_sync_point("manager.open.disk",
                         [this] { (void)wait_until([this] { return may_open_.load(); }); });
  }
  void TearDown() override { base::set_sync_point("manager.open.disk", {}); }
  void let_open(Engine& engine) {
    may_open_.store(true);
    ASSERT_TRUE(engine.wait_ready());
  }
  void expect_forgotten() {
    Engine engine(scratch_, options_);
    let_open(engine);
    EXPECT_EQ(engine.run(tokens_).loaded, 0U);
  }

  const Scratch scratch_;
  const EngineOptions options_{.host_blocks = 16, .disk_path = scratch_.path() + "/d"};
  const std::vector<std::uint32_t> tokens_ = Engine::make_tokens(4, 1);
  std::atomic<bool> may_open_{false};
};

TEST_F(ResetWhileTheDiskOpens, IsDoneWhenItHasOpened) {
  {
    Engine engine(scratch_, options_);
    const Status status = engine.manager().reset(kShort);
    EXPECT_EQ(status.code(), Code::kUnavailable);
    EXPECT_THAT(engine.manager().status().problems,
                Contains(HasSubstr("the disk tier is not open")));
    std::jthread opener([&] { may_open_.store(true); });
    EXPECT_EQ(engine.manager().reset(kLong).text(), Status().text());
    ASSERT_TRUE(engine.wait_ready());
    EXPECT_TRUE(engine.manager().status().is_healthy);
    EXPECT_EQ(engine.run(tokens_).loaded, 0U);
  }
  expect_forgotten();
}

// Asked once, before it opened, and never again.
TEST_F(ResetWhileTheDiskOpens, ThatCameTooEarlyIsMadeUpFor) {
  {
    Engine engine(scratch_, options_);
    EXPECT_EQ(engine.manager().reset(kShort).code(), Code::kUnavailable);
    let_open(engine);
    EXPECT_EQ(engine.run(tokens_).loaded, 0U);
    EXPECT_TRUE(wait_until([&] { return engine.manager().status().is_healthy; }));
  }
  expect_forgotten();
}

TEST(ResetScenario, AFailingDiskIsNotDroppedAndTriedOn) {
  const Scratch scratch;
  const EngineOptions options{.host_blocks = 16, .disk_path = scratch.path() + "/d"};
  const auto tokens = Engine::make_tokens(4, 1);
  for (const Fault fault : {Fault::kError, Fault::kNoSpace}) {
    Engine engine(scratch, options);
    ASSERT_TRUE(engine.wait_ready());
    engine.run(tokens);
    ASSERT_TRUE(engine.wait_on_disk(5));
    engine.in_io_thread([&] { engine.fault()->aim(fault, IoOp::kWrite, 4, "slots.meta"); });
    const Status status = engine.manager().reset(kShort);
    EXPECT_EQ(status.code(), Code::kUnavailable);
    EXPECT_THAT(status.message(), HasSubstr(options.disk_path));
    EXPECT_THAT(engine.manager().status().problems, Contains(HasSubstr("before the last reset")));
    EXPECT_EQ(engine.run(tokens).loaded, 0U);
    EXPECT_TRUE(wait_until([&] {
      return !::testing::Matches(Contains(HasSubstr("before the last reset")))(
          engine.manager().status().problems);
    }));
    engine.kill();
  }
  Engine engine(scratch, options);
  ASSERT_TRUE(engine.wait_ready());
  EXPECT_EQ(engine.run(tokens).loaded, 0U);
}

TEST(ResetScenario, ADiskThatHangsHoldsTheEngineOnlyUntilTheDeadline) {
  const Scratch scratch;
  Engine engine(scratch, {.host_blocks = 16, .disk_path = scratch.path() + "/d"});
  ASSERT_TRUE(engine.wait_ready());
  const auto tokens = Engine::make_tokens(4, 1);
  engine.run(tokens);
  ASSERT_TRUE(engine.wait_on_disk(5));
  engine.in_io_thread([&] { engine.fault()->hold(true); });
  EXPECT_EQ(engine.manager().reset(kShort).code(), Code::kUnavailable);
  EXPECT_EQ(engine.run(tokens).loaded, 0U);
  EXPECT_EQ(engine.run(tokens).loaded, 4U);  // From host.
  engine.in_io_thread([&] { engine.fault()->hold(false); });
  EXPECT_EQ(engine.manager().reset(kLong).text(), Status().text());
}

TEST(ResetScenario, ADiskThatCannotBeUsedIsNotDroppedUnlessNothingLiesThere) {
  const Scratch scratch;
  const std::string path = scratch.path() + "/d";
  std::filesystem::create_directories(path + "/terrace-00");
  std::ofstream(path + "/terrace-00/extents.meta") << "damaged";
  const auto tokens = Engine::make_tokens(4, 1);
  {
    Engine engine(scratch, {.disk_path = path});
    ASSERT_TRUE(engine.wait_ready());
    engine.run(tokens);
    const Status status = engine.manager().reset(kLong);
    EXPECT_EQ(status.code(), Code::kUnavailable);
    EXPECT_THAT(status.message(), HasSubstr(path));
    EXPECT_EQ(engine.run(tokens).loaded, 0U);
  }
  std::filesystem::remove_all(path);
  std::ofstream(path) << "a file where a directory should be";
  Engine engine(scratch, {.disk_path = path});
  ASSERT_TRUE(engine.wait_ready());
  engine.run(tokens);
  EXPECT_EQ(engine.manager().reset(kLong).text(), Status().text());
  EXPECT_EQ(engine.run(tokens).loaded, 0U);
}

TEST(ResetScenario, ADirectoryRemovedWhileRunningHoldsNobodyUp) {
  const Scratch scratch;
  const EngineOptions options{.host_blocks = 16, .disk_path = scratch.path() + "/d"};
  Engine engine(scratch, options);
  ASSERT_TRUE(engine.wait_ready());
  engine.run(Engine::make_tokens(4, 1));
  ASSERT_TRUE(engine.wait_on_disk(5));
  std::filesystem::remove_all(options.disk_path);
  EXPECT_EQ(engine.manager().reset(kLong).text(), Status().text());
  EXPECT_EQ(engine.run(Engine::make_tokens(4, 1)).loaded, 0U);
}

TEST(ResetScenario, WithoutADiskItIsOverAtOnce) {
  const Scratch scratch;
  Engine engine(scratch, {});
  EXPECT_TRUE(engine.manager().reset(Nanoseconds(0)).is_ok());
  ASSERT_TRUE(engine.wait_ready());
  const auto tokens = Engine::make_tokens(4, 1);
  engine.run(tokens);
  EXPECT_TRUE(engine.manager().reset(Nanoseconds(0)).is_ok());
  EXPECT_EQ(engine.run(tokens).loaded, 0U);
  EXPECT_EQ(engine.run(tokens).loaded, 4U);
}

// Before the disk's canary came back, again and again: it is tried at once, and the disk serves.
TEST(ResetScenario, ACanaryUnderWayIsSentAgain) {
  const Scratch scratch;
  Engine engine(scratch, {.host_blocks = 16, .disk_path = scratch.path() + "/d"});
  (void)engine.manager().reset(kShort);
  (void)engine.manager().reset(kLong);
  ASSERT_TRUE(engine.wait_ready());
  EXPECT_EQ(engine.manager().reset(kLong).text(), Status().text());
  const auto tokens = Engine::make_tokens(4, 1);
  engine.run(tokens);
  ASSERT_TRUE(engine.wait_on_disk(4));
  push_out_of_host(engine, 10);
  EXPECT_EQ(engine.run(tokens).loaded, 4U);
  EXPECT_TRUE(engine.manager().status().is_healthy);
}

}  // namespace
}  // namespace terrace::scenario
