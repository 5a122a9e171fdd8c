// A file that nobody sees under its final name until it is whole, and then all at once.
// Threading: thread-compatible; several processes and nodes may race for one name.
// Waits: for the file system; at most kRivalPatience for a rival who is between two calls.
// Source: docs/formats/object-dir.md, "Order of writing".
#pragma once

#include <sys/stat.h>

#include <string>
#include <string_view>

#include "terrace/base/clock.h"
#include "terrace/base/file.h"
#include "terrace/transfer/backends/dir/file_calls_internal.h"

namespace terrace::transfer::dir {

// `operation path: ERRNAME`, with the code that ObjectAnswer promises; ENOENT is kNotFound.
[[nodiscard]] Status failure(int error, std::string_view operation, const std::string& path);
// What has to be there and is not: ask again.
[[nodiscard]] Status away(Status status);
// kCorrupt: something that the store never makes has the name of one of its files.
[[nodiscard]] Status no_object(const struct stat& facts, const std::string& path);

inline constexpr Nanoseconds kRivalPatience = milliseconds(500);

struct Making {  // How files and folders are made. Immutable; shared by the store's threads.
  FileCalls* calls = nullptr;
  std::string host;
  bool is_group_shared = false;
  std::int64_t leftover_age_seconds = 3600;
  [[nodiscard]] mode_t file_mode() const { return is_group_shared ? 0640 : 0600; }
  [[nodiscard]] mode_t folder_mode() const { return is_group_shared ? 02770 : 0700; }
};

class Unfinished {
 public:
  // `folder`, a descriptor, outlives it; `folder_path` is for messages. `flags`: O_DIRECT or 0.
  // Errors: kNotFound = the folder is gone.
  static Result<Unfinished> create(const Making& making, int folder, std::string folder_path,
                                   int flags = 0);
  Unfinished(Unfinished&& other) noexcept;
  Unfinished& operator=(Unfinished&&) = delete;
  // Removes it, unless publish() gave it its final name by a rename.
  ~Unfinished();
  [[nodiscard]] int file() const { return file_.get(); }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] std::string path_of(std::string_view name) const;
  // The content is written and synced. True = `leaf` is ours; false = another's, whole, stays.
  // Errors: as failure(); kUnavailable = a rival is at it and does not come to an end.
  [[nodiscard]] Result<bool> publish(const std::string& leaf);
  void remove();

 private:
  enum class Outcome { kOurs, kTheirs, kGone, kEmpty, kUnsupported };
  Unfinished(const Making& making, int folder, std::string folder_path)
      : making_(&making), folder_(folder), folder_path_(std::move(folder_path)) {}
  [[nodiscard]] bool is_ours(const std::string& leaf) const;
  [[nodiscard]] Result<Outcome> try_to_publish(const std::string& leaf);
  [[nodiscard]] Result<Outcome> look_at(const std::string& leaf);
  [[nodiscard]] Result<Outcome> by_claim(const std::string& leaf);
  [[nodiscard]] Result<Outcome> over_empty(const std::string& leaf);

  const Making* making_;
  int folder_;
  std::string folder_path_;
  std::string name_;  // Empty = none is left.
  UniqueFd file_;
  std::int64_t rival_seconds_ = 0;  // When the empty file that look_at() met was made.
};

}  // namespace terrace::transfer::dir
