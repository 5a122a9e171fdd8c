#include "terrace/attach/claim.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "terrace/attach/attach_server.h"
#include "terrace/attach/channel_internal.h"
#include "terrace/base/mutex.h"

namespace terrace::attach {
namespace {

constexpr int kBacklog = 64;  // One engine has at most 64 ranks.
constexpr int kLockTries = 8;
constexpr int kMaxSwept = 1024;
constexpr std::int64_t kYoungSeconds = 60;  // A lock file this new may be one being set up.
constexpr std::string_view kSocketEnding = ".sock";
constexpr std::string_view kLockEnding = ".lock";

// Record locks are the process's, so what keeps its own claims apart has to be as well: a sweep
// that opened and closed a lock file which another thread has just locked, and not listened yet,
// would give up that lock and remove the socket.
constinit Mutex taking;

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), std::min(path.size(), sizeof address.sun_path - 1));
  return address;
}

UniqueFd make_socket(SocketKind kind = SocketKind::kMessages) {
  const int type = kind == SocketKind::kMessages ? SOCK_SEQPACKET : SOCK_STREAM;
  return UniqueFd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

// 0, or errno.
int connect_socket(const UniqueFd& socket, const std::string& path) {
  const sockaddr_un address = address_of(path);
  const int result =
      ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  return result == 0 ? 0 : errno;
}

std::string lock_path(const std::string& socket_file) {
  return socket_file.substr(0, socket_file.size() - kSocketEnding.size()) +
         std::string(kLockEnding);
}

struct flock whole_file() {
  struct flock range{};
  range.l_type = F_WRLCK;
  range.l_whence = SEEK_SET;
  return range;
}

bool is_same_file(int fd, const std::string& path) {
  struct stat by_fd{};
  struct stat by_path{};
  return ::fstat(fd, &by_fd) == 0 && ::lstat(path.c_str(), &by_path) == 0 &&
         by_fd.st_ino == by_path.st_ino && by_fd.st_dev == by_path.st_dev;
}

// Our own process' locks do not stop us, and closing a second descriptor of the lock file would
// even give up the first one's lock: so our own owner is looked for by its listening socket,
// before.
Status refuse_own_owner(const std::string& path, SocketKind kind) {
  const UniqueFd probe = make_socket(kind);
  if (!probe.is_open() || connect_socket(probe, path) != 0) return {};
  const auto peer = peer_of(probe.get());
  if (!peer.has_value() || peer->process != ::getpid()) return {};
  return {Code::kRefused, fmt::format("attach: this process already has an owner at {}: give each "
                                      "engine its own engine id",
                                      path)};
}

Result<UniqueFd> take_lock(const std::string& path) {
  const std::string file = lock_path(path);
  for (int i = 0; i < kLockTries; ++i) {
    TERRACE_ASSIGN_OR_RETURN(UniqueFd fd,
                             open_regular_file(file, O_RDWR | O_CREAT | O_NOFOLLOW, 0600));
    struct flock range = whole_file();
    if (::fcntl(fd.get(), F_SETLK, &range) != 0) {
      if (errno != EACCES && errno != EAGAIN) {
        return fail(Status::from_errno(errno, "fcntl F_SETLK", file));
      }
      range = whole_file();
      const bool is_known = ::fcntl(fd.get(), F_GETLK, &range) == 0 && range.l_type != F_UNLCK;
      return fail(Code::kRefused,
                  fmt::format("attach: process {} owns {} and is alive: give this engine another "
                              "engine id, or end that process",
                              is_known ? range.l_pid : 0, path));
    }
    // Whoever removes a lock file holds its lock; then this descriptor names a file that is no
    // more.
    if (is_same_file(fd.get(), file)) return fd;
  }
  return fail(Code::kIo, "attach: " + file + " changes all the time");
}

// Removes what an owner left that ended without cleaning up.
void sweep_one(const std::string& directory, std::string_view name, const Clock& clock) {
  const std::string file = directory + "/" + std::string(name);
  const std::string path =
      file.substr(0, file.size() - kLockEnding.size()) + std::string(kSocketEnding);
  struct stat facts{};
  if (::lstat(file.c_str(), &facts) != 0 || !S_ISREG(facts.st_mode) ||
      clock.wall_seconds() - facts.st_mtim.tv_sec < kYoungSeconds) {
    return;
  }
  {
    const UniqueFd probe = make_socket();
    const int error = probe.is_open() ? connect_socket(probe, path) : EMFILE;
    if (error != ECONNREFUSED && error != ENOENT) return;
  }
  const auto fd = open_regular_file(file, O_RDWR | O_NOFOLLOW);
  if (!fd.has_value()) return;
  struct flock range = whole_file();
  if (::fcntl(fd->get(), F_SETLK, &range) != 0 || !is_same_file(fd->get(), file)) return;
  ::unlink(path.c_str());
  ::unlink(file.c_str());
}

void sweep(const std::string& directory, const std::string& own_lock, const Clock& clock) {
  const std::unique_ptr<DIR, int (*)(DIR*)> listing(::opendir(directory.c_str()), ::closedir);
  if (listing == nullptr) return;
  std::vector<std::string> names;
  for (int i = 0; i < kMaxSwept; ++i) {
    const dirent* const entry = ::readdir(listing.get());
    if (entry == nullptr) break;
    const std::string_view name(entry->d_name);
    if (name.ends_with(kLockEnding) && directory + "/" + entry->d_name != own_lock) {
      names.emplace_back(name);
    }
  }
  for (const std::string& name : names) sweep_one(directory, name, clock);
}

Result<UniqueFd> listen_at(const std::string& path, SocketKind kind) {
  UniqueFd socket = make_socket(kind);
  if (!socket.is_open()) return fail(Status::from_errno(errno, "socket", path));
  ::unlink(path.c_str());  // The lock is ours, so whoever made it is dead.
  const sockaddr_un address = address_of(path);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail(Status::from_errno(errno, "bind", path));
  }
  if (::chmod(path.c_str(), 0600) != 0) return fail(Status::from_errno(errno, "chmod", path));
  if (::listen(socket.get(), kBacklog) != 0) return fail(Status::from_errno(errno, "listen", path));
  return socket;
}

