// A shared store that cannot be opened when the engine starts, and can later.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <filesystem>

#include "scenario/manager_rig.h"
#include "terrace/transfer/backends/dir/dir_store.h"

namespace terrace::scenario {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
constexpr auto kObject = static_cast<std::size_t>(Tier::kObject);

class LateStore : public ::testing::Test {
 protected:
  EngineOptions options(const std::string& id) {
    return {.engine_id = id, .tune = [this](manager::Options& made) {
              made.object.open_store = [this](const Clock&, LogSink&) {
                ++tries_;
                transfer::DirStoreOptions dir;
                dir.path = path_;
                return is_wrong_ ? fail(Code::kInvalid, "a wrong option")
                                 : transfer::make_dir_store(dir);
              };
              made.object.pack_blocks = 2;
              made.object.first_retry = milliseconds(1);
              made.object.longest_retry = milliseconds(4);
            }};
  }
  static manager::TierStatus store_of(Engine& engine) {
    for (const auto& tier : engine.manager().status().tiers) {
      if (tier.tier == Tier::kObject) return tier;
    }
    return {};
  }
  bool wait_packs(std::size_t count) {
    return wait_until([&] {
      std::size_t packs = 0;
      for (const auto& entry : fs::recursive_directory_iterator(path_)) {
        packs += entry.path().extension() == ".pack" ? 1 : 0;
      }
      return packs == count;
    });
  }

  const Scratch scratch_;
  const std::string path_ = scratch_.path() + "/shared";
  std::atomic<int> tries_{0};
  std::atomic<bool> is_wrong_{false};
};

TEST_F(LateStore, IsOpenedWithoutARestartAndGetsWhatWasComputedBefore) {
  Engine engine(scratch_, options("one"));
  ASSERT_TRUE(engine.wait_ready());
  const auto tokens = Engine::make_tokens(4, 1);
  EXPECT_EQ(engine.run(tokens).loaded, 0U);
  EXPECT_TRUE(wait_until([&] { return tries_.load() >= 5; }));
  EXPECT_EQ(store_of(engine).state, manager::TierState::kFailed);
  EXPECT_THAT(engine.manager().status().problems,
              Contains(AllOf(HasSubstr(path_), HasSubstr("tried again and again"))));
  fs::create_directory(path_);
  EXPECT_TRUE(wait_until([&] { return store_of(engine).state == manager::TierState::kOpen; }));
  EXPECT_THAT(engine.manager().status().problems, IsEmpty());
  const Outcome again = engine.run(tokens);
  EXPECT_EQ(again.loaded, 4U);
  ASSERT_TRUE(wait_packs(2));
  Engine other(scratch_, options("two"));
  ASSERT_TRUE(other.wait_ready());
  const Outcome served = other.run(tokens);
  EXPECT_TRUE(served.is_right);
  EXPECT_EQ(served.ledger.hit[kObject], Tokens(4 * Engine::kBlockTokens));
  const std::string log = engine.logged();
  EXPECT_THAT(log, HasSubstr("event=object_off"));
  EXPECT_THAT(log, HasSubstr("event=object_open"));
  EXPECT_EQ(log.find("event=object_off"), log.rfind("event=object_off")) << "said once";
}

TEST_F(LateStore, AWrongOptionIsNotTriedAgain) {
  is_wrong_ = true;
  Engine engine(scratch_, options("one"));
  ASSERT_TRUE(engine.wait_ready());
  EXPECT_EQ(store_of(engine).state, manager::TierState::kFailed);
  EXPECT_THAT(engine.manager().status().problems,
              Contains(AllOf(HasSubstr("a wrong option"), HasSubstr("until the engine restarts"))));
  engine.stop();
  EXPECT_EQ(tries_.load(), 1);
}

TEST_F(LateStore, AWrongOptionThatShowsLaterIsTold) {
  Engine engine(scratch_, options("one"));
  ASSERT_TRUE(engine.wait_ready());
  EXPECT_TRUE(wait_until([&] { return tries_.load() >= 3; }));
  is_wrong_ = true;
  const auto is_told = [&] {
    const auto problems = engine.manager().status().problems;
    return std::ranges::any_of(problems, [](const std::string& problem) {
      return problem.find("a wrong option") != std::string::npos &&
             problem.find("until the engine restarts") != std::string::npos;
    });
  };
  EXPECT_TRUE(wait_until(is_told));
  // Nobody tries any more, while an engine that only waits for its store tries ten times.
  const int tries = tries_.load();
  std::atomic<int> other_tries{0};
  auto given = options("two");
  given.tune = [tune = given.tune, &other_tries](manager::Options& made) {
    tune(made);
    made.object.open_store = [&other_tries](const Clock&, LogSink&) {
      ++other_tries;
      return Result<std::unique_ptr<transfer::ObjectStore>>(fail(Code::kUnavailable, "away"));
    };
  };
  Engine other(scratch_, given);
  EXPECT_TRUE(wait_until([&] { return other_tries.load() >= 10; }));
  EXPECT_EQ(tries_.load(), tries);
}

TEST_F(LateStore, ClosingDoesNotWaitForTheNextTry) {
  auto given = options("one");
  given.tune = [tune = given.tune](manager::Options& made) {
    tune(made);
    made.object.first_retry = seconds(1000);
    made.object.longest_retry = seconds(1000);
  };
  Engine engine(scratch_, given);
  ASSERT_TRUE(engine.wait_ready());
  engine.manager().close(seconds(30));
  EXPECT_FALSE(engine.manager().has_left_behind());
  EXPECT_EQ(tries_.load(), 1);
}

}  // namespace
}  // namespace terrace::scenario
