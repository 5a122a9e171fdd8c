#include "terrace/tier/disk/wipe.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>

#include "terrace/base/sync_point.h"
#include "terrace/tier/disk/format_internal.h"
#include "terrace/tier/disk/owner_directory_internal.h"
#include "terrace/tier/disk/owner_files_internal.h"

namespace terrace::tier {

namespace {
using disk::ExtentTable;
using disk::NamespaceFacts;

constexpr std::size_t kZeros = 1U << 20U;
constexpr std::size_t kLeastDigits = 8;

Status check(const std::string& name_space) {
  if (name_space.empty() || name_space.starts_with("ns-")) return {};
  const bool is_hex = std::ranges::all_of(
      name_space, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  if (is_hex && name_space.size() >= kLeastDigits) return {};
  return {Code::kInvalid,
          fmt::format("namespace '{}': give its name as terrace inspect shows it (ns-0001), or at "
                      "least {} digits of its content digest",
                      name_space, kLeastDigits)};
}

bool is_meant(const NamespaceFacts& facts, const std::string& name_space) {
  return facts.directory == name_space || facts.content_digest.starts_with(name_space);
}

class OwnerWiper {
 public:
  OwnerWiper(std::string directory, const WipeOptions& options) : options_(options) {
    wiped_.directory = std::move(directory);
  }

  // Nothing when the namespace that is meant does not lie there.
  std::optional<WipedOwner> run() {
    bool is_concerned = true;
    const Status status = run_or_fail(is_concerned);
    if (!is_concerned) return std::nullopt;
    if (!status.is_ok()) wiped_.problem = status.message();
    return std::move(wiped_);
  }

 private:
  Status run_or_fail(bool& is_concerned) {
    TERRACE_ASSIGN_OR_RETURN(folder_, disk::open_owner_directory(wiped_.directory));
    std::optional<disk::DirectoryLock> lock;
    if (options_.is_dry) {
      TERRACE_ASSIGN_OR_RETURN(const bool is_locked,
                               disk::DirectoryLock::is_locked(wiped_.directory));
      if (is_locked) return in_use();
    }
    facts_ = disk::judge(wiped_.directory);
    TERRACE_ASSIGN_OR_RETURN(files_, disk::list_owner_files(folder_.get(), wiped_.directory));
    TERRACE_RETURN_IF_ERROR(check_ours());
    if (!options_.is_dry) {
      TERRACE_SYNC_POINT("disk.wipe.lock");
      TERRACE_ASSIGN_OR_RETURN(lock, disk::DirectoryLock::try_lock(wiped_.directory));
      if (!lock) return in_use();
      TERRACE_RETURN_IF_ERROR(check_same());
      facts_ = disk::judge(wiped_.directory);  // Again, now it holds still.
      TERRACE_ASSIGN_OR_RETURN(files_, disk::list_owner_files(folder_.get(), wiped_.directory));
      TERRACE_RETURN_IF_ERROR(check_ours());
    }
    wiped_.left = files_.foreign;
    if (options_.name_space.empty()) return wipe_all();
    is_concerned = false;
    for (const NamespaceFacts& held : facts_.namespaces) {
      if (!is_meant(held, options_.name_space)) continue;
      is_concerned = true;
      TERRACE_RETURN_IF_ERROR(wipe_namespace(held));
    }
    wiped_.is_wiped = !options_.is_dry;
    return {};
  }

  [[nodiscard]] static Status in_use() {
    return {Code::kRefused,
            "an engine or a `terrace move` has it: stop the engine, or let that end, then try "
            "again"};
  }

  // What is there may be removed.
  [[nodiscard]] Status check_ours() const {
    using State = disk::DirectoryState;
    const std::string name = wiped_.directory.substr(wiped_.directory.rfind('/') + 1);
    const bool is_leftover = name.starts_with(disk::kIncoming) || name.ends_with(disk::kLeaving);
    const bool is_damaged_only = facts_.state == State::kForeign &&
                                 (files_.has_extents || is_leftover) && files_.foreign.empty() &&
                                 options_.name_space.empty();
    if (facts_.state == State::kUsable || facts_.state == State::kEmpty || is_damaged_only) {
      return {};
    }
    return {Code::kRefused, facts_.reason};
  }

  // The lock lies in the directory that was opened, not in one that took its name since.
  [[nodiscard]] Status check_same() const {
    if (disk::is_still_at(folder_.get(), wiped_.directory)) return {};
    return {Code::kRefused, "somebody is moving this directory: try again"};
  }

  void tell(const std::string& file) const {
    if (options_.progress) options_.progress({wiped_.directory + "/" + file, done_, wiped_.bytes});
  }

  Status wipe_all() {
    for (const disk::OwnedFile& file : files_.files) wiped_.names.push_back(file.name);
    wiped_.bytes = files_.on_disk();
    if (options_.is_dry) return {};
    // extents.meta and what stands behind it are the last files: by then no namespace is left.
    bool has_namespaces = true;
    for (const disk::OwnedFile& file : files_.files) {
      if (has_namespaces && file.name.find('/') == std::string::npos) {
        remove_folders();
        has_namespaces = false;
      }
      TERRACE_RETURN_IF_ERROR(disk::remove_file(folder_.get(), file.name, wiped_.directory));
      done_ += file.on_disk;
      tell(file.name);
    }
    if (has_namespaces) remove_folders();
    TERRACE_RETURN_IF_ERROR(disk::sync_folder(folder_.get(), wiped_.directory));
    wiped_.is_wiped = true;
    if (!files_.foreign.empty()) return {};
    if (::rmdir(wiped_.directory.c_str()) != 0 && errno != ENOENT) {
      return Status::from_errno(errno, "rmdir", wiped_.directory);
    }
    return sync_directory(wiped_.directory.substr(0, wiped_.directory.rfind('/') + 1) + ".");
  }

  // Those with others' files in them stay.
  void remove_folders() {
    for (const std::string& name : files_.namespaces) {
      (void)::unlinkat(folder_.get(), name.c_str(), AT_REMOVEDIR);
    }
  }

  // Its records first: from then on nothing of it is found. Then its bytes, its claims, its name;
  // the name goes last, so that a second run knows what is left to do.
  Status wipe_namespace(const NamespaceFacts& held) {
    std::vector<std::string> mine;
    for (const disk::OwnedFile& file : files_.files) {
      if (!file.name.starts_with(held.directory + "/")) continue;
      mine.push_back(file.name);
      wiped_.bytes += file.on_disk;
    }
    wiped_.names.insert(wiped_.names.end(), mine.begin(), mine.end());
    wiped_.names.push_back(fmt::format("0.slots: {} MiB of {}",
                                       held.extents * facts_.extent_bytes >> 20U, held.directory));
    wiped_.bytes += held.extents * facts_.extent_bytes;
    if (options_.is_dry) return {};
    TERRACE_RETURN_IF_ERROR(
        disk::remove_file(folder_.get(), held.directory + "/slots.meta", wiped_.directory));
    TERRACE_ASSIGN_OR_RETURN(const UniqueFd folder,
                             disk::open_folder(folder_.get(), held.directory, wiped_.directory));
    TERRACE_RETURN_IF_ERROR(disk::sync_folder(folder.get(), wiped_.directory));
    if (held.extents > 0) TERRACE_RETURN_IF_ERROR(wipe_extents(held.number));
    for (const std::string& name : mine) {
      TERRACE_RETURN_IF_ERROR(disk::remove_file(folder_.get(), name, wiped_.directory));
      tell(name);
    }
    (void)::unlinkat(folder_.get(), held.directory.c_str(), AT_REMOVEDIR);
    return disk::sync_folder(folder_.get(), wiped_.directory);
  }

  Status wipe_extents(std::uint32_t number) {
    const std::string slots = wiped_.directory + "/0.slots";
    const std::string extents = wiped_.directory + "/extents.meta";
    TERRACE_ASSIGN_OR_RETURN(const ExtentTable table, ExtentTable::read(extents));
    TERRACE_ASSIGN_OR_RETURN(const UniqueFd data, open_regular_file(slots, O_RDWR | O_NOFOLLOW));
    TERRACE_ASSIGN_OR_RETURN(const UniqueFd meta, open_regular_file(extents, O_RDWR | O_NOFOLLOW));
    for (std::uint32_t extent = 0; extent < table.size(); ++extent) {
      if (table[extent].name_space != number) continue;
      TERRACE_RETURN_IF_ERROR(
          zero(data.get(), extent * table.extent_bytes(), table.extent_bytes(), slots));
      done_ += table.extent_bytes();
      tell("0.slots");
    }
    if (::fdatasync(data.get()) != 0) return Status::from_errno(errno, "fdatasync", slots);
    const std::array<std::byte, disk::kExtentRecordBytes> none{};
    for (std::uint32_t extent = 0; extent < table.size(); ++extent) {
      if (table[extent].name_space != number) continue;
      if (::pwrite(meta.get(), none.data(), none.size(),
                   static_cast<off_t>(ExtentTable::offset(extent))) !=
          static_cast<ssize_t>(none.size())) {
        return Status::from_errno(errno, "pwrite", extents);
      }
    }
    if (::fdatasync(meta.get()) != 0) return Status::from_errno(errno, "fdatasync", extents);
    return {};
  }

  // The blocks stay the file's, where the file system can do that.
  Status zero(int file, std::uint64_t offset, std::uint64_t bytes, const std::string& path) {
    struct stat facts{};
    if (::fstat(file, &facts) != 0) return Status::from_errno(errno, "fstat", path);
    const auto size = static_cast<std::uint64_t>(facts.st_size);
    if (offset >= size) return {};
    bytes = std::min(bytes, size - offset);
    if (::fallocate(file, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                    static_cast<off_t>(bytes)) == 0) {
      return {};
    }
    if (zeros_.empty()) zeros_.resize(kZeros);
    while (bytes > 0) {
      const std::size_t piece = std::min<std::size_t>(bytes, kZeros);
      const ssize_t put = ::pwrite(file, zeros_.data(), piece, static_cast<off_t>(offset));
      if (put < 0 && errno == EINTR) continue;
      if (put <= 0) return Status::from_errno(put < 0 ? errno : EIO, "pwrite", path);
      offset += static_cast<std::uint64_t>(put);
      bytes -= static_cast<std::uint64_t>(put);
    }
    return {};
  }

  const WipeOptions& options_;
  WipedOwner wiped_;
  UniqueFd folder_;
  disk::DirectoryFacts facts_;
  disk::OwnerFiles files_;
  std::uint64_t done_ = 0;
  std::vector<std::byte> zeros_;
};
}  // namespace

Result<std::vector<WipedOwner>> wipe_directory(const std::string& path,
                                               const WipeOptions& options) {
  TERRACE_RETURN_IF_ERROR(check(options.name_space));
  TERRACE_ASSIGN_OR_RETURN(auto directories, disk::find_owner_directories(path));
  if (options.name_space.empty()) {  // What a killed `terrace move` left.
    TERRACE_ASSIGN_OR_RETURN(const auto leftovers, disk::find_leftovers(path));
    directories.insert(directories.end(), leftovers.begin(), leftovers.end());
    if (!options.is_dry) disk::AdoptionLock::remove_left(path);
  }
  std::vector<WipedOwner> wiped;
  for (const std::string& directory : directories) {
    if (auto owner = OwnerWiper(directory, options).run()) wiped.push_back(*std::move(owner));
  }
  return wiped;
}

}  // namespace terrace::tier
