// Removes what Terrace wrote below a path, and only that: no link is followed, nothing with another
// name is touched, nothing of a directory that an engine has. Killed at any moment it leaves
// directories that an engine can open and that a second run goes on with.
// Threading: thread-safe.  Waits: file I/O; call it from a tool.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "terrace/base/status.h"

namespace terrace::tier {

struct WipeProgress {
  std::string file;
  std::uint64_t bytes = 0;  // Done, in this directory,
  std::uint64_t of = 0;     // of so many.
};

struct WipeOptions {
  // "ns-0001", or the begin of a content digest, at least 8 digits; empty = all. One alone is
  // overwritten with zeros: its space stays with the directory.
  std::string name_space;
  bool is_dry = true;  // Only says what would go.
  std::function<void(const WipeProgress&)> progress;
};

struct WipedOwner {
  std::string directory;
  std::string problem;             // Why nothing, or not all, went; empty = it did, or would.
  std::vector<std::string> names;  // Of files that went or would go; with the space of a namespace.
  std::uint64_t bytes = 0;         // They take, or took.
  std::vector<std::string> left;   // Not Terrace's.
  bool is_wiped = false;
};

// Of each owner directory at `path` (as in disk.paths, or one `terrace-NN`). Directories without
// the namespace are left out. Errors: kIo when `path` cannot be read; kInvalid = a name_space that
// cannot be one.
[[nodiscard]] Result<std::vector<WipedOwner>> wipe_directory(const std::string& path,
                                                             const WipeOptions& options);

}  // namespace terrace::tier
