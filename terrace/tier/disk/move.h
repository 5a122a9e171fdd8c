// Moves owner directories to another path, which may lie on another file system. Killed at any
// moment it leaves one complete copy, and a second run goes on:
//   copy into TO/terrace-incoming-… -> sync -> compare byte by byte -> FROM/terrace-NN becomes
//   terrace-NN.moving -> the copy becomes TO/terrace-MM -> the old one is removed.
// So no engine ever sees both: what one of them is told (a reset) cannot be undone by the other.
// On one file system it is a rename.
// Threading: thread-safe.  Waits: file I/O; call it from a tool.  Memory: two pieces of 1 MiB.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "terrace/base/status.h"

namespace terrace::tier {

struct MoveProgress {
  const char* step = "";  // "copy", "compare", "leave", "publish", "remove"
  std::string file;
  std::uint64_t bytes = 0;  // Done of this step,
  std::uint64_t of = 0;     // of so many.
};

struct MoveOptions {
  bool is_always_copied = false;  // Also where a rename would do.
  // Told before each step, and of each piece of it.
  std::function<void(const MoveProgress&)> progress;
};

struct MovedOwner {
  std::string from;
  std::string to;            // Empty = not there yet.
  std::string problem;       // Why it was not moved, and the way out; empty = it was.
  bool was_renamed = false;  // Within one file system: nothing was copied.
  std::uint64_t bytes = 0;   // Of its files.
};

// `from` as in disk.paths, or one `terrace-NN`; `to` as in disk.paths, made if it is not there.
// Errors: kIo when one cannot be read or made; kInvalid when `from` holds no owner directory, or
// `to` lies in one.
[[nodiscard]] Result<std::vector<MovedOwner>> move_directory(const std::string& from,
                                                             const std::string& to,
                                                             const MoveOptions& options);

}  // namespace terrace::tier
