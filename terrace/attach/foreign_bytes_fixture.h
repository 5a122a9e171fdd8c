// Both ends of the rendezvous, each facing a peer that sends what an input says: of the test with
// seeded changes and of the fuzz targets. An input is a row of packets: two bytes of head (the low
// 14 bits their length, the high two how many descriptors go along), then the bytes.
// Threading: test thread.  Waits: for the other end to close, at most kPatience.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terrace/attach/attach_client.h"
#include "terrace/attach/attach_server.h"
#include "terrace/attach/server_loop_internal.h"
#include "terrace/testing/eventually.h"
#include "terrace/testing/scratch_directory.h"
#include "terrace/wire/attach_messages.h"

namespace terrace::attach {

inline constexpr int kPatienceMs = static_cast<int>(testing::kPatience / milliseconds(1));

class SilentLog final : public LogSink {
 public:
  void write(LogLevel, std::string_view) override {}
};

inline std::string packet(const std::string& bytes, unsigned files = 0) {
  const auto head = static_cast<std::uint16_t>(bytes.size() | (files << 14U));
  std::string out(2, '\0');
  std::memcpy(out.data(), &head, 2);
  return out + bytes;
}

// Whatever signals come meanwhile.
inline bool becomes_readable(int fd, int limit_ms) {
  pollfd entry{fd, POLLIN, 0};
  int found = -1;
  do {
    found = ::poll(&entry, 1, limit_ms);
  } while (found < 0 && errno == EINTR);
  return found > 0;
}

// A peer of raw packets.
class PacketPeer {
 public:
  // `give_way`, after each packet, lets the other side read it: an owner takes no message that
  // comes before it has answered the one before.
  explicit PacketPeer(UniqueFd socket, std::function<void()> give_way = {})
      : socket_(std::move(socket)), give_way_(std::move(give_way)) {}

  // Descriptors come from `files`, round and round.
  void send_all(std::string_view input, std::span<const int> files) {
    std::size_t next_file = 0;
    while (input.size() >= 2) {
      std::uint16_t head = 0;
      std::memcpy(&head, input.data(), 2);
      input.remove_prefix(2);
      const std::string_view bytes = input.substr(0, head & 0x3FFFU);
      input.remove_prefix(bytes.size());
      std::vector<int> taken;
      for (unsigned i = 0; i < head >> 14U && !files.empty(); ++i) {
        taken.push_back(files[next_file++ % files.size()]);
      }
      if (!send_one(bytes, taken)) break;
      if (give_way_) give_way_();
    }
    (void)::shutdown(socket_.get(), SHUT_WR);
  }

  // Takes what has come, and is true once the other side has closed.
  bool has_been_left(int limit_ms = 0) {
    std::array<char, 4096> piece{};
    for (;;) {
      if (!becomes_readable(socket_.get(), limit_ms)) return false;
      if (::recv(socket_.get(), piece.data(), piece.size(), 0) <= 0) return true;
    }
  }

 private:
  bool send_one(std::string_view bytes, const std::vector<int>& files) {
    iovec part{const_cast<char*>(bytes.data()), bytes.size()};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    alignas(cmsghdr) std::array<char, CMSG_SPACE(3 * sizeof(int))> control{};
    if (!files.empty()) {
      header.msg_control = control.data();
      header.msg_controllen = CMSG_SPACE(files.size() * sizeof(int));
      cmsghdr* const head = CMSG_FIRSTHDR(&header);
      head->cmsg_level = SOL_SOCKET;
      head->cmsg_type = SCM_RIGHTS;
      head->cmsg_len = CMSG_LEN(files.size() * sizeof(int));
      std::memcpy(CMSG_DATA(head), files.data(), files.size() * sizeof(int));
    }
    for (;;) {
      const int flags = MSG_NOSIGNAL | (give_way_ ? MSG_DONTWAIT : 0);
      if (::sendmsg(socket_.get(), &header, flags) >= 0) return true;
      if (errno != EAGAIN || !give_way_) return false;
      give_way_();
      if (has_been_left()) return false;
    }
  }
  UniqueFd socket_;
  std::function<void()> give_way_;
};

// What both ends agree on when they are honest: two groups, one small lane in one file.
inline Layout small_layout() {
  Layout layout;
  layout.block_tokens = Tokens(16);
  layout.ranks = 1;
  layout.groups = {{GroupId(0), {Bytes(4096), Bytes(4096)}}, {GroupId(1), {Bytes(2048)}}};
  return layout;
}
inline memory::SegmentGeometry small_geometry() { return {Bytes(8192), 4, 1}; }

inline sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), std::min(path.size(), sizeof address.sun_path - 1));
  return address;
}

