// `terrace verify | wipe | move` on directories that a real disk tier has written.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
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
using ::testing::IsEmpty;
using ::testing::Not;

class CliDiskCareTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(rig_.open().is_ok());
    for (std::uint64_t n = 0; n < 3; ++n) ASSERT_TRUE(rig_.write(n).is_ok());
    rig_.settle();
    rig_.close();
  }
  void damage(std::uint64_t offset) const {
    std::fstream file(rig_.owner() + "/0.slots", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(offset));
    file.put('!');
  }
  Rig rig_;
};

TEST_F(CliDiskCareTest, VerifySaysWhatIsGood) {
  const auto before = tree(rig_.path());
  const Ran ran = terrace_command("verify --offline " + rig_.path());
  EXPECT_EQ(ran.code, 0) << ran.out << ran.error;
  EXPECT_THAT(ran.out, AllOf(HasSubstr("/terrace-00: good"), HasSubstr("3 blocks, 3 good")));
  EXPECT_THAT(ran.error, HasSubstr("100 %"));
  EXPECT_EQ(tree(rig_.path()), before);
}

TEST_F(CliDiskCareTest, VerifyNamesDamageAndEndsWithCodeOne) {
  damage(4096 + 8192 + 5000);
  const Ran ran = terrace_command("verify --offline " + rig_.path());
  EXPECT_EQ(ran.code, 1);
  EXPECT_THAT(ran.out,
              HasSubstr("damaged: " + rig_.owner() + "/0.slots at 12288: key " + hash_of(1).hex()));
  const Ran as_json = terrace_command("verify --offline --json " + rig_.path());
  EXPECT_EQ(as_json.code, 1);
  const auto json = nlohmann::json::parse(as_json.out);
  const auto& found = json[0]["owners"][0]["namespaces"][0];
  EXPECT_EQ(found["damaged_blocks"], 1);
  EXPECT_EQ(found["damage"][0]["offset"], 12288);
  EXPECT_EQ(json[0]["owners"][0]["good"], false);
}

TEST_F(CliDiskCareTest, WhatAnEngineHasIsLeftAlone) {
  ASSERT_TRUE(rig_.open().is_ok());
  const Ran verify = terrace_command("verify --offline " + rig_.path());
  EXPECT_EQ(verify.code, 1);
  EXPECT_THAT(verify.out, HasSubstr("in use by an engine"));
  const Ran wipe = terrace_command("wipe --yes " + rig_.path());
  EXPECT_EQ(wipe.code, 1);
  EXPECT_THAT(wipe.out, HasSubstr("an engine"));
  const Ran move = terrace_command("move " + rig_.path() + " " + rig_.path() + "-elsewhere");
  EXPECT_EQ(move.code, 1);
  EXPECT_THAT(move.error, HasSubstr("an engine"));
  std::filesystem::remove(rig_.path() + "-elsewhere");
  for (std::uint64_t n = 0; n < 3; ++n) EXPECT_TRUE(rig_.read(n).is_ok());
}

TEST_F(CliDiskCareTest, WipeShowsFirstAndRemovesWhenToldTo) {
  const auto before = tree(rig_.path());
  const Ran dry = terrace_command("wipe " + rig_.path());
  EXPECT_EQ(dry.code, 0) << dry.error;
  EXPECT_THAT(dry.out, AllOf(HasSubstr("would remove"), HasSubstr("ns-0001/slots.meta")));
  EXPECT_THAT(dry.error, HasSubstr("nothing was removed; --yes does it"));
  EXPECT_EQ(tree(rig_.path()), before);
  const Ran wiped = terrace_command("wipe --yes --json " + rig_.path());
  EXPECT_EQ(wiped.code, 0) << wiped.error;
  EXPECT_EQ(nlohmann::json::parse(wiped.out)[0]["wiped"], true);
  EXPECT_THAT(tree(rig_.path()), IsEmpty());
  const Ran again = terrace_command("wipe --yes " + rig_.path());
  EXPECT_EQ(again.code, 0);
  EXPECT_THAT(again.error, HasSubstr("nothing of the kind lies there"));
}

TEST_F(CliDiskCareTest, WipeOfOneNamespaceTakesItsNameOrItsDigest) {
  EXPECT_EQ(terrace_command("wipe --namespace model-a " + rig_.path()).code, 2);
  const Ran ran = terrace_command("wipe --yes --namespace ns-0001 " + rig_.path());
  EXPECT_EQ(ran.code, 0) << ran.error;
  EXPECT_THAT(ran.out, HasSubstr("of ns-0001"));
  EXPECT_TRUE(std::filesystem::exists(rig_.owner() + "/0.slots"));
  EXPECT_FALSE(std::filesystem::exists(rig_.owner() + "/ns-0001"));
}

// As a script gives whose variable is not set.
TEST_F(CliDiskCareTest, WipeOfANamespaceWithoutANameRemovesNothing) {
  const auto before = tree(rig_.path());
  const Ran ran = terrace_command("wipe --yes --namespace '' " + rig_.path());
  EXPECT_EQ(ran.code, 2);
  EXPECT_THAT(ran.error, HasSubstr("--namespace"));
  EXPECT_EQ(tree(rig_.path()), before);
}

