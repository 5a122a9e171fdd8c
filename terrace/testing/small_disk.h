// A file system of a given size, made for one test; needs the right to mount, which CI's root has.
// Threading: thread-compatible.  Waits: never.
#pragma once

#include <sys/mount.h>

#include <cstdint>
#include <string>

#include "terrace/testing/scratch_directory.h"

namespace terrace::testing {

class SmallDisk {
 public:
  // `files` counts folders, too; 0 = no bound.
  explicit SmallDisk(std::uint64_t bytes, std::uint64_t files = 0) {
    const std::string options =
        "size=" + std::to_string(bytes) + ",nr_inodes=" + std::to_string(files);
    is_mounted_ = ::mount("tmpfs", scratch_.path().c_str(), "tmpfs", 0, options.c_str()) == 0;
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  ~SmallDisk() {
    if (is_mounted_) ::umount2(scratch_.path().c_str(), MNT_DETACH);
  }
  bool make_read_only() {
    return ::mount("tmpfs", scratch_.path().c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, nullptr) == 0;
  }
  // False when somebody still has something open there. What was on it is gone.
  bool unmount() {
    if (::umount2(scratch_.path().c_str(), 0) != 0) return false;
    is_mounted_ = false;
    return true;
  }
  [[nodiscard]] bool is_mounted() const { return is_mounted_; }
  [[nodiscard]] const std::string& path() const { return scratch_.path(); }

 private:
  ScratchDirectory scratch_;
  bool is_mounted_ = false;
};

}  // namespace terrace::testing
