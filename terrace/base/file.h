// RAII file descriptor and the few file calls that every room needs. All descriptors are CLOEXEC.
// Threading: thread-compatible.  Errors: Status with operation, path and errno.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "terrace/base/status.h"
#include "terrace/base/strong.h"

namespace terrace {

class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~UniqueFd() { reset(-1); }
  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] bool is_open() const { return fd_ >= 0; }
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }
  void reset(int fd);

 private:
  int fd_ = -1;
};

// open(2) with O_CLOEXEC added. Waits for a writer where `path` is a pipe: for names that somebody
// else chose or could have put there, take open_regular_file.
[[nodiscard]] Result<UniqueFd> open_file(const std::string& path, int flags, unsigned mode = 0600);
// The same for a regular file (or a link to one) alone: never waits on a pipe, a socket or a
// device. With O_NOFOLLOW a link is refused too: for what is written where others could have put
// one. Errors: kInvalid = something else is there; says what, and the way out.
[[nodiscard]] Result<UniqueFd> open_regular_file(const std::string& path, int flags,
                                                 unsigned mode = 0600);
// A whole regular file, refused (kInvalid) when longer than `limit`.
[[nodiscard]] Result<std::string> read_file(const std::string& path, Bytes limit);
// Writes `path`.tmp, fsyncs it, renames it over `path`, fsyncs the directory: all or nothing.
[[nodiscard]] Status write_file_atomic(const std::string& path, std::string_view content);
[[nodiscard]] Status sync_directory(const std::string& path);
// mkdir -p with mode 0700 for what it makes.
[[nodiscard]] Status make_directories(const std::string& path);

}  // namespace terrace
