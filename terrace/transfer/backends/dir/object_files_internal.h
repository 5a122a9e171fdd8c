// What the dir store does for each request, in the thread that calls.
// Threading: thread-safe.  Waits: for the file system.  Memory: a listing's names, see dir_store.h.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "terrace/transfer/backends/dir/dir_store.h"
#include "terrace/transfer/backends/dir/names_internal.h"
#include "terrace/transfer/backends/dir/root_internal.h"

namespace terrace::transfer::dir {

[[nodiscard]] Status check_deadline(const ObjectRequest& request);

class ObjectFiles {
 public:
  ObjectFiles(const DirStoreOptions& options, std::unique_ptr<FileCalls> calls);
  [[nodiscard]] Status prepare() { return root_.prepare(); }
  // Nothing but bad_alloc is thrown.
  [[nodiscard]] ObjectAnswer run(const ObjectRequest& request);

 private:
  enum class Direction { kRead, kWrite };
  struct Begun {
    UniqueFd folder;
    Unfinished file;  // In it.
  };
  [[nodiscard]] Status run_once(const ObjectRequest& request, ObjectAnswer& answer);
  [[nodiscard]] Status put(int root, const ObjectRequest& request, ObjectAnswer& answer);
  [[nodiscard]] Status get(int root, const ObjectRequest& request);
  [[nodiscard]] Status head(int root, const ObjectRequest& request, ObjectInfo& info);
  [[nodiscard]] Status remove(int root, const ObjectRequest& request);
  [[nodiscard]] Status touch(int root, const ObjectRequest& request);
  // The object's file, with its facts. Errors: kNotFound; kCorrupt = something else has its name.
  [[nodiscard]] Result<UniqueFd> open_object(int root, const std::string& below, int direct,
                                             struct stat& facts);
  // False = there is none.
  [[nodiscard]] Result<bool> look(int root, const Place& place, ObjectInfo& info);
  [[nodiscard]] Result<UniqueFd> open_folder(int root, const std::string& folder);
  [[nodiscard]] Result<UniqueFd> make_folder(int root, const std::string& folder);
  // A new file in the folder, which is made if it is missing. Errors: as put().
  [[nodiscard]] Result<Begun> begin(int root, const std::string& folder, int flags);
  void remove_if_empty(int root, const std::string& folder);
  // `opened`, and all that it lies in: whoever made them may not have synced them.
  [[nodiscard]] Status sync_folders(int root, const std::string& folder, int opened);
  // From `done` bytes on.
  [[nodiscard]] Status move(int file, const ObjectRequest& request, Direction direction,
                            const std::string& path, std::uint64_t done);
  // Reads for somebody who looks at what arrives.
  [[nodiscard]] bool shows(const ObjectRequest& request) const;
  [[nodiscard]] Status show(int file, const ObjectRequest& request, const std::string& path);
  [[nodiscard]] int direct_flag(const ObjectRequest& request) const;
  [[nodiscard]] std::string path_of(const std::string& below) const {
    return root_.path() + "/" + below;
  }

  const std::unique_ptr<FileCalls> calls_;
  const bool is_direct_;
  Making making_;
  Root root_;
};

}  // namespace terrace::transfer::dir
