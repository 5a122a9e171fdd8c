// One connection of the rendezvous: whole messages with descriptors beside them, never blocking.
// Its end is told to the other side even where a forked child holds a copy of the socket; a child
// that ends its own copy tells nothing.
// Threading: thread-compatible.  Owns: its socket.  Waits: never.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <span>
#include <string>
#include <vector>

#include "terrace/attach/claim.h"
#include "terrace/base/file.h"
#include "terrace/base/status.h"
#include "terrace/wire/attach_messages.h"

namespace terrace::attach {

struct Received {
  wire::AttachMessage message;
  std::vector<UniqueFd> files;
};

class Channel {
 public:
  Channel() = default;
  explicit Channel(UniqueFd socket) : socket_(std::move(socket)), process_(::getpid()) {}
  Channel(Channel&&) noexcept = default;
  Channel& operator=(Channel&& other) noexcept;
  ~Channel() { close(); }
  [[nodiscard]] int fd() const { return socket_.get(); }
  [[nodiscard]] bool is_open() const { return socket_.is_open(); }
  void close();

  // Errors: kUnavailable = the other side reads too slowly, try later; kClosed = it is gone.
  [[nodiscard]] Status send(const wire::AttachMessage& message,
                            std::span<const UniqueFd> files = {});
  // Errors: kUnavailable = nothing there yet; kClosed = gone; kInvalid, kRefused = not our
  // messages; kExhausted = this process has no descriptors left for what was sent.
  [[nodiscard]] Result<Received> receive(bool accepts_files);
  // The other side has closed; what it sent before may still be there to receive.
  [[nodiscard]] bool has_hung_up() const;

 private:
  UniqueFd socket_;
  pid_t process_ = 0;  // That made it.
};

// A pidfd of the peer, readable once it has died; closed where the kernel or a PID namespace does
// not allow one: then only the end of the connection tells.
[[nodiscard]] UniqueFd watch_peer(int socket, const Peer& peer);
[[nodiscard]] bool is_readable(int fd);

}  // namespace terrace::attach
