#include "campaign/report.h"

#include <gtest/gtest.h>

namespace terrace::campaign {
namespace {

class Rounds {
 public:
  // What main() returns for these words; `bad_seed` finds something.
  int run(std::vector<std::string> words, std::uint64_t bad_seed = 0) {
    words.insert(words.begin(), "campaign");
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    return run_campaign("x", static_cast<int>(arguments.size()), arguments.data(),
                        [&](std::uint64_t seed, Figures& figures) {
                          seeds.push_back(seed);
                          if (seed == bad_seed) figures.find(figures.hangs, "it hangs");
                        });
  }
  std::vector<std::uint64_t> seeds;
};

TEST(CampaignTest, RoundsHaveOneSeedEachFromTheGivenOneOn) {
  Rounds rounds;
  EXPECT_EQ(rounds.run({"--seed", "7", "--rounds", "3"}), 0);
  EXPECT_EQ(rounds.seeds, (std::vector<std::uint64_t>{7, 8, 9}));
}

TEST(CampaignTest, ARoundThatFindsSomethingIsTheLastAndTheStatusSaysSo) {
  Rounds rounds;
  EXPECT_EQ(rounds.run({"--seed", "7", "--rounds", "30"}, 8), 1);
  EXPECT_EQ(rounds.seeds, (std::vector<std::uint64_t>{7, 8}));
}

TEST(CampaignTest, WhatMakesNoSenseIsRefused) {
  for (const std::vector<std::string>& words : {std::vector<std::string>{"--rounds"},
                                                {"--rounds", "x"},
                                                {"--minutes", "1x"},
                                                {"--bounds", "1"},
                                                {"7"}}) {
    Rounds rounds;
    EXPECT_EQ(rounds.run(words), 2);
    EXPECT_TRUE(rounds.seeds.empty());
  }
}

TEST(CampaignReportTest, TheLineSaysWhatWasInjectedWhere) {
  Figures figures;
  figures.crash_points = 7;
  figures.inject("threads", "error", 3);
  figures.inject("s3", "reset");
  figures.inject("s3", "none", 0);
  EXPECT_EQ(json_line("crash", figures, 5, 1.239),
            R"({"campaign":"crash","crash_points":7,"injected":4,"operations":0,"wrong_bytes":0,)"
            R"("hangs":0,"leaks":0,"lost_sealed":0,"seed":5,"seeds":0,"minutes":1.23,)"
            R"("injected_by":{"s3":{"reset":1},"threads":{"error":3}}})");
  EXPECT_TRUE(figures.is_clean());
  figures.find(figures.wrong_bytes, "block 3");
  EXPECT_FALSE(figures.is_clean());
}

}  // namespace
}  // namespace terrace::campaign