TEST_F(CliDiskCareTest, WhatAMoveLeftIsSaidWhereItIsNotRead) {
  std::filesystem::rename(rig_.owner(), rig_.owner() + ".moving");
  const std::string left = rig_.owner() + ".moving: of a `terrace move` that has not ended";
  const Ran inspect = terrace_command("inspect " + rig_.path());
  EXPECT_THAT(inspect.out, AllOf(HasSubstr(left), Not(HasSubstr("no owner has stored"))));
  const Ran as_json = terrace_command("inspect --json " + rig_.path());
  EXPECT_EQ(nlohmann::json::parse(as_json.out)[0]["leftovers"][0], rig_.owner() + ".moving");
  const Ran verify = terrace_command("verify --offline " + rig_.path());
  EXPECT_EQ(verify.code, 1) << "it was not read";
  EXPECT_THAT(verify.error, HasSubstr(left));
  ASSERT_TRUE(rig_.open().is_ok());
  EXPECT_THAT(rig_.log(), HasSubstr("leftover=\"" + rig_.owner() + ".moving\""));
}

TEST_F(CliDiskCareTest, OneDirectoryAloneIsInspectedLikeItsPath) {
  const Ran ran = terrace_command("inspect " + rig_.owner() + "/");
  EXPECT_EQ(ran.code, 0) << ran.error;
  EXPECT_THAT(ran.out, HasSubstr("3 of 5 slots hold a block"));
}

// As another user's, who lets others read all but the lock.
TEST_F(CliDiskCareTest, ALockThatCannotBeOpenedIsNotTakenForAFreeOne) {
  const std::string lock = rig_.owner() + "/owner.lock";
  std::filesystem::rename(lock, rig_.path() + "/elsewhere");
  std::filesystem::create_symlink(rig_.path() + "/elsewhere", lock);
  const Ran inspect = terrace_command("inspect " + rig_.path());
  EXPECT_THAT(inspect.out, AllOf(HasSubstr("perhaps in use"), HasSubstr("owner.lock"),
                                 Not(HasSubstr(", free"))));
  const Ran verify = terrace_command("verify --offline " + rig_.path());
  EXPECT_EQ(verify.code, 1);
  EXPECT_THAT(verify.out, AllOf(HasSubstr("cannot be told"), Not(HasSubstr("good,"))));
}

// It keeps engines from serving, and may hold KV in the clear.
TEST_F(CliDiskCareTest, EvidenceThatStaysBehindIsSaid) {
  const std::string evidence = rig_.path() + "/evidence";
  EXPECT_THAT(terrace_command("wipe " + rig_.path()).error, Not(HasSubstr("evidence")));
  std::filesystem::create_directory(evidence);
  EXPECT_THAT(terrace_command("wipe " + rig_.path()).error, HasSubstr(evidence + " stays"));
  const ScratchDirectory target;
  const Ran move = terrace_command("move " + rig_.path() + " " + target.path());
  EXPECT_EQ(move.code, 0);
  EXPECT_THAT(move.error,
              AllOf(HasSubstr(evidence + " stays"), HasSubstr(target.path() + "/evidence")));
}

TEST_F(CliDiskCareTest, MoveMovesAndSaysWhereTo) {
  const ScratchDirectory target;
  const Ran ran = terrace_command("move --json " + rig_.owner() + " " + target.path() + "/kv/");
  EXPECT_EQ(ran.code, 0) << ran.error;
  const auto json = nlohmann::json::parse(ran.out);
  EXPECT_EQ(json[0]["to"], target.path() + "/kv/terrace-00");
  EXPECT_EQ(json[0]["moved"], true);
  rig_.options().paths = {target.path() + "/kv"};
  ASSERT_TRUE(rig_.open().is_ok());
  for (std::uint64_t n = 0; n < 3; ++n) EXPECT_TRUE(rig_.read(n).is_ok());
  const Ran nothing = terrace_command("move " + rig_.path() + " " + target.path() + "/more");
  EXPECT_EQ(nothing.code, 1);
  EXPECT_THAT(nothing.error, HasSubstr("nothing to move"));
}

TEST_F(CliDiskCareTest, WrongUseIsSaid) {
  EXPECT_EQ(terrace_command("verify " + rig_.path()).code, 2);
  EXPECT_THAT(terrace_command("verify " + rig_.path()).error, HasSubstr("--offline"));
  for (const char* line : {"verify --offline", "wipe", "move", "move /a"}) {
    EXPECT_EQ(terrace_command(line).code, 2) << line;
  }
  const Ran absent = terrace_command("verify --offline /nonexistent/kv");
  EXPECT_EQ(absent.code, 1);
  EXPECT_THAT(absent.error, AllOf(HasSubstr("/nonexistent/kv"), HasSubstr("ENOENT")));
  EXPECT_EQ(terrace_command("wipe /nonexistent/kv").code, 1);
  EXPECT_EQ(terrace_command("move /nonexistent/kv " + rig_.path()).code, 1);
  EXPECT_THAT(absent.out, Not(HasSubstr("good")));
}

}  // namespace
}  // namespace terrace::tier::disk
