#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <utility>

#include "terrace/base/mutex.h"
#include "terrace/base/nap.h"
#include "terrace/base/sync_point.h"
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
  return try_lock_file(directory + "/owner.lock");
}

Result<std::optional<DirectoryLock>> DirectoryLock::try_lock_file(const std::string& path) {
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

namespace {
constexpr Nanoseconds kNap = milliseconds(20);

std::string adoption_file(const std::string& path) { return path + "/terrace-adopt.lock"; }
}  // namespace

Result<std::optional<AdoptionLock>> AdoptionLock::try_take(const std::string& file) {
  TERRACE_ASSIGN_OR_RETURN(auto lock, DirectoryLock::try_lock_file(file));
  // Who had it may have removed the file between our opening and our locking.
  if (!lock || id_of(file) != FileId{lock->id().device, lock->id().inode}) return std::nullopt;
  return std::optional<AdoptionLock>(AdoptionLock(file, *std::move(lock)));
}

Result<AdoptionLock> AdoptionLock::take(const std::string& path, Nanoseconds patience) {
  const std::string file = adoption_file(path);
  const SystemClock clock;
  const Nanoseconds end = clock.now() + patience;
  for (;;) {
    TERRACE_ASSIGN_OR_RETURN(auto taken, try_take(file));
    if (taken) return *std::move(taken);
    const Nanoseconds left = end - clock.now();
    if (left <= Nanoseconds(0)) break;
    TERRACE_SYNC_POINT("disk.adopt.waiting");
    nap(std::min(left, kNap));
  }
  return fail(Code::kUnavailable,
              fmt::format("{}: another engine that starts there has held it for {} ms", file,
                          patience.value() / milliseconds(1).value()));
}

void AdoptionLock::remove_left(const std::string& path) {
  const std::string file = adoption_file(path);
  if (id_of(file)) (void)try_take(file);
}

AdoptionLock::~AdoptionLock() {
  if (!lock_.holds()) return;
  // Before it is released: afterwards it may be the next one's.
  if (id_of(file_) == FileId{lock_.id().device, lock_.id().inode}) (void)::unlink(file_.c_str());
}

}  // namespace terrace::tier::disk
