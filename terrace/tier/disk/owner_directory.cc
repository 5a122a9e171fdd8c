#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <map>
#include <utility>

#include "terrace/base/sync_point.h"
#include "terrace/tier/disk/extent_table_internal.h"
#include "terrace/tier/disk/format_internal.h"
#include "terrace/tier/disk/owner_directory_internal.h"

namespace terrace::tier::disk {

namespace {
constexpr int kMostOwners = 100;  // terrace-00 … terrace-99 below one path.

Result<std::vector<std::string>> list(const std::string& path) {
  DIR* const stream = ::opendir(path.c_str());
  if (stream == nullptr) return fail(Status::from_errno(errno, "opendir", path));
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(stream)) {  // NOLINT(concurrency-mt-unsafe): own stream
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  ::closedir(stream);
  std::sort(names.begin(), names.end());
  return names;
}

bool is_ours_in_the_making(const std::string& name) {
  return name == "owner.lock" || name == "extents.meta.tmp";
}

std::optional<std::uint32_t> number_of(std::string_view name) {
  if (!name.starts_with("ns-")) return std::nullopt;
  name.remove_prefix(3);
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (error != std::errc() || end != name.data() + name.size() || number == 0) return std::nullopt;
  return number;
}

using FileId = std::pair<std::uint64_t, std::uint64_t>;  // Device, inode.

std::optional<FileId> id_of(const std::string& path) {
  struct stat facts{};
  if (::stat(path.c_str(), &facts) != 0) return std::nullopt;
  return FileId{facts.st_dev, facts.st_ino};
}

struct RealPath {
  std::string given;
  FileId id;
  std::vector<FileId> above;  // The directories that it lies in.
};

std::optional<RealPath> resolve(const std::string& path) {
  std::error_code error;
  std::filesystem::path real = std::filesystem::canonical(path, error);
  const auto id = id_of(path);
  if (error || !id) return std::nullopt;
  RealPath resolved{path, *id, {}};
  while (real.has_relative_path()) {
    real = real.parent_path();
    if (const auto above = id_of(real.string())) resolved.above.push_back(*above);
  }
  return resolved;
}

bool is_better(const OwnerDirectory& a, const OwnerDirectory& b, const std::string& content,
               const std::string& layout) {
  const auto ours = [&](const OwnerDirectory& owner) {
    const NamespaceFacts* found = owner.facts.find(content, layout);
    return found == nullptr ? 0 : found->extents;
  };
  if (ours(a) != ours(b)) return ours(a) > ours(b);
  const auto last_used = [](const OwnerDirectory& owner) {
    std::int64_t last = 0;  // An empty one was never used: it goes first.
    for (const NamespaceFacts& facts : owner.facts.namespaces) {
      if (facts.extents > 0) last = std::max(last, std::max<std::int64_t>(facts.used_seconds, 1));
    }
    return last;
  };
  return last_used(a) < last_used(b);
}
}  // namespace

const NamespaceFacts* DirectoryFacts::find(const std::string& content_digest,
                                           const std::string& layout_digest) const {
  const NamespaceFacts* best = nullptr;
  for (const NamespaceFacts& facts : namespaces) {
    if (facts.content_digest != content_digest || facts.layout_digest != layout_digest) continue;
    if (best == nullptr || facts.extents > best->extents) best = &facts;
  }
  return best;
}

std::uint64_t DirectoryFacts::generation_of(const std::string& content_digest,
                                            const std::string& layout_digest) const {
  std::uint64_t newest = 0;
  for (const NamespaceFacts& facts : namespaces) {
    if (facts.content_digest != content_digest || facts.layout_digest != layout_digest) continue;
    newest = std::max(newest, facts.generation);
  }
  return newest;
}

DirectoryFacts judge(const std::string& directory) {
  DirectoryFacts facts;
  const auto refuse = [&](DirectoryState state, const std::string& why) {
    facts.state = state;
    facts.reason = fmt::format(
        "{}: {}; it is left alone: delete it, or name another directory in "
        "disk.paths",
        directory, why);
    return facts;
  };
  const auto names = list(directory);
  if (!names) return refuse(DirectoryState::kForeign, names.error().message());
  const bool has_header = std::binary_search(names->begin(), names->end(), "extents.meta");
  if (!has_header) {
    if (std::all_of(names->begin(), names->end(), is_ours_in_the_making)) {
      facts.state = DirectoryState::kEmpty;
      return facts;
    }
    return refuse(DirectoryState::kForeign, "holds files but no extents.meta, so it is not ours");
  }
  auto table = ExtentTable::read(directory + "/extents.meta");
  if (!table) {
    const bool is_newer = table.error().code() == Code::kRefused;
    return refuse(is_newer ? DirectoryState::kNewer : DirectoryState::kForeign,
                  table.error().message());
  }
  facts.state = DirectoryState::kUsable;
  facts.extent_bytes = table->extent_bytes();
  const auto extents = table->extents_by_namespace();
  for (const std::string& name : *names) {
    const auto number = number_of(name);
    if (!number) continue;
    facts.namespaces.push_back(read_namespace(directory, name, *number, *table));
    const auto found = extents.find(*number);
    facts.namespaces.back().extents = found == extents.end() ? 0 : found->second;
  }
  return facts;
}

Status refuse_aliases(const std::vector<std::string>& paths) {
  std::vector<RealPath> known;
  for (const std::string& path : paths) {
    if (!make_directories(path).is_ok()) continue;
    const auto next = resolve(path);
    if (!next) continue;
    for (const RealPath& other : known) {
      if (other.id == next->id) {
        return {Code::kInvalid, fmt::format("disk.paths: {} and {} are the same directory; name it "
                                            "once",
                                            other.given, path)};
      }
      const bool is_inner = std::ranges::find(next->above, other.id) != next->above.end();
      if (is_inner || std::ranges::find(other.above, next->id) != other.above.end()) {
        return {Code::kInvalid,
                fmt::format("disk.paths: {} lies inside {}; name one of them, or another directory",
                            is_inner ? path : other.given, is_inner ? other.given : path)};
      }
    }
    known.push_back(*next);
  }
  return {};
}

Result<std::vector<std::string>> list_owner_directories(const std::string& path) {
  TERRACE_ASSIGN_OR_RETURN(const auto names, list(path));
  std::vector<std::string> owners;
  for (const std::string& name : names) {
    const bool has_number = name.size() == 10 && name.starts_with("terrace-") && name[8] >= '0' &&
                            name[8] <= '9' && name[9] >= '0' && name[9] <= '9';
    if (has_number) owners.push_back(fmt::format("{}/{}", path, name));
  }
  return owners;
}

bool may_hold_owners(const std::string& path) {
  if (const auto owners = list_owner_directories(path)) return !owners->empty();
  struct stat facts{};
  if (::stat(path.c_str(), &facts) == 0) return S_ISDIR(facts.st_mode);
  return errno != ENOENT && errno != ENOTDIR;
}

namespace {
// Makes and locks the first free number. Two owners may race for one, on two machines or where
// AdoptionLock was not to be had: the loser takes the next.
Result<OwnerDirectory> make_owner_directory(const std::string& path) {
  for (int number = 0; number < kMostOwners; ++number) {
    OwnerDirectory owner;
    owner.directory = fmt::format("{}/terrace-{:02}", path, number);
    if (::mkdir(owner.directory.c_str(), 0700) != 0) {
      if (errno == EEXIST) continue;
      return fail(Status::from_errno(errno, "mkdir", owner.directory));
    }
    TERRACE_ASSIGN_OR_RETURN(auto lock, DirectoryLock::try_lock(owner.directory));
    if (!lock) continue;
    owner.lock = *std::move(lock);
    owner.facts = judge(owner.directory);
    if (owner.facts.state != DirectoryState::kEmpty) continue;  // Another owner was here meanwhile.
    return owner;
  }
  return fail(Code::kExhausted,
              fmt::format("{}: all {} owner directories are in use", path, kMostOwners));
}
}  // namespace

namespace {
enum class Trust : std::uint8_t { kOurs, kAnothers, kOpen };

// Whoever can write in a directory can plant blocks there: checksums are no signatures. `path` may
// be shared by users; its owner is trusted, because a file server may map this user to another one.
// So is the directory's group: Kubernetes gives it every file of a volume (fsGroup).
Trust trust_in(const std::string& directory, const std::string& path) {
  struct stat facts{};
  struct stat above{};
  if (::lstat(directory.c_str(), &facts) != 0 || ::stat(path.c_str(), &above) != 0) {
    return Trust::kOurs;  // Judged by who reads it.
  }
  const bool is_trusted =
      facts.st_uid == ::geteuid() || facts.st_uid == above.st_uid || facts.st_uid == 0;
  if (!is_trusted) return Trust::kAnothers;
  const bool is_open = S_ISDIR(facts.st_mode) && (facts.st_mode & S_IWOTH) != 0;
  return is_open || S_ISLNK(facts.st_mode) ? Trust::kOpen : Trust::kOurs;
}

Result<Adoption> choose(const std::string& path, const std::string& content_digest,
                        const std::string& layout_digest) {
  Adoption adoption;
  TERRACE_ASSIGN_OR_RETURN(const auto directories, list_owner_directories(path));
  for (const std::string& directory : directories) {
    const Trust trust = trust_in(directory, path);
    if (trust == Trust::kAnothers) continue;  // Another user's cache, beside ours.
    if (trust == Trust::kOpen) {
      adoption.problems.push_back(fmt::format(
          "{}: others may write there, or it is a symbolic link; it is left alone: chmod "
          "go-w, or name the directory itself in disk.paths",
          directory));
      continue;
    }
    // A directory that is not ours gets not even a lock file.
    const DirectoryFacts facts = judge(directory);
    adoption.generation =
        std::max(adoption.generation, facts.generation_of(content_digest, layout_digest));
    if (facts.state != DirectoryState::kEmpty && facts.state != DirectoryState::kUsable) {
      const auto is_locked = DirectoryLock::is_locked(directory);
      if (!is_locked || !*is_locked) adoption.problems.push_back(facts.reason);
      continue;
    }
    auto lock = DirectoryLock::try_lock(directory);
    if (!lock) {
      adoption.problems.push_back(
          fmt::format("{}; it is left alone: make it writable, or name another directory in "
                      "disk.paths",
                      lock.error().message()));
      continue;
    }
    if (!*lock) continue;  // Somebody else's.
    TERRACE_SYNC_POINT("disk.adopt.locked");
    OwnerDirectory owner{directory, *std::move(*lock),
                         judge(directory)};  // Again, now it holds still.
    if (owner.facts.state != DirectoryState::kEmpty &&
        owner.facts.state != DirectoryState::kUsable) {
      adoption.problems.push_back(owner.facts.reason);
    } else if (!adoption.owner ||
               is_better(owner, *adoption.owner, content_digest, layout_digest)) {
      adoption.owner = std::move(owner);
    }
  }
  if (!adoption.owner && adoption.problems.empty()) {
    TERRACE_ASSIGN_OR_RETURN(adoption.owner, make_owner_directory(path));
  }
  return adoption;
}
}  // namespace

Result<Adoption> adopt_owner_directory(const std::string& path, const std::string& content_digest,
                                       const std::string& layout_digest, Nanoseconds patience) {
  TERRACE_RETURN_IF_ERROR(make_directories(path));
  Status unguarded;
  {
    const auto alone = AdoptionLock::take(path, patience);
    if (alone) {
      auto adoption = choose(path, content_digest, layout_digest);
      if (adoption && adoption->owner) return adoption;
    } else {
      unguarded = alone.error();
    }
  }
  // Without that lock: where a file system has no inodes left, its file was one too many.
  auto adoption = choose(path, content_digest, layout_digest);
  if (adoption) adoption->unguarded = std::move(unguarded);
  return adoption;
}

}  // namespace terrace::tier::disk
