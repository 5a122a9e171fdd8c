#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>

#include "terrace/tier/disk/move_copy_internal.h"

namespace terrace::tier::disk {

namespace {
constexpr std::size_t kPiece = 1U << 20U;

// A whole piece, or up to the end of the file.
Result<std::size_t> read_piece(int file, std::span<std::byte> target, std::uint64_t offset,
                               const std::string& path) {
  std::size_t done = 0;
  while (done < target.size()) {
    const ssize_t got = ::pread(file, target.data() + done, target.size() - done,
                                static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(Status::from_errno(errno, "pread", path));
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return done;
}

Status write_piece(int file, std::span<const std::byte> bytes, std::uint64_t offset,
                   const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t put = ::pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return Status::from_errno(put < 0 ? errno : EIO, "pwrite", path);
    bytes = bytes.subspan(static_cast<std::size_t>(put));
    offset += static_cast<std::uint64_t>(put);
  }
  return {};
}

Result<UniqueFd> open_in(int folder, const std::string& name, int flags, const std::string& path) {
  TERRACE_ASSIGN_OR_RETURN(const Place place, place_of(folder, name, path));
  UniqueFd file(::openat(place.folder.get(), place.name.c_str(),
                         flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600));
  struct stat facts{};
  if (!file.is_open() || ::fstat(file.get(), &facts) != 0) {
    return fail(Status::from_errno(errno, "open", path + "/" + name));
  }
  if (!S_ISREG(facts.st_mode)) return fail(Code::kInvalid, path + "/" + name + " is no file");
  return file;
}

// Who used it can use the copy: of meaning when root moves.
void give_to_owner(int source, int target) {
  struct stat facts{};
  if (::fstat(source, &facts) != 0) return;
  (void)!::fchown(target, facts.st_uid, facts.st_gid);
  (void)::fchmod(target, facts.st_mode & 0777U);
}
}  // namespace

FolderCopy::FolderCopy(Side source, Side target, const OwnerFiles& files,
                       const std::function<void(const MoveProgress&)>& progress)
    : source_(std::move(source)),
      target_(std::move(target)),
      files_(files),
      progress_(progress),
      piece_(kPiece),
      other_(kPiece) {
  for (const OwnedFile& file : files_.files) {
    if (is_copied(file.name)) total_ += file.size;
  }
}

bool FolderCopy::is_copied(const std::string& name) const {
  return !name.starts_with(kMovedFrom) && !name.starts_with(kMovingTo) && !name.ends_with(".tmp");
}

Status FolderCopy::run() {
  TERRACE_RETURN_IF_ERROR(remove_others());
  TERRACE_RETURN_IF_ERROR(check_room());
  TERRACE_RETURN_IF_ERROR(make_folders());
  done_ = 0;
  for (const OwnedFile& file : files_.files) {
    if (is_copied(file.name)) TERRACE_RETURN_IF_ERROR(copy_file(file));
  }
  for (const std::string& name : files_.namespaces) {
    TERRACE_ASSIGN_OR_RETURN(const UniqueFd folder,
                             open_folder(target_.folder, name, target_.path));
    TERRACE_RETURN_IF_ERROR(sync_folder(folder.get(), target_.path + "/" + name));
  }
  return sync_folder(target_.folder, target_.path);
}

// Of an earlier try, before the source changed.
Status FolderCopy::remove_others() const {
  TERRACE_ASSIGN_OR_RETURN(const OwnerFiles there, list_owner_files(target_.folder, target_.path));
  if (!there.foreign.empty()) {
    return {Code::kInvalid, fmt::format("{}/{} is not Terrace's: take it away, then try again",
                                        target_.path, there.foreign.front())};
  }
  for (const OwnedFile& file : there.files) {
    const bool is_wanted =
        file.name == kMovedFrom || std::ranges::any_of(files_.files, [&](const OwnedFile& other) {
          return other.name == file.name && is_copied(file.name);
        });
    if (!is_wanted) {
      TERRACE_RETURN_IF_ERROR(remove_file(target_.folder, file.name, target_.path));
    }
  }
  for (const std::string& name : there.namespaces) {
    if (std::ranges::find(files_.namespaces, name) == files_.namespaces.end()) {
      (void)::unlinkat(target_.folder, name.c_str(), AT_REMOVEDIR);
    }
  }
  return {};
}

Status FolderCopy::check_room() const {
  struct statvfs facts{};
  if (::fstatvfs(target_.folder, &facts) != 0) {
    return Status::from_errno(errno, "statvfs", target_.path);
  }
  TERRACE_ASSIGN_OR_RETURN(const OwnerFiles there, list_owner_files(target_.folder, target_.path));
  const std::uint64_t room = facts.f_bavail * facts.f_frsize + there.on_disk();
  if (room >= total_) return {};
  return {Code::kExhausted,
          fmt::format("{}: {} MiB are needed, {} MiB are free there: free space, or choose another "
                      "path; nothing was moved",
                      target_.path, (total_ >> 20U) + 1, room >> 20U)};
}

Status FolderCopy::make_folders() const {
  for (const std::string& name : files_.namespaces) {
    if (::mkdirat(target_.folder, name.c_str(), 0700) != 0 && errno != EEXIST) {
      return Status::from_errno(errno, "mkdir", target_.path + "/" + name);
    }
    TERRACE_ASSIGN_OR_RETURN(const UniqueFd from, open_folder(source_.folder, name, source_.path));
    TERRACE_ASSIGN_OR_RETURN(const UniqueFd to, open_folder(target_.folder, name, target_.path));
    give_to_owner(from.get(), to.get());
  }
  give_to_owner(source_.folder, target_.folder);
  return {};
}

Status FolderCopy::copy_file(const OwnedFile& file) {
  const std::string to = target_.path + "/" + file.name;
  if (file.name == "owner.lock") return give_lock();
  TERRACE_ASSIGN_OR_RETURN(const UniqueFd source,
                           open_in(source_.folder, file.name, O_RDONLY, source_.path));
  TERRACE_ASSIGN_OR_RETURN(const UniqueFd target,
                           open_in(target_.folder, file.name, O_RDWR | O_CREAT, target_.path));
  give_to_owner(source.get(), target.get());
  if (::ftruncate(target.get(), static_cast<off_t>(file.size)) != 0) {
    return Status::from_errno(errno, "ftruncate", to);
  }
  // The length of a slot file says how much of it has blocks; so it must have them.
  const bool is_reserved =
      file.size == 0 || ::fallocate(target.get(), 0, 0, static_cast<off_t>(file.size)) == 0;
  if (!is_reserved && errno != EOPNOTSUPP) return Status::from_errno(errno, "fallocate", to);
  if (!is_reserved && ::ftruncate(target.get(), 0) != 0) {  // All of it is written then.
    return Status::from_errno(errno, "ftruncate", to);
  }
  TERRACE_RETURN_IF_ERROR(each_piece(file, source.get(), target.get(), true));
  if (::fsync(target.get()) != 0) return Status::from_errno(errno, "fsync", to);
  return {};
}

// Opens neither side's: closing it would free the lock (fcntl's way). The mover holds both.
Status FolderCopy::give_lock() const {
  struct stat facts{};
  if (::fstatat(source_.folder, "owner.lock", &facts, AT_SYMLINK_NOFOLLOW) == 0) {
    (void)!::fchownat(target_.folder, "owner.lock", facts.st_uid, facts.st_gid,
                      AT_SYMLINK_NOFOLLOW);
  }
  return {};
}

Status FolderCopy::each_piece(const OwnedFile& file, int source, int target, bool is_copying) {
  const std::string from = source_.path + "/" + file.name;
  const std::string to = target_.path + "/" + file.name;
  for (std::uint64_t offset = 0; offset < file.size; offset += kPiece) {
    const std::size_t bytes = std::min<std::uint64_t>(kPiece, file.size - offset);
    const auto piece = std::span(piece_).first(bytes);
    TERRACE_ASSIGN_OR_RETURN(const std::size_t got, read_piece(source, piece, offset, from));
    if (got < bytes) return {Code::kCorrupt, from + " became shorter meanwhile"};
    TERRACE_ASSIGN_OR_RETURN(const std::size_t there,
                             read_piece(target, std::span(other_).first(bytes), offset, to));
    const bool is_equal = there == bytes && std::memcmp(piece_.data(), other_.data(), bytes) == 0;
    if (!is_equal && !is_copying) {
      return {Code::kCorrupt,
              fmt::format("{} at {}: the copy differs from what it was made of; the medium there "
                          "may be bad. Nothing was moved",
                          to, offset)};
    }
    if (!is_equal) TERRACE_RETURN_IF_ERROR(write_piece(target, piece, offset, to));
    done_ += bytes;
    if (progress_) progress_({is_copying ? "copy" : "compare", file.name, done_, total_});
  }
  return {};
}

Status FolderCopy::compare() {
  done_ = 0;
  for (const OwnedFile& file : files_.files) {
    if (!is_copied(file.name) || file.name == "owner.lock") continue;
    TERRACE_ASSIGN_OR_RETURN(const UniqueFd source,
                             open_in(source_.folder, file.name, O_RDONLY, source_.path));
    TERRACE_ASSIGN_OR_RETURN(const UniqueFd target,
                             open_in(target_.folder, file.name, O_RDONLY, target_.path));
    // What was synced and dropped from the page cache comes from the medium.
    (void)::posix_fadvise(target.get(), 0, 0, POSIX_FADV_DONTNEED);
    struct stat facts{};
    if (::fstat(target.get(), &facts) != 0 ||
        static_cast<std::uint64_t>(facts.st_size) != file.size) {
      return {Code::kCorrupt, target_.path + "/" + file.name + ": the copy has another length"};
    }
    TERRACE_RETURN_IF_ERROR(each_piece(file, source.get(), target.get(), false));
  }
  return {};
}

}  // namespace terrace::tier::disk
