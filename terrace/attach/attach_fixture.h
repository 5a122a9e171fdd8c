// What the rendezvous' tests share: lanes, servers and clients in a scratch directory, raw sockets
// and forked processes. Threading: test thread.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "terrace/attach/attach_client.h"
#include "terrace/attach/attach_server.h"
#include "terrace/attach/channel_internal.h"
#include "terrace/attach/claim.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/memory_log.h"
#include "terrace/testing/scratch_directory.h"
#include "terrace/wire/attach_messages.h"

namespace terrace::attach {

using testing::eventually;

inline Layout layout_of(std::uint16_t ranks = 1) {
  Layout layout;
  layout.block_tokens = Tokens(32);
  layout.ranks = ranks;
  layout.groups = {{GroupId(0), std::vector<Bytes>(30, Bytes(8192))}};
  return layout;
}

inline int listening_socket(const std::string& path) {
  const int fd = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  EXPECT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(::listen(fd, 8), 0);
  return fd;
}

inline int connected_socket(const std::string& path) {
  const int fd = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  ::close(fd);
  return -1;
}

inline bool has_text(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// The other side has closed.
inline bool has_hung_up(const UniqueFd& socket) {
  pollfd entry{socket.get(), POLLRDHUP, 0};
  return ::poll(&entry, 1, 0) > 0 && (entry.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

// A forked process that runs `body`, says so once `body` called its argument, and lives until
// killed.
class Child {
 public:
  explicit Child(const std::function<void(const std::function<void()>& say_ready)>& body) {
    int ends[2] = {-1, -1};
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    std::fflush(nullptr);
    pid_ = ::fork();
    if (pid_ == 0) {
      body([&] { (void)!::write(ends[1], "r", 1); });
      for (;;) ::pause();
    }
    ::close(ends[1]);
    char byte = 0;
    EXPECT_EQ(::read(ends[0], &byte, 1), 1);
    ::close(ends[0]);
  }
  ~Child() { kill(); }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = 0;
};

class AttachTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::string directory() const { return scratch_.path() + "/attach"; }
  [[nodiscard]] std::string path() const { return socket_path(directory(), "engine").value(); }

  void make_lanes(std::uint16_t ranks, std::uint32_t slots = 12) {
    geometry_ = {Bytes(30ULL * 8192), slots, ranks};
    lanes_.clear();
    for (int i = 0; i < ranks; ++i) {
      auto lane = memory::Lane::create(geometry_, false, "test");
      ASSERT_TRUE(lane.has_value());
      lanes_.push_back(std::move(*lane));
    }
  }

  [[nodiscard]] AttachServer::Options server_options(std::uint16_t ranks = 1) {
    if (lanes_.size() != ranks) make_lanes(ranks);
    AttachServer::Options options;
    options.directory = directory();
    options.engine_id = "engine";
    options.owner = 4711;
    options.layout = layout_of(ranks);
    options.geometry = geometry_;
    for (const memory::Lane& lane : lanes_) options.lanes.push_back(&lane);
    return options;
  }

  std::unique_ptr<AttachServer> server(AttachServer::Options options) {
    auto started = AttachServer::start(std::move(options), clock_, log_);
    EXPECT_TRUE(started.has_value()) << started.error().text();
    return std::move(started).value();
  }
  std::unique_ptr<AttachServer> server() { return server(server_options()); }
  std::string refusal(AttachServer::Options options) {
    const auto started = AttachServer::start(std::move(options), clock_, log_);
    if (started.has_value()) return "started";
    EXPECT_EQ(started.error().code(), Code::kRefused) << started.error().text();
    return started.error().message();
  }

  std::unique_ptr<AttachClient> client(unsigned rank = 0, Layout layout = layout_of()) {
    AttachClient::Options options;
    options.directory = directory();
    options.engine_id = "engine";
    options.rank = RankId(static_cast<std::uint16_t>(rank));
    options.layout = std::move(layout);
    options.handshake_limit = client_limit_;
    auto started = AttachClient::start(std::move(options), clock_, log_);
    EXPECT_TRUE(started.has_value()) << started.error().text();
    return std::move(started).value();
  }

  // Events taken so far, until one of kind `change` has come.
  bool comes(AttachServer& server, AttachChange change) {
    return eventually([&] {
      for (AttachEvent& event : server.take_events()) events_.push_back(std::move(event));
      return find(change) != nullptr;
    });
  }
  [[nodiscard]] const AttachEvent* find(AttachChange change) const {
    const auto found = std::find_if(events_.begin(), events_.end(),
                                    [&](const AttachEvent& e) { return e.change == change; });
    return found == events_.end() ? nullptr : &*found;
  }

  testing::ScratchDirectory scratch_;
  SystemClock clock_;
  testing::MemoryLog log_;
  memory::SegmentGeometry geometry_;
  std::vector<memory::Lane> lanes_;
  std::vector<AttachEvent> events_;
  Nanoseconds client_limit_ = seconds(30);
};

}  // namespace terrace::attach
