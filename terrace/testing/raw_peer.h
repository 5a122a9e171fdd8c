// What the tests of the product's sockets share: a peer that does only what it is told, and the
// descriptors of this process. Threading: thread-compatible.  Waits: receive(), for a minute at
// most.
#pragma once

#include <dirent.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/file.h"

namespace terrace::testing {

inline sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

class Raw {
 public:
  // A Unix socket's path, of less than 108 bytes.
  explicit Raw(const std::string& path, int flags = 0)
      : socket_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    connect(address);
  }
  // A port of this machine's own address.
  explicit Raw(std::uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    connect(loopback(port));
  }
  [[nodiscard]] bool is_connected() const { return is_connected_; }
  // False once the other side has gone.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }
  void end_sending() { ::shutdown(socket_.get(), SHUT_WR); }
  // All that comes until the other side closes.
  std::string receive() {
    std::string text;
    char piece[4096];
    for (;;) {
      pollfd entry{socket_.get(), POLLIN, 0};
      const int ready = ::poll(&entry, 1, 60'000);
      if (ready < 0 && errno == EINTR) continue;  // A fuzzer's own timer.
      if (ready <= 0) {
        has_waited_in_vain_ = true;
        return text + "(nothing for a minute)";
      }
      const ssize_t got = ::recv(socket_.get(), piece, sizeof piece, 0);
      if (got <= 0) return text;
      text.append(piece, static_cast<std::size_t>(got));
    }
  }
  // receive() ended because nothing came: an answer may say the same words.
  [[nodiscard]] bool has_waited_in_vain() const { return has_waited_in_vain_; }
  [[nodiscard]] bool has_been_closed() const {
    pollfd entry{socket_.get(), POLLRDHUP, 0};
    return ::poll(&entry, 1, 0) > 0;
  }

 private:
  template <typename Address>
  void connect(const Address& address) {
    is_connected_ =
        ::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }

  UniqueFd socket_;
  bool is_connected_ = false;
  bool has_waited_in_vain_ = false;
};

inline std::vector<int> open_files() {
  std::vector<int> files;
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(::opendir("/proc/self/fd"), ::closedir);
  while (const dirent* entry = ::readdir(listing.get())) {
    const int fd = std::atoi(entry->d_name);
    if (entry->d_name[0] != '.' && fd != ::dirfd(listing.get())) files.push_back(fd);
  }
  return files;
}

}  // namespace terrace::testing
