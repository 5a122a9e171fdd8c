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
  const Ran ran =
      terrace_command("simulate " + path_ + " " + path_ + " --host 60% --policy lru --json");
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
  EXPECT_EQ(json["ttft_p99_seconds"], 0.1536) << "3 x 512 tokens at 10,000 a second";
  EXPECT_EQ(json["off_ttft_p99_seconds"], 0.1536);
  EXPECT_EQ(json["regret_percent"], 0.0) << "nothing was to be chosen";
}

TEST_F(CliSimulateTest, WithoutAPolicyItIsTheDefaultOfTheSettings) {
  const Ran ran = terrace_command("simulate " + path_ + " --host 60% --json");
  ASSERT_EQ(ran.code, 0) << ran.error;
  EXPECT_EQ(nlohmann::json::parse(ran.out)["policy"], "hazard");
}

// A block is computed in 512 ms and copied in 100: the second time all but the last are copied.
TEST_F(CliSimulateTest, TimesFollowTheStatedCosts) {
  const Ran ran = terrace_command("simulate " + path_ +
                                  " --host 100% --prefill-rate 1000 --token-bytes 1MB "
                                  "--host-bandwidth 5120MB --json");
  ASSERT_EQ(ran.code, 0) << ran.error;
  const auto json = nlohmann::json::parse(ran.out);
  EXPECT_EQ(json["host_hit_percent"], 50.0);
  EXPECT_EQ(json["loaded_percent"], 30.0);
  EXPECT_EQ(json["saved_prefill_seconds"], 1.54);
  EXPECT_EQ(json["ttft_p50_seconds"], 0.712);
  EXPECT_EQ(json["off_ttft_p50_seconds"], 1.024);
}

TEST_F(CliSimulateTest, ComparesPoliciesOverSizes) {
  const Ran ran = terrace_command("simulate " + path_ + " --compare --sizes 40%,60%,61%");
  ASSERT_EQ(ran.code, 0) << ran.error;
  EXPECT_THAT(ran.out, AllOf(HasSubstr("lru"), HasSubstr("hazard"), HasSubstr("optimum")));
  EXPECT_EQ(std::ranges::count(ran.out, '\n'), 3 + 2 * 3) << "61 % are the same three blocks";
  const Ran json = terrace_command("simulate " + path_ + " --compare --policy hazard --json");
  ASSERT_EQ(json.code, 1) << "1 % of five blocks are none";
  const Ran rows = terrace_command("simulate " + path_ + " --compare --sizes 2,3 --json");
  ASSERT_EQ(rows.code, 0) << rows.error;
  EXPECT_EQ(std::ranges::count(rows.out, '\n'), 2 * 2);
}

