#include "terrace/base/clock.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

namespace terrace {
namespace {

Nanoseconds change_of(int file) {
  struct stat facts{};
  EXPECT_EQ(::fstat(file, &facts), 0);
  return Nanoseconds(static_cast<std::int64_t>(facts.st_ctim.tv_sec) * 1'000'000'000 +
                     facts.st_ctim.tv_nsec);
}

// The kernel rounds the start to 10 ms, and stamps files with a clock that lags by as much.
constexpr Nanoseconds kGrain = milliseconds(100);

TEST(ProcessStartTest, LiesBetweenTheProgramAndWhatItWrites) {
  struct stat program{};
  ASSERT_EQ(::stat("/proc/self/exe", &program), 0);
  EXPECT_GT(process_start().value() / 1'000'000'000, program.st_ctim.tv_sec - 1);
  std::FILE* const file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  EXPECT_LT(process_start(), change_of(::fileno(file)) + kGrain);
  std::fclose(file);
}

// A model that was copied a moment before is not younger than the engine.
TEST(ProcessStartTest, IsNotBeforeWhatWasWrittenBeforehand) {
  for (int i = 0; i < 20; ++i) {
    std::FILE* const file = std::tmpfile();
    ASSERT_NE(file, nullptr);
    const Nanoseconds written = change_of(::fileno(file));
    const pid_t child = ::fork();
    if (child == 0) ::_exit(written < process_start() ? 0 : 1);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(WEXITSTATUS(status), 0);
    std::fclose(file);
  }
}

TEST(ProcessStartTest, StaysAsItIsAndIsAForksOwn) {
  const Nanoseconds first = process_start();
  const pid_t child = ::fork();
  if (child == 0) ::_exit(process_start() + kGrain < first ? 1 : 0);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  const Nanoseconds again = process_start();
  EXPECT_LT(again, first + kGrain);
  EXPECT_GT(again + kGrain, first);
}

}  // namespace
}  // namespace terrace
