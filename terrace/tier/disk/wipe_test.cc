// wipe_directory: what goes, what stays, and what a run leaves that is killed.
#include "terrace/tier/disk/wipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <map>

#include "terrace/base/sync_point.h"
#include "terrace/tier/disk/disk_rig.h"

namespace terrace::tier::disk {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

WipeOptions for_real(std::string name_space = "") {
  return {.name_space = std::move(name_space), .is_dry = false, .progress = {}};
}

class WipeTest : public ::testing::Test {
 protected:
  void SetUp() override { fill("model-a", 0, 4); }
  void fill(const std::string& model, std::uint64_t first, std::uint64_t end) {
    rig_.set_model(model);
    ASSERT_TRUE(rig_.open().is_ok());
    for (std::uint64_t n = first; n < end; ++n) {
      ASSERT_EQ(rig_.write(n).text(), Status().text()) << n;
    }
    rig_.settle();
    rig_.close();
  }
  WipedOwner wipe(const WipeOptions& options) {
    const auto owners = wipe_directory(rig_.path(), options);
    EXPECT_TRUE(owners.has_value());
    if (!owners.has_value() || owners->size() != 1) {
      ADD_FAILURE() << "not one owner directory";
      return {};
    }
    return owners->front();
  }

  Rig rig_;
};

TEST_F(WipeTest, ADryRunListsAndTouchesNothing) {
  const auto before = tree(rig_.path());
  const WipedOwner owner = wipe({});
  EXPECT_FALSE(owner.is_wiped);
  EXPECT_THAT(owner.names,
              ElementsAre("ns-0001/slots.meta", "ns-0001/used.txt", "ns-0001/fingerprint.txt",
                          "0.slots", "extents.meta", "owner.lock"));
  EXPECT_GE(owner.bytes, 4U * (4096 + 8192));
  EXPECT_EQ(tree(rig_.path()), before);
}

TEST_F(WipeTest, ADryRunOfOneNamespaceListsAndTouchesNothing) {
  const auto before = tree(rig_.path());
  const WipedOwner owner = wipe({.name_space = "ns-0001", .is_dry = true, .progress = {}});
  EXPECT_FALSE(owner.is_wiped);
  ASSERT_EQ(owner.names.size(), 4U);
  EXPECT_THAT(owner.names[3], HasSubstr("of ns-0001"));
  EXPECT_GE(owner.bytes, 4U * (4096 + 8192));
  EXPECT_EQ(tree(rig_.path()), before);
}

TEST_F(WipeTest, ItRemovesTheDirectoryAndNothingBesideIt) {
  write_text(rig_.path() + "/notes.txt", "mine");
  const WipedOwner owner = wipe(for_real());
  EXPECT_TRUE(owner.is_wiped);
  EXPECT_EQ(owner.problem, "");
  const auto after = tree(rig_.path());
  EXPECT_EQ(after.size(), 1U);
  EXPECT_EQ(after.at(rig_.path() + "/notes.txt"), "mine");
}

TEST_F(WipeTest, ForeignFilesStayAndAreNamed) {
  write_text(rig_.owner() + "/notes.txt", "mine");
  write_text(rig_.owner() + "/ns-0001/letter", "mine, too");
  const WipedOwner owner = wipe(for_real());
  EXPECT_TRUE(owner.is_wiped);
  EXPECT_EQ(owner.problem, "");
  EXPECT_THAT(owner.left, ElementsAre("ns-0001/letter", "notes.txt"));
  const auto after = tree(rig_.path());
  EXPECT_EQ(after.size(), 4U) << "two files and the folders they lie in";
  EXPECT_EQ(after.at(rig_.owner() + "/ns-0001/letter"), "mine, too");
}

TEST_F(WipeTest, NoLinkIsFollowed) {
  const std::string outside = rig_.path() + "/outside";
  fs::create_directories(outside + "/ns-0007");
  for (const char* name : {"/0.slots", "/slots.meta", "/ns-0007/slots.meta", "/extents.meta"}) {
    write_text(outside + name, "mine");
  }
  const auto before = tree(outside);
  fs::remove(rig_.owner() + "/0.slots");
  fs::create_symlink(outside + "/0.slots", rig_.owner() + "/0.slots");
  fs::remove(rig_.owner() + "/ns-0001/slots.meta");
  fs::create_symlink(outside + "/slots.meta", rig_.owner() + "/ns-0001/slots.meta");
  fs::create_directory_symlink(outside + "/ns-0007", rig_.owner() + "/ns-0007");
  fs::create_directory_symlink(outside, rig_.path() + "/terrace-01");
  const auto owners = wipe_directory(rig_.path(), for_real());
  ASSERT_TRUE(owners.has_value());
  ASSERT_EQ(owners->size(), 2U);
  EXPECT_THAT((*owners)[0].left, ElementsAre("ns-0001/slots.meta", "ns-0007", "0.slots"));
  EXPECT_THAT((*owners)[1].problem, HasSubstr("is a link"));
  EXPECT_EQ(tree(outside), before);
  EXPECT_TRUE(fs::is_symlink(rig_.owner() + "/0.slots"));
}

TEST_F(WipeTest, ADirectoryThatAnEngineHasIsRefused) {
  ASSERT_TRUE(rig_.open().is_ok());
  for (const bool is_dry : {true, false}) {
    const WipedOwner owner = wipe({.name_space = "", .is_dry = is_dry, .progress = {}});
    EXPECT_FALSE(owner.is_wiped);
    EXPECT_THAT(owner.problem, HasSubstr("an engine"));
  }
  EXPECT_TRUE(rig_.read(1).is_ok());
}

TEST_F(WipeTest, WhatTerraceDidNotWriteIsRefused) {
  const std::string foreign = rig_.path() + "/terrace-07";
  fs::create_directory(foreign);
  write_text(foreign + "/0.slots", "a name like ours, no header");
  const auto before = tree(foreign);
  const auto owners = wipe_directory(foreign, for_real());
  ASSERT_TRUE(owners.has_value());
  EXPECT_THAT(owners->front().problem, HasSubstr("not ours"));
  EXPECT_EQ(tree(foreign), before) << "not even a lock file";
}

TEST_F(WipeTest, ADamagedHeaderAloneDoesNotProtectIt) {
  std::string header = tree(rig_.path()).at(rig_.owner() + "/extents.meta");
  header[20] = static_cast<char>(header[20] ^ 1);
  write_text(rig_.owner() + "/extents.meta", header);
  EXPECT_TRUE(wipe(for_real()).is_wiped);
  EXPECT_FALSE(fs::exists(rig_.owner()));
}

TEST_F(WipeTest, ADamagedHeaderBesideOthersFilesOrForOneNamespaceProtectsIt) {
  flip_bit(rig_.owner() + "/extents.meta", 20);
  auto before = tree(rig_.path());
  EXPECT_THAT(wipe(for_real("ns-0001")).problem, HasSubstr("extents.meta"));
  EXPECT_EQ(tree(rig_.path()), before);
  write_text(rig_.owner() + "/notes.txt", "mine");
  before = tree(rig_.path());
  EXPECT_THAT(wipe(for_real()).problem, HasSubstr("extents.meta"));
  EXPECT_EQ(tree(rig_.path()), before);
}

TEST_F(WipeTest, ASlotFileThatWasCutDoesNotGrowAgain) {
  const std::string slots = rig_.owner() + "/0.slots";
  for (const std::uint64_t left : {std::uint64_t{5000}, std::uint64_t{0}}) {
    fs::resize_file(slots, left);
    write_text(slots, std::string(left, 'x'));
    ASSERT_EQ(wipe(for_real("ns-0001")).problem, "");
    EXPECT_EQ(fs::file_size(slots), left);
    EXPECT_EQ(tree(rig_.path()).at(slots), std::string(left, '\0'));
    wipe(for_real());
    fill("model-a", 0, 4);
  }
}

TEST_F(WipeTest, NorWhereANamespacesExtentsLieBehindItsEnd) {
  fill("model-b", 10, 12);
  const std::string slots = rig_.owner() + "/0.slots";
  fs::resize_file(slots, 5000);
  ASSERT_EQ(wipe(for_real("ns-0002")).problem, "");
  EXPECT_EQ(fs::file_size(slots), 5000U);
}

TEST_F(WipeTest, AFolderWhoseNameIsAlmostANamespacesIsNotOurs) {
  for (const char* name : {"/ns-123", "/ns-12345678901", "/ns-00a1"}) {
    fs::create_directory(rig_.owner() + name);
    write_text(rig_.owner() + name + "/slots.meta", "mine");
  }
  EXPECT_THAT(wipe(for_real()).left, ElementsAre("ns-00a1", "ns-123", "ns-12345678901"));
  EXPECT_TRUE(fs::exists(rig_.owner() + "/ns-123/slots.meta"));
}

// Its lock would be that of the one which has the name now.
TEST_F(WipeTest, ADirectoryThatIsReplacedBeforeItIsLockedIsLeftAlone) {
  const std::string away = rig_.path() + "/moved-away";
  std::map<std::string, std::string> before;
  base::set_sync_point("disk.wipe.lock", [&] {
    fs::rename(rig_.owner(), away);
    fs::copy(away, rig_.owner(), fs::copy_options::recursive);
    before = tree(rig_.path());
  });
  const WipedOwner owner = wipe(for_real());
  base::set_sync_point("disk.wipe.lock", {});
  EXPECT_FALSE(owner.is_wiped);
  EXPECT_THAT(owner.problem, HasSubstr("somebody is moving"));
  EXPECT_EQ(tree(rig_.path()), before);
}

TEST_F(WipeTest, WhatAnEngineWroteJustBeforeItIsLockedGoesToo) {
  base::set_sync_point("disk.wipe.lock", [&] { fill("model-b", 10, 12); });
  const WipedOwner owner = wipe(for_real("ns-0002"));
  base::set_sync_point("disk.wipe.lock", {});
  EXPECT_TRUE(owner.is_wiped);
  EXPECT_FALSE(fs::exists(rig_.owner() + "/ns-0002"));
  EXPECT_TRUE(fs::exists(rig_.owner() + "/ns-0001/slots.meta"));
}

TEST_F(WipeTest, WhatAMoveLeftGoesWithAllOfItOnly) {
  const std::string copy = rig_.path() + "/terrace-incoming-1-2";
  fs::create_directory(copy);
  write_text(copy + "/0.slots", "half of it");
  wipe(for_real("ns-0001"));
  EXPECT_TRUE(fs::exists(copy + "/0.slots"));
  ASSERT_TRUE(wipe_directory(rig_.path(), for_real()).has_value());
  EXPECT_FALSE(fs::exists(copy));
}

TEST_F(WipeTest, OneNamespaceGoesWithItsBytesAndTheOthersStay) {
  fill("model-b", 10, 13);
  const std::string payload(reinterpret_cast<const char*>(rig_.block(1).shards()[0].payload), 64);
  ASSERT_THAT(tree(rig_.path()).at(rig_.owner() + "/0.slots"), HasSubstr(payload));
  rig_.set_model("model-a");
  const std::string digest = rig_.options().fingerprint.content_digest();
  const WipedOwner owner = wipe(for_real(digest.substr(0, 10)));
  EXPECT_TRUE(owner.is_wiped);
  EXPECT_EQ(owner.problem, "");
  EXPECT_EQ(tree(rig_.path()).at(rig_.owner() + "/0.slots").find(payload), std::string::npos);
  EXPECT_FALSE(fs::exists(rig_.owner() + "/ns-0001"));
  ASSERT_TRUE(rig_.open().is_ok());
  EXPECT_FALSE(rig_.has(1));
  rig_.close();
  rig_.set_model("model-b");
  ASSERT_TRUE(rig_.open().is_ok());
  for (std::uint64_t n = 10; n < 13; ++n) EXPECT_TRUE(rig_.read(n).is_ok()) << n;
}

TEST_F(WipeTest, ANamespaceThatDoesNotLieThereLeavesTheDirectoryOut) {
  const auto owners = wipe_directory(rig_.path(), for_real("ns-0009"));
  ASSERT_TRUE(owners.has_value());
  EXPECT_TRUE(owners->empty());
  for (const char* wrong : {"abc", "NS-0001", "model-a", "0123456Z"}) {
    EXPECT_EQ(wipe_directory(rig_.path(), for_real(wrong)).error().code(), Code::kInvalid) << wrong;
  }
}

// Ends as kill -9 would at the `step`-th time that it says how far it is. False when it came to its
// end before.
bool wipe_killed_at(int step, const std::string& path, const std::string& name_space) {
  const pid_t child = ::fork();
  if (child == 0) {
    int told = 0;
    WipeOptions options = for_real(name_space);
    options.progress = [&](const WipeProgress&) {
      if (++told == step) (void)::raise(SIGKILL);
    };
    (void)wipe_directory(path, options);
    ::_exit(0);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFSIGNALED(status);
}

TEST_F(WipeTest, AKilledRunLeavesWhatAnEngineOpensAndASecondRunEnds) {
  for (const std::string name_space : {"", "ns-0001"}) {
    for (int step = 1;; ++step) {
      Rig rig;
      ASSERT_TRUE(rig.open().is_ok());
      ASSERT_TRUE(rig.write(1).is_ok());
      rig.settle();
      rig.close();
      const bool is_killed = wipe_killed_at(step, rig.path(), name_space);
      if (!is_killed) {
        EXPECT_GT(step, 3);
        break;
      }
      ASSERT_EQ(rig.open().text(), Status().text()) << step;
      EXPECT_FALSE(rig.has(1));
      EXPECT_TRUE(rig.write(2).is_ok());
      EXPECT_TRUE(rig.read(2).is_ok());
      rig.settle();
      rig.close();
      const auto owners = wipe_directory(rig.path(), for_real());
      ASSERT_TRUE(owners.has_value());
      for (const WipedOwner& owner : *owners) EXPECT_EQ(owner.problem, "");
      EXPECT_TRUE(fs::is_empty(rig.path())) << step;
    }
  }
}

}  // namespace
}  // namespace terrace::tier::disk
