// `terrace scrub` against admin sockets, as people start it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "scenario/cli_run.h"
#include "terrace/serve/admin_server.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/scratch_directory.h"

namespace terrace {
namespace {

using scenario::Ran;
using scenario::terrace_command;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// As far as the command line can see one: each look at its status brings a pass a quarter on.
class Engine {
 public:
  Engine(const std::string& directory, const std::string& id, std::uint64_t bad = 0,
         bool has_disk = true)
      : bad_(bad) {
    serve::AdminServer::Options options;
    options.directory = directory;
    options.engine_id = id;
    options.hooks.status = [this, id] { return status(id).dump(); };
    options.hooks.set_mode = [](manager::Mode, std::string_view) { return Status(); };
    if (has_disk) {
      options.hooks.scrub = [this](std::uint64_t rate, std::string_view) -> Result<std::uint64_t> {
        rate_.store(rate);
        quarters_.store(0);
        return ++pass_;
      };
    }
    auto started = serve::AdminServer::start(std::move(options), clock_, log_);
    EXPECT_TRUE(started.has_value());
    server_ = std::move(*started);
    EXPECT_TRUE(testing::eventually([&] { return server_->is_open(); }));
  }
  [[nodiscard]] std::uint64_t pass() const { return pass_.load(); }
  [[nodiscard]] std::uint64_t rate() const { return rate_.load(); }
  // From now on one directory does not answer until it is passed over.
  void hang() { is_hanging_.store(true); }

 private:
  nlohmann::json status(const std::string& id) {
    const int quarters = pass_.load() == 0 ? 4 : quarters_.fetch_add(1);
    const bool is_running = quarters < 4;
    nlohmann::json found = nlohmann::json::array();
    for (std::uint64_t i = 0; i < bad_; ++i) {
      found.push_back({{"file", "/kv/0.slots"},
                       {"offset", 4096 * i},
                       {"key", "00ff"},
                       {"group", 1},
                       {"rank", 2},
                       {"reason", "made up"}});
    }
    nlohmann::json passed_over = nlohmann::json::array();
    if (is_hanging_.load() && !is_running) passed_over.push_back("/kv/b/terrace-00");
    return {{"engine", id},
            {"process", 77},
            {"health", "green"},
            {"scrub",
             {{"pass", pass_.load()},
              {"running", is_running},
              {"held", false},
              {"progress", is_running ? quarters * 0.25 : 1.0},
              {"good_blocks", 5},
              {"bad_blocks", bad_},
              {"skipped_blocks", is_hanging_.load() ? 3 : 0},
              {"waits_for", is_hanging_.load() && is_running ? "/kv/b/terrace-00" : ""},
              {"passed_over", passed_over},
              {"seconds", 2.0},
              {"found", found}}}};
  }

  const std::uint64_t bad_;
  std::atomic<std::uint64_t> pass_{0};
  std::atomic<std::uint64_t> rate_{0};
  std::atomic<int> quarters_{0};
  std::atomic<bool> is_hanging_{false};
  SystemClock clock_;
  NullLog log_;
  std::unique_ptr<serve::AdminServer> server_;
};

class CliScrubTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::string directory() const { return scratch_.path() + "/s"; }
  [[nodiscard]] Ran run(const std::string& arguments) const {
    return terrace_command(arguments + " --directory " + directory());
  }
  testing::ScratchDirectory scratch_;
};

TEST_F(CliScrubTest, ItIsBegunAndNotWaitedFor) {
  const Engine engine(directory(), "one");
  const Ran ran = run("scrub");
  EXPECT_EQ(ran.code, 0) << ran.error;
  EXPECT_THAT(ran.out, HasSubstr("engine one (process 77): pass 1 runs"));
  EXPECT_EQ(engine.pass(), 1U);
  EXPECT_EQ(engine.rate(), 0U);
  EXPECT_EQ(run("scrub --rate 2MiB").code, 0);
  EXPECT_EQ(engine.rate(), 2U << 20U);
}

TEST_F(CliScrubTest, WaitingShowsProgressAndTheResult) {
  const Engine engine(directory(), "one");
  const Ran ran = run("scrub --wait");
  EXPECT_EQ(ran.code, 0) << ran.error;
  EXPECT_THAT(ran.out, AllOf(HasSubstr("pass 1: 5 blocks good, 0 bad and dropped, 0 skipped; 2 s"),
                             Not(HasSubstr("bad:"))));
  EXPECT_THAT(ran.error, AllOf(HasSubstr("one: 25 %"), HasSubstr("one: 100 %")));
}

TEST_F(CliScrubTest, WaitingSaysWhatItWaitsForAndWhatWasPassedOver) {
  Engine engine(directory(), "one");
  engine.hang();
  const Ran ran = run("scrub --wait");
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.error, HasSubstr("waits for /kv/b/terrace-00 to answer"));
  EXPECT_THAT(ran.out, AllOf(HasSubstr("3 skipped"),
                             HasSubstr("passed over: /kv/b/terrace-00: it is left alone for now")));
}

TEST_F(CliScrubTest, BadBlocksAreAFailureAndNamed) {
  const Engine engine(directory(), "one", 2);
  const Ran ran = run("scrub --wait");
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.out, HasSubstr("  bad: /kv/0.slots at 4096: key 00ff, group 1, rank 2: made up"));
  const Ran as_json = run("scrub --wait --json");
  EXPECT_EQ(as_json.code, 1);
  const auto json = nlohmann::json::parse(as_json.out);
  EXPECT_EQ(json.at(0)["engine"], "one");
  EXPECT_EQ(json.at(0)["pass"], 2);
  EXPECT_EQ(json.at(0)["scrub"]["bad_blocks"], 2);
  EXPECT_EQ(json.at(0)["scrub"]["found"][1]["offset"], 4096);
}

TEST_F(CliScrubTest, SeveralEnginesAreChosenAsByTheOtherCommands) {
  const Engine one(directory(), "one");
  const Engine two(directory(), "two");
  const Ran unclear = run("scrub");
  EXPECT_EQ(unclear.code, 2);
  EXPECT_THAT(unclear.error, HasSubstr("--engine ID, or --all"));
  EXPECT_EQ(one.pass(), 0U);
  EXPECT_EQ(run("scrub --engine two").code, 0);
  EXPECT_EQ(two.pass(), 1U);
  EXPECT_EQ(run("scrub --all --wait").code, 0);
  EXPECT_EQ(one.pass(), 1U);
  EXPECT_EQ(two.pass(), 2U);
}

TEST_F(CliScrubTest, WhatCannotBeIsAFailureInWords) {
  EXPECT_EQ(run("scrub").code, 1) << "no engine";
  const Engine engine(directory(), "one", 0, false);
  const Ran ran = run("scrub --wait");
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.error, HasSubstr("there is no disk tier"));
  for (const char* rate : {"0", "-1", "fast", "12XB"}) {
    const Ran wrong = run(std::string("scrub --rate=") + rate);
    EXPECT_EQ(wrong.code, 2) << rate;
    EXPECT_THAT(wrong.error, HasSubstr("--rate")) << rate;
  }
}

}  // namespace
}  // namespace terrace
