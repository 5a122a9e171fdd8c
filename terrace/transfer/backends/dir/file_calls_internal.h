// The system calls of the dir store, so that tests can fail each of them or see their order.
// All return what the system call returns; errno says why it failed. Threading: thread-safe.
// Waits: as long as the file system does.
#pragma once

#include <sys/stat.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

namespace terrace::transfer::dir {

class FileCalls {
 public:
  virtual ~FileCalls() = default;
  virtual int open_root(const char* path);
  // Below `folder`: "..", links and links of /proc on the way are refused (ELOOP, EXDEV).
  virtual int open_below(int folder, const char* path, int flags, mode_t mode);
  // The same where the kernel has no openat2, or a container's filter is older than it.
  static int open_part_by_part(int folder, const char* path, int flags, mode_t mode);
  virtual int facts_of(int file, struct stat* facts);
  virtual int facts_at(int folder, const char* name, struct stat* facts);  // Of a link itself.
  virtual ssize_t read_at(int file, const iovec* pieces, int count, std::uint64_t offset);
  // The same of what is in memory already; EAGAIN if that is nothing, EOPNOTSUPP if nobody can
  // tell.
  virtual ssize_t read_cached(int file, const iovec* pieces, int count, std::uint64_t offset);
  virtual ssize_t write_at(int file, const iovec* pieces, int count, std::uint64_t offset);
  virtual int sync_data(int file);
  virtual int sync_folder(int folder);
  virtual int set_mode(int file, mode_t mode);
  virtual int make_folder(int folder, const char* name, mode_t mode);
  virtual int link(int folder, const char* from, const char* to);
  // Never over something that is there.
  virtual int rename_new(int folder, const char* from, const char* to);
  virtual int rename_over(int folder, const char* from, const char* to);
  virtual int remove(int folder, const char* name);
  virtual int remove_folder(int folder, const char* name);  // ENOTEMPTY, EEXIST: it is not empty.
  // Reads of the file begin whole, and end where they were asked to.
  virtual int reads_exactly(int file);
  // Has the medium bring those bytes, without waiting for them.
  virtual int begin_reading(int file, std::uint64_t offset, std::uint64_t bytes);
  virtual int touch(int file);  // Read and written just now, by the file system's clock.
};

}  // namespace terrace::transfer::dir
