// What is told of a file system.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/magic.h>

#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/medium_internal.h"

namespace terrace::tier::disk {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr std::uint64_t kMiB = 1U << 20U;

TEST(MediumTest, CopyOnWriteIsSaidUnlessTheFileIsWrittenInPlace) {
  EXPECT_THAT(notes_on({.type = BTRFS_SUPER_MAGIC}), ElementsAre(HasSubstr("chattr +C")));
  EXPECT_THAT(notes_on({.type = 0x2FC12FC1}), ElementsAre(HasSubstr("copy_on_write=zfs")));
  EXPECT_THAT(notes_on({.type = BTRFS_SUPER_MAGIC, .is_no_copy = true}), IsEmpty());
  EXPECT_THAT(notes_on({.type = EXT4_SUPER_MAGIC, .size = 8 * kMiB, .blocks = 8 * kMiB}),
              IsEmpty());
}

TEST(MediumTest, HolesAreSaidWhereBlocksAreCounted) {
  EXPECT_THAT(notes_on({.type = EXT4_SUPER_MAGIC, .size = 64 * kMiB, .blocks = 16 * kMiB}),
              ElementsAre(HasSubstr("48 MiB of 64 MiB")));
  EXPECT_THAT(
      notes_on(
          {.type = BTRFS_SUPER_MAGIC, .is_no_copy = true, .size = 64 * kMiB, .blocks = 16 * kMiB}),
      IsEmpty());
}

TEST(MediumTest, AContainersOwnLayerIsSaid) {
  EXPECT_THAT(notes_on({.type = OVERLAYFS_SUPER_MAGIC}), ElementsAre(HasSubstr("volume")));
}

// A copy that left the holes out, as `cp --sparse=always` makes it.
TEST(MediumTest, AStartOnAFileWithHolesLogsIt) {
  Rig rig({.ranks = 1, .payload_bytes = {1U << 20U}});
  ASSERT_TRUE(rig.open().is_ok());
  ASSERT_TRUE(rig.write(1).is_ok());
  rig.settle();
  EXPECT_THAT(rig.log(), Not(HasSubstr("sparse=1")));
  rig.close();
  const std::string slots = rig.owner() + "/0.slots";
  const auto size = std::filesystem::file_size(slots);
  std::filesystem::resize_file(slots, 2U << 20U);
  std::filesystem::resize_file(slots, size);
  ASSERT_TRUE(rig.open().is_ok());
  EXPECT_THAT(rig.log(), HasSubstr("sparse=1"));
  EXPECT_TRUE(rig.read(1).is_ok());
}

TEST(MediumTest, AFileServerIsNoDisk) {
  EXPECT_THAT(notes_on({.type = NFS_SUPER_MAGIC}), ElementsAre(HasSubstr("file_system=nfs")));
  EXPECT_THAT(notes_on({.type = SMB2_SUPER_MAGIC}), ElementsAre(HasSubstr("file_system=smb")));
  EXPECT_THAT(notes_on({.type = FUSE_SUPER_MAGIC}), ElementsAre(HasSubstr("object.path")));
}

TEST(MediumTest, MemoryIsNoDisk) {
  EXPECT_THAT(notes_on({.type = TMPFS_MAGIC}), ElementsAre(HasSubstr("file_system=tmpfs")));
  EXPECT_THAT(notes_on({.type = RAMFS_MAGIC}), ElementsAre(HasSubstr("file_system=ramfs")));
}

}  // namespace
}  // namespace terrace::tier::disk
