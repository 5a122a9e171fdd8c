// What eviction has learned in this namespace, bytes that only policy understands: kept for its
// next owner in learned.meta, in the namespace's folder of the first directory. Two halves are
// written in turn, so that one is whole at any moment. Nothing here is needed to serve: what fails
// is logged. Threading: the I/O thread's; found() is thread-safe.  Waits: file I/O when
// constructed, by the opening thread.  Bounds: one half on its way, one that waits. Source:
// docs/formats/disk.md.
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
  // Without Options::returns there is no file.
  LearnedKeeper(Context& context, BudgetKeeper& budget);

  [[nodiscard]] const std::string& found() const { return found_; }
  // Starts at once, or when the half before it is durable. Nothing happens without a file, or while
  // its directory takes no writes.
  void keep(std::string bytes);
  void finish(Purpose purpose, const Status& status);
  [[nodiscard]] bool is_saving() const { return is_saving_; }

  [[nodiscard]] int file() const { return file_.get(); }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  [[nodiscard]] Status open();
  void push();

  Context& context_;
  BudgetKeeper& budget_;
  std::string path_;
  UniqueFd file_;
  std::string found_;
  std::uint64_t number_ = 1;  // Of the half that is written next,
  std::size_t half_ = 0;      // and which one that is.
  std::vector<std::byte> page_;
  std::string payload_;  // On its way, in whole pages.
  std::string waiting_;
  bool is_saving_ = false;
  bool has_told_ = false;  // That it fails.
};

}  // namespace terrace::tier::disk
