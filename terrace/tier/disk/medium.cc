#include <fmt/format.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "terrace/tier/disk/medium_internal.h"

namespace terrace::tier::disk {

namespace {
// Of file systems that Linux itself does not have (OpenZFS, sys/zfs_vfsops.h) or had only for a
// while (bcachefs, fs/bcachefs/bcachefs_format.h).
constexpr std::uint64_t kZfs = 0x2FC12FC1;
constexpr std::uint64_t kBcachefs = 0xCA451A4E;
constexpr std::uint64_t kLeastHole = 1U << 20U;  // Less is the file system's own rounding.

// Which a server, or a process of somebody's, stands behind.
std::string_view served_name(std::uint64_t type) {
  constexpr std::uint64_t kLustre = 0x0BD00BD0;  // lustre_user.h
  switch (type) {
    case NFS_SUPER_MAGIC:
      return "nfs";
    case SMB_SUPER_MAGIC:
    case CIFS_SUPER_MAGIC:
    case SMB2_SUPER_MAGIC:
      return "smb";
    case CEPH_SUPER_MAGIC:
      return "ceph";
    case FUSE_SUPER_MAGIC:
      return "fuse";
    case V9FS_MAGIC:
      return "9p";
    case kLustre:
      return "lustre";
    default:
      return "";
  }
}

std::string_view copying_name(std::uint64_t type) {
  switch (type) {
    case BTRFS_SUPER_MAGIC:
      return "btrfs";
    case kZfs:
      return "zfs";
    case kBcachefs:
      return "bcachefs";
    default:
      return "";
  }
}
}  // namespace

Medium medium_of(int file) {
  Medium medium;
  struct statfs system{};
  struct stat facts{};
  if (::fstatfs(file, &system) == 0) medium.type = static_cast<std::uint64_t>(system.f_type);
  int flags = 0;
  if (::ioctl(file, FS_IOC_GETFLAGS, &flags) == 0) medium.is_no_copy = (flags & FS_NOCOW_FL) != 0;
  if (::fstat(file, &facts) == 0) {
    medium.size = static_cast<std::uint64_t>(facts.st_size);
    medium.blocks = static_cast<std::uint64_t>(facts.st_blocks) * 512;
  }
  return medium;
}

std::vector<std::string> notes_on(const Medium& medium) {
  std::vector<std::string> notes;
  if (const auto name = copying_name(medium.type); !name.empty() && !medium.is_no_copy) {
    notes.push_back(fmt::format(
        "copy_on_write={}: each write takes new space, so reserved space is no promise and the "
        "file "
        "scatters: {}",
        name,
        medium.type == BTRFS_SUPER_MAGIC
            ? "chattr +C the empty directory before the first start, or use ext4 or xfs"
            : "use ext4 or xfs, or leave room and set disk.size well below what is free"));
  }
  if (medium.type == OVERLAYFS_SUPER_MAGIC) {
    notes.emplace_back(
        "file_system=overlay: a container's own layer goes with the container: mount a volume");
  }
  if (const auto name = served_name(medium.type); !name.empty()) {
    notes.push_back(fmt::format(
        "file_system={}: what answers for it may hang, and its blocks are misses then: name a "
        "directory on a local disk in disk.paths, and this one in object.path",
        name));
  }
  if (medium.type == TMPFS_MAGIC || medium.type == RAMFS_MAGIC) {
    notes.push_back(fmt::format(
        "file_system={}: that is memory: what lies there counts like host memory, and is gone at a "
        "reboot: name a directory on a disk in disk.paths",
        medium.type == TMPFS_MAGIC ? "tmpfs" : "ramfs"));
  }
  const bool is_counted = copying_name(medium.type).empty();  // Those compress.
  if (is_counted && medium.blocks > 0 && medium.size > medium.blocks + kLeastHole) {
    notes.push_back(fmt::format(
        "sparse=1: {} MiB of {} MiB of 0.slots have no blocks on the medium (a copy that left "
        "holes "
        "out?): a disk that others fill up stops blocks there: copy it with `terrace move`, or "
        "`fallocate -l {} 0.slots` while no engine runs",
        (medium.size - medium.blocks) >> 20U, medium.size >> 20U, medium.size));
  }
  return notes;
}

}  // namespace terrace::tier::disk
