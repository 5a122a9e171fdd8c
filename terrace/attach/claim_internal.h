// The socket's place in the file system: a private directory, one live owner per name, no remains
// of dead ones. A POSIX record lock says who lives: unlike flock it does not survive in forked
// children. Threading: thread-compatible.  Owns: lock file, socket file, listening socket. Waits:
// never.  Source: docs/formats/attach.md.
#pragma once

#include <sys/types.h>

#include <string>

#include "terrace/base/clock.h"
#include "terrace/base/file.h"
#include "terrace/base/status.h"

namespace terrace::attach {

// Makes `directory` with mode 0700 if it is missing.
// Errors: kRefused = a link, no directory, of another user, or open to others; kIo.
[[nodiscard]] Status secure_directory(const std::string& directory);

// Errors: kUnavailable = nobody listens there (yet); kRefused = somebody of another user does.
[[nodiscard]] Result<UniqueFd> connect_to(const std::string& path);

class Claim {
 public:
  // Errors: kRefused = a live owner has the name; kIo.
  static Result<Claim> take(const std::string& directory, const std::string& path,
                            const Clock& clock);
  Claim(Claim&&) noexcept = default;
  Claim& operator=(Claim&&) = delete;
  ~Claim();  // Removes socket and lock file, in the process that made them only.
  [[nodiscard]] int listener() const { return listener_.get(); }
  // Closes what a forked child must not keep open, and removes nothing.
  void abandon();

 private:
  Claim() = default;
  std::string path_;
  UniqueFd lock_;
  UniqueFd listener_;
  pid_t process_ = 0;
};

}  // namespace terrace::attach
