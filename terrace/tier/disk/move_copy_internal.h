// Copies the files of an owner directory into another folder, so that they are equal byte by byte
// and durable. What is equal already is not written again, so a second run goes on where the first
// one was killed.
// Threading: thread-compatible.  Waits: file I/O.  Memory: two pieces of 1 MiB.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "terrace/tier/disk/move.h"
#include "terrace/tier/disk/owner_files_internal.h"

namespace terrace::tier::disk {

class FolderCopy {
 public:
  struct Side {
    int folder = -1;
    std::string path;
  };
  FolderCopy(Side source, Side target, const OwnerFiles& files,
             const std::function<void(const MoveProgress&)>& progress);

  // Errors: kExhausted = no room, and how much is missing; kIo.
  [[nodiscard]] Status run();
  // Reads both from the medium. Errors: kCorrupt = they differ; kIo.
  [[nodiscard]] Status compare();

 private:
  [[nodiscard]] Status remove_others() const;
  [[nodiscard]] Status make_folders() const;
  [[nodiscard]] Status check_room() const;
  [[nodiscard]] Status copy_file(const OwnedFile& file);
  [[nodiscard]] Status give_lock() const;
  [[nodiscard]] Status each_piece(const OwnedFile& file, int source, int target, bool is_copying);
  [[nodiscard]] bool is_copied(const std::string& name) const;

  const Side source_;
  const Side target_;
  const OwnerFiles& files_;
  const std::function<void(const MoveProgress&)>& progress_;
  std::vector<std::byte> piece_;
  std::vector<std::byte> other_;
  std::uint64_t total_ = 0;
  std::uint64_t done_ = 0;
};

}  // namespace terrace::tier::disk
