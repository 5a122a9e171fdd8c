// What tests of `move_directory` share: four blocks to move, and runs that are killed.
// Threading: thread-compatible.  Waits: for the disk.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "terrace/tier/disk/disk_rig.h"
#include "terrace/tier/disk/move.h"

namespace terrace::tier::disk {

inline constexpr std::uint64_t kMovedBlocks = 4;

inline void fill(Rig& rig) {
  ASSERT_EQ(rig.open().text(), Status().text());
  for (std::uint64_t n = 0; n < kMovedBlocks; ++n) {
    ASSERT_EQ(rig.write(n).text(), Status().text()) << n;
  }
  rig.settle();
  rig.close();
}

inline MovedOwner move_one(const std::string& from, const std::string& to,
                           const MoveOptions& options) {
  const auto moved = move_directory(from, to, options);
  EXPECT_TRUE(moved.has_value()) << moved.error().text();
  if (!moved.has_value() || moved->size() != 1) {
    ADD_FAILURE() << "not one owner directory";
    return {};
  }
  return moved->front();
}

inline void expect_served(Rig& rig, const std::string& path) {
  rig.options().paths = {path};
  ASSERT_EQ(rig.open().text(), Status().text());
  for (std::uint64_t n = 0; n < kMovedBlocks; ++n) {
    EXPECT_EQ(rig.read(n).text(), Status().text()) << n;
  }
  EXPECT_TRUE(rig.write(9).is_ok());
  rig.close();
}

// Ends as kill -9 would at the `step`-th time that it says how far it is. False when it came to its
// end before.
inline bool move_killed_at(int step, const std::string& from, const std::string& to,
                           bool is_always_copied) {
  const pid_t child = ::fork();
  if (child == 0) {
    int told = 0;
    MoveOptions options{.is_always_copied = is_always_copied, .progress = {}};
    options.progress = [&](const MoveProgress&) {
      if (++told == step) (void)::raise(SIGKILL);
    };
    (void)move_directory(from, to, options);
    ::_exit(0);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFSIGNALED(status);
}

inline bool has_owner(const std::string& path) {
  return std::filesystem::exists(path + "/terrace-00") ||
         std::filesystem::exists(path + "/terrace-01");
}

inline std::size_t entries_of(const std::string& path) {
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(path),
                                                std::filesystem::directory_iterator()));
}

}  // namespace terrace::tier::disk
