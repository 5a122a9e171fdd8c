// For tests of threads that closing leaves behind: is it still there, and does it still have what
// it uses? Threading: thread-safe.  Waits: never.
#pragma once

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace terrace::testing {

// Whether this process has a thread of this name (15 characters at most).
[[nodiscard]] inline bool has_thread(const std::string& name) {
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream file(task.path() / "comm");
    std::string comm;
    if (std::getline(file, comm) && comm == name) return true;
  }
  return false;
}

// Takes freed memory over, so that whoever still uses it meets bytes that are no pointers.
[[nodiscard]] inline std::vector<std::vector<unsigned char>> soil_freed_memory() {
  std::vector<std::vector<unsigned char>> taken;
  for (int round = 0; round < 8; ++round) {
    for (std::size_t size = 16; size <= 4096; size += 16) taken.emplace_back(size, 0xAB);
  }
  return taken;
}

}  // namespace terrace::testing
