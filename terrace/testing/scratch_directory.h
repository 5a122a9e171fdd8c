// A directory of mode 0700 below the test's temporary folder (or `parent`) that goes away with
// everything in it. Threading: thread-compatible.  Waits: never.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

namespace terrace::testing {

class ScratchDirectory {
 public:
  explicit ScratchDirectory(const std::string& parent = {}) {
    const std::filesystem::path above =
        parent.empty() ? std::filesystem::temp_directory_path() : std::filesystem::path(parent);
    std::string name = (above / "terrace-XXXXXX").string();
    if (::mkdtemp(name.data()) != nullptr) path_ = name;
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  ~ScratchDirectory() {
    std::error_code ignored;
    if (!path_.empty() && process_ == ::getpid()) std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
  const pid_t process_ = ::getpid();
};

}  // namespace terrace::testing
