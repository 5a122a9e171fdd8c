// `terrace simulate`: the published hit ratios by a small trace, and what it refuses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "scenario/cli_run.h"
#include "terrace/testing/scratch_directory.h"

namespace terrace {
namespace {

using scenario::Ran;
using scenario::terrace_command;
using ::testing::AllOf;
using ::testing::HasSubstr;

// a b c, x y, a b c, x y.
constexpr const char* kTrace =
    "{\"timestamp\": 0, \"hash_ids\": [1, 2, 3]}\n{\"timestamp\": 1, \"hash_ids\": [7, 8]}\n"
    "{\"timestamp\": 2, \"hash_ids\": [1, 2, 3]}\n{\"timestamp\": 3, \"hash_ids\": [7, 8]}\n";

class CliSimulateTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(write_file_atomic(path_, kTrace).is_ok()); }
  testing::ScratchDirectory scratch_;
  std::string path_ = scratch_.path() + "/small.jsonl";
};

TEST_F(CliSimulateTest, PrintsOneObjectForEachPolicyAndTrace) {
  const Ran ran = terrace_command("simulate " + path_ + " " + path_ + " --host 60% --json");
  ASSERT_EQ(ran.code, 0) << ran.error;
  EXPECT_EQ(std::ranges::count(ran.out, '\n'), 2);
  const auto json = nlohmann::json::parse(ran.out.substr(0, ran.out.find('\n')));
  EXPECT_EQ(json["trace"], path_);
  EXPECT_EQ(json["policy"], "lru");
  EXPECT_EQ(json["host_blocks"], 3);
  EXPECT_EQ(json["disk_blocks"], 0);
  EXPECT_EQ(json["prompt_blocks"], 10);
  // x and y take the place of c and b; then b and c theirs, and a alone was a hit.
  EXPECT_EQ(json["host_hit_percent"], 10.0);
  EXPECT_EQ(json["disk_hit_percent"], 0.0);
  EXPECT_EQ(json["disk_writes_per_100"], 0.0);
  // a, b and c stay for their next use; then x and y are gone.
  EXPECT_EQ(json["optimum_percent"], 30.0);
}

TEST_F(CliSimulateTest, ADiskBelowHoldsWhatHostGivesUp) {
  const Ran ran = terrace_command("simulate " + path_ + " --host 3 --disk 5 --json");
  ASSERT_EQ(ran.code, 0) << ran.error;
  const auto json = nlohmann::json::parse(ran.out);
  EXPECT_EQ(json["disk_blocks"], 5);
  EXPECT_EQ(json["host_hit_percent"].get<double>() + json["disk_hit_percent"].get<double>(), 50.0);
  EXPECT_GT(json["disk_hit_percent"], 0.0);
  EXPECT_EQ(json["disk_writes_per_100"], 50.0);
  EXPECT_EQ(json["optimum_percent"], 50.0);
}

TEST_F(CliSimulateTest, SaysWhatIsWrongAndTheWayOut) {
  const Ran policy = terrace_command("simulate " + path_ + " --policy lru,fifo");
  EXPECT_EQ(policy.code, 2);
  EXPECT_THAT(policy.error, AllOf(HasSubstr("fifo"), HasSubstr("lru")));
  const Ran admission = terrace_command("simulate " + path_ + " --admission never");
  EXPECT_EQ(admission.code, 2);
  EXPECT_THAT(admission.error, AllOf(HasSubstr("never"), HasSubstr("reuse")));
  for (const char* const size : {"2x", "x%", "-1", "-1%", "", "nan%", "1e9%", "99999999999"}) {
    const Ran ran = terrace_command("simulate " + path_ + " '--host=" + size + "'");
    EXPECT_EQ(ran.code, 2) << size;
  }
  const Ran small = terrace_command("simulate " + path_ + " --host 1%");
  EXPECT_EQ(small.code, 1);
  EXPECT_THAT(small.error, HasSubstr("give more"));
  const Ran none = terrace_command("simulate /nowhere/t.jsonl");
  EXPECT_EQ(none.code, 1);
  EXPECT_THAT(none.error, HasSubstr("/nowhere/t.jsonl"));
  EXPECT_EQ(terrace_command("simulate").code, 2);
}

TEST_F(CliSimulateTest, ABadTraceStopsNoOther) {
  const std::string bad = scratch_.path() + "/bad.jsonl";
  ASSERT_TRUE(write_file_atomic(bad, std::string(kTrace) + "{\n").is_ok());
  const Ran ran = terrace_command("simulate " + bad + " " + path_ + " --host 3");
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.error, HasSubstr("bad.jsonl:5: "));
  EXPECT_THAT(ran.out, HasSubstr("small.jsonl"));
}

}  // namespace
}  // namespace terrace
