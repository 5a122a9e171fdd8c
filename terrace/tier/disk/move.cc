#include "terrace/tier/disk/move.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <optional>

#include "terrace/base/rng.h"
#include "terrace/base/sync_point.h"
#include "terrace/tier/disk/move_copy_internal.h"
#include "terrace/tier/disk/owner_directory_internal.h"

namespace terrace::tier {

namespace {
constexpr int kMostOwners = 100;  // terrace-00 … terrace-99 below one path.

std::string parent_of(const std::string& path) {
  const auto slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

bool exists(const std::string& path) {
  struct stat facts{};
  return ::lstat(path.c_str(), &facts) == 0;
}

// Never over something else. 0 or errno.
int rename_to_new(const std::string& from, const std::string& to) {
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return errno;
  // A file system that cannot promise it: rename() itself goes over nothing but an empty folder.
  if (exists(to)) return EEXIST;
  return ::rename(from.c_str(), to.c_str()) == 0 ? 0 : errno;
}

bool is_shortage(const Status& status) {
  return status.code() == Code::kExhausted || status.message().contains("ENOSPC") ||
         status.message().contains("EDQUOT");
}

// To the first free number below `path`.
Result<std::string> publish(const std::string& from, const std::string& path) {
  for (int number = 0; number < kMostOwners; ++number) {
    std::string to = fmt::format("{}/terrace-{:02}", path, number);
    const int error = rename_to_new(from, to);
    if (error == EEXIST || error == ENOTEMPTY) continue;
    if (error == EXDEV) return fail(Code::kUnavailable, "another file system");
    if (error != 0) return fail(Status::from_errno(error, "rename", from));
    TERRACE_RETURN_IF_ERROR(sync_directory(path));
    return to;
  }
  return fail(Code::kExhausted,
              fmt::format("{}: all {} owner directories are in use", path, kMostOwners));
}

// What a note says: which move it belongs to, and where that leads.
struct Note {
  std::string id;
  std::string path;
};
std::optional<Note> read_note(const std::string& directory, const char* name) {
  const auto text = read_file(directory + "/" + name, 64_KiB);
  if (!text) return std::nullopt;
  const auto end = text->find('\n');
  if (end == std::string::npos || !text->ends_with('\n') || end + 2 > text->size()) {
    return std::nullopt;
  }
  return Note{text->substr(0, end), text->substr(end + 1, text->size() - end - 2)};
}
Status write_note(const std::string& directory, const char* name, const Note& note) {
  return write_file_atomic(directory + "/" + name, fmt::format("{}\n{}\n", note.id, note.path));
}

class OwnerMover {
 public:
  OwnerMover(std::string from, std::string to, const MoveOptions& options)
      : options_(options), to_path_(std::move(to)) {
    moved_.from = std::move(from);
  }

  MovedOwner run() {
    const Status status =
        moved_.from.ends_with(disk::kLeaving) ? go_on(moved_.from) : begin(moved_.from);
    if (!status.is_ok()) moved_.problem = status.message();
    return std::move(moved_);
  }

 private:
  Status open(const std::string& directory) {
    TERRACE_ASSIGN_OR_RETURN(folder_, disk::open_owner_directory(directory));
    TERRACE_SYNC_POINT("disk.move.lock");
    TERRACE_ASSIGN_OR_RETURN(lock_, disk::DirectoryLock::try_lock(directory));
    if (!lock_) {
      return {Code::kRefused, directory +
                                  ": an engine has it, or another `terrace move` or `terrace "
                                  "wipe`: stop the engine, then try again"};
    }
    if (!disk::is_still_at(folder_.get(), directory)) return moved_meanwhile(directory);
    TERRACE_ASSIGN_OR_RETURN(files_, disk::list_owner_files(folder_.get(), directory));
    for (const disk::OwnedFile& file : files_.files) moved_.bytes += file.size;
    if (files_.foreign.empty()) return {};
    return {Code::kRefused, fmt::format("{}/{} is not Terrace's: take it away, then try again",
                                        directory, files_.foreign.front())};
  }

  // What would be copied, and then removed, is another move's.
  static Status moved_meanwhile(const std::string& directory) {
    return {Code::kRefused, directory + ": somebody is moving this directory: try again"};
  }

  Status begin(const std::string& directory) {
    // A directory that is not ours gets not even a lock file.
    const disk::DirectoryFacts facts = disk::judge(directory);
    if (facts.state != disk::DirectoryState::kUsable) {
      return {Code::kRefused,
              facts.reason.empty() ? directory + ": holds nothing to move" : facts.reason};
    }
    TERRACE_RETURN_IF_ERROR(open(directory));
    if (options_.is_always_copied) return copy(directory);
    auto renamed = publish(directory, to_path_);
    if (renamed) {
      moved_.to = *std::move(renamed);
      moved_.was_renamed = true;
      return sync_directory(parent_of(directory));
    }
    if (renamed.error().code() != Code::kUnavailable) return renamed.error();
    return copy(directory);
  }

  void tell(const char* step) const {
    if (options_.progress) options_.progress({step, "", 0, moved_.bytes});
  }

  // The same for the same directory, whoever runs: a second run finds what the first one left.
  [[nodiscard]] Result<std::string> incoming(const std::string& directory) const {
    struct stat facts{};
    if (::fstat(folder_.get(), &facts) != 0) {
      return fail(Status::from_errno(errno, "fstat", directory));
    }
    return fmt::format("{}/{}{:x}-{:x}", to_path_, disk::kIncoming, facts.st_dev, facts.st_ino);
  }

  Status copy(const std::string& directory) {
    TERRACE_ASSIGN_OR_RETURN(const std::string copy, incoming(directory));
    if (::mkdir(copy.c_str(), 0700) != 0 && errno != EEXIST) {
      return Status::from_errno(errno, "mkdir", copy);
    }
    TERRACE_ASSIGN_OR_RETURN(const UniqueFd target, disk::open_owner_directory(copy));
    TERRACE_SYNC_POINT("disk.move.lock_copy");
    TERRACE_RETURN_IF_ERROR(lock_copy(copy));
    if (!disk::is_still_at(target.get(), copy)) return moved_meanwhile(copy);
    const Note note{fmt::format("{:016x}{:016x}", random_u64(), random_u64()), directory};
    TERRACE_RETURN_IF_ERROR(write_note(copy, disk::kMovedFrom, note));
    disk::FolderCopy work({folder_.get(), directory}, {target.get(), copy}, files_,
                          options_.progress);
    if (Status copied = work.run(); !copied.is_ok()) {
      // Nobody would look for what fills that file system up.
      if (!is_shortage(copied)) return copied;
      remove_copy(target.get(), copy);
      if (copied.message().contains("nothing was moved")) return copied;
      return {Code::kExhausted,
              copied.message() + "; nothing was moved: free space there, then run it again"};
    }
    TERRACE_RETURN_IF_ERROR(work.compare());
    TERRACE_RETURN_IF_ERROR(sync_directory(to_path_));
    tell("leave");
    // From here on the copy is the one that counts.
    TERRACE_RETURN_IF_ERROR(write_note(directory, disk::kMovingTo, {note.id, copy}));
    const std::string leaving = directory + disk::kLeaving;
    if (const int error = rename_to_new(directory, leaving); error != 0) {
      return Status::from_errno(error, "rename", directory);
    }
    TERRACE_RETURN_IF_ERROR(sync_directory(parent_of(directory)));
    return finish(leaving, copy);
  }

  // As long as it grows and until it has its name nobody else moves, wipes or opens it.
  Status lock_copy(const std::string& copy) {
    TERRACE_ASSIGN_OR_RETURN(copy_lock_, disk::DirectoryLock::try_lock(copy));
    if (copy_lock_) return {};
    return {Code::kRefused, copy + ": another `terrace move` or `terrace wipe` has it: try again"};
  }
  static void remove_copy(int folder, const std::string& copy) {
    const auto there = disk::list_owner_files(folder, copy);
    if (!there) return;
    for (const disk::OwnedFile& file : there->files) {
      (void)disk::remove_file(folder, file.name, copy);
    }
    for (const std::string& name : there->namespaces) {
      (void)::unlinkat(folder, name.c_str(), AT_REMOVEDIR);
    }
    (void)::rmdir(copy.c_str());
  }

  Status finish(const std::string& leaving, const std::string& copy) {
    if (!copy_lock_) TERRACE_RETURN_IF_ERROR(lock_copy(copy));
    tell("publish");
    TERRACE_ASSIGN_OR_RETURN(moved_.to, publish(copy, to_path_));
    copy_lock_.reset();  // An engine may have it now.
    tell("remove");
    return remove_old(leaving);
  }

  // The note goes last of all files: a run that is killed here is known as one.
  Status remove_old(const std::string& leaving) {
    TERRACE_ASSIGN_OR_RETURN(files_, disk::list_owner_files(folder_.get(), leaving));
    std::uint64_t done = 0;
    std::uint64_t total = 0;
    for (const disk::OwnedFile& file : files_.files) total += file.on_disk;
    for (const disk::OwnedFile& file : files_.files) {
      TERRACE_RETURN_IF_ERROR(disk::remove_file(folder_.get(), file.name, leaving));
      done += file.on_disk;
      if (options_.progress) options_.progress({"remove", file.name, done, total});
    }
    remove_folders();
    if (::rmdir(leaving.c_str()) != 0) return Status::from_errno(errno, "rmdir", leaving);
    TERRACE_RETURN_IF_ERROR(sync_directory(parent_of(leaving)));
    if (moved_.to.empty()) return {};
    if (::unlink((moved_.to + "/" + disk::kMovedFrom).c_str()) != 0 && errno != ENOENT) {
      return Status::from_errno(errno, "unlink", moved_.to + "/" + disk::kMovedFrom);
    }
    return sync_directory(moved_.to);
  }
  void remove_folders() const {
    for (const std::string& name : files_.namespaces) {
      (void)::unlinkat(folder_.get(), name.c_str(), AT_REMOVEDIR);
    }
  }

  // What an earlier run began: its copy is whole, and published or not.
  Status go_on(const std::string& leaving) {
    TERRACE_RETURN_IF_ERROR(open(leaving));
    const auto note = read_note(leaving, disk::kMovingTo);
    if (!note) {
      const bool is_empty = std::ranges::all_of(
          files_.files, [](const auto& file) { return file.name == "owner.lock"; });
      if (is_empty) {
        TERRACE_RETURN_IF_ERROR(
            find_copy([&](const Note& other) { return other.path + disk::kLeaving == leaving; }));
        return remove_old(leaving);
      }
      return {Code::kRefused, way_back(leaving, "its moving-to.txt is missing")};
    }
    std::error_code ignored;
    if (!std::filesystem::equivalent(parent_of(note->path), to_path_, ignored)) {
      return {
          Code::kRefused,
          fmt::format("{} is on its way to {}: finish that first, with `terrace move {} {}`",
                      leaving, parent_of(note->path), parent_of(leaving), parent_of(note->path))};
    }
    const auto copy = read_note(note->path, disk::kMovedFrom);
    if (copy && copy->id == note->id) return finish(leaving, note->path);
    TERRACE_RETURN_IF_ERROR(find_copy([&](const Note& other) { return other.id == note->id; }));
    if (!moved_.to.empty()) return remove_old(leaving);
    return {Code::kRefused, way_back(leaving, "its copy is not at " + to_path_)};
  }
  // Into moved_.to: the copy that was published, by its note.
  template <typename IsIt>
  Status find_copy(IsIt&& is_it) {
    TERRACE_ASSIGN_OR_RETURN(const auto owners, disk::list_owner_directories(to_path_));
    for (const std::string& owner : owners) {
      const auto note = read_note(owner, disk::kMovedFrom);
      if (note && is_it(*note)) moved_.to = owner;
    }
    return {};
  }
  static std::string way_back(const std::string& leaving, const std::string& why) {
    return fmt::format("{}: {}; what is here is whole: to use it again, rename it to {}", leaving,
                       why,
                       leaving.substr(0, leaving.size() - std::string_view(disk::kLeaving).size()));
  }

  const MoveOptions& options_;
  const std::string to_path_;
  MovedOwner moved_;
  UniqueFd folder_;
  std::optional<disk::DirectoryLock> lock_;
  std::optional<disk::DirectoryLock> copy_lock_;
  disk::OwnerFiles files_;
};

// A target inside of what is moved, or the place where it is.
Status check_target(const std::string& source, const std::string& to) {
  std::error_code error;
  if (std::filesystem::equivalent(parent_of(source), to, error)) {
    return {Code::kInvalid, fmt::format("{} lies in {} already", source, to)};
  }
  std::filesystem::path above = std::filesystem::canonical(to, error);
  for (; !error && above.has_relative_path(); above = above.parent_path()) {
    if (std::filesystem::equivalent(above, source, error)) {
      return {Code::kInvalid, fmt::format("{} lies in {}, which is to be moved", to, source)};
    }
    error.clear();
  }
  return {};
}

// What is made of it belongs to whom the old place belongs to: of meaning when root moves.
Status make_target(const std::string& target, const std::string& source) {
  std::vector<std::string> made;
  for (std::string path = target; !exists(path); path = parent_of(path)) made.push_back(path);
  TERRACE_RETURN_IF_ERROR(make_directories(target));
  struct stat facts{};
  if (::stat(parent_of(source).c_str(), &facts) != 0) return {};
  for (const std::string& path : made) {
    (void)!::lchown(path.c_str(), facts.st_uid, facts.st_gid);
  }
  return {};
}

std::string without_slash(std::string path) {
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

Result<std::string> absolute(const std::string& path) {
  std::error_code error;
  const std::string full = std::filesystem::absolute(path, error).lexically_normal().string();
  if (error) return fail(Status::from_errno(error.value(), "absolute", path));
  return without_slash(full);
}
}  // namespace

Result<std::vector<MovedOwner>> move_directory(const std::string& from, const std::string& to,
                                               const MoveOptions& options) {
  TERRACE_ASSIGN_OR_RETURN(const std::string target, absolute(to));
  TERRACE_ASSIGN_OR_RETURN(const std::string source_path, absolute(from));
  TERRACE_ASSIGN_OR_RETURN(auto sources, disk::find_leftovers(source_path));
  std::erase_if(sources, [](const auto& one) { return !one.ends_with(disk::kLeaving); });
  if (sources.empty() || exists(source_path)) {
    TERRACE_ASSIGN_OR_RETURN(const auto owners, disk::find_owner_directories(source_path));
    sources.insert(sources.end(), owners.begin(), owners.end());
  }
  if (sources.empty()) {
    return fail(Code::kInvalid,
                fmt::format("{}: holds no terrace-NN, so there is nothing to move", from));
  }
  TERRACE_RETURN_IF_ERROR(make_target(target, sources.front()));
  for (const std::string& source : sources) TERRACE_RETURN_IF_ERROR(check_target(source, target));
  std::vector<MovedOwner> moved;
  moved.reserve(sources.size());
  for (const std::string& source : sources) {
    moved.push_back(OwnerMover(source, target, options).run());
  }
  return moved;
}

}  // namespace terrace::tier
