// A file system that answers nothing, as a file server that is away: whoever names a path below it
// waits until it ends. A FUSE mount of which nobody reads; needs the right to mount and /dev/fuse.
// Threading: thread-compatible.  Waits: never.
#pragma once

#include <fcntl.h>
#include <sys/mount.h>

#include <string>

#include "terrace/base/file.h"

namespace terrace::testing {

class SilentMount {
 public:
  // Over what is there. Let it end before anybody looks below `path` in a thread that must not
  // hang.
  explicit SilentMount(std::string path)
      : path_(std::move(path)), device_(::open("/dev/fuse", O_RDWR | O_CLOEXEC)) {
    const std::string options =
        "fd=" + std::to_string(device_.get()) + ",rootmode=40000,user_id=0,group_id=0";
    is_mounted_ =
        device_.is_open() && ::mount("silent", path_.c_str(), "fuse", 0, options.c_str()) == 0;
  }
  SilentMount(const SilentMount&) = delete;
  SilentMount& operator=(const SilentMount&) = delete;
  ~SilentMount() { end(); }
  [[nodiscard]] bool is_mounted() const { return is_mounted_; }
  // Who waits gets an error, and the path leads to where it led before.
  void end() {
    if (!is_mounted_) return;
    is_mounted_ = false;
    ::umount2(path_.c_str(), MNT_DETACH);
    device_.reset(-1);
  }

 private:
  const std::string path_;
  UniqueFd device_;
  bool is_mounted_ = false;
};

}  // namespace terrace::testing
