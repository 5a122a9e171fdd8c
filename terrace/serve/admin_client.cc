#include "terrace/serve/admin_client.h"

#include <dirent.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cerrno>
#include <cstring>
#include <memory>

#include "terrace/base/file.h"

namespace terrace::serve {
namespace {

namespace http = boost::beast::http;

constexpr std::size_t kMaxReply = 16U << 20U;  // Far above any status; a stranger may send more.
constexpr std::size_t kMaxSockets = 4096;
constexpr Nanoseconds kConnectPause = milliseconds(5);
constexpr std::string_view kEnding = "-admin.sock";

// One conversation under one deadline.
class Talk {
 public:
  Talk(const std::string& path, Nanoseconds deadline, const Clock& clock)
      : path_(path), deadline_(deadline), clock_(clock) {}

  Status connect() {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path_.size() >= sizeof address.sun_path) {
      return {Code::kInvalid, fmt::format("{}: too long for a socket's path", path_)};
    }
    std::memcpy(address.sun_path, path_.data(), path_.size());
    socket_ = UniqueFd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket_.is_open()) return Status::from_errno(errno, "socket", path_);
    while (::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) !=
           0) {
      if (errno == EINTR) continue;
      if (errno == ECONNREFUSED || errno == ENOENT || errno == ENOTDIR) {
        return {Code::kUnavailable, fmt::format("{}: no engine listens there", path_)};
      }
      if (errno == EACCES || errno == EPERM) {
        return {Code::kRefused, Status::from_errno(errno, "connect", path_).message() +
                                    ": ask as the user who runs the engine, or as root"};
      }
      if (errno != EAGAIN) return Status::from_errno(errno, "connect", path_);
      // More wait there than it takes: there is no event for that.
      if (clock_.now() >= deadline_) return late("connect");
      (void)::poll(nullptr, 0, static_cast<int>(kConnectPause / milliseconds(1)));
    }
    return {};
  }

  // A peer that has stopped reading may have answered: no error.
  Status send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent >= 0) {
        bytes.remove_prefix(static_cast<std::size_t>(sent));
      } else if (errno == EPIPE || errno == ECONNRESET) {
        return {};
      } else if (errno == EAGAIN) {
        TERRACE_RETURN_IF_ERROR(wait(POLLOUT, "send"));
      } else if (errno != EINTR) {
        return Status::from_errno(errno, "send", path_);
      }
    }
    return {};
  }

  // All up to the end: the server closes after its answer.
  Result<std::string> receive() {
    std::string text;
    std::string piece(65536, '\0');
    for (;;) {
      const ssize_t got = ::recv(socket_.get(), piece.data(), piece.size(), 0);
      if (got == 0) return text;
      if (got > 0) {
        text.append(piece, 0, static_cast<std::size_t>(got));
        if (text.size() > kMaxReply) {
          return fail(Code::kInvalid,
                      fmt::format("{}: the answer is longer than {} bytes", path_, kMaxReply));
        }
      } else if (errno == ECONNRESET) {
        return text;
      } else if (errno == EAGAIN) {
        TERRACE_RETURN_IF_ERROR(wait(POLLIN, "answer"));
      } else if (errno != EINTR) {
        return fail(Status::from_errno(errno, "recv", path_));
      }
    }
  }

 private:
  Status late(std::string_view what) const {
    return {Code::kDeadline,
            fmt::format("{}: {}: no end in time: the engine's process is stopped or very busy; try "
                        "again, or look at that process",
                        path_, what)};
  }
  Status wait(short events, std::string_view what) {
    const Nanoseconds left = deadline_ - clock_.now();
    if (left <= Nanoseconds(0)) return late(what);
    pollfd entry{socket_.get(), events, 0};
    (void)::poll(&entry, 1, static_cast<int>(left / milliseconds(1)) + 1);
    return {};
  }

  const std::string& path_;
  const Nanoseconds deadline_;
  const Clock& clock_;
  UniqueFd socket_;
};

Result<AdminReply> parse(const std::string& path, std::string_view text) {
  http::response_parser<http::string_body> parser;
  const bool is_empty = text.empty();  // Which the parser takes for a whole message.
  parser.body_limit(kMaxReply);
  boost::system::error_code error;
  while (!text.empty() && !parser.is_done()) {
    // The header in a step of its own: within one, Boost 1.74 makes room for the body that is
    // announced, however long, before it says that it is too long.
    parser.eager(parser.is_header_done());
    const std::size_t used = parser.put(boost::asio::buffer(text.data(), text.size()), error);
    if (error || used == 0) break;
    text.remove_prefix(used);
  }
  if (!error && !parser.is_done()) parser.put_eof(error);
  if (is_empty || error || !parser.is_done()) {
    return fail(
        Code::kInvalid,
        fmt::format("{}: the answer is no whole HTTP answer ({}): is that an engine's socket?",
                    path, error ? error.message() : "it ends too early"));
  }
  return AdminReply{parser.get().result_int(), std::move(parser.get().body())};
}

}  // namespace

Result<std::vector<std::string>> admin_sockets(const std::string& directory) {
  std::vector<std::string> found;
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(::opendir(directory.c_str()), ::closedir);
  if (listing == nullptr) {
    if (errno == ENOENT) return found;
    return fail(Status::from_errno(errno, "opendir", directory));
  }
  while (found.size() < kMaxSockets) {
    const dirent* const entry = ::readdir(listing.get());
    if (entry == nullptr) break;
    const std::string_view name(entry->d_name);
    if (name.ends_with(kEnding)) found.push_back(fmt::format("{}/{}", directory, name));
  }
  std::ranges::sort(found);
  return found;
}

Result<AdminReply> ask_admin(const std::string& path, std::string_view method,
                             std::string_view target, std::string_view body, Nanoseconds limit,
                             const Clock& clock) {
  Talk talk(path, clock.now() + limit, clock);
  TERRACE_RETURN_IF_ERROR(talk.connect());
  TERRACE_RETURN_IF_ERROR(talk.send(fmt::format(
      "{} {} HTTP/1.1\r\nHost: terrace\r\nConnection: close\r\nContent-Length: {}\r\n\r\n"
      "{}",
      method, target, body.size(), body)));
  TERRACE_ASSIGN_OR_RETURN(const std::string text, talk.receive());
  return parse(path, text);
}

}  // namespace terrace::serve