// What the system refuses says nothing of the setting that led there.
Status with_way_out(const Status& refused) {
  if (refused.message().starts_with("attach")) return refused;
  return {refused.code(),
          fmt::format("attach.directory: {}; put that right, or choose another directory",
                      refused.message())};
}

}  // namespace

Result<std::string> socket_path(const std::string& directory, const std::string& engine_id) {
  return place_of(directory, engine_id, kSocketEnding);
}

Result<std::string> place_of(const std::string& directory, const std::string& engine_id,
                             std::string_view ending) {
  constexpr std::size_t kMaxPath = sizeof(sockaddr_un::sun_path) - 1;  // 107
  if (directory.empty() || directory.front() != '/' || directory.find('\0') != std::string::npos) {
    return fail(Code::kInvalid,
                fmt::format("attach.directory: '{}' is no absolute path", directory));
  }
  std::string path = fmt::format("{}/{}{}", directory, wire::rendezvous_name(engine_id), ending);
  if (path.size() > kMaxPath) {
    return fail(Code::kInvalid,
                fmt::format("attach.directory: '{}' is too long: a socket's path ends at {} bytes, "
                            "this one would have {}; choose a shorter directory",
                            directory, kMaxPath, path.size()));
  }
  return path;
}

Result<Peer> peer_of(int socket) {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
    return fail(Status::from_errno(errno, "getsockopt SO_PEERCRED", "attach socket"));
  }
  return Peer{credentials.pid, credentials.uid};
}

Status secure_directory(const std::string& directory) {
  if (const Status made = make_directories(directory); !made.is_ok()) return with_way_out(made);
  struct stat facts{};
  if (::lstat(directory.c_str(), &facts) != 0) {
    return with_way_out(Status::from_errno(errno, "lstat", directory));
  }
  const auto refuse = [&](const std::string& what) {
    return Status(
        Code::kRefused,
        fmt::format("attach.directory: {} {}, or choose another directory", directory, what));
  };
  if (S_ISLNK(facts.st_mode)) return refuse("is a symbolic link: give the real path");
  if (!S_ISDIR(facts.st_mode)) return refuse("is no directory: remove it");
  if (facts.st_uid != ::geteuid()) {
    return refuse(fmt::format("belongs to user {}, this process runs as {}: chown it", facts.st_uid,
                              ::geteuid()));
  }
  if ((facts.st_mode & 0077U) != 0) {
    return refuse(fmt::format("has mode {:04o}, others could reach the cache: chmod 700 it",
                              facts.st_mode & 07777U));
  }
  return {};
}

Result<UniqueFd> connect_to(const std::string& path) {
  UniqueFd socket = make_socket();
  if (!socket.is_open()) return fail(Status::from_errno(errno, "socket", path));
  if (const int error = connect_socket(socket, path); error != 0) {
    if (error == ENOENT || error == ECONNREFUSED || error == EAGAIN || error == ENOTDIR) {
      return fail(Code::kUnavailable, "attach: no owner listens at " + path);
    }
    const Status cause = Status::from_errno(error, "connect", path);
    if (error != EACCES && error != EPERM) return fail(cause);
    return fail(Code::kRefused, cause.message() + ": attach.directory belongs to another user");
  }
  TERRACE_ASSIGN_OR_RETURN(const Peer peer, peer_of(socket.get()));
  if (peer.user != ::geteuid()) {
    return fail(Code::kRefused,
                fmt::format("attach: {} belongs to user {}, this process runs as {}", path,
                            peer.user, ::geteuid()));
  }
  return socket;
}

Result<Claim> Claim::take(const std::string& directory, const std::string& path, const Clock& clock,
                          SocketKind kind) {
  const MutexLock lock(taking);
  TERRACE_RETURN_IF_ERROR(secure_directory(directory));
  TERRACE_RETURN_IF_ERROR(refuse_own_owner(path, kind));
  Claim claim;
  auto held = take_lock(path);
  if (!held.has_value()) return fail(with_way_out(held.error()));
  claim.lock_ = *std::move(held);
  auto listener = listen_at(path, kind);
  if (!listener.has_value()) return fail(with_way_out(listener.error()));
  claim.listener_ = *std::move(listener);
  claim.path_ = path;
  claim.process_ = ::getpid();
  sweep(directory, lock_path(path), clock);
  return claim;
}

Claim::~Claim() {
  if (!lock_.is_open() || process_ != ::getpid()) return;
  ::unlink(path_.c_str());
  ::unlink(lock_path(path_).c_str());
}

void Claim::abandon() {
  lock_.reset(-1);
  listener_.reset(-1);
}

}  // namespace terrace::attach