// Names a device, some memory and a lane of the right size: what a peer could send beside bytes.
class SomeFiles {
 public:
  SomeFiles() {
    auto lane = memory::Lane::create(small_geometry(), false, "test");
    if (!lane.has_value()) std::abort();
    lane_ = std::make_unique<memory::Lane>(std::move(*lane));
    null_ = UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC));
    unsealed_ = UniqueFd(::memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (::ftruncate(unsealed_.get(), static_cast<off_t>(small_geometry().lane_bytes().value())) !=
        0) {
      std::abort();
    }
    all_ = {lane_->files()[0].get(), unsealed_.get(), null_.get()};
  }
  [[nodiscard]] std::span<const int> all() const { return all_; }
  [[nodiscard]] const memory::Lane& lane() const { return *lane_; }

 private:
  std::unique_ptr<memory::Lane> lane_;
  UniqueFd null_;
  UniqueFd unsealed_;
  std::array<int, 3> all_{};
};

inline UniqueFd listening_at(const std::string& path) {
  const sockaddr_un address = address_of(path);
  UniqueFd listener(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener.get(), 8) != 0) {
    std::abort();
  }
  return listener;
}

// What an owner's thread does, taken by turns, with a peer that sends the input as a worker would.
class OwnerUnderBytes {
 public:
  OwnerUnderBytes()
      : path_(scratch_.path() + "/owner"),
        listener_(listening_at(path_)),
        board_(std::move(ServerBoard::create(1).value())) {
    options_.owner = 4711;
    options_.layout = small_layout();
    options_.geometry = small_geometry();
    options_.lanes = {&files_.lane()};
    options_.handshake_limit = seconds(600);  // The peer ends its sending; nothing waits for time.
    loop_ = std::make_unique<ServerLoop>(options_, listener_.get(), -1, *board_, clock_, log_);
  }

  static std::vector<std::string> seeds() {
    const auto text = [](const wire::AttachMessage& message) { return encode(message).value(); };
    const std::string hello = text(wire::AttachHello{RankId(0), small_layout()});
    Layout wide = small_layout();
    wide.ranks = 64;
    const std::string mapped = text(wire::AttachProgress{wire::AttachStage::kMapped});
    const std::string populated = text(wire::AttachProgress{wire::AttachStage::kPopulated});
    return {packet(hello) + packet(mapped) + packet(populated),
            packet(hello) + packet(hello),
            packet(hello, 3) + packet(mapped, 1),
            packet(text(wire::AttachHello{RankId(9), small_layout()})),
            packet(text(wire::AttachHello{RankId(0), wide})),
            packet(text(wire::AttachRefusal{Code::kRefused, "no memory"})),
            packet(hello) + packet(text(wire::AttachRefusal{Code::kExhausted, "no memory"})),
            packet(text(wire::AttachWelcome{1, Epoch(1), Bytes(8192), 4, 1, 1})),
            packet(text(wire::AttachFiles{0, 1}), 1)};
  }

