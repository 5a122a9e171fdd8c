// Both ends of the admin socket, each facing a peer that sends what an input says: of the test with
// seeded changes and of the fuzz targets. An input is the bytes as they are.
// Threading: test thread.  Waits: for the other end to close, at most kPatience.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "terrace/base/file.h"
#include "terrace/base/log.h"
#include "terrace/base/mutex.h"
#include "terrace/serve/admin_client.h"
#include "terrace/serve/admin_server.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/scratch_directory.h"

namespace terrace::serve {

class SilentLog final : public LogSink {
 public:
  void write(LogLevel, std::string_view) override {}
};

inline sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), std::min(path.size(), sizeof address.sun_path - 1));
  return address;
}

// Whatever signals come meanwhile.
inline bool becomes_readable(int fd) {
  pollfd entry{fd, POLLIN, 0};
  int found = -1;
  do {
    found = ::poll(&entry, 1, static_cast<int>(testing::kPatience / milliseconds(1)));
  } while (found < 0 && errno == EINTR);
  return found > 0;
}

// The server, whose peer sends the input as somebody who asks would.
class ServerUnderBytes {
 public:
  ServerUnderBytes() {
    AdminServer::Options options;
    options.directory = scratch_.path() + "/s";
    options.engine_id = "engine";
    options.io_limit = seconds(600);  // The peer ends its sending; nothing waits for time.
    options.hooks.status = [] { return std::string(R"({"health":"green"})"); };
    options.hooks.metrics = [] { return std::string("terrace_mode 0\n"); };
    options.hooks.ledgers = [](const LedgerQuery& query) { return query.request; };
    options.hooks.set_mode = [this](manager::Mode, std::string_view) {
      ++switched_;
      return Status();
    };
    options.on_breach = [this](const std::string&) { is_broken_.store(true); };
    path_ = admin_path(options.directory, options.engine_id).value();
    auto started = AdminServer::start(std::move(options), clock_, log_);
    if (!started.has_value()) std::abort();
    server_ = std::move(*started);
    if (!testing::eventually([&] { return server_->is_open(); })) std::abort();
  }

  static std::vector<std::string> seeds() {
    return {
        "GET /status HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "PUT /mode HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n{\"mode\":\"paused\"}",
        ("PUT /mode HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n11\r\n{\"mode\":\"paused\"}\r\n0"
         "\r\nX: y\r\n\r\n"),
        "POST /mode HTTP/1.1\r\nContent-Length: 15\r\n\r\n{\"mode\": [1,{}]",
        "HEAD / HTTP/1.0\r\n\r\n",
        "GET /ledgers?request=cmpl%2D1&most=3 HTTP/1.1\r\nHost: x\r\n\r\n",
        "PUT /mode HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 13\r\n\r\n{\"mode\":\"on\"}",
        "GET /status HTTP/1.1\r\nUpgrade: h2c\r\nContent-Length: 18446744073709551615\r\n\r\n"};
  }

  // "", or what the server did that it must not.
  [[nodiscard]] std::string run(std::string_view input) {
    const sockaddr_un address = address_of(path_);
    const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      return "the server does not listen any more";
    }
    const std::uint64_t before = switched_.load();
    while (!input.empty()) {
      const ssize_t sent = ::send(socket.get(), input.data(), input.size(), MSG_NOSIGNAL);
      if (sent <= 0) break;
      input.remove_prefix(static_cast<std::size_t>(sent));
    }
    (void)::shutdown(socket.get(), SHUT_WR);
    std::string answer;
    std::array<char, 4096> piece{};
    for (;;) {
      if (!becomes_readable(socket.get())) return "the server holds on to a peer that has ended";
      const ssize_t got = ::recv(socket.get(), piece.data(), piece.size(), 0);
      if (got <= 0) break;
      answer.append(piece.data(), static_cast<std::size_t>(got));
    }
    if (is_broken_.load()) return "a hook broke an invariant";
    if (!answer.empty() && !answer.starts_with("HTTP/1.1 ")) return "no HTTP: " + answer;
    const bool is_switched = switched_.load() != before;
    if (is_switched && !answer.starts_with("HTTP/1.1 200 OK")) return "switched, and said no";
    return server_->is_open() ? "" : "the server has ended";
  }

 private:
  testing::ScratchDirectory scratch_;
  SystemClock clock_;
  SilentLog log_;
  std::string path_;
  std::atomic<std::uint64_t> switched_{0};
  std::atomic<bool> is_broken_{false};
  std::unique_ptr<AdminServer> server_;
};

// One who asks, and is answered with the input.
class ClientUnderBytes {
 public:
  ClientUnderBytes() : path_(scratch_.path() + "/s-admin.sock") {
    const sockaddr_un address = address_of(path_);
    listener_ = UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(listener_.get(), 8) != 0) {
      std::abort();
    }
    thread_ = std::jthread([this] { answer_all(); });
  }
  ClientUnderBytes(const ClientUnderBytes&) = delete;
  ClientUnderBytes& operator=(const ClientUnderBytes&) = delete;
  ~ClientUnderBytes() { (void)::shutdown(listener_.get(), SHUT_RDWR); }  // Ends accept().

  static std::vector<std::string> seeds() {
    return {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall that comes",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            ("HTTP/1.1 405 Method Not Allowed\r\nAllow: PUT\r\nContent-Length: "
             "12\r\n\r\n{\"error\":1}\n"),
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.0 999 x\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3883139815726120959\r\n\r\nd",
            "SSH-2.0-x\r\n"};
  }

  // "", or what the client did that it must not.
  [[nodiscard]] std::string run(std::string_view input) {
    {
      const MutexLock lock(mutex_);
      answer_ = input;
    }
    const auto reply = ask_admin(path_, "GET", "/status", "", testing::kPatience, clock_);
    if (reply.has_value()) return reply->body.size() <= input.size() ? "" : "bytes from nowhere";
    return reply.error().code() == Code::kInvalid ? "" : reply.error().text();
  }

 private:
  void answer_all() {
    for (;;) {
      const UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!socket.is_open() && errno == EINTR) continue;
      if (!socket.is_open()) return;
      std::string answer;
      {
        const MutexLock lock(mutex_);
        answer = answer_;
      }
      std::array<char, 4096> asked{};
      (void)::recv(socket.get(), asked.data(), asked.size(), 0);
      std::string_view left = answer;
      while (!left.empty()) {
        const ssize_t sent = ::send(socket.get(), left.data(), left.size(), MSG_NOSIGNAL);
        if (sent <= 0) break;
        left.remove_prefix(static_cast<std::size_t>(sent));
      }
    }
  }

  testing::ScratchDirectory scratch_;
  SystemClock clock_;
  std::string path_;
  UniqueFd listener_;
  Mutex mutex_;
  std::string answer_ TERRACE_GUARDED_BY(mutex_);
  std::jthread thread_;  // Last: joined before what it uses goes.
};

}  // namespace terrace::serve
