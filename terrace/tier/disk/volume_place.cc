// Whether a volume is still where it was opened, and how much room it has there.
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>
#include <ranges>

#include "terrace/tier/disk/volume_internal.h"

namespace terrace::tier::disk {

Status Volume::check_place() const {
  const std::pair<int, std::string> files[] = {{data_.get(), data_path()},
                                               {meta_file_.get(), meta_path()},
                                               {extents_file_.get(), extents_path()}};
  for (const auto& [file, path] : files) {
    struct stat open{};
    struct stat named{};
    if (::fstat(file, &open) != 0) return Status::from_errno(errno, "fstat", path);
    if (::lstat(path.c_str(), &named) != 0) {
      return {Code::kNotFound, Status::from_errno(errno, "lstat", path).message()};
    }
    if (open.st_dev != named.st_dev || open.st_ino != named.st_ino) {
      return {Code::kNotFound, path + " is another file now"};
    }
  }
  if (!owner_.lock.is_of(owner_.directory)) {
    return {Code::kNotFound, owner_.directory + "/owner.lock is another file now"};
  }
  return {};
}

std::string Volume::lack_of_room(std::uint64_t bytes) const {
  struct statvfs facts{};
  if (::fstatvfs(data_.get(), &facts) != 0) return {};
  const std::uint64_t total = facts.f_blocks * facts.f_frsize;
  const std::uint64_t free = facts.f_bavail * facts.f_frsize;
  const std::uint64_t kept = reserve_of(total) / 2;
  if (free >= kept + bytes) return {};
  return fmt::format("others have used its file system up: its last {} MiB stay free for them",
                     kept >> 20U);
}

std::uint32_t Volume::slots_with_room() const {
  // Both files grow from their start.
  const auto ends = std::views::iota(std::uint32_t{0}, run_count());
  const auto run = std::ranges::partition_point(ends, [&](std::uint32_t r) { return has_room(r); });
  return static_cast<std::uint32_t>(run - ends.begin()) * geometry_.run_slots;
}

}  // namespace terrace::tier::disk
