#include "terrace/base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace terrace {

void UniqueFd::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

Result<UniqueFd> open_file(const std::string& path, int flags, unsigned mode) {
  int fd = -1;
  do {
    fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return fail(Status::from_errno(errno, "open", path));
  return UniqueFd(fd);
}

namespace {
std::string_view kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISLNK(mode)) return "a symbolic link";
  if (S_ISFIFO(mode)) return "a named pipe";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  return "something else";
}

Status check_regular(const struct stat& facts, const std::string& path) {
  if (S_ISREG(facts.st_mode)) return {};
  return {Code::kInvalid,
          fmt::format("open {}: it is {}, not a regular file; remove it, or put a regular file in "
                      "its place",
                      path, kind_of(facts.st_mode))};
}
}  // namespace

Result<UniqueFd> open_regular_file(const std::string& path, int flags, unsigned mode) {
  // Looked at before, because opening alone can do something to a device; and after, because what
  // the name stands for may have changed in between.
  struct stat facts{};
  const bool is_followed = (flags & O_NOFOLLOW) == 0;
  if ((is_followed ? ::stat(path.c_str(), &facts) : ::lstat(path.c_str(), &facts)) == 0) {
    TERRACE_RETURN_IF_ERROR(check_regular(facts, path));
  }
  TERRACE_ASSIGN_OR_RETURN(UniqueFd file, open_file(path, flags | O_NONBLOCK | O_NOCTTY, mode));
  if (::fstat(file.get(), &facts) != 0) return fail(Status::from_errno(errno, "fstat", path));
  TERRACE_RETURN_IF_ERROR(check_regular(facts, path));
  // io_uring would hand EAGAIN up instead of waiting for the medium.
  const int now = ::fcntl(file.get(), F_GETFL);
  if (now < 0 || ::fcntl(file.get(), F_SETFL, now & ~O_NONBLOCK) != 0) {
    return fail(Status::from_errno(errno, "fcntl F_SETFL", path));
  }
  return file;
}

Result<std::string> read_file(const std::string& path, Bytes limit) {
  TERRACE_ASSIGN_OR_RETURN(const UniqueFd file, open_regular_file(path, O_RDONLY));
  std::string content;
  char buffer[65536];
  for (;;) {
    const ssize_t got = ::read(file.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(Status::from_errno(errno, "read", path));
    if (got == 0) return content;
    content.append(buffer, static_cast<std::size_t>(got));
    if (content.size() > limit.value()) {
      return fail(Code::kInvalid,
                  fmt::format("read {}: longer than {} bytes", path, limit.value()));
    }
  }
}

namespace {
Status write_all(int fd, std::string_view content, const std::string& path) {
  while (!content.empty()) {
    const ssize_t put = ::write(fd, content.data(), content.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return Status::from_errno(errno, "write", path);
    content.remove_prefix(static_cast<std::size_t>(put));
  }
  return {};
}
}  // namespace

Status write_file_atomic(const std::string& path, std::string_view content) {
  const std::string temporary = path + ".tmp";
  {
    TERRACE_ASSIGN_OR_RETURN(
        const UniqueFd file,
        open_regular_file(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW));
    TERRACE_RETURN_IF_ERROR(write_all(file.get(), content, temporary));
    if (::fsync(file.get()) != 0) return Status::from_errno(errno, "fsync", temporary);
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    return Status::from_errno(errno, "rename", path);
  }
  const auto slash = path.rfind('/');
  return sync_directory(slash == std::string::npos ? "." : path.substr(0, slash));
}

Status sync_directory(const std::string& path) {
  TERRACE_ASSIGN_OR_RETURN(const UniqueFd directory, open_file(path, O_RDONLY | O_DIRECTORY));
  if (::fsync(directory.get()) != 0) return Status::from_errno(errno, "fsync", path);
  return {};
}

Status make_directories(const std::string& path) {
  for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (::mkdir(part.c_str(), 0700) != 0 && errno != EEXIST) {
      return Status::from_errno(errno, "mkdir", part);
    }
    if (end == std::string::npos) return {};
  }
}

}  // namespace terrace
