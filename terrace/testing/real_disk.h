// A small file system with real trouble, of the best kind that the machine gives a test: ext4 in a
// file on a loop device, else (containers have none) a tmpfs. kind() says which.
// Threading: thread-compatible.  Waits: for mkfs.ext4 and the kernel.
#pragma once

#include <cstdint>
#include <string>

#include "terrace/base/file.h"
#include "terrace/testing/scratch_directory.h"

namespace terrace::testing {

class RealDisk {
 public:
  explicit RealDisk(std::uint64_t bytes);
  RealDisk(const RealDisk&) = delete;
  RealDisk& operator=(const RealDisk&) = delete;
  ~RealDisk();

  [[nodiscard]] bool is_mounted() const { return is_mounted_; }
  // "ext4 on /dev/loop3", "tmpfs: no loop device".
  [[nodiscard]] const std::string& kind() const { return kind_; }
  [[nodiscard]] bool is_ext4() const { return is_ext4_; }
  [[nodiscard]] const std::string& path() const { return mount_.path(); }

  // As ext4 does when it finds itself damaged (errors=remount-ro), with files open for writing,
  // too; a tmpfs only without such files. What was synced is still there.
  [[nodiscard]] bool turn_read_only();
  // Mounted anew, as an operator would: nothing may be open there. A tmpfs is only remounted.
  [[nodiscard]] bool turn_writable();
  // Writes a file of this name until nothing more fits.
  void fill_up(const std::string& name) const;

 private:
  [[nodiscard]] bool make_ext4(std::uint64_t bytes);
  [[nodiscard]] bool attach_loop();
  [[nodiscard]] bool mount_ext4();

  ScratchDirectory scratch_;
  ScratchDirectory mount_;
  UniqueFd loop_;
  std::string device_;
  std::string kind_;
  bool is_ext4_ = false;
  bool is_mounted_ = false;
};

}  // namespace terrace::testing
