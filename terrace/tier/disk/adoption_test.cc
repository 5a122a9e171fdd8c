// Owners that choose their directories below one path at the same time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <thread>

#include "terrace/base/sync_point.h"
#include "terrace/testing/eventually.h"
#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/owner_directory_internal.h"
#include "terrace/tier/disk/wipe.h"

namespace terrace::tier::disk {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// terrace-00 has blocks of model-a, terrace-01 of model-b; both are free.
class AdoptionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    second_.options().paths = rig_.options().paths;
    second_.set_model("model-b");
    ASSERT_TRUE(rig_.open().is_ok());
    ASSERT_TRUE(second_.open().is_ok());
    ASSERT_TRUE(rig_.write(1).is_ok());
    ASSERT_TRUE(second_.write(2).is_ok());
    rig_.close();
    second_.close();
  }
  void TearDown() override {
    base::set_sync_point("disk.adopt.locked", {});
    base::set_sync_point("disk.adopt.waiting", {});
  }
  Result<Adoption> adopt(Rig& rig, Nanoseconds patience = seconds(20)) {
    const DiskTier::Options& options = rig.options();
    return adopt_owner_directory(rig_.path(), options.fingerprint.content_digest(),
                                 options.fingerprint.layout_digest(), patience);
  }
  // The one of `slow` is held where it has locked its `stop`-th directory and not yet judged it,
  // until the one of `quick` has come to wait, or to its end.
  void adopt_both(Rig& slow, int stop, Rig& quick) {
    std::atomic<int> passes{0};
    std::atomic<bool> may_go{false};
    base::set_sync_point("disk.adopt.locked", [&] {
      if (++passes == stop) (void)testing::eventually([&] { return may_go.load(); });
    });
    base::set_sync_point("disk.adopt.waiting", [&] { may_go = true; });
    Result<Adoption> first = fail(Code::kInternal, "not run");
    {
      const std::jthread thread([&] { first = adopt(slow); });
      ASSERT_TRUE(testing::eventually([&] { return passes.load() == stop; }));
      const auto second = adopt(quick);
      may_go = true;
      ASSERT_TRUE(second.has_value() && second->owner.has_value());
      quick_ = second->owner->directory;
      EXPECT_EQ(second->unguarded.text(), Status().text());
    }
    ASSERT_TRUE(first.has_value() && first->owner.has_value());
    slow_ = first->owner->directory;
    EXPECT_EQ(first->unguarded.text(), Status().text());
    EXPECT_FALSE(fs::exists(lock_file()));
  }
  [[nodiscard]] std::string lock_file() const { return rig_.path() + "/terrace-adopt.lock"; }

  Rig rig_;
  Rig second_;
  std::string slow_;
  std::string quick_;
};

TEST_F(AdoptionTest, WhatIsOnlyJudgedByOneOwnerIsNotTakenForTakenByAnother) {
  adopt_both(rig_, 2, second_);
  EXPECT_EQ(slow_, rig_.owner(0));
  EXPECT_EQ(quick_, rig_.owner(1));
  EXPECT_FALSE(fs::exists(rig_.owner(2)));
}

TEST_F(AdoptionTest, OwnersOfTwoNamespacesEachGetTheirOwn) {
  adopt_both(second_, 1, rig_);
  EXPECT_EQ(slow_, rig_.owner(1));
  EXPECT_EQ(quick_, rig_.owner(0));
}

// A process that holds still where it has locked terrace-00 to judge it.
class StuckOwner {
 public:
  explicit StuckOwner(const std::function<void()>& adopt) {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe(ends.data()), 0);
    child_ = ::fork();
    if (child_ == 0) {
      base::set_sync_point("disk.adopt.locked", [&] {
        (void)!::write(ends[1], "!", 1);
        for (;;) ::pause();
      });
      adopt();
      ::_exit(1);
    }
    ::close(ends[1]);
    char byte = 0;
    EXPECT_EQ(::read(ends[0], &byte, 1), 1);
    ::close(ends[0]);
  }
  StuckOwner(const StuckOwner&) = delete;
  StuckOwner& operator=(const StuckOwner&) = delete;
  ~StuckOwner() {
    (void)::kill(child_, SIGKILL);
    (void)::waitpid(child_, nullptr, 0);
  }

 private:
  pid_t child_ = -1;
};

TEST_F(AdoptionTest, AnOwnerThatIsStuckKeepsNoneFromStarting) {
  {
    const StuckOwner stuck([&] { (void)adopt(rig_); });
    const auto adoption = adopt(rig_, milliseconds(30));
    ASSERT_TRUE(adoption.has_value() && adoption->owner.has_value());
    EXPECT_EQ(adoption->owner->directory, rig_.owner(1));
    EXPECT_EQ(adoption->unguarded.code(), Code::kUnavailable);
    EXPECT_THAT(adoption->unguarded.message(), HasSubstr(lock_file() + ": another engine"));
    AdoptionLock::remove_left(rig_.path());
    EXPECT_TRUE(fs::exists(lock_file())) << "it is held";
  }
  // Killed: what it left is taken over.
  ASSERT_TRUE(fs::exists(lock_file()));
  const auto adoption = adopt(rig_, milliseconds(0));
  ASSERT_TRUE(adoption.has_value() && adoption->owner.has_value());
  EXPECT_EQ(adoption->unguarded.text(), Status().text());
  EXPECT_EQ(adoption->owner->directory, rig_.owner(0));
  EXPECT_FALSE(fs::exists(lock_file()));
}

TEST_F(AdoptionTest, AWipeRemovesTheFileThatAKilledOwnerLeft) {
  write_text(lock_file(), "");
  ASSERT_TRUE(wipe_directory(rig_.path(), {}).has_value());
  EXPECT_TRUE(fs::exists(lock_file())) << "a dry run";
  ASSERT_TRUE(
      wipe_directory(rig_.path(), {.name_space = "", .is_dry = false, .progress = {}}).has_value());
  EXPECT_TRUE(fs::is_empty(rig_.path()));
}

TEST_F(AdoptionTest, WithoutTheFileAnOwnerStartsAllTheSameAndSaysSo) {
  fs::create_directory(lock_file());
  ASSERT_EQ(rig_.open().text(), Status().text());
  EXPECT_TRUE(rig_.has(1));
  EXPECT_THAT(rig_.log(), HasSubstr("unguarded=\"open " + lock_file()));
  rig_.close();
  EXPECT_TRUE(fs::is_directory(lock_file()));
}

TEST_F(AdoptionTest, APathThatCannotBeWrittenIsToldByWhatFailsForWantOfIt) {
  const char* path = rig_.path().c_str();
  ASSERT_EQ(::mount(path, path, nullptr, MS_BIND, nullptr), 0)
      << "this test mounts: run it as root";
  ASSERT_EQ(::mount(nullptr, path, nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr), 0);
  const Status status = rig_.open();
  ASSERT_EQ(::umount2(path, MNT_DETACH), 0);
  EXPECT_EQ(status.code(), Code::kRefused);
  EXPECT_THAT(status.message(), HasSubstr("open " + rig_.owner() + "/owner.lock: EROFS"));
  EXPECT_THAT(status.message(), HasSubstr("make it writable"));
  EXPECT_THAT(status.message(), ::testing::Not(HasSubstr("terrace-adopt")));
}

}  // namespace
}  // namespace terrace::tier::disk
