#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "terrace/attach/channel_internal.h"

namespace terrace::attach {
namespace {

constexpr int kPeerPidfd = 77;  // SO_PEERPIDFD, Linux 6.5: no race with a reused process id.

// Room for the most descriptors a message may carry, aligned as the kernel wants it.
struct alignas(cmsghdr) ControlBuffer {
  std::array<char, CMSG_SPACE(wire::kAttachFilesAtOnce * sizeof(int))> bytes;
};

Status status_of(int error, std::string_view operation) {
  switch (error) {
    case EAGAIN:
    case ENOBUFS:
    case ENOMEM:
    case ETOOMANYREFS:  // More descriptors in flight than RLIMIT_NOFILE: the peer must read first.
      return {Code::kUnavailable, "attach: the other side is slow"};
    case EPIPE:
    case ECONNRESET:
    case ENOTCONN:
      return {Code::kClosed, "attach: the other side closed the connection"};
    default:
      return Status::from_errno(error, operation, "attach socket");
  }
}

std::vector<UniqueFd> take_files(msghdr& header) {
  std::vector<UniqueFd> files;
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
      files.emplace_back(fd);
    }
  }
  return files;
}

}  // namespace

Channel& Channel::operator=(Channel&& other) noexcept {
  if (this == &other) return *this;
  close();
  socket_ = std::move(other.socket_);
  process_ = other.process_;
  return *this;
}

void Channel::close() {
  // Closing alone ends a connection only when nobody has a copy of the descriptor.
  if (socket_.is_open() && process_ == ::getpid()) (void)::shutdown(socket_.get(), SHUT_RDWR);
  socket_.reset(-1);
}

Status Channel::send(const wire::AttachMessage& message, std::span<const UniqueFd> files) {
  TERRACE_ASSIGN_OR_RETURN(std::string bytes, wire::encode(message));
  iovec part{bytes.data(), bytes.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  const auto control = std::make_unique<ControlBuffer>();
  if (!files.empty()) {
    const std::size_t fd_bytes = files.size() * sizeof(int);
    header.msg_control = control->bytes.data();
    header.msg_controllen = CMSG_SPACE(fd_bytes);
    std::memset(control->bytes.data(), 0, CMSG_SPACE(fd_bytes));
    cmsghdr* const head = CMSG_FIRSTHDR(&header);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(fd_bytes);
    for (std::size_t i = 0; i < files.size(); ++i) {
      const int fd = files[i].get();
      std::memcpy(CMSG_DATA(head) + i * sizeof(int), &fd, sizeof(int));
    }
  }
  ssize_t sent = -1;
  do {
    sent = ::sendmsg(socket_.get(), &header, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) return status_of(errno, "sendmsg");
  return {};
}

Result<Received> Channel::receive(bool accepts_files) {
  std::vector<std::byte> bytes(wire::kAttachMessageBytes + 1);
  iovec part{bytes.data(), bytes.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  const auto control = std::make_unique<ControlBuffer>();
  if (accepts_files) {  // Without a buffer the kernel drops what somebody sends uninvited.
    header.msg_control = control->bytes.data();
    header.msg_controllen = control->bytes.size();
  }
  ssize_t got = -1;
  do {
    got = ::recvmsg(socket_.get(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return fail(status_of(errno, "recvmsg"));
  std::vector<UniqueFd> files;
  if (accepts_files) files = take_files(header);
  if (got == 0) return fail(Code::kClosed, "attach: the other side closed the connection");
  if (accepts_files && (header.msg_flags & MSG_CTRUNC) != 0) {
    return fail(
        Code::kExhausted,
        "attach: descriptors of the host tier were cut off: raise RLIMIT_NOFILE (ulimit -n)");
  }
  bytes.resize(static_cast<std::size_t>(got));
  TERRACE_ASSIGN_OR_RETURN(wire::AttachMessage message, wire::decode_attach(bytes));
  return Received{std::move(message), std::move(files)};
}

bool Channel::has_hung_up() const {
  pollfd entry{socket_.get(), POLLRDHUP, 0};
  return ::poll(&entry, 1, 0) > 0 && (entry.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

UniqueFd watch_peer(int socket, const Peer& peer) {
  int fd = -1;
  socklen_t length = sizeof fd;
  if (::getsockopt(socket, SOL_SOCKET, kPeerPidfd, &fd, &length) == 0) return UniqueFd(fd);
  if (peer.process <= 0) return {};
  return UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, peer.process, 0)));
}

bool is_readable(int fd) {
  pollfd entry{fd, POLLIN, 0};
  return fd >= 0 && ::poll(&entry, 1, 0) > 0 && entry.revents != 0;
}

}  // namespace terrace::attach
