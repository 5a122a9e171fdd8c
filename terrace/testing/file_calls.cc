#include "terrace/testing/file_calls.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdarg>

namespace terrace::testing {
namespace {

thread_local FileWatch* watch = nullptr;

std::string path_of(int file) {
  std::array<char, 4096> path{};
  const std::string link = "/proc/self/fd/" + std::to_string(file);
  const ssize_t length = ::readlink(link.c_str(), path.data(), path.size());
  return {path.data(), length > 0 ? static_cast<std::size_t>(length) : 0U};
}

void tell(const FileChange& change) {
  if (watch != nullptr) watch->on_change(change);
}

using Kind = FileChange::Kind;

void tell_write(int file, const void* data, std::size_t bytes, std::uint64_t offset) {
  if (watch == nullptr) return;
  tell({.kind = Kind::kWrite,
        .path = path_of(file),
        .source = {},
        .offset = offset,
        .length = bytes,
        .bytes = {static_cast<const std::byte*>(data), bytes}});
}

// Returns `result`, that of the call.
int tell_done(int result, Kind kind, const std::string& path, std::uint64_t length = 0,
              const std::string& source = {}) {
  if (result == 0) {
    tell(
        {.kind = kind, .path = path, .source = source, .offset = 0, .length = length, .bytes = {}});
  }
  return result;
}

int tell_done(int result, Kind kind, int file, std::uint64_t length = 0) {
  return watch == nullptr ? result : tell_done(result, kind, path_of(file), length);
}

bool fails_sync(int file) {
  if (watch == nullptr || !watch->fails_sync(path_of(file))) return false;
  errno = EIO;
  return true;
}

bool fails_fstat(int file) {
  if (watch == nullptr || !watch->fails_fstat(path_of(file))) return false;
  errno = EIO;
  return true;
}
}  // namespace

FileWatch::FileWatch() : former_(watch) { watch = this; }
FileWatch::~FileWatch() { watch = former_; }
bool FileWatch::fails_sync(const std::string& /*path*/) { return false; }
bool FileWatch::fails_fstat(const std::string& /*path*/) { return false; }

}  // namespace terrace::testing

// The linker's names for a call and for what it stands for.
// NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp,readability-identifier-naming)
extern "C" {
int __real_open(const char* path, int flags, ...);
ssize_t __real_write(int file, const void* data, std::size_t bytes);
ssize_t __real_pwrite(int file, const void* data, std::size_t bytes, off_t offset);
int __real_fsync(int file);
int __real_fdatasync(int file);
int __real_ftruncate(int file, off_t length);
int __real_fallocate(int file, int mode, off_t offset, off_t length);
int __real_rename(const char* source, const char* target);
int __real_unlink(const char* path);
int __real_rmdir(const char* path);
int __real_mkdir(const char* path, mode_t mode);
int __real_fstat(int file, struct stat* facts);

int __wrap_open(const char* path, int flags, ...);
ssize_t __wrap_write(int file, const void* data, std::size_t bytes);
ssize_t __wrap_pwrite(int file, const void* data, std::size_t bytes, off_t offset);
int __wrap_fsync(int file);
int __wrap_fdatasync(int file);
int __wrap_ftruncate(int file, off_t length);
int __wrap_fallocate(int file, int mode, off_t offset, off_t length);
int __wrap_rename(const char* source, const char* target);
int __wrap_unlink(const char* path);
int __wrap_rmdir(const char* path);
int __wrap_mkdir(const char* path, mode_t mode);
int __wrap_fstat(int file, struct stat* facts);
}

using terrace::testing::fails_fstat;
using terrace::testing::fails_sync;
using terrace::testing::Kind;
using terrace::testing::tell_done;
using terrace::testing::tell_write;

int __wrap_open(const char* path, int flags, ...) {
  mode_t mode = 0;
  if ((flags & O_CREAT) != 0) {
    va_list arguments;
    va_start(arguments, flags);
    mode = va_arg(arguments, mode_t);
    va_end(arguments);
  }
  struct stat facts{};
  const bool is_new = (flags & O_CREAT) != 0 && ::lstat(path, &facts) != 0;
  const int file = __real_open(path, flags, mode);
  if (file >= 0 && is_new) (void)tell_done(0, Kind::kCreate, std::string(path));
  if (file >= 0 && !is_new && (flags & O_TRUNC) != 0) {
    (void)tell_done(0, Kind::kTruncate, std::string(path));
  }
  return file;
}

ssize_t __wrap_write(int file, const void* data, std::size_t bytes) {
  const off_t at = ::lseek(file, 0, SEEK_CUR);
  if (at >= 0) tell_write(file, data, bytes, static_cast<std::uint64_t>(at));
  return __real_write(file, data, bytes);
}

ssize_t __wrap_pwrite(int file, const void* data, std::size_t bytes, off_t offset) {
  tell_write(file, data, bytes, static_cast<std::uint64_t>(offset));
  return __real_pwrite(file, data, bytes, offset);
}

int __wrap_fsync(int file) {
  return fails_sync(file) ? -1 : tell_done(__real_fsync(file), Kind::kSync, file);
}

int __wrap_fdatasync(int file) {
  return fails_sync(file) ? -1 : tell_done(__real_fdatasync(file), Kind::kSync, file);
}

int __wrap_ftruncate(int file, off_t length) {
  return tell_done(__real_ftruncate(file, length), Kind::kTruncate, file,
                   static_cast<std::uint64_t>(length));
}

int __wrap_fallocate(int file, int mode, off_t offset, off_t length) {
  const int result = __real_fallocate(file, mode, offset, length);
  if (mode != 0) return result;
  return tell_done(result, Kind::kAllocate, file, static_cast<std::uint64_t>(offset + length));
}

int __wrap_rename(const char* source, const char* target) {
  return tell_done(__real_rename(source, target), Kind::kRename, std::string(target), 0, source);
}

int __wrap_unlink(const char* path) {
  return tell_done(__real_unlink(path), Kind::kRemove, std::string(path));
}

int __wrap_rmdir(const char* path) {
  return tell_done(__real_rmdir(path), Kind::kRemoveDirectory, std::string(path));
}

int __wrap_mkdir(const char* path, mode_t mode) {
  return tell_done(__real_mkdir(path, mode), Kind::kDirectory, std::string(path));
}

int __wrap_fstat(int file, struct stat* facts) {
  return fails_fstat(file) ? -1 : __real_fstat(file, facts);
}
// NOLINTEND(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp,readability-identifier-naming)
