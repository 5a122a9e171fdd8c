// One page of a listing: a walk over the folders in the order of their entries' bytes, from where
// the page before ended. Nothing is kept between pages. One that has used half of its time ends
// where it is, full or not, as long as it got on: empty folders may be many. On its way it removes
// what dead writers left. Threading: thread-compatible.  Waits: for the file system, folder by
// folder. Memory: at most kMostListed names per folder on the way, and the page itself.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/transfer/backends/dir/object_files_internal.h"

namespace terrace::transfer::dir {

class Listing {
 public:
  Listing(const Making& making, int root, std::string root_path, const ObjectRequest& request)
      : making_(making), root_(root), root_path_(std::move(root_path)), request_(request) {}
  // Fills `found` and `next`. What vanishes meanwhile is not there.
  // Errors: kDeadline = not even one folder or object was passed in time.
  [[nodiscard]] Status run(ObjectAnswer& answer);

 private:
  using Parts = std::span<const std::string>;
  struct Level {
    std::string folder;  // Below the root; empty = the root, else with a slash at its end.
    std::string start;   // What entries' names begin with, as objects and as folders.
    Parts after;         // Where the page before ended, from this folder on; empty = nowhere.
  };
  [[nodiscard]] Status walk(ObjectAnswer& answer);
  // kDeadline: to be ended here.
  [[nodiscard]] Status check_time() const;
  [[nodiscard]] Status visit_folder(const Level& level);
  [[nodiscard]] Status visit_bucket(const Level& level);
  struct Wanted {
    bool is_in_bucket = false;  // Objects, else folders and buckets.
    std::string start;
    std::string after;
    bool is_after_taken = false;  // `after` itself comes no more.
    [[nodiscard]] bool matches(std::string_view entry) const;
  };
  // The smallest that are wanted, at most kMostListed, sorted.
  [[nodiscard]] Result<std::vector<std::string>> read_entries(const std::string& folder,
                                                              const Wanted& wanted) const;
  [[nodiscard]] Result<UniqueFd> open(const std::string& folder) const;
  void note_leftover(int folder, const char* name, std::vector<std::string>& leftovers) const;
  void remove_leftovers(const std::string& folder, const std::vector<std::string>& leftovers) const;
  [[nodiscard]] bool is_full() const { return answer_->found.size() >= kMostListed; }

  const Making& making_;
  const int root_;
  const std::string root_path_;
  const ObjectRequest& request_;
  ObjectAnswer* answer_ = nullptr;
  std::string passed_;  // In this page, all up to here; empty = nothing yet.
  Nanoseconds half_time_ = kNoDeadline;
};

}  // namespace terrace::transfer::dir
