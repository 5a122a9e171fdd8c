// A socket's place in the file system: a private directory, one live owner per name, no remains
// of dead ones. A POSIX record lock says who lives: unlike flock it does not survive in forked
// children. Threading: thread-compatible.  Owns: lock file, socket file, listening socket. Waits:
// never.  Source: docs/formats/attach.md.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "terrace/base/clock.h"
#include "terrace/base/file.h"
#include "terrace/base/status.h"

namespace terrace::attach {

// Of messages for the rendezvous, of bytes for whoever talks HTTP.
enum class SocketKind : std::uint8_t { kMessages, kBytes };

// `<directory>/<24 hex digits of the engine id's digest><ending>`, never longer than 107 bytes;
// `ending` ends in ".sock". Errors: kInvalid names attach.directory when it is too long or empty.
[[nodiscard]] Result<std::string> place_of(const std::string& directory,
                                           const std::string& engine_id, std::string_view ending);

struct Peer {
  pid_t process = 0;  // 0 = in a PID namespace that this one cannot see.
  uid_t user = 0;
};
[[nodiscard]] Result<Peer> peer_of(int socket);

// Makes `directory` with mode 0700 if it is missing.
// Errors: kRefused = a link, no directory, of another user, or open to others; kIo.
[[nodiscard]] Status secure_directory(const std::string& directory);

// Errors: kUnavailable = nobody listens there (yet); kRefused = somebody of another user does.
[[nodiscard]] Result<UniqueFd> connect_to(const std::string& path);

class Claim {
 public:
  // One at a time in a process. Errors: kRefused = a live owner has the name; kIo.
  static Result<Claim> take(const std::string& directory, const std::string& path,
                            const Clock& clock, SocketKind kind = SocketKind::kMessages);
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
