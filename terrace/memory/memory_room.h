// How much memory this process may still take before the system or its control group kills.
// Threading: thread-safe.  Waits: reads a few small files of /proc and /sys.
#pragma once

#include <string>

#include "terrace/base/strong.h"

namespace terrace::memory {

struct MemoryRoom {
  Bytes bytes;
  std::string limit;  // Whose limit it is, for the operator: "MemAvailable", a cgroup file.
};

// The smallest of MemAvailable and, for the process's control group and each one above it (v1 and
// v2), limit - usage + reclaimable file cache. Unreadable files do not limit.
// `root` stands before /proc and /sys; tests give a made-up tree.
[[nodiscard]] MemoryRoom memory_room(const std::string& root = "");

}  // namespace terrace::memory
