// The store's root: whether it is one, is there, and is still the same.
// Threading: thread-safe.  Waits: for the file system.  Owns: no descriptor, so that the file
// system can be unmounted and mounted again under a running store.
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>

#include "terrace/base/mutex.h"
#include "terrace/transfer/backends/dir/publish_internal.h"

namespace terrace::transfer::dir {

// Calls `on_entry` for each entry but "." and ".." until it returns false. 0 or an errno.
[[nodiscard]] int each_entry(UniqueFd folder, const std::function<bool(const char*)>& on_entry);

class Root {
 public:
  Root(std::string path, const Making& making, bool may_begin)
      : path_(std::move(path)), making_(making), may_begin_(may_begin) {}
  // Makes an empty folder a root; takes one that is; refuses everything else untouched.
  [[nodiscard]] Status prepare();
  // For one request. Errors: kUnavailable = not there, or (not mounted) without its marker.
  [[nodiscard]] Result<UniqueFd> enter();
  // The marker, if somebody emptied the root meanwhile.
  [[nodiscard]] Status keep_marker(int root) const;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  struct Identity {
    dev_t device = 0;
    ino_t inode = 0;
    friend bool operator==(const Identity&, const Identity&) = default;
  };
  [[nodiscard]] Result<UniqueFd> open(Identity& identity) const;
  [[nodiscard]] Result<bool> has_marker(int root) const;
  [[nodiscard]] Status initialise(int root) const;

  const std::string path_;
  const Making& making_;
  const bool may_begin_;
  Mutex mutex_;
  Identity known_ TERRACE_GUARDED_BY(mutex_);
};

}  // namespace terrace::transfer::dir
