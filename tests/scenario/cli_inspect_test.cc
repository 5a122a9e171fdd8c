// `terrace inspect` on directories that a real disk tier has written.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "scenario/cli_run.h"
#include "terrace/tier/disk/disk_rig.h"

namespace terrace::tier::disk {
namespace {

using scenario::Ran;
using scenario::terrace_command;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string against(const Rig& rig, const Fingerprint& print) {
  const std::string path = rig.path() + "/wanted.txt";
  std::ofstream(path) << print.text();
  return "inspect " + rig.path() + " --against " + path;
}

TEST(CliInspectTest, ShowsALiveOwnersBlocksInClearText) {
  Rig rig;
  ASSERT_TRUE(rig.open().is_ok());
  ASSERT_TRUE(rig.write(1).is_ok());
  ASSERT_TRUE(rig.write(2).is_ok());
  const Ran text = terrace_command("inspect " + rig.path());
  EXPECT_EQ(text.code, 0) << text.error;
  EXPECT_THAT(text.out,
              AllOf(HasSubstr("in use by an engine"), HasSubstr("content.model=model-a")));
  const auto json = nlohmann::json::parse(terrace_command("inspect --json " + rig.path()).out);
  const auto& owner = json[0]["owners"][0];
  EXPECT_EQ(owner["locked"], true);
  EXPECT_EQ(owner["namespaces"][0]["sealed"], 2);
  EXPECT_EQ(owner["namespaces"][0]["content"]["model"], "model-a");
}

TEST(CliInspectTest, SaysWhichFieldKeepsAnotherModelFromMatching) {
  Rig rig;
  ASSERT_TRUE(rig.open().is_ok());
  ASSERT_TRUE(rig.write(1).is_ok());
  const Fingerprint ours = rig.options().fingerprint;
  rig.close();
  const Ran same = terrace_command(against(rig, ours));
  EXPECT_EQ(same.code, 0) << same.error;
  EXPECT_THAT(same.out, AllOf(HasSubstr("matches the given fingerprint"), HasSubstr("free")));
  rig.set_model("model-b");
  const Ran other = terrace_command(against(rig, rig.options().fingerprint));
  EXPECT_EQ(other.code, 1);
  EXPECT_THAT(other.out, HasSubstr("content.model: given \"model-b\", here \"model-a\""));
  EXPECT_THAT(other.error, HasSubstr("no namespace matches"));
}

TEST(CliInspectTest, DamageOnDiskIsReportedWithCodeOne) {
  Rig rig;
  ASSERT_TRUE(rig.open().is_ok());
  ASSERT_TRUE(rig.write(1).is_ok());
  rig.close();
  const std::string meta = rig.owner() + "/extents.meta";
  std::ofstream(meta, std::ios::binary | std::ios::in | std::ios::out) << "garbage!";
  const Ran ran = terrace_command("inspect " + rig.path());
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.out, HasSubstr("problem: "));
}

TEST(CliInspectTest, APathThatCannotBeReadHidesNoneOfTheOthers) {
  Rig rig;
  ASSERT_TRUE(rig.open().is_ok());
  ASSERT_TRUE(rig.write(1).is_ok());
  rig.close();
  const Ran ran = terrace_command("inspect /nonexistent/kv " + rig.path() + " /nonexistent/more");
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.out, HasSubstr("slots hold a block"));
  EXPECT_THAT(ran.error, AllOf(HasSubstr("/nonexistent/kv"), HasSubstr("/nonexistent/more")));
}

TEST(CliInspectTest, PathsThatAreNoDirectoryAreErrorsThatNameThem) {
  const Ran ran = terrace_command("inspect /nonexistent/kv");
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.error, AllOf(HasSubstr("/nonexistent/kv"), HasSubstr("ENOENT")));
  const Ran bad = terrace_command("inspect / --against /nonexistent/print");
  EXPECT_EQ(bad.code, 1);
  EXPECT_THAT(bad.error, HasSubstr("/nonexistent/print"));
  EXPECT_EQ(terrace_command("inspect", "HOME=/home/u TERRACE_HOST_SIZE=1GiB").code, 2)
      << "no path and no disk tier";
}

}  // namespace
}  // namespace terrace::tier::disk
