// The crash campaign in short, with seeds of its own, and what it must notice.
#include "campaign/crash_history.h"

#include <gtest/gtest.h>

namespace terrace::campaign {
namespace {

TEST(CrashHistoryTest, NothingSealedIsLostAndNothingWrongIsFound) {
  Figures figures;
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    CrashHistory({.lives = 4, .writes = 30, .points = 60}, seed, figures).run();
    for (const std::string& finding : figures.findings) {
      ADD_FAILURE() << "seed " << seed << ": " << finding;
    }
  }
  EXPECT_EQ(figures.crash_points, 4U * 4 * 60);
  EXPECT_GT(figures.injected_total(), 0U);
  EXPECT_TRUE(figures.is_clean()) << json_line("crash", figures, 1, 0);
}

// A killed owner leaves the system what it had not synced, and the machine stops in the next one's
// life.
TEST(CrashHistoryTest, WhatAKilledOwnerLeftCostsNothingThatWasAcknowledged) {
  Figures figures;
  for (std::uint64_t seed = 101; seed <= 104; ++seed) {
    CrashHistory({.lives = 4, .writes = 20, .points = 60, .kills = 100}, seed, figures).run();
    for (const std::string& finding : figures.findings) {
      ADD_FAILURE() << "seed " << seed << ": " << finding;
    }
  }
  EXPECT_TRUE(figures.is_clean()) << json_line("crash", figures, 1, 0);
}

TEST(CrashHistoryTest, AMediumThatForgetsWhatWasSyncedIsNoticed) {
  Figures figures;
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    CrashHistory({.lives = 1, .writes = 30, .points = 60, .trusts_syncs = false}, seed, figures)
        .run();
  }
  EXPECT_GT(figures.lost_sealed, 0U);
}

}  // namespace
}  // namespace terrace::campaign
