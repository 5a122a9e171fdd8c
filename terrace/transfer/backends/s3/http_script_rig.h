// A scripted HTTP server for tests: on a free port of the loopback, it reads requests and leaves
// every byte of the answer to the test, lies, cuts and delays included.
// Threading: one thread per connection calls the script; seen() is thread-safe.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <list>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "terrace/base/file.h"
#include "terrace/base/mutex.h"

namespace terrace::testing {

struct SeenRequest {
  std::string method;
  std::string target;                          // As in the first line.
  std::map<std::string, std::string> headers;  // Names in lower case.
  std::string body;
  int connection = 0;  // Counted from 0 in the order they came.
  [[nodiscard]] std::string header(const std::string& name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? "" : found->second;
  }
};

class HttpPeer {
 public:
  explicit HttpPeer(int socket) : socket_(socket) {}
  // False when the other side is gone.
  bool send(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }
  bool answer(int code, const std::string& headers, const std::string& body) const {
    return send("HTTP/1.1 " + std::to_string(code) + " X\r\nContent-Length: " +
                std::to_string(body.size()) + "\r\n" + headers + "\r\n" + body);
  }
  // Sends the same bytes again and again, a little apart, until the other side is gone.
  void dribble(std::string_view bytes) const {
    while (!is_gone(2) && send(bytes)) {
    }
  }
  // Whether the other side closed, or does within so many milliseconds.
  [[nodiscard]] bool is_gone(int limit_ms) const {
    pollfd entry{socket_, POLLRDHUP, 0};
    return ::poll(&entry, 1, limit_ms) > 0;
  }
  // The connection ends now, with a reset.
  void reset() const {
    sockaddr nobody{};
    nobody.sa_family = AF_UNSPEC;
    (void)::connect(socket_, &nobody, sizeof nobody);
  }

 private:
  const int socket_;
};

class HttpScript {
 public:
  // Answers one request; false = the connection ends.
  using Answer = std::function<bool(const HttpPeer&, const SeenRequest&)>;

  // `keeps_seen`: for seen(), all that came.
  explicit HttpScript(Answer answer, bool keeps_seen = true)
      : answer_(std::move(answer)), keeps_seen_(keeps_seen) {
    listener_.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    if (::bind(listener_.get(), generic, length) != 0 || ::listen(listener_.get(), 64) != 0) return;
    (void)::getsockname(listener_.get(), generic, &length);
    port_ = ntohs(address.sin_port);
    acceptor_ = std::jthread([this] { accept_all(); });
  }
  HttpScript(const HttpScript&) = delete;
  HttpScript& operator=(const HttpScript&) = delete;
  ~HttpScript() {
    (void)::shutdown(listener_.get(), SHUT_RDWR);
    if (acceptor_.joinable()) acceptor_.join();
    for (Connection& one : connections_) (void)::shutdown(one.socket, SHUT_RDWR);
    for (Connection& one : connections_) {
      one.thread.join();
      (void)::close(one.socket);
    }
  }

  [[nodiscard]] int port() const { return port_; }
  [[nodiscard]] std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  [[nodiscard]] std::vector<SeenRequest> seen() const {
    const MutexLock lock(mutex_);
    return seen_;
  }
  [[nodiscard]] int connections() const {
    const MutexLock lock(mutex_);
    return count_;
  }

 private:
  struct Connection {
    int socket = -1;
    std::jthread thread;
  };

  void accept_all() {
    for (;;) {
      const int socket = ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC);
      if (socket < 0) return;
      int number = 0;
      {
        const MutexLock lock(mutex_);
        number = count_++;
      }
      Connection& made = connections_.emplace_back();
      made.socket = ::dup(socket);  // To end it from outside, whatever the thread does.
      made.thread = std::jthread([this, socket, number] {
        serve(socket, number);
        (void)::close(socket);
      });
    }
  }

  void serve(int socket, int number) {
    const HttpPeer peer(socket);
    std::string buffer;
    SeenRequest request;
    while (read_request(socket, buffer, request)) {
      request.connection = number;
      if (keeps_seen_) {
        const MutexLock lock(mutex_);
        seen_.push_back(request);
      }
      if (!answer_(peer, request)) break;
    }
    (void)::shutdown(socket, SHUT_WR);
  }

  static bool more(int socket, std::string& buffer) {
    char bytes[65536];
    const ssize_t got = ::recv(socket, bytes, sizeof bytes, 0);
    if (got > 0) buffer.append(bytes, static_cast<std::size_t>(got));
    return got > 0;
  }

  static bool read_request(int socket, std::string& buffer, SeenRequest& request) {
    std::size_t end = 0;
    while ((end = buffer.find("\r\n\r\n")) == std::string::npos) {
      if (!more(socket, buffer)) return false;
    }
    request = {};
    std::string head = buffer.substr(0, end + 2);
    buffer.erase(0, end + 4);
    const std::size_t first = head.find("\r\n");
    request.method = head.substr(0, head.find(' '));
    const std::size_t start = request.method.size() + 1;
    request.target = head.substr(start, head.find(' ', start) - start);
    for (std::size_t at = first + 2; at < head.size();) {
      const std::size_t stop = head.find("\r\n", at);
      const std::size_t colon = head.find(':', at);
      std::string name = head.substr(at, colon - at);
      for (char& byte : name) byte = static_cast<char>(std::tolower(byte));
      request.headers[name] = head.substr(colon + 2, stop - colon - 2);
      at = stop + 2;
    }
    if (request.header("expect") == "100-continue") {
      (void)HttpPeer(socket).send("HTTP/1.1 100 Continue\r\n\r\n");
    }
    const std::string length = request.header("content-length");
    const std::size_t bytes = length.empty() ? 0 : std::stoull(length);
    while (buffer.size() < bytes) {
      if (!more(socket, buffer)) return false;
    }
    request.body = buffer.substr(0, bytes);
    buffer.erase(0, bytes);
    return true;
  }

  const Answer answer_;
  const bool keeps_seen_;
  UniqueFd listener_;
  int port_ = 0;
  mutable Mutex mutex_;
  std::vector<SeenRequest> seen_ TERRACE_GUARDED_BY(mutex_);
  int count_ TERRACE_GUARDED_BY(mutex_) = 0;
  std::list<Connection> connections_;  // The acceptor's until it ended.
  std::jthread acceptor_;
};

}  // namespace terrace::testing
