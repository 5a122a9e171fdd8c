// What survives a change of size or paths, and what a file system that is small or full means.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/inspect.h"

namespace terrace::tier::disk {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

TEST(SmallDiskTest, AReadOnlyDirectoryIsLeftAloneAndTold) {
  SmallDisk disk(8 << 20);
  ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
  Rig rig;
  rig.options().paths = {disk.path()};
  ASSERT_TRUE(rig.open().is_ok());
  ASSERT_TRUE(rig.write(1).is_ok());
  rig.close();
  ASSERT_TRUE(disk.make_read_only());
  const auto before = tree(disk.path());
  const Status status = rig.open();
  EXPECT_EQ(status.code(), Code::kRefused);
  EXPECT_THAT(status.message(), HasSubstr("EROFS"));
  EXPECT_EQ(tree(disk.path()), before);
  EXPECT_TRUE(inspect_directory(disk.path()).has_value());
}

// There is room, and no file can be made: at whichever of the tier's files that comes.
TEST(SmallDiskTest, WithoutInodesItIsNotUsedAndTheyAreNamed) {
  constexpr std::uint64_t kEnough = 32;
  constexpr std::uint64_t kRoot = 1;
  std::uint64_t needed = kRoot;
  for (; needed < kEnough; ++needed) {
    SCOPED_TRACE(needed);
    const SmallDisk disk(16 << 20, needed);
    ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
    Rig rig;
    rig.options().paths = {disk.path()};
    const Status status = rig.open();
    if (status.is_ok()) break;
    EXPECT_EQ(status.code(), Code::kRefused);
    EXPECT_THAT(status.message(), HasSubstr("ENOSPC"));
    EXPECT_THAT(status.message(), HasSubstr("inodes of its file system none is left, though 1"));
    EXPECT_THAT(status.message(), HasSubstr("delete files there"));
  }
  EXPECT_GT(needed, 4U);
  ASSERT_LT(needed, kEnough);
  // Somebody else has them, and gives them back: what was begun meanwhile is in nobody's way.
  const SmallDisk disk(16 << 20, needed + 2);
  ASSERT_TRUE(disk.is_mounted());
  for (const char* name : {"/x", "/y", "/z"}) write_text(disk.path() + name, "");
  Rig rig;
  rig.options().paths = {disk.path()};
  ASSERT_FALSE(rig.open().is_ok());
  for (const char* name : {"/x", "/y", "/z"}) fs::remove(disk.path() + name);
  ASSERT_EQ(rig.open().text(), Status().text());
  ASSERT_TRUE(rig.write(1).is_ok());
  ASSERT_TRUE(rig.reopen().is_ok());
  EXPECT_TRUE(rig.read(1).is_ok());
}

// As in a container whose root file system has no inode left for a folder in it.
TEST(SmallDiskDeathTest, NoInodeForAFolderInTheRootIsSaid) {
  const SmallDisk disk(16 << 20, 1);  // The root itself is one.
  ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
  Rig rig;
  rig.options().paths = {"/kv"};
  const auto open_in_it = [&] {
    if (::chroot(disk.path().c_str()) != 0 || ::chdir("/") != 0) ::_exit(1);
    const std::string message = rig.open().message();
    static_cast<void>(::write(STDERR_FILENO, message.data(), message.size()));
    ::_exit(0);
  };
  EXPECT_EXIT(open_in_it(), ::testing::ExitedWithCode(0),
              "disk.paths /kv: .*ENOSPC.*; of the 1 inodes of its file system none is left");
}

// Another fault is not blamed on them, and no file there is to be deleted for it.
TEST(SmallDiskTest, WhatElseIsWrongWhereNoInodeIsLeftIsSaidAlone) {
  SmallDisk disk(16 << 20, 2);
  ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
  write_text(disk.path() + "/other", "");
  ASSERT_TRUE(disk.make_read_only());
  Rig rig;
  rig.options().paths = {disk.path()};
  const Status status = rig.open();
  EXPECT_THAT(status.message(), HasSubstr("EROFS"));
  EXPECT_THAT(status.message(), ::testing::Not(HasSubstr("inode")));
}

// What is open needs no further file: neither for blocks nor for a reset.
TEST(SmallDiskTest, InodesThatGoWhileServingStopNothing) {
  const SmallDisk disk(16 << 20, 64);
  ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
  Rig rig;
  rig.options().paths = {disk.path()};
  ASSERT_EQ(rig.open().text(), Status().text());
  for (int i = 0; i < 64; ++i) write_text(disk.path() + "/other" + std::to_string(i), "");
  for (std::uint64_t n = 0; n < 8; ++n) EXPECT_EQ(rig.write(n).text(), Status().text()) << n;
  EXPECT_TRUE(rig.tier().problems().empty());
  ASSERT_EQ(rig.reopen().text(), Status().text());
  for (std::uint64_t n = 0; n < 8; ++n) EXPECT_TRUE(rig.read(n).is_ok()) << n;
  rig.tier().forget_all();
  const Nanoseconds limit = rig.clock().now() + seconds(20);
  std::vector<DiskDone> done;
  while (rig.tier().is_drop_pending() && rig.clock().now() < limit) {
    rig.tier().wait(milliseconds(20));
    rig.tier().poll(done);
  }
  EXPECT_TRUE(rig.tier().undropped().empty());
  ASSERT_EQ(rig.reopen().text(), Status().text());
  for (std::uint64_t n = 0; n < 8; ++n) EXPECT_FALSE(rig.has(n)) << n;
}

TEST(SmallDiskTest, ASmallerDiskThanAskedForIsUsedAsFarAsItGoes) {
  const SmallDisk disk(24 << 20);
  ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
  Rig rig;
  rig.options().paths = {disk.path()};
  rig.options().blocks = 0;
  rig.options().size = 64_MiB;
  ASSERT_EQ(rig.open().text(), Status().text());
  ASSERT_EQ(rig.tier().problems().size(), 1U);
  EXPECT_THAT(rig.tier().problems()[0],
              HasSubstr("disk.size: 64 MiB asked for, 17 MiB can be had in disk.paths: the disk "
                        "tier is smaller"));
  EXPECT_THAT(
      rig.tier().problems()[0],
      HasSubstr(disk.path() + "/terrace-00: holds 0 MiB; its file system has 24 MiB, 23 MiB "
                              "free, of which 6 MiB stay free"));
  EXPECT_THAT(rig.log(), HasSubstr("error disk problem=\"disk.size: 64 MiB asked for"));
  EXPECT_GT(rig.tier().slots(), 100U);
  rig.settle();
  EXPECT_GE(fs::space(disk.path()).available, 5U << 20U);
  for (std::uint64_t n = 0; n < 20; ++n) EXPECT_TRUE(rig.write(n).is_ok());
}

TEST(SmallDiskTest, PathsOnOneFileSystemShareWhatIsFreeThere) {
  const SmallDisk disk(32 << 20);
  ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
  Rig rig;
  rig.options().paths = {disk.path() + "/a", disk.path() + "/b"};
  rig.options().blocks = 0;
  rig.options().size = 64_MiB;
  ASSERT_EQ(rig.open().text(), Status().text());
  EXPECT_THAT(rig.log(), HasSubstr("2 of disk.paths share it"));
  rig.settle();
  EXPECT_GE(fs::space(disk.path()).available, 7U << 20U);
  EXPECT_LE(fs::space(disk.path()).available, 10U << 20U);
}

// Somebody else filled it meanwhile: what is there stays, or every full disk would empty the cache.
TEST(SmallDiskTest, AReserveThatIsGoneTakesNoBlock) {
  const SmallDisk disk(32 << 20);
  ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
  Rig rig;
  rig.options().paths = {disk.path()};
  rig.options().blocks = 0;
  rig.options().size = 16_MiB;
  ASSERT_TRUE(rig.open().is_ok());
  rig.settle();
  for (std::uint64_t n = 0; n < 200; ++n) ASSERT_TRUE(rig.write(n).is_ok());
  rig.close();
  {
    std::ofstream hog(disk.path() + "/somebody-elses", std::ios::binary);
    const std::string megabyte(1 << 20, 'x');
    for (int i = 0; i < 14; ++i) hog << megabyte;
  }
  ASSERT_EQ(rig.open().text(), Status().text());
  for (std::uint64_t n = 0; n < 200; ++n) EXPECT_TRUE(rig.read(n).is_ok()) << n;
  // Without anything of its own it takes nothing, and says what is missing.
  rig.close();
  fs::remove_all(disk.path() + "/terrace-00");
  std::ofstream(disk.path() + "/more", std::ios::binary) << std::string(11 << 20, 'x');
  const Status status = rig.open();
  EXPECT_EQ(status.code(), Code::kRefused);
  EXPECT_THAT(status.message(), HasSubstr("disk.size"));
  EXPECT_THAT(status.message(), HasSubstr("MiB stay free for others"));
  EXPECT_THAT(status.message(), HasSubstr("free space there, or name another directory"));
}

TEST(SmallDiskTest, ADiskThatFillsUpWhileServingDropsWritesAndRecovers) {
  const SmallDisk disk(40 << 20);
  ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
  Rig rig;
  rig.options().paths = {disk.path()};
  rig.options().preallocate = "zerofill";
  rig.options().blocks = 0;
  rig.options().size = 16_MiB;
  ASSERT_TRUE(rig.open().is_ok());
  const std::string hog = disk.path() + "/somebody-elses";
  {
    std::ofstream file(hog, std::ios::binary);
    const std::string megabyte(1 << 20, 'x');
    while (file.good()) file.write(megabyte.data(), 1 << 20).flush();
  }
  std::uint64_t number = 0;
  Status status;
  while (status.is_ok() && number < 5000) status = rig.write(number++);
  EXPECT_TRUE(status.code() == Code::kExhausted || status.code() == Code::kUnavailable)
      << status.text();
  EXPECT_THAT(rig.tier().problems().at(0), HasSubstr("state=full"));
  for (std::uint64_t n = 0; n + 1 < number; ++n) EXPECT_TRUE(rig.read(n).is_ok());
  fs::remove(hog);
  ASSERT_TRUE(rig.reopen().is_ok());
  EXPECT_TRUE(rig.write(9999).is_ok());
}

// Others took part of what was free when the size was divided: the rest stays theirs.
TEST(SmallDiskTest, ASlotFileDoesNotGrowIntoWhatStaysFreeForOthers) {
  const SmallDisk disk(40 << 20);
  ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
  Rig rig;
  rig.options().paths = {disk.path()};
  rig.options().preallocate = "zerofill";
  rig.options().blocks = 0;
  rig.options().size = 16_MiB;
  ASSERT_TRUE(rig.open().is_ok());
  const std::uint64_t taken = fs::space(disk.path()).available - (8U << 20U);
  std::ofstream(disk.path() + "/somebody-elses", std::ios::binary) << std::string(taken, 'x');
  for (std::uint64_t n = 0; n < 5000; ++n) (void)rig.write(n);
  EXPECT_TRUE(rig.write(5000).is_ok()) << "in the place of another";
  EXPECT_TRUE(rig.read(5000).is_ok());
  EXPECT_GE(fs::space(disk.path()).available, 5U << 20U) << "half of a quarter of it";
  ASSERT_EQ(rig.tier().problems().size(), 1U);
  EXPECT_THAT(rig.tier().problems()[0], HasSubstr("others have used its file system up"));
}

TEST(DiskSizeTest, AGrownTierKeepsItsBlocks) {
  Rig rig;
  ASSERT_TRUE(rig.open().is_ok());
  for (std::uint64_t n = 0; n < 16; ++n) ASSERT_TRUE(rig.write(n).is_ok());
  rig.options().blocks = 64;
  ASSERT_TRUE(rig.reopen().is_ok());
  EXPECT_EQ(rig.tier().slots(), 64U);
  for (std::uint64_t n = 0; n < 16; ++n) EXPECT_TRUE(rig.read(n).is_ok()) << n;
  for (std::uint64_t n = 16; n < 64; ++n) ASSERT_TRUE(rig.write(n).is_ok());
  EXPECT_TRUE(rig.has(0));
}

TEST(DiskSizeTest, AShrunkTierKeepsWhatFits) {
  Rig rig;
  rig.options().blocks = 64;
  ASSERT_TRUE(rig.open().is_ok());
  for (std::uint64_t n = 0; n < 64; ++n) ASSERT_TRUE(rig.write(n).is_ok());
  rig.options().blocks = 24;
  ASSERT_TRUE(rig.reopen().is_ok());
  EXPECT_EQ(rig.tier().slots(), 24U);
  std::uint32_t kept = 0;
  for (std::uint64_t n = 0; n < 64; ++n) {
    if (!rig.has(n)) continue;
    ++kept;
    EXPECT_TRUE(rig.read(n).is_ok());
  }
  EXPECT_EQ(kept, 24U);
  EXPECT_TRUE(rig.write(100).is_ok());
  // What was cut off must not come back when the tier grows again.
  rig.options().blocks = 64;
  ASSERT_TRUE(rig.reopen().is_ok());
  for (std::uint64_t n = 0; n < 64; ++n) {
    if (rig.has(n)) {
      EXPECT_EQ(rig.read(n).text(), Status().text());
    }
  }
}

TEST(DiskSizeTest, AnAddedPathWipesNothingAndIsUsed) {
  Rig rig;
  ASSERT_TRUE(rig.open().is_ok());
  for (std::uint64_t n = 0; n < 16; ++n) ASSERT_TRUE(rig.write(n).is_ok());
  const ScratchDirectory second;
  rig.options().paths = {second.path(), rig.path()};
  rig.options().blocks = 40;
  ASSERT_TRUE(rig.reopen().is_ok());
  for (std::uint64_t n = 0; n < 16; ++n) EXPECT_TRUE(rig.read(n).is_ok()) << n;
  for (std::uint64_t n = 16; n < 40; ++n) ASSERT_TRUE(rig.write(n).is_ok());
  for (std::uint64_t n = 0; n < 40; ++n) EXPECT_TRUE(rig.read(n).is_ok()) << n;
  const auto seen = inspect_directory(second.path());
  ASSERT_TRUE(seen.has_value());
  EXPECT_GT(seen->at(0).namespaces.at(0).sealed, 4U);
}

TEST(DiskSizeTest, BlocksAreStripedOverPathsAndSurviveALostOne) {
  const ScratchDirectory second;
  Rig rig;
  rig.options().paths.push_back(second.path());
  ASSERT_TRUE(rig.open().is_ok());
  for (std::uint64_t n = 0; n < 16; ++n) ASSERT_TRUE(rig.write(n).is_ok());
  const auto seen = inspect_directory(second.path());
  EXPECT_EQ(seen->at(0).namespaces.at(0).sealed, 8U);
  rig.close();
  fs::remove_all(second.path() + "/terrace-00");
  ASSERT_TRUE(rig.open().is_ok());
  std::uint32_t found = 0;
  for (std::uint64_t n = 0; n < 16; ++n) found += rig.read(n).is_ok() ? 1 : 0;
  EXPECT_EQ(found, 8U);
}

TEST(DiskSizeTest, NotEvenOneBlockIsAnErrorThatNamesTheSetting) {
  Rig rig;
  rig.options().blocks = 0;
  rig.options().size = 4_KiB;
  const Status status = rig.open();
  EXPECT_FALSE(status.is_ok());
  EXPECT_THAT(status.message(), HasSubstr("disk.size"));
}

TEST(SmallDiskTest, MemoryPerSlotIsBoundedWhateverTheSize) {
  const SmallDisk disk(
      64ULL << 30U);  // Large, but for the test's own disk, which may be nearly full.
  ASSERT_TRUE(disk.is_mounted()) << "this test mounts a tmpfs: run it as root";
  Rig rig;
  rig.options().paths = {disk.path()};
  rig.options().blocks = 0;
  rig.options().size = 1_GiB;
  ASSERT_EQ(rig.open().text(), Status().text());
  EXPECT_GT(rig.tier().slots(), 80'000U);
  EXPECT_TRUE(rig.write(1).is_ok());
  EXPECT_LE(rig.tier().memory().value() / rig.tier().slots(), 72U);  // 64 + 8 for the alias.
}

}  // namespace
}  // namespace terrace::tier::disk
