// The recorded calls of a real engine, replayed over the C ABI: the answers are those of the
// recording, steps with nothing due have no call, and no call allocates more than it used to.

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "terrace/base/rng.h"

namespace terrace {
namespace {

struct Step {
  std::string part;
  std::uint64_t requests = 0;
  std::uint64_t tokens = 0;
  std::uint64_t filled = 0;
  std::map<std::string, int> calls;  // Those of the clock and of requests left out.

  [[nodiscard]] bool is_decode() const { return tokens == requests; }
};

bool is_of_step(const std::string& call) {
  return call != "begin" && call != "poll" && call != "accept" && call != "end" && call != "log" &&
         call != "worker_log";
}

class ReplayTest : public testing::Test {
 protected:
  void SetUp() override {
    const std::string output = "/tmp/terrace_replay_" + std::to_string(random_u64());
    const std::string line = TERRACE_REPLAY " " TERRACE_RECORDING " >" + output;
    const int status = std::system(line.c_str());
    read(output);
    std::filesystem::remove(output);
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "it says above where it parted";
    ASSERT_GT(steps_.size(), 100U);
  }

  void read(const std::string& path) {
    std::ifstream file(path);
    std::string part;
    for (std::string line; std::getline(file, line);) {
      std::istringstream words(line);
      std::string kind;
      words >> kind;
      if (kind == "part") {
        words >> part;
        continue;
      }
      if (kind == "step") {
        Step step;
        step.part = part;
        words >> step.requests >> step.tokens >> step.filled;
        steps_.push_back(step);
        continue;
      }
      bool is_in_step = false;
      std::string name;
      std::int64_t allocations = 0;
      words >> is_in_step >> name >> allocations;
      allocations_[name] += allocations;
      if (is_in_step && is_of_step(name)) ++steps_.back().calls[name];
    }
  }

  std::vector<Step> steps_;
  std::map<std::string, std::int64_t> allocations_;
};

TEST_F(ReplayTest, StepsWithNothingDueHaveNoCall) {
  std::size_t empty = 0;
  std::size_t quiet = 0;
  for (const Step& step : steps_) {
    if (!step.is_decode() || step.filled > 0) continue;
    (step.requests == 0 ? empty : quiet) += 1;
    EXPECT_TRUE(step.calls.empty());
  }
  EXPECT_EQ(empty, 5U);
  EXPECT_EQ(quiet, 159U);
}

TEST_F(ReplayTest, StepsThatFillBlocksHaveOneCallForEachRequestAndFiveForAll) {
  for (const Step& step : steps_) {
    if (step.filled == 0) continue;
    std::map<std::string, int> expected = {{"advance", static_cast<int>(step.filled)},
                                           {"orders", 1}};
    if (!step.is_decode() || step.part != "hit") {  // There, the blocks are stored already.
      for (const char* name : {"canary", "saves", "report", "take"}) expected[name] = 1;
    }
    if (!step.is_decode() && step.part == "hit") expected["loads"] = 1;
    EXPECT_EQ(step.calls, expected);
  }
}

#ifdef TERRACE_COUNTS_ALLOCATIONS
TEST_F(ReplayTest, CallsAllocateAsOftenAsTheyDid) {
  const std::map<std::string, std::int64_t> expected = {
      {"begin", 317},   {"poll", 40},    {"accept", 56}, {"end", 0},
      {"advance", 128}, {"orders", 181}, {"canary", 77}, {"loads", 59},
      {"saves", 72},    {"report", 86},  {"take", 359},
  };
  allocations_.erase("log");  // The clock says how often they are called.
  allocations_.erase("worker_log");
  EXPECT_EQ(allocations_, expected);
}
#endif

}  // namespace
}  // namespace terrace