  // "", or what the owner did that it must not.
  [[nodiscard]] std::string run(std::string_view input) {
    constexpr int kMostTurns = 10'000;  // Each takes up to four packets, of at least two bytes.
    events_.clear();
    const sockaddr_un address = address_of(path_);
    UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      return "the owner does not listen any more";
    }
    PacketPeer peer(std::move(socket), [this] { turn(); });
    peer.send_all(input, files_.all());
    for (int turns = 0; !peer.has_been_left(); ++turns) {
      if (turns == kMostTurns) return "the owner holds on to a peer that has ended";
      turn();
    }
    turn();
    if (board_->epoch_of(RankId(0)) != Epoch(0)) return "a rank is attached that has gone";
    return board_->problem();
  }
  [[nodiscard]] bool has_seen(AttachChange change) const {
    return std::ranges::any_of(events_, [&](const auto& one) { return one.change == change; });
  }

 private:
  void turn() {
    loop_->turn();
    for (AttachEvent& event : board_->take()) events_.push_back(std::move(event));
  }

  testing::ScratchDirectory scratch_;
  SystemClock clock_;
  SilentLog log_;
  SomeFiles files_;
  std::string path_;
  UniqueFd listener_;
  AttachServer::Options options_;
  std::unique_ptr<ServerBoard> board_;
  std::unique_ptr<ServerLoop> loop_;
  std::vector<AttachEvent> events_;
};

// A worker whose peer sends the input as an owner would. A new worker for each input: one that was
// refused waits a second before it tries again.
class WorkerUnderBytes {
 public:
  WorkerUnderBytes() : directory_(scratch_.path() + "/a") {
    if (::mkdir(directory_.c_str(), 0700) != 0) std::abort();
    listener_ = listening_at(socket_path(directory_, "engine").value());
  }

  static std::vector<std::string> seeds() {
    const auto text = [](const wire::AttachMessage& message) { return encode(message).value(); };
    const auto welcome = [&](Bytes slot, std::uint32_t slots, std::uint16_t lanes,
                             std::uint32_t files) {
      return packet(text(wire::AttachWelcome{1, Epoch(1), slot, slots, lanes, files}));
    };
    const std::string right = welcome(Bytes(8192), 4, 1, 1);
    const std::string files = packet(text(wire::AttachFiles{0, 1}), 1);
    return {right + files,
            right + files + files,
            right + files + packet(text(wire::AttachProgress{wire::AttachStage::kMapped})),
            right + packet(text(wire::AttachFiles{0, 1})),
            right + packet(text(wire::AttachFiles{0, 3}), 3),
            right + packet(text(wire::AttachFiles{1, 1}), 1),
            welcome(Bytes(4096), 4, 1, 1),
            welcome(Bytes(UINT64_MAX), 4, 1, 1),
            welcome(Bytes(8192), 4, 64, UINT32_MAX),
            packet(text(wire::AttachRefusal{Code::kRefused, "rank 0: layout"})),
            packet(text(wire::AttachHello{RankId(0), small_layout()}))};
  }

  // "", or what the worker did that it must not.
  [[nodiscard]] std::string run(std::string_view input) {
    AttachClient::Options options;
    options.directory = directory_;
    options.engine_id = "engine";
    options.layout = small_layout();
    options.handshake_limit = seconds(600);
    const auto worker = AttachClient::start(std::move(options), clock_, log_);
    if (!worker.has_value()) return worker.error().text();
    UniqueFd socket = next_connection(kPatienceMs);
    if (!socket.is_open()) return "the worker does not come";
    PacketPeer peer(std::move(socket));
    peer.send_all(input, files_.all());
    const bool is_left = peer.has_been_left(kPatienceMs);
    if (const auto attached = (*worker)->attachment()) {  // A copy into it must be possible.
      attached->lane.slot(SlotIndex(0)).back() = std::byte{1};
    }
    if (!(*worker)->close(clock_.now() + testing::kPatience)) return "the worker's thread hangs";
    while (next_connection(0).is_open()) {  // It may have tried again.
    }
    return is_left ? "" : "the worker holds on to an owner that has ended";
  }

 private:
  UniqueFd next_connection(int limit_ms) {
    if (!becomes_readable(listener_.get(), limit_ms)) return {};
    return UniqueFd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  }

  testing::ScratchDirectory scratch_;
  SystemClock clock_;
  SilentLog log_;
  SomeFiles files_;
  std::string directory_;
  UniqueFd listener_;
};

}  // namespace terrace::attach
