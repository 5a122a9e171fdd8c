// `terrace key`: makes keys, tells their ids, and never a key.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <iterator>

#include "scenario/cli_run.h"
#include "terrace/testing/scratch_directory.h"

namespace terrace {
namespace {

using scenario::Ran;
using scenario::terrace_command;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(CliKeyTest, MakesAKeyForItsOwnerAndTellsItsIdOnly) {
  const testing::ScratchDirectory scratch;
  const std::string path = scratch.path() + "/key";
  const Ran made = terrace_command("key new " + path);
  ASSERT_EQ(made.code, 0) << made.error;
  struct stat facts{};
  ASSERT_EQ(::stat(path.c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 07777U, 0600U);
  std::ifstream file(path);
  const std::string text(std::istreambuf_iterator<char>(file), {});
  ASSERT_EQ(text.size(), 79U);
  const std::string digits = text.substr(14, 64);
  EXPECT_THAT(made.out, Not(HasSubstr(digits)));
  const Ran told = terrace_command("key id " + path);
  EXPECT_EQ(told.code, 0) << told.error;
  EXPECT_EQ(told.out.size(), 17U);
  EXPECT_THAT(made.out, HasSubstr(told.out.substr(0, 16)));
  EXPECT_THAT(made.out, HasSubstr("encryption.key_file"));
}

TEST(CliKeyTest, WritesOverNothingAndRefusesAnOpenFile) {
  const testing::ScratchDirectory scratch;
  const std::string path = scratch.path() + "/key";
  ASSERT_EQ(terrace_command("key new " + path).code, 0);
  const Ran again = terrace_command("key new " + path);
  EXPECT_EQ(again.code, 1);
  EXPECT_THAT(again.error, HasSubstr("choose another name"));
  ASSERT_EQ(::chmod(path.c_str(), 0644), 0);
  const Ran open = terrace_command("key id " + path);
  EXPECT_EQ(open.code, 1);
  EXPECT_THAT(open.error, HasSubstr("chmod 600"));
  EXPECT_EQ(terrace_command("key").code, 2);
}

TEST(CliKeyTest, TheKeyInTheEnvironmentIsNeverPrinted) {
  const std::string key(64, '5');
  for (const char* const words :
       {"config --set host.size=1GiB", "config --json --set host.size=1GiB",
        "config --set host.size=1GiB --set encryption.key_file=/k"}) {
    const Ran shown = terrace_command(words, "HOME=/home/u TERRACE_ENCRYPTION_KEY=" + key);
    EXPECT_THAT(shown.out + shown.error, HasSubstr("encryption.key"));
    EXPECT_THAT(shown.out + shown.error, Not(HasSubstr("5555555555"))) << words;
  }
  const Ran refused = terrace_command("config --set host.size=1GiB --set encryption.key=" + key);
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.error, HasSubstr("TERRACE_ENCRYPTION_KEY"));
  EXPECT_THAT(refused.error, Not(HasSubstr("5555555555")));
}

}  // namespace
}  // namespace terrace
