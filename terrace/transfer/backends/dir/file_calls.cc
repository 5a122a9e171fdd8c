#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>

#include "terrace/base/file.h"
#include "terrace/transfer/backends/dir/file_calls_internal.h"

namespace terrace::transfer::dir {

int FileCalls::open_part_by_part(int folder, const char* path, int flags, mode_t mode) {
  UniqueFd held;
  int above = folder;
  for (;;) {
    const char* const slash = std::strchr(path, '/');
    if (slash == nullptr) return ::openat(above, path, flags | O_NOFOLLOW | O_CLOEXEC, mode);
    const std::string part(path, slash);
    if (part.empty() || part == "..") return errno = EXDEV, -1;
    const int next = ::openat(above, part.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (next < 0) return -1;
    held = UniqueFd(next);
    above = next;
    path = slash + 1;
  }
}

int FileCalls::open_root(const char* path) {
  return ::open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

int FileCalls::open_below(int folder, const char* path, int flags, mode_t mode) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags | O_NOFOLLOW | O_CLOEXEC);
  how.mode = (flags & O_CREAT) != 0 ? mode : 0;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  const auto opened = static_cast<int>(::syscall(SYS_openat2, folder, path, &how, sizeof how));
  if (opened >= 0 || (errno != ENOSYS && errno != EPERM)) return opened;
  return open_part_by_part(folder, path, flags, mode);
}

int FileCalls::facts_of(int file, struct stat* facts) { return ::fstat(file, facts); }

int FileCalls::facts_at(int folder, const char* name, struct stat* facts) {
  return ::fstatat(folder, name, facts, AT_SYMLINK_NOFOLLOW);
}

ssize_t FileCalls::read_at(int file, const iovec* pieces, int count, std::uint64_t offset) {
  return ::preadv(file, pieces, count, static_cast<off_t>(offset));
}

ssize_t FileCalls::read_cached(int file, const iovec* pieces, int count, std::uint64_t offset) {
  return ::preadv2(file, pieces, count, static_cast<off_t>(offset), RWF_NOWAIT);
}

ssize_t FileCalls::write_at(int file, const iovec* pieces, int count, std::uint64_t offset) {
  return ::pwritev(file, pieces, count, static_cast<off_t>(offset));
}

int FileCalls::sync_data(int file) { return ::fdatasync(file); }
int FileCalls::sync_folder(int folder) { return ::fsync(folder); }
int FileCalls::set_mode(int file, mode_t mode) { return ::fchmod(file, mode); }

int FileCalls::make_folder(int folder, const char* name, mode_t mode) {
  return ::mkdirat(folder, name, mode);
}

int FileCalls::link(int folder, const char* from, const char* to) {
  return ::linkat(folder, from, folder, to, 0);
}

int FileCalls::rename_new(int folder, const char* from, const char* to) {
  return ::renameat2(folder, from, folder, to, RENAME_NOREPLACE);
}

int FileCalls::rename_over(int folder, const char* from, const char* to) {
  return ::renameat(folder, from, folder, to);
}

int FileCalls::remove(int folder, const char* name) { return ::unlinkat(folder, name, 0); }

int FileCalls::remove_folder(int folder, const char* name) {
  return ::unlinkat(folder, name, AT_REMOVEDIR);
}

int FileCalls::reads_exactly(int file) { return ::posix_fadvise(file, 0, 0, POSIX_FADV_RANDOM); }

int FileCalls::begin_reading(int file, std::uint64_t offset, std::uint64_t bytes) {
  return ::posix_fadvise(file, static_cast<off_t>(offset), static_cast<off_t>(bytes),
                         POSIX_FADV_WILLNEED);
}

// Both times: with one of them alone only the owner of the file may.
int FileCalls::touch(int file) { return ::futimens(file, nullptr); }

}  // namespace terrace::transfer::dir
