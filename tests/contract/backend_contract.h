// What every transfer backend must do: the checks of terrace/transfer/backend_checks.h, a test
// each. A backend's test instantiates it, plain and under a fault decorator that injects nothing:
//   INSTANTIATE_TEST_SUITE_P(Threads, BackendContract, ::testing::Values(...), backend_name);
// Threading: tests only.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "terrace/base/file.h"
#include "terrace/base/rng.h"
#include "terrace/base/thread.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/scratch_directory.h"
#include "terrace/transfer/backend.h"
#include "terrace/transfer/backend_checks.h"

namespace terrace::transfer {

struct BackendMaker {
  std::string name;
  std::function<std::unique_ptr<Backend>(const Backend::Options&)> make;
};

inline void PrintTo(const BackendMaker& maker, std::ostream* out) { *out << maker.name; }

inline std::string backend_name(const ::testing::TestParamInfo<BackendMaker>& info) {
  return info.param.name;
}

class BackendContract : public ::testing::TestWithParam<BackendMaker> {
 protected:
  void keeps(const std::string& name) {
    const BackendCheck* const check = find_backend_check(name);
    ASSERT_NE(check, nullptr) << name;
    const testing::ScratchDirectory scratch;
    const CheckPlace place{
        .make = [](const Backend::Options& options) -> Result<std::unique_ptr<Backend>> {
          return GetParam().make(options);
        },
        .directory = scratch.path(),
        .seed = random_u64(),
        .pair = thread_crew("terrace-check", 2)};
    EXPECT_EQ(run_backend_check(*check, place).text(), Status().text()) << "seed " << place.seed;
  }
};

TEST_P(BackendContract, ReadsBackWhatWasWrittenThroughSeveralPieces) { keeps("pieces"); }
TEST_P(BackendContract, EveryTransferCompletesOnceWithItsOwnToken) { keeps("once"); }
TEST_P(BackendContract, RefusesMoreThanItsDepth) { keeps("depth"); }
TEST_P(BackendContract, ReadingPastTheEndIsCorruptNotOk) { keeps("past_the_end"); }
TEST_P(BackendContract, AFileThatEndsInsideASectorIsCorrupt) { keeps("ragged_end"); }
TEST_P(BackendContract, AnErrorNamesOperationAndFile) { keeps("errors"); }
TEST_P(BackendContract, ASyncFollowsAndSmallUnalignedWritesWork) { keeps("small_writes"); }
TEST_P(BackendContract, AllocatingGrowsTheFile) { keeps("allocate"); }
TEST_P(BackendContract, WakeEndsAWaitFromAnotherThread) { keeps("wake"); }
TEST_P(BackendContract, AWaitWithNothingToDoEndsAtItsLimit) { keeps("idle_wait"); }
TEST_P(BackendContract, ACompletionEndsAWait) { keeps("signal"); }
TEST_P(BackendContract, NothingToMoveIsRefused) { keeps("nothing"); }
TEST_P(BackendContract, ACompletionMeansThatItIsDone) { keeps("done_means_done"); }
TEST_P(BackendContract, RandomTrafficEqualsAnArray) { keeps("random_traffic"); }

// A check that is added has to be a test above, too.
TEST_P(BackendContract, EveryCheckIsATest) { EXPECT_EQ(backend_checks().size(), 14U); }

}  // namespace terrace::transfer
