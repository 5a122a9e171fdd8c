// One owner's directory `<path>/terrace-NN`: found, judged, locked, made.
// The lock is a POSIX record lock on owner.lock: the kernel frees it when this process ends,
// however it ends, and a forked child that lives on does not hold it (flock and OFD locks would
// stay). Such a lock is lost as soon as the process closes any descriptor of the file, and does not
// bar the same process; so each lock file is opened once, and a table of this process's locks
// stands beside it. Threading: functions are thread-safe, OwnerDirectory is thread-compatible.
// Waits: never (F_SETLK, not F_SETLKW), but for AdoptionLock::take.
// Source: fcntl(2), docs/formats/disk.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/file.h"
#include "terrace/base/status.h"
#include "terrace/tier/disk/namespace_facts_internal.h"

namespace terrace::tier::disk {

// Which file a lock is on.
struct LockId {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  bool operator==(const LockId&) const = default;
};
// The lock file of `directory` is that one. Waits as long as its file system does.
[[nodiscard]] bool is_lock_of(const std::string& directory, const LockId& id);

// A held lock; dropped = released.
class DirectoryLock {
 public:
  DirectoryLock() = default;
  DirectoryLock(DirectoryLock&& other) noexcept;
  DirectoryLock& operator=(DirectoryLock&& other) noexcept;
  ~DirectoryLock() { release(); }
  // Nothing when another owner, here or in another process, holds it.
  // Errors: kIo when owner.lock cannot be made or opened for writing.
  static Result<std::optional<DirectoryLock>> try_lock(const std::string& directory);
  // The same of a lock file that is no directory's.
  static Result<std::optional<DirectoryLock>> try_lock_file(const std::string& path);
  // Whether somebody holds it. Takes and releases nothing.
  static Result<bool> is_locked(const std::string& directory);
  [[nodiscard]] bool holds() const { return file_.is_open(); }
  [[nodiscard]] const LockId& id() const { return id_; }

 private:
  void release();
  UniqueFd file_;
  LockId id_;
};

// Held while an owner chooses its directory below one path: it locks each to judge it, and another
// one that came meanwhile would take what is only judged for taken. Its file, `terrace-adopt.lock`
// in the path, is there for that time alone. Dropped = released, the file removed.
class AdoptionLock {
 public:
  static constexpr Nanoseconds kPatience = seconds(5);
  // Waits, at most `patience`, for who has it. Errors: kUnavailable = it was held all the time, by
  // somebody who does not get on; others = it cannot be made here. Go on without it.
  static Result<AdoptionLock> take(const std::string& path, Nanoseconds patience);
  // Removes what a killed owner left, unless somebody holds it.
  static void remove_left(const std::string& path);
  AdoptionLock(AdoptionLock&&) noexcept = default;
  AdoptionLock& operator=(AdoptionLock&&) = delete;
  ~AdoptionLock();

 private:
  AdoptionLock(std::string file, DirectoryLock lock)
      : file_(std::move(file)), lock_(std::move(lock)) {}
  static Result<std::optional<AdoptionLock>> try_take(const std::string& file);
  std::string file_;
  DirectoryLock lock_;
};

enum class DirectoryState : std::uint8_t {
  kEmpty,  // Ours to initialise: nothing in it but a lock file.
  kUsable,
  kNewer,    // Of a newer format.
  kForeign,  // Holds what we did not write, or its header is missing or damaged.
};

struct DirectoryFacts {
  DirectoryState state = DirectoryState::kForeign;
  std::string reason;  // Why not, and what to do.
  std::uint64_t extent_bytes = 0;
  std::vector<NamespaceFacts> namespaces;
  // The one with most extents, should there be several (a text was damaged, and came back).
  [[nodiscard]] const NamespaceFacts* find(const std::string& content_digest,
                                           const std::string& layout_digest) const;
  // The newest, should there be several.
  [[nodiscard]] std::uint64_t generation_of(const std::string& content_digest,
                                            const std::string& layout_digest) const;
};
[[nodiscard]] DirectoryFacts judge(const std::string& directory);

// Makes the directories. Errors: kInvalid when two are one directory (a link, a second mount) or
// one lies in the other: names both. One that cannot be made or read is not judged here. Not seen:
// a mount of a folder inside another path, which only counts the disk twice.
[[nodiscard]] Status refuse_aliases(const std::vector<std::string>& paths);

// `terrace-00`, `terrace-01`, … below `path`, sorted.
[[nodiscard]] Result<std::vector<std::string>> list_owner_directories(const std::string& path);

// False when certainly no owner's directory lies below `path`.
[[nodiscard]] bool may_hold_owners(const std::string& path);

struct OwnerDirectory {
  std::string directory;
  DirectoryLock lock;
  DirectoryFacts facts;
};
struct Adoption {
  std::optional<OwnerDirectory> owner;
  std::vector<std::string> problems;  // Directories left alone, and why.
  // The newest of this namespace in any directory below the path, whoever holds it.
  std::uint64_t generation = 0;
  Status unguarded;  // Why another owner may have chosen at the same time; ok = none has.
};
// Locks the free directory with most extents of this namespace, else an empty one, else the free
// one used longest ago, else makes a new one. What is foreign, newer or damaged is left alone;
// while such a directory is free no new one is made beside it (a downgrade must not fill the disk
// twice). One owner after the other: waits, at most `patience`, for who chooses at `path` now.
// Errors: kIo when `path` cannot be made or read.
[[nodiscard]] Result<Adoption> adopt_owner_directory(
    const std::string& path, const std::string& content_digest, const std::string& layout_digest,
    Nanoseconds patience = AdoptionLock::kPatience);

}  // namespace terrace::tier::disk