TEST_F(CliSimulateTest, AScenarioIsMixedInBesideAMadeUpChatOrATrace) {
  const Ran chat = terrace_command("simulate --scenario scan,burst --window 10 --json");
  ASSERT_EQ(chat.code, 0) << chat.error;
  const auto json = nlohmann::json::parse(chat.out);
  EXPECT_EQ(json["trace"], "chat");
  EXPECT_EQ(json["scenario"], "scan and burst");
  EXPECT_GT(json["scenario_blocks"], 0);
  EXPECT_GT(json["alone_hit_percent"], json["host_hit_percent"]);
  const Ran trace = terrace_command("simulate " + path_ + " --host 5 --scenario scan --json");
  ASSERT_EQ(trace.code, 0) << trace.error;
  EXPECT_EQ(nlohmann::json::parse(trace.out)["prompt_blocks"], 10) << "of its own requests";
  EXPECT_EQ(nlohmann::json::parse(trace.out)["alone_hit_percent"], 50.0);
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

TEST_F(CliSimulateTest, APresetSaysWhatNobodySays) {
  const auto row = [](const std::string& words) {
    const Ran ran =
        terrace_command("simulate --scenario batch --window 10 --disk 10% " + words + " --json");
    EXPECT_EQ(ran.code, 0) << ran.error;
    return nlohmann::json::parse(ran.out);
  };
  const auto usual = row("");
  EXPECT_EQ(usual["trace"], "batch");
  EXPECT_EQ(usual["admission"], "all");
  EXPECT_EQ(usual["write"], "through");
  EXPECT_EQ(usual["scope"], "all");
  const auto batch = row("--preset batch");
  EXPECT_EQ(batch["admission"], "reuse");
  EXPECT_EQ(batch["scope"], "prompt");
  EXPECT_LT(batch["disk_writes_per_100"], 5.0);
  EXPECT_GT(usual["disk_writes_per_100"], 50.0);
  EXPECT_LT(batch["stores_per_100"], usual["stores_per_100"]);
  const auto said = row("--preset batch --admission all --scope all --write demote");
  EXPECT_EQ(said["admission"], "all");
  EXPECT_EQ(said["scope"], "all");
  EXPECT_EQ(said["write"], "demote");
  EXPECT_EQ(row("--preset none")["disk_writes_per_100"], usual["disk_writes_per_100"]);
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
  const Ran nothing = terrace_command("simulate");
  EXPECT_EQ(nothing.code, 2);
  EXPECT_THAT(nothing.error, HasSubstr("give a trace, or --scenario chat"));
  const Ran two = terrace_command("simulate --scenario rag,batch");
  EXPECT_EQ(two.code, 2);
  EXPECT_THAT(two.error, HasSubstr("only one can be made up"));
  const std::pair<const char*, const char*> wrong[] = {
      {"--scenario storm", "known: scan, burst, chat, rag, batch"},
      {"--scenario rag", "leave one of them out"},
      {"--preset batches", "the nearest is batch"},
      {"--write sometimes", "--write sometimes: is no known choice; give one of through, demote"},
      {"--scope prompts", "the nearest is prompt; give one of all, prompt"},
      {"--scenario chat", "leave one of them out"},
      {"--admission reuse --admission-loss 1", "--admission-loss 1 is for --admission expected"},
      {"--admission expected --admission-loss 21", "--admission-loss 21"},
      {"--admission expected --admission-loss nan", "--admission-loss nan"},
      {"--token-bytes 0", "--token-bytes"},
      {"--host-bandwidth fast", "--host-bandwidth"},
      {"--disk-bandwidth=-1", "--disk-bandwidth"},
      {"--disk-latency 2h", "--disk-latency"},
      {"--prefill-rate 0", "--prefill-rate"},
      {"--window 1000000 --rate 0.001", "--window 1000000 at --rate 0.001 is over 30 years"},
      {"--block-tokens 4294967295", "give at most 1048576"},
      {"--block-tokens 4294967296", "--block-tokens"},
      {"--block-tokens -1", "--block-tokens: -1: give a whole number from 0 to"},
      {"--seed -1", "--seed: -1: give a whole number from 0 to 18446744073709551615"},
      {"--seed=-18446744073709551615", "give a whole number"},
      {"--seed 18446744073709551616", "give a whole number"},
      {"--seed 0x10", "give a whole number"},
      {"--seed +1", "give a whole number"},
      {"--seed 1.5", "give a whole number"},
      {"--seed=' 1'", "give a whole number"},
      {"--compare --sizes 1%,x", "--sizes x"}};
  for (const auto& [option, named] : wrong) {
    const Ran ran = terrace_command("simulate " + path_ + " " + option);
    EXPECT_EQ(ran.code, 2) << option;
    EXPECT_THAT(ran.error, HasSubstr(named)) << option;
  }
}

TEST_F(CliSimulateTest, ANumberWithLeadingZerosIsADecimalOne) {
  const auto seeded = [](const std::string& seed) {
    const Ran ran = terrace_command("simulate --scenario batch --window 10 --json --seed " + seed);
    EXPECT_EQ(ran.code, 0) << ran.error;
    return ran.out;
  };
  EXPECT_EQ(seeded("010"), seeded("10"));
  EXPECT_NE(seeded("010"), seeded("8"));
  EXPECT_NE(seeded("18446744073709551615"), seeded("10"));
}

TEST_F(CliSimulateTest, AScenarioWithNobodyToDisturbIsRefused) {
  const std::string ends = scratch_.path() + "/ends.jsonl";
  ASSERT_TRUE(write_file_atomic(ends,
                                "{\"timestamp\": 0, \"hash_ids\": [1, 2, 3]}\n"
                                "{\"timestamp\": 900, \"hash_ids\": [1, 2, 3]}\n")
                  .is_ok());
  for (const char* scenario : {"scan", "burst"}) {
    const Ran ran = terrace_command(std::string("simulate --host 3 --scenario ") + scenario + " " +
                                    ends + " --json");
    EXPECT_EQ(ran.code, 1) << scenario;
    EXPECT_EQ(ran.out, "") << scenario;
    EXPECT_THAT(ran.error, HasSubstr("asks for nothing, so there is nothing to mix in"));
  }
}

TEST_F(CliSimulateTest, ABadTraceStopsNoOther) {
  const std::string bad = scratch_.path() + "/bad.jsonl";
  ASSERT_TRUE(write_file_atomic(bad, std::string(kTrace) + "{\n").is_ok());
  const Ran ran = terrace_command("simulate " + bad + " " + path_ + " --host 3");
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.error, HasSubstr("bad.jsonl:5: "));
  EXPECT_THAT(ran.out, HasSubstr("small.jsonl"));
  const std::string huge = scratch_.path() + "/huge.json";
  ASSERT_TRUE(write_file_atomic(huge, R"({"requests": [{"t": 1e999}]})").is_ok());
  const Ran after = terrace_command("simulate " + path_ + " " + huge + " --host 3");
  EXPECT_EQ(after.code, 1);
  EXPECT_THAT(after.error, HasSubstr("huge.json:1: "));
  EXPECT_THAT(after.out, HasSubstr("small.jsonl"));
}

}  // namespace
}  // namespace terrace
