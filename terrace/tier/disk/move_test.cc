// move_directory: by rename and by copy, refused, and killed at every step.
#include "terrace/tier/disk/move.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>

#include "terrace/base/sync_point.h"
#include "terrace/tier/disk/move_rig.h"
#include "terrace/tier/disk/wipe.h"

namespace terrace::tier::disk {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

MoveOptions by_copy() { return {.is_always_copied = true, .progress = {}}; }

class MoveTest : public ::testing::Test {
 protected:
  void SetUp() override { fill(rig_); }
  [[nodiscard]] std::string target() const { return target_.path() + "/new"; }

  Rig rig_;
  ScratchDirectory target_;
};

TEST_F(MoveTest, OnOneFileSystemItIsARename) {
  const MovedOwner moved = move_one(rig_.path(), target(), {});
  EXPECT_EQ(moved.problem, "");
  EXPECT_TRUE(moved.was_renamed);
  EXPECT_EQ(moved.to, target() + "/terrace-00");
  EXPECT_TRUE(fs::is_empty(rig_.path()));
  expect_served(rig_, target());
}

TEST_F(MoveTest, ACopyIsEqualAndServedAndTheOldOneIsGone) {
  auto before = tree(rig_.owner());
  std::vector<std::string> steps;
  MoveOptions options = by_copy();
  options.progress = [&](const MoveProgress& progress) {
    if (steps.empty() || steps.back() != progress.step) steps.emplace_back(progress.step);
    EXPECT_LE(progress.bytes, progress.of);
  };
  const MovedOwner moved = move_one(rig_.owner(), target(), options);
  EXPECT_EQ(moved.problem, "");
  EXPECT_FALSE(moved.was_renamed);
  EXPECT_THAT(steps, ::testing::ElementsAre("copy", "compare", "leave", "publish", "remove"));
  EXPECT_TRUE(fs::is_empty(rig_.path()));
  const auto after = tree(moved.to);
  ASSERT_EQ(after.size(), before.size());
  for (const auto& [path, content] : before) {
    EXPECT_EQ(after.at(moved.to + path.substr(rig_.owner().size())), content) << path;
  }
  expect_served(rig_, target());
}

TEST_F(MoveTest, ItTakesTheFirstFreeNumberAndNobodyElses) {
  fs::create_directories(target() + "/terrace-00");
  write_text(target() + "/terrace-00/owner.lock", "");
  EXPECT_EQ(move_one(rig_.path(), target(), by_copy()).to, target() + "/terrace-01");
  EXPECT_TRUE(fs::exists(target() + "/terrace-00/owner.lock"));
}

TEST_F(MoveTest, NotEvenAnEmptyFolderOfOthersIsReplaced) {
  fs::create_directories(target() + "/terrace-00");
  EXPECT_EQ(move_one(rig_.path(), target(), {}).to, target() + "/terrace-01");
  EXPECT_TRUE(fs::is_empty(target() + "/terrace-00"));
}

TEST_F(MoveTest, WhatHasOnlyANameLikeOursIsRefusedAndGetsNoLock) {
  const std::string foreign = target_.path() + "/from/terrace-00";
  fs::create_directories(foreign);
  write_text(foreign + "/0.slots", "mine");
  const auto before = tree(foreign);
  EXPECT_FALSE(move_one(target_.path() + "/from", target(), by_copy()).problem.empty());
  EXPECT_EQ(tree(foreign), before);
}

// Its lock would be that of the one which has the name now, and what is removed the other's.
TEST_F(MoveTest, ADirectoryThatIsReplacedBeforeItIsLockedIsLeftAlone) {
  const std::string away = rig_.path() + "/moved-away";
  std::map<std::string, std::string> before;
  base::set_sync_point("disk.move.lock", [&] {
    fs::rename(rig_.owner(), away);
    fs::copy(away, rig_.owner(), fs::copy_options::recursive);
    before = tree(rig_.path());
  });
  const MovedOwner moved = move_one(rig_.path(), target(), by_copy());
  base::set_sync_point("disk.move.lock", {});
  EXPECT_THAT(moved.problem, HasSubstr(rig_.owner() + ": somebody is moving"));
  EXPECT_TRUE(tree(rig_.path()) == before);
  EXPECT_TRUE(fs::is_empty(target()));
}

// Else it would write into the one that another move published.
TEST_F(MoveTest, NorIsACopyThatIsReplacedBeforeItIsLockedWrittenTo) {
  const std::string away = target_.path() + "/published";
  base::set_sync_point("disk.move.lock_copy", [&] {
    for (const auto& entry : fs::directory_iterator(target())) {
      fs::rename(entry.path(), away);
      fs::create_directory(entry.path());
      return;
    }
  });
  const auto before = tree(rig_.path());
  const MovedOwner moved = move_one(rig_.path(), target(), by_copy());
  base::set_sync_point("disk.move.lock_copy", {});
  EXPECT_THAT(moved.problem, HasSubstr("somebody is moving"));
  EXPECT_TRUE(fs::is_empty(away));
  EXPECT_TRUE(tree(rig_.path()) == before);
}

TEST_F(MoveTest, CopiesThatAreOnTheirWayHereStay) {
  const std::string incoming = rig_.path() + "/terrace-incoming-1-2";
  fs::create_directory(incoming);
  write_text(incoming + "/0.slots", "half of another one");
  EXPECT_EQ(move_one(rig_.path(), target(), by_copy()).problem, "");
  EXPECT_TRUE(fs::exists(incoming + "/0.slots"));
}

TEST_F(MoveTest, ModesAndGroupsAreKept) {
  const std::string slots = rig_.owner() + "/0.slots";
  ASSERT_EQ(::chown(slots.c_str(), static_cast<uid_t>(-1), 12'345), 0);
  fs::permissions(slots, fs::perms::owner_read | fs::perms::owner_write | fs::perms::group_read);
  const MovedOwner moved = move_one(rig_.path(), target(), by_copy());
  ASSERT_EQ(moved.problem, "");
  struct stat facts{};
  ASSERT_EQ(::stat((moved.to + "/0.slots").c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 07777U, 0640U);
  EXPECT_EQ(facts.st_gid, 12'345U);
}

// Root moves what an engine of another user has to open afterwards.
TEST_F(MoveTest, TheLockAndNewFoldersBelongToWhomTheOldOnesBelongTo) {
  constexpr uid_t kUser = 12'345;
  ASSERT_EQ(::chown(rig_.path().c_str(), kUser, kUser), 0);
  ASSERT_EQ(::chown(rig_.owner().c_str(), kUser, kUser), 0);
  for (const auto& entry : fs::recursive_directory_iterator(rig_.owner())) {
    ASSERT_EQ(::chown(entry.path().c_str(), kUser, kUser), 0);
  }
  const MovedOwner moved = move_one(rig_.path(), target() + "/below", by_copy());
  ASSERT_EQ(moved.problem, "");
  struct stat facts{};
  for (const auto& entry : fs::recursive_directory_iterator(target_.path())) {
    ASSERT_EQ(::lstat(entry.path().c_str(), &facts), 0);
    EXPECT_EQ(facts.st_uid, kUser) << entry.path();
  }
  ASSERT_EQ(::stat(target_.path().c_str(), &facts), 0);
  EXPECT_NE(facts.st_uid, kUser) << "it was there before";
}

TEST_F(MoveTest, AWipeLeavesTheCopyAloneUntilItHasItsName) {
  std::vector<std::string> said;
  MoveOptions options = by_copy();
  options.progress = [&](const MoveProgress& progress) {
    if (std::string_view(progress.step) == "remove") return;
    const auto wiped =
        wipe_directory(target(), {.name_space = "", .is_dry = false, .progress = {}});
    ASSERT_TRUE(wiped.has_value());
    for (const WipedOwner& owner : *wiped) said.push_back(owner.problem);
  };
  EXPECT_EQ(move_one(rig_.path(), target(), options).problem, "");
  EXPECT_THAT(said, ::testing::AllOf(::testing::Not(::testing::IsEmpty()),
                                     ::testing::Each(HasSubstr("terrace move` has it"))));
  expect_served(rig_, target());
}

TEST_F(MoveTest, ADirectoryThatAnEngineHasIsRefused) {
  ASSERT_TRUE(rig_.open().is_ok());
  const auto before = tree(rig_.path());
  EXPECT_THAT(move_one(rig_.path(), target(), by_copy()).problem, HasSubstr("an engine"));
  EXPECT_EQ(tree(rig_.path()), before);
  EXPECT_TRUE(fs::is_empty(target()));
  EXPECT_TRUE(rig_.read(1).is_ok());
}

TEST_F(MoveTest, WhatIsNotTerracesKeepsItWhereItIs) {
  write_text(rig_.owner() + "/notes.txt", "mine");
  EXPECT_THAT(move_one(rig_.path(), target(), by_copy()).problem, HasSubstr("notes.txt"));
  fs::remove(rig_.owner() + "/notes.txt");
  fs::create_symlink("/etc/hostname", rig_.owner() + "/ns-0001/used.txt.tmp");
  EXPECT_THAT(move_one(rig_.path(), target(), by_copy()).problem, HasSubstr("used.txt.tmp"));
  EXPECT_TRUE(fs::is_empty(target()));
}

TEST_F(MoveTest, ATargetThatCannotBeIsRefused) {
  EXPECT_EQ(move_directory(rig_.path(), rig_.path(), {}).error().code(), Code::kInvalid);
  EXPECT_EQ(move_directory(rig_.path(), rig_.owner() + "/in", {}).error().code(), Code::kInvalid);
  EXPECT_EQ(move_directory(target_.path(), target(), {}).error().code(), Code::kInvalid)
      << "nothing lies there";
  EXPECT_FALSE(move_directory("/nonexistent/kv", target(), {}).has_value());
}

// A medium that does not keep what it was given is found out before the source is touched.
TEST_F(MoveTest, ACopyThatDiffersIsNotTaken) {
  MoveOptions options = by_copy();
  const auto before = tree(rig_.path());
  bool is_done = false;
  options.progress = [&](const MoveProgress& progress) {
    if (is_done || std::string_view(progress.step) != "copy" || progress.bytes < progress.of) {
      return;
    }
    is_done = true;
    for (const auto& entry : fs::recursive_directory_iterator(target())) {
      if (entry.path().filename() != "0.slots") continue;
      std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(5000);
      file.put('!');
    }
  };
  EXPECT_THAT(move_one(rig_.path(), target(), options).problem, HasSubstr("the copy differs"));
  EXPECT_EQ(tree(rig_.path()), before);
  EXPECT_EQ(move_one(rig_.path(), target(), by_copy()).problem, "") << "a second run mends it";
  expect_served(rig_, target());
}

TEST_F(MoveTest, ACopyThatIsLongerIsNotTaken) {
  MoveOptions options = by_copy();
  const auto before = tree(rig_.path());
  options.progress = [&](const MoveProgress& progress) {
    if (std::string_view(progress.step) != "copy" || progress.bytes < progress.of) return;
    for (const auto& entry : fs::recursive_directory_iterator(target())) {
      if (entry.path().filename() != "0.slots") continue;
      fs::resize_file(entry.path(), fs::file_size(entry.path()) + 4096);
    }
  };
  EXPECT_THAT(move_one(rig_.path(), target(), options).problem, HasSubstr("another length"));
  EXPECT_EQ(tree(rig_.path()), before);
}

TEST_F(MoveTest, ASourceThatSomebodyCutsMeanwhileIsNotCopied) {
  MoveOptions options = by_copy();
  bool is_done = false;
  options.progress = [&](const MoveProgress& progress) {
    if (is_done || std::string_view(progress.step) != "copy") return;
    is_done = true;
    fs::resize_file(rig_.owner() + "/0.slots", 5000);
  };
  EXPECT_THAT(move_one(rig_.path(), target(), options).problem, HasSubstr("became shorter"));
  EXPECT_TRUE(fs::exists(rig_.owner() + "/0.slots"));
}

TEST_F(MoveTest, AKilledRunLeavesOneCopyAndASecondRunGoesOn) {
  int step = 1;
  for (;; ++step) {
    Rig rig;
    fill(rig);
    const ScratchDirectory other;
    const std::string to = other.path() + "/new";
    const bool is_killed = move_killed_at(step, rig.path(), to, true);
    EXPECT_FALSE(has_owner(rig.path()) && has_owner(to)) << "no engine sees both";
    const MovedOwner moved = is_killed ? move_one(rig.path(), to, by_copy()) : MovedOwner{};
    EXPECT_EQ(moved.problem, "") << step;
    EXPECT_TRUE(fs::is_empty(rig.path())) << step;
    EXPECT_EQ(entries_of(to), 1U) << step;
    EXPECT_FALSE(fs::exists(to + "/terrace-00/moved-from.txt")) << step;
    expect_served(rig, to);
    if (!is_killed) break;
  }
  EXPECT_GT(step, 15);
}

TEST_F(MoveTest, WhatWasLeftByAKilledRunGoesOnOnlyToWhereItWasGoing) {
  int step = 1;
  while (!fs::exists(rig_.owner() + ".moving")) {
    ASSERT_TRUE(move_killed_at(step++, rig_.path(), target(), true));
  }
  const MovedOwner elsewhere = move_one(rig_.path(), target_.path() + "/other", by_copy());
  EXPECT_THAT(elsewhere.problem, HasSubstr("on its way to " + target()));
  const auto named = move_directory(rig_.owner(), target(), by_copy());
  ASSERT_TRUE(named.has_value()) << "the name that it had, too";
  EXPECT_EQ(named->front().problem, "");
  expect_served(rig_, target());
}

// The folder that a killed run copies into; "" when there is none.
std::string incoming_in(const std::string& path) {
  for (const auto& entry : fs::directory_iterator(path)) {
    if (entry.path().filename().string().starts_with("terrace-incoming-")) return entry.path();
  }
  return "";
}

TEST_F(MoveTest, WhatAnEarlierTryCopiedAndIsThereNoMoreDoesNotGoAlong) {
  ASSERT_TRUE(move_killed_at(4, rig_.path(), target(), true));
  const std::string copy = incoming_in(target());
  ASSERT_NE(copy, "");
  fs::create_directory(copy + "/ns-0009");
  write_text(copy + "/ns-0009/slots.meta", "of a namespace that was wiped meanwhile");
  write_text(copy + "/notes.txt", "somebody's");
  EXPECT_THAT(move_one(rig_.path(), target(), by_copy()).problem, HasSubstr("notes.txt"));
  fs::remove(copy + "/notes.txt");
  const MovedOwner moved = move_one(rig_.path(), target(), by_copy());
  EXPECT_EQ(moved.problem, "");
  EXPECT_FALSE(fs::exists(moved.to + "/ns-0009"));
  expect_served(rig_, target());
}

TEST_F(MoveTest, TheCopyOfAnotherMoveIsNotTakenForItsOwn) {
  int step = 1;
  while (!fs::exists(rig_.owner() + ".moving")) {
    ASSERT_TRUE(move_killed_at(step++, rig_.path(), target(), true));
  }
  const std::string copy = incoming_in(target());
  ASSERT_NE(copy, "");
  write_text(copy + "/moved-from.txt", std::string(32, 'a') + "\n/elsewhere/terrace-00\n");
  EXPECT_THAT(move_one(rig_.path(), target(), by_copy()).problem, HasSubstr("its copy is not at"));
  EXPECT_TRUE(fs::exists(rig_.owner() + ".moving/0.slots"));
}

TEST_F(MoveTest, NorIsOneThatAnotherMovePublished) {
  int step = 1;
  while (!fs::exists(rig_.owner() + ".moving")) {
    ASSERT_TRUE(move_killed_at(step++, rig_.path(), target(), true));
  }
  fs::remove_all(incoming_in(target()));
  fs::create_directory(target() + "/terrace-05");
  write_text(target() + "/terrace-05/moved-from.txt",
             std::string(32, 'a') + "\n/elsewhere/terrace-00\n");
  EXPECT_THAT(move_one(rig_.path(), target(), by_copy()).problem, HasSubstr("its copy is not at"));
  EXPECT_TRUE(fs::exists(rig_.owner() + ".moving/0.slots")) << "it is the only one";
}

TEST_F(MoveTest, ACopyThatSomebodyTookAwayLeavesTheOldOneInPeace) {
  int step = 1;
  while (!fs::exists(rig_.owner() + ".moving")) {
    ASSERT_TRUE(move_killed_at(step++, rig_.path(), target(), true));
  }
  fs::remove_all(target());
  const MovedOwner moved = move_one(rig_.path(), target(), by_copy());
  EXPECT_FALSE(moved.problem.empty());
  fs::rename(rig_.owner() + ".moving", rig_.owner());
  expect_served(rig_, rig_.path());
}

TEST_F(MoveTest, AWipeRemovesWhatAKilledRunLeft) {
  ASSERT_TRUE(move_killed_at(3, rig_.path(), target(), true));
  ASSERT_FALSE(fs::is_empty(target()));
  const auto wiped = wipe_directory(target(), {.name_space = "", .is_dry = false, .progress = {}});
  ASSERT_TRUE(wiped.has_value());
  for (const WipedOwner& owner : *wiped) EXPECT_EQ(owner.problem, "");
  EXPECT_TRUE(fs::is_empty(target()));
  expect_served(rig_, rig_.path());
}

}  // namespace
}  // namespace terrace::tier::disk
