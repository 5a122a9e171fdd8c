// What eviction has learned in this namespace, bytes that only policy understands: kept for its
// next owner in learned.meta, in the namespace's folder of each of the owner's directories. At the
// start the newest that is whole counts. What is kept goes to all that are well and have none under
// way; one that fails or hangs stays behind, and stops no other. In each file two halves are
// written in turn, so that one is whole at any moment. Nothing here is needed to serve: what fails
// is logged. Threading: the I/O thread's; found() is thread-safe.  Waits: file I/O when
// constructed, by the opening thread.  Bounds: one half on its way to each directory, and one that
// waits for all. Source: docs/formats/disk.md.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "terrace/base/file.h"
#include "terrace/tier/disk/budget_keeper_internal.h"
#include "terrace/tier/disk/context_internal.h"

namespace terrace::tier::disk {

// What learned.meta holds.
struct Learned {
  std::uint64_t number = 0;  // 0 = nothing that is whole.
  std::size_t half = 0;      // Where that lies.
  std::string bytes;
  std::string damage;  // What was there and is not whole; empty = nothing.
};
// Errors: kIo.
[[nodiscard]] Result<Learned> read_learned(int file, const std::string& path);

// Of a namespace's folder, beside whoever owns it; where it cannot be read, nothing.
[[nodiscard]] Learned look_at_learned(const std::string& folder);

class LearnedKeeper {
 public:
  // Without Options::returns there are no files.
  LearnedKeeper(Context& context, BudgetKeeper& budget);

  [[nodiscard]] const std::string& found() const { return found_; }
  // Starts at once, in a directory where one is on its way when that is durable. Nothing happens
  // where there is no file, or where no writes are taken.
  void keep(std::string bytes);
  void finish(Purpose purpose, std::uint32_t volume, const Status& status);
  // In a directory that is well.
  [[nodiscard]] bool is_saving() const;

  void name_files(transfer::Backend& backend) const;

 private:
  struct Copy {  // Of one volume.
    std::string path;
    UniqueFd file;
    std::size_t half = 0;         // That is written next.
    std::uint64_t tried = 0;      // The last number that was begun here.
    std::vector<std::byte> page;  // On its way,
    std::string payload;          // in whole pages.
    bool is_flying = false;
    bool has_told = false;  // That it fails.
  };
  [[nodiscard]] Status open_copy(std::uint32_t volume);
  void push(std::uint32_t volume);

  Context& context_;
  BudgetKeeper& budget_;
  std::vector<Copy> copies_;  // [volume]
  std::string found_;
  std::string found_in_;      // Which file that was.
  std::uint64_t number_ = 0;  // The highest that there is, found or kept.
  std::string latest_;        // What was given last.
};

}  // namespace terrace::tier::disk
