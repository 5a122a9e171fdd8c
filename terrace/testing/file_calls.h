// Shows the calls by which this process changes files itself, beside any backend: what a disk tier
// writes while it opens; and fails some of its calls. Only calls from the objects of a program that
// is linked to `terrace_file_calls` are seen, which renames them with --wrap. Tests only.
// Threading: each thread watches its own calls.  Waits: never.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace terrace::testing {

struct FileChange {
  enum class Kind : std::uint8_t {
    kCreate,     // An empty file.
    kDirectory,  // A new one.
    kWrite,
    kTruncate,  // To `length`.
    kAllocate,  // At least `length` long.
    kRename,    // Of `source`.
    kRemove,    // A file,
    kRemoveDirectory,
    kSync  // Of a file or a directory.
  };
  Kind kind = Kind::kWrite;
  std::string path{};
  std::string source{};
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
  std::span<const std::byte> bytes{};
};

class FileWatch {
 public:
  // From here on until it is destroyed.
  FileWatch();
  FileWatch(const FileWatch&) = delete;
  FileWatch& operator=(const FileWatch&) = delete;
  virtual ~FileWatch();
  // Writes are told just before they are done, everything else once it succeeded.
  virtual void on_change(const FileChange& change) = 0;
  // A sync of `path` is to fail with EIO; it is not done, and not told.
  virtual bool fails_sync(const std::string& path);
  // An fstat of `path`, which is open, is to fail with EIO.
  virtual bool fails_fstat(const std::string& path);

 private:
  FileWatch* const former_;
};

}  // namespace terrace::testing
