#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <numeric>
#include <string_view>

#include "terrace/tier/disk/owner_directory_internal.h"
#include "terrace/tier/disk/owner_files_internal.h"

namespace terrace::tier::disk {

namespace {
// The last to be removed: as long as extents.meta is there, an engine can open the directory.
constexpr std::array<std::string_view, 9> kFiles{
    "0.slots",  "writes.meta",       "extents.meta.tmp", "extents.meta", "moved-from.txt.tmp",
    kMovedFrom, "moving-to.txt.tmp", kMovingTo,          "owner.lock"};

bool is_namespace_name(std::string_view name) {
  return name.starts_with("ns-") && name.size() >= 7 && name.size() <= 13 &&
         std::ranges::all_of(name.substr(3), [](char c) { return c >= '0' && c <= '9'; });
}

bool is_owner_name(std::string_view name) {
  return name.size() == 10 && name.starts_with("terrace-") && name[8] >= '0' && name[8] <= '9' &&
         name[9] >= '0' && name[9] <= '9';
}

Result<std::vector<std::string>> names_in(int directory, const std::string& path) {
  // Its own position in the listing: a copy of the descriptor would share it.
  const int own = ::openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* const stream = own < 0 ? nullptr : ::fdopendir(own);
  if (stream == nullptr) {
    const int error = errno;
    if (own >= 0) ::close(own);
    return fail(Status::from_errno(error, "opendir", path));
  }
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(stream)) {  // NOLINT(concurrency-mt-unsafe): own stream
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  ::closedir(stream);
  std::ranges::sort(names);
  return names;
}

// True when it is there, a regular file, and now in `files`.
bool take(int folder, const std::string& name, const std::string& shown, OwnerFiles& all) {
  struct stat facts{};
  if (::fstatat(folder, name.c_str(), &facts, AT_SYMLINK_NOFOLLOW) != 0) return false;
  if (!S_ISREG(facts.st_mode)) return false;
  all.files.push_back({shown, static_cast<std::uint64_t>(facts.st_size),
                       static_cast<std::uint64_t>(facts.st_blocks) * 512});
  return true;
}

Status list_namespace(int directory, const std::string& name, const std::string& path,
                      OwnerFiles& all) {
  const auto folder = open_folder(directory, name, path);
  if (!folder) {
    if (folder.error().code() != Code::kInvalid) return folder.error();
    all.foreign.push_back(name);  // A link, or a file of that name.
    return {};
  }
  TERRACE_ASSIGN_OR_RETURN(const auto names, names_in(folder->get(), path + "/" + name));
  std::vector<std::string> taken;
  for (const std::string_view known : kNamespaceFiles) {
    const std::string file(known);
    if (take(folder->get(), file, fmt::format("{}/{}", name, file), all)) taken.push_back(file);
  }
  for (const std::string& other : names) {
    if (std::ranges::find(taken, other) == taken.end())
      all.foreign.push_back(fmt::format("{}/{}", name, other));
  }
  all.namespaces.push_back(name);
  return {};
}
}  // namespace

Result<std::vector<std::string>> find_owner_directories(const std::string& given) {
  std::string path = given;
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  TERRACE_ASSIGN_OR_RETURN(auto below, list_owner_directories(path));
  const std::string_view name = std::string_view(path).substr(path.rfind('/') + 1);
  if (below.empty() && is_owner_name(name)) return std::vector<std::string>{path};
  return below;
}

Result<std::vector<std::string>> find_leftovers(const std::string& given) {
  std::string path = given;
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  const auto slash = path.rfind('/');
  const std::string name = path.substr(slash + 1);
  struct stat facts{};
  if (is_owner_name(name)) {
    std::vector<std::string> own;
    if (::lstat((path + kLeaving).c_str(), &facts) == 0) own.push_back(path + kLeaving);
    if (!own.empty() || ::lstat(path.c_str(), &facts) != 0) return own;
  }
  TERRACE_ASSIGN_OR_RETURN(const UniqueFd folder, open_file(path, O_RDONLY | O_DIRECTORY));
  TERRACE_ASSIGN_OR_RETURN(const auto names, names_in(folder.get(), path));
  std::vector<std::string> found;
  for (const std::string& one : names) {
    const bool is_leaving = one.ends_with(kLeaving) &&
                            is_owner_name(std::string_view(one).substr(0, 10)) &&
                            one.size() == 10 + std::string_view(kLeaving).size();
    if (is_leaving || one.starts_with(kIncoming)) found.push_back(fmt::format("{}/{}", path, one));
  }
  return found;
}

std::uint64_t OwnerFiles::on_disk() const {
  return std::accumulate(
      files.begin(), files.end(), std::uint64_t{0},
      [](std::uint64_t sum, const OwnedFile& file) { return sum + file.on_disk; });
}

Result<OwnerFiles> list_owner_files(int directory, const std::string& path) {
  TERRACE_ASSIGN_OR_RETURN(const auto names, names_in(directory, path));
  OwnerFiles all;
  for (const std::string& name : names) {
    if (!is_namespace_name(name)) continue;
    TERRACE_RETURN_IF_ERROR(list_namespace(directory, name, path, all));
  }
  std::vector<std::string> taken;
  for (const std::string_view known : kFiles) {
    const std::string name(known);
    if (take(directory, name, name, all)) taken.push_back(name);
  }
  for (const std::string& name : names) {
    if (is_namespace_name(name) || std::ranges::find(taken, name) != taken.end()) continue;
    all.foreign.push_back(name);
  }
  all.has_extents = std::ranges::find(taken, "extents.meta") != taken.end();
  return all;
}

Result<UniqueFd> open_owner_directory(const std::string& path) {
  return open_folder(AT_FDCWD, path, "");
}

bool is_still_at(int folder, const std::string& path) {
  struct stat opened{};
  struct stat named{};
  return ::fstat(folder, &opened) == 0 && ::lstat(path.c_str(), &named) == 0 &&
         opened.st_ino == named.st_ino && opened.st_dev == named.st_dev;
}

Result<UniqueFd> open_folder(int directory, const std::string& name, const std::string& path) {
  const std::string shown = path.empty() ? name : path + "/" + name;
  UniqueFd fd(::openat(directory, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (fd.is_open()) return fd;
  if (errno == ELOOP || errno == ENOTDIR) {
    return fail(Code::kInvalid, shown + " is a link or no directory: it is left alone");
  }
  return fail(Status::from_errno(errno, "open", shown));
}

Result<Place> place_of(int directory, const std::string& name, const std::string& path) {
  const auto slash = name.find('/');
  if (slash == std::string::npos) {
    UniqueFd copy(::fcntl(directory, F_DUPFD_CLOEXEC, 0));
    if (!copy.is_open()) return fail(Status::from_errno(errno, "dup", path));
    return Place{std::move(copy), name};
  }
  TERRACE_ASSIGN_OR_RETURN(UniqueFd folder, open_folder(directory, name.substr(0, slash), path));
  return Place{std::move(folder), name.substr(slash + 1)};
}

Status remove_file(int directory, const std::string& name, const std::string& path) {
  TERRACE_ASSIGN_OR_RETURN(const Place place, place_of(directory, name, path));
  if (::unlinkat(place.folder.get(), place.name.c_str(), 0) == 0 || errno == ENOENT) return {};
  return Status::from_errno(errno, "unlink", path + "/" + name);
}

Status sync_folder(int directory, const std::string& path) {
  if (::fsync(directory) != 0) return Status::from_errno(errno, "fsync", path);
  return {};
}

}  // namespace terrace::tier::disk
