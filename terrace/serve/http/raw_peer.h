// A peer of the HTTP port that does only what it is told: tests and fuzz targets only.
// Threading: thread-compatible.  Waits: receive(), for a minute at most.
#pragma once

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "terrace/base/file.h"
#include "terrace/serve/http/http_server.h"

namespace terrace::serve {

inline sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

class Raw {
 public:
  explicit Raw(std::uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const sockaddr_in address = loopback(port);
    is_connected_ =
        ::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
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
      if (::poll(&entry, 1, 60'000) <= 0) return text + "(nothing for a minute)";
      const ssize_t got = ::recv(socket_.get(), piece, sizeof piece, 0);
      if (got <= 0) return text;
      text.append(piece, static_cast<std::size_t>(got));
    }
  }
  [[nodiscard]] bool has_been_closed() const {
    pollfd entry{socket_.get(), POLLRDHUP, 0};
    return ::poll(&entry, 1, 0) > 0;
  }

 private:
  UniqueFd socket_;
  bool is_connected_ = false;
};

// Where it listens.
inline std::uint16_t port_of(const HttpServer& server) {
  const std::string url = server.url();
  return static_cast<std::uint16_t>(std::atoi(url.c_str() + url.rfind(':') + 1));
}

}  // namespace terrace::serve
