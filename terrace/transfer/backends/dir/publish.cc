#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "terrace/base/nap.h"
#include "terrace/base/rng.h"
#include "terrace/base/sync_point.h"
#include "terrace/transfer/backends/dir/names_internal.h"
#include "terrace/transfer/backends/dir/publish_internal.h"

namespace terrace::transfer::dir {

namespace {
constexpr int kMostRounds = 8;  // Of a name that others put and remove all the time.
constexpr Nanoseconds kRivalLook = milliseconds(2);

template <std::size_t N>
bool is_among(int error, const std::array<int, N>& errors) {
  return std::find(errors.begin(), errors.end(), error) != errors.end();
}

Code code_of(int error) {
  static constexpr std::array kFull = {ENOSPC, EDQUOT, EFBIG};
  static constexpr std::array kForbidden = {EACCES, EPERM, EROFS};
  static constexpr std::array kForeign = {ELOOP, ENOTDIR, EXDEV, ENXIO, EISDIR, ENODEV};
  static constexpr std::array kAway = {
      ESTALE,   ETIMEDOUT, EHOSTDOWN, EHOSTUNREACH, ENETDOWN,   ENETUNREACH,
      ENOTCONN, ESHUTDOWN, EAGAIN,    ECONNREFUSED, ECONNRESET, ECONNABORTED,
      EBUSY,    EINTR,     EMFILE,    ENFILE,       ENOMEM};
  if (error == ENOENT) return Code::kNotFound;
  if (is_among(error, kFull)) return Code::kExhausted;
  if (is_among(error, kForbidden)) return Code::kRefused;
  if (is_among(error, kForeign)) return Code::kCorrupt;
  return is_among(error, kAway) ? Code::kUnavailable : Code::kIo;
}

// The file system, or the server behind it, has no such call, or not for this file.
bool is_unsupported(int error) {
  static constexpr std::array kErrors = {EPERM, EOPNOTSUPP, EMLINK, ENOSYS, EINVAL, ENOTTY};
  return is_among(error, kErrors);
}
}  // namespace

Status failure(int error, std::string_view operation, const std::string& path) {
  const Status status = Status::from_errno(error, operation, path);
  return {code_of(error), status.message(), status.scope()};
}

Status away(Status status) {
  if (status.code() != Code::kNotFound) return status;
  return {Code::kUnavailable, status.message(), status.scope()};
}

Status no_object(const struct stat& facts, const std::string& path) {
  const std::string_view kind = S_ISLNK(facts.st_mode)   ? "a symbolic link"
                                : S_ISDIR(facts.st_mode) ? "a folder"
                                                         : "a pipe, a socket or a device";
  return {Code::kCorrupt, fmt::format("{}: it is {}, not an object; remove it", path, kind)};
}

Result<Unfinished> Unfinished::create(const Making& making, int folder, std::string folder_path,
                                      int flags) {
  Unfinished made(making, folder, std::move(folder_path));
  const std::string name = leftover_name(making.host, ::getpid(), random_u64());
  const int all = O_WRONLY | O_CREAT | O_EXCL | flags;
  int file = making.calls->open_below(folder, name.c_str(), all, making.file_mode());
  if (file < 0 && errno == EINVAL && flags != 0) {  // No O_DIRECT here; the file may be there.
    (void)making.calls->remove(folder, name.c_str());
    file = making.calls->open_below(folder, name.c_str(), all & ~flags, making.file_mode());
  }
  if (file < 0) return fail(failure(errno, "create", made.path_of(name)));
  made.file_ = UniqueFd(file);
  made.name_ = name;
  if (making.is_group_shared && making.calls->set_mode(file, making.file_mode()) != 0) {
    return fail(failure(errno, "fchmod", made.path_of(name)));
  }
  return made;
}

Unfinished::Unfinished(Unfinished&& other) noexcept
    : making_(other.making_),
      folder_(other.folder_),
      folder_path_(std::move(other.folder_path_)),
      name_(std::exchange(other.name_, {})),
      file_(std::move(other.file_)),
      rival_seconds_(other.rival_seconds_) {}

Unfinished::~Unfinished() { remove(); }

void Unfinished::remove() {
  if (!name_.empty()) (void)making_->calls->remove(folder_, name_.c_str());
  name_.clear();
}

std::string Unfinished::path_of(std::string_view name) const {
  return fmt::format("{}/{}", folder_path_, name);
}

// Asked of the file itself: over NFS the reply to a call that did its work may be lost, and what is
// sent again then fails with EEXIST or ENOENT.
bool Unfinished::is_ours(const std::string& leaf) const {
  struct stat ours{};
  struct stat seen{};
  return making_->calls->facts_of(file_.get(), &ours) == 0 &&
         making_->calls->facts_at(folder_, leaf.c_str(), &seen) == 0 &&
         ours.st_ino == seen.st_ino && ours.st_dev == seen.st_dev;
}

Result<bool> Unfinished::publish(const std::string& leaf) {
  const SystemClock clock;
  const Nanoseconds end = clock.now() + kRivalPatience;
  for (int round = 0; round < kMostRounds;) {
    TERRACE_ASSIGN_OR_RETURN(Outcome outcome, try_to_publish(leaf));
    if (outcome == Outcome::kUnsupported) {
      TERRACE_ASSIGN_OR_RETURN(outcome, by_claim(leaf));
    }
    if (outcome == Outcome::kTheirs) {
      TERRACE_ASSIGN_OR_RETURN(outcome, look_at(leaf));
    }
    if (outcome == Outcome::kEmpty) {
      TERRACE_ASSIGN_OR_RETURN(outcome, over_empty(leaf));
    }
    if (outcome == Outcome::kOurs || outcome == Outcome::kTheirs) return outcome == Outcome::kOurs;
    if (outcome == Outcome::kGone) {
      ++round;
    } else if (clock.now() >= end) {
      break;
    } else {
      nap(kRivalLook);
    }
  }
  return fail(Code::kUnavailable,
              fmt::format("publish {}: others are at it and come to no end", path_of(leaf)));
}

// By a link, else by a rename, neither of which replaces anything.
Result<Unfinished::Outcome> Unfinished::try_to_publish(const std::string& leaf) {
  FileCalls& calls = *making_->calls;
  if (calls.link(folder_, name_.c_str(), leaf.c_str()) == 0) return Outcome::kOurs;
  int error = errno;
  if (is_ours(leaf)) return Outcome::kOurs;
  if (error == EEXIST) return Outcome::kTheirs;
  if (!is_unsupported(error)) return fail(away(failure(error, "link", path_of(leaf))));
  if (calls.rename_new(folder_, name_.c_str(), leaf.c_str()) == 0) {
    name_.clear();
    return Outcome::kOurs;
  }
  error = errno;
  if (is_ours(leaf)) return Outcome::kOurs;
  if (error == EEXIST) return Outcome::kTheirs;
  if (!is_unsupported(error)) return fail(away(failure(error, "rename", path_of(leaf))));
  return Outcome::kUnsupported;
}

// Who makes the empty file of the final name may rename over it. Empty is no object to anybody.
Result<Unfinished::Outcome> Unfinished::by_claim(const std::string& leaf) {
  FileCalls& calls = *making_->calls;
  const int opened =
      calls.open_below(folder_, leaf.c_str(), O_WRONLY | O_CREAT | O_EXCL, making_->file_mode());
  if (opened < 0) {
    if (errno == EEXIST || errno == ELOOP) return Outcome::kTheirs;
    return fail(away(failure(errno, "create", path_of(leaf))));
  }
  const UniqueFd claim(opened);
  TERRACE_SYNC_POINT("dir.claimed");
  struct stat made{};
  struct stat seen{};
  if (calls.facts_of(claim.get(), &made) != 0 ||
      calls.facts_at(folder_, leaf.c_str(), &seen) != 0 || made.st_ino != seen.st_ino) {
    return Outcome::kGone;  // Slept for so long that it was taken over.
  }
  if (calls.rename_over(folder_, name_.c_str(), leaf.c_str()) == 0 || is_ours(leaf)) {
    name_.clear();
    return Outcome::kOurs;
  }
  const int error = errno;
  (void)calls.remove(folder_, leaf.c_str());
  return fail(away(failure(error, "rename", path_of(leaf))));
}

// What has the name that is not ours.
Result<Unfinished::Outcome> Unfinished::look_at(const std::string& leaf) {
  struct stat seen{};
  if (making_->calls->facts_at(folder_, leaf.c_str(), &seen) != 0) {
    if (errno == ENOENT) return Outcome::kGone;
    return fail(failure(errno, "stat", path_of(leaf)));
  }
  if (!S_ISREG(seen.st_mode)) return fail(no_object(seen, path_of(leaf)));
  if (seen.st_size > 0) return Outcome::kTheirs;
  rival_seconds_ = seen.st_mtim.tv_sec;
  return Outcome::kEmpty;
}

// A claim is replaced once its maker must be dead: by the file system's own clock, which stamped
// both files.
Result<Unfinished::Outcome> Unfinished::over_empty(const std::string& leaf) {
  FileCalls& calls = *making_->calls;
  struct stat ours{};
  if (calls.facts_of(file_.get(), &ours) != 0) {
    return fail(away(failure(errno, "fstat", path_of(name_))));
  }
  if (ours.st_mtim.tv_sec - rival_seconds_ < making_->leftover_age_seconds) return Outcome::kEmpty;
  if (calls.rename_over(folder_, name_.c_str(), leaf.c_str()) == 0 || is_ours(leaf)) {
    name_.clear();
    return Outcome::kOurs;
  }
  return fail(away(failure(errno, "rename", path_of(leaf))));
}

}  // namespace terrace::transfer::dir
