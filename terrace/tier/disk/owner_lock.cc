#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <set>
#include <utility>

#include "terrace/base/mutex.h"
#include "terrace/tier/disk/owner_directory_internal.h"

namespace terrace::tier::disk {

namespace {
using FileId = std::pair<std::uint64_t, std::uint64_t>;  // Device, inode.

// A fact about the process, like the lock itself, so it cannot belong to an object.
struct HeldLocks {
  Mutex mutex;
  std::set<FileId> files TERRACE_GUARDED_BY(mutex);
};
HeldLocks& held_locks() {
  static auto* const locks = new HeldLocks;  // Never destroyed: threads may outlive main.
  return *locks;
}

bool is_held_here(const FileId& file) {
  HeldLocks& locks = held_locks();
  const MutexLock lock(locks.mutex);
  return locks.files.contains(file);
}

std::optional<FileId> id_of(const std::string& path) {
  struct stat facts{};
  if (::stat(path.c_str(), &facts) != 0) return std::nullopt;
  return FileId{facts.st_dev, facts.st_ino};
}

struct flock whole_file(short type) {
  struct flock lock{};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  return lock;
}
}  // namespace

DirectoryLock::DirectoryLock(DirectoryLock&& other) noexcept
    : file_(std::move(other.file_)), id_(other.id_) {}

DirectoryLock& DirectoryLock::operator=(DirectoryLock&& other) noexcept {
  if (this != &other) {
    release();
    file_ = std::move(other.file_);
    id_ = other.id_;
  }
  return *this;
}

Result<std::optional<DirectoryLock>> DirectoryLock::try_lock(const std::string& directory) {
  const std::string path = directory + "/owner.lock";
  HeldLocks& locks = held_locks();
  // Under the table's lock from the look to the entry: opening and closing the file of a lock that
  // this process holds would free it.
  const MutexLock guard(locks.mutex);
  if (const auto id = id_of(path); id && locks.files.contains(*id)) return std::nullopt;
  TERRACE_ASSIGN_OR_RETURN(UniqueFd file, open_regular_file(path, O_RDWR | O_CREAT | O_NOFOLLOW));
  struct stat facts{};
  if (::fstat(file.get(), &facts) != 0) return fail(Status::from_errno(errno, "fstat", path));
  const FileId id{facts.st_dev, facts.st_ino};
  if (locks.files.contains(id)) {
    // It appeared between the two looks: keep it open for ever rather than free the other's lock.
    (void)file.release();
    return std::nullopt;
  }
  struct flock lock = whole_file(F_WRLCK);
  if (::fcntl(file.get(), F_SETLK, &lock) != 0) {
    if (errno == EAGAIN || errno == EACCES) return std::nullopt;
    return fail(Status::from_errno(errno, "fcntl F_SETLK", path));
  }
  locks.files.insert(id);
  DirectoryLock held;
  held.file_ = std::move(file);
  held.id_ = {id.first, id.second};
  return std::optional<DirectoryLock>(std::move(held));
}

Result<bool> DirectoryLock::is_locked(const std::string& directory) {
  const std::string path = directory + "/owner.lock";
  const auto id = id_of(path);
  if (!id) return false;
  if (is_held_here(*id)) return true;
  TERRACE_ASSIGN_OR_RETURN(const UniqueFd file, open_regular_file(path, O_RDONLY | O_NOFOLLOW));
  struct flock lock = whole_file(F_WRLCK);
  if (::fcntl(file.get(), F_GETLK, &lock) != 0) {
    return fail(Status::from_errno(errno, "fcntl F_GETLK", path));
  }
  return lock.l_type != F_UNLCK;
}

bool is_lock_of(const std::string& directory, const LockId& id) {
  return id_of(directory + "/owner.lock") == FileId{id.device, id.inode};
}

void DirectoryLock::release() {
  if (!file_.is_open()) return;
  HeldLocks& locks = held_locks();
  const MutexLock guard(locks.mutex);
  locks.files.erase({id_.device, id_.inode});
  file_.reset(-1);
}

}  // namespace terrace::tier::disk
