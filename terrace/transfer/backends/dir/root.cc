#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <memory>

#include "terrace/transfer/backends/dir/names_internal.h"
#include "terrace/transfer/backends/dir/root_internal.h"

namespace terrace::transfer::dir {

namespace {
constexpr std::string_view kTitle = "terrace object directory\nformat ";
constexpr std::string_view kVersion = "1";

struct CloseFolder {
  void operator()(DIR* folder) const { ::closedir(folder); }
};

Status refused(std::string message) {
  return {Code::kRefused, std::move(message), Scope::kBackend};
}
}  // namespace

int each_entry(UniqueFd folder, const std::function<bool(const char*)>& on_entry) {
  const std::unique_ptr<DIR, CloseFolder> entries(::fdopendir(folder.get()));
  if (entries == nullptr) return errno;
  (void)folder.release();
  for (;;) {
    errno = 0;
    const dirent* const entry = ::readdir(entries.get());
    if (entry == nullptr) return errno;
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    if (!on_entry(entry->d_name)) return 0;
  }
}

Result<UniqueFd> Root::open(Identity& identity) const {
  UniqueFd root(making_.calls->open_root(path_.c_str()));
  struct stat facts{};
  if (!root.is_open() || making_.calls->facts_of(root.get(), &facts) != 0) {
    Status status = failure(errno, "open", path_);
    if (status.code() == Code::kNotFound) {
      status = {Code::kUnavailable, status.message() + "; mount it, or make that folder"};
    }
    const Code code = status.code() == Code::kCorrupt ? Code::kRefused : status.code();
    return fail(code, status.message(), Scope::kBackend);
  }
  identity = {facts.st_dev, facts.st_ino};
  return root;
}

Result<UniqueFd> Root::enter() {
  Identity identity;
  TERRACE_ASSIGN_OR_RETURN(UniqueFd root, open(identity));
  {
    const MutexLock lock(mutex_);
    if (identity == known_) return root;
  }
  // Another file system, or none: then this is the folder that it was mounted on.
  TERRACE_ASSIGN_OR_RETURN(const bool is_marked, has_marker(root.get()));
  if (!is_marked) {
    return fail(
        Code::kUnavailable,
        fmt::format("open {}: there is no {} in it any more; is it mounted?", path_, kMarkerName),
        Scope::kBackend);
  }
  const MutexLock lock(mutex_);
  known_ = identity;
  return root;
}

// False = there is none.
Result<bool> Root::has_marker(int root) const {
  const std::string path = fmt::format("{}/{}", path_, kMarkerName);
  const std::string name(kMarkerName);
  const UniqueFd file(
      making_.calls->open_below(root, name.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY, 0));
  struct stat facts{};
  if (!file.is_open() || making_.calls->facts_of(file.get(), &facts) != 0) {
    if (errno == ENOENT) return false;
    return fail(failure(errno, "open", path));
  }
  std::array<char, 256> text{};
  const iovec piece{text.data(), text.size()};
  const ssize_t got = S_ISREG(facts.st_mode) ? making_.calls->read_at(file.get(), &piece, 1, 0) : 0;
  if (got < 0) return fail(failure(errno, "read", path));
  std::string_view content(text.data(), static_cast<std::size_t>(got));
  if (S_ISREG(facts.st_mode) && content.empty()) return false;  // A claim, see publish.cc.
  if (!content.starts_with(kTitle)) {
    return fail(
        refused(fmt::format("{}: not the marker of an object directory; choose another "
                            "folder, or remove the file",
                            path)));
  }
  content.remove_prefix(kTitle.size());
  content = content.substr(0, content.find('\n'));
  if (content == kVersion) return true;
  return fail(
      refused(fmt::format("{}: format {}, and this version of Terrace knows {} alone; "
                          "choose another folder",
                          path, content, kVersion)));
}

Status Root::keep_marker(int root) const {
  TERRACE_ASSIGN_OR_RETURN(const bool is_marked, has_marker(root));
  return is_marked ? Status() : initialise(root);
}

Status Root::initialise(int root) const {
  const UniqueFd folder(making_.calls->open_below(root, ".", O_RDONLY | O_DIRECTORY, 0));
  if (!folder.is_open()) return failure(errno, "open", path_);
  auto created = Unfinished::create(making_, folder.get(), path_);
  if (!created) return away(created.error());
  Unfinished& file = *created;
  std::string text = fmt::format("{}{}\n", kTitle, kVersion);
  const iovec piece{text.data(), text.size()};
  const ssize_t put = making_.calls->write_at(file.file(), &piece, 1, 0);
  if (put != static_cast<ssize_t>(text.size())) {
    return failure(put < 0 ? errno : ENOSPC, "write", file.path_of(file.name()));
  }
  if (making_.calls->sync_data(file.file()) != 0) {
    return failure(errno, "fdatasync", file.path_of(file.name()));
  }
  TERRACE_ASSIGN_OR_RETURN([[maybe_unused]] const bool is_ours,
                           file.publish(std::string(kMarkerName)));
  file.remove();
  if (making_.calls->sync_folder(folder.get()) != 0) return failure(errno, "fsync", path_);
  return {};
}

Status Root::prepare() {
  Identity identity;
  TERRACE_ASSIGN_OR_RETURN(const UniqueFd root, open(identity));
  TERRACE_ASSIGN_OR_RETURN(bool is_marked, has_marker(root.get()));
  if (!is_marked) {
    UniqueFd folder(making_.calls->open_below(root.get(), ".", O_RDONLY | O_DIRECTORY, 0));
    if (!folder.is_open()) return failure(errno, "open", path_);
    std::string foreign;
    const int error = each_entry(std::move(folder), [&](const char* entry) {
      const std::string_view name = entry;
      // What file systems make themselves, and what others are about to make of this folder: a
      // marker that counts for none is a claim.
      const bool is_known =
          name == "lost+found" || name == ".snapshot" || name == kMarkerName || is_leftover(name);
      if (!is_known) foreign = name;
      return is_known;
    });
    if (error != 0) return failure(error, "read folder", path_);
    // Another node may have made it a root, and put objects, since the first look.
    if (!foreign.empty()) {
      TERRACE_ASSIGN_OR_RETURN(is_marked, has_marker(root.get()));
      if (!is_marked) {
        return refused(
            fmt::format("{}: not an object directory, and not empty: it has '{}'; choose "
                        "an empty folder",
                        path_, foreign));
      }
    }
  }
  if (!is_marked && !may_begin_) {
    return refused(
        fmt::format("{}: empty, without {}: no engine has put anything there, or it is "
                    "not mounted; mount it, or name another folder",
                    path_, kMarkerName));
  }
  if (!is_marked) {
    TERRACE_RETURN_IF_ERROR(initialise(root.get()));
    TERRACE_ASSIGN_OR_RETURN(is_marked, has_marker(root.get()));
    if (!is_marked) return {Code::kUnavailable, path_ + ": its marker went at once"};
  }
  const MutexLock lock(mutex_);
  known_ = identity;
  return {};
}

}  // namespace terrace::transfer::dir
