// What others need of a volume that is open: for who looks at it, and how much of it has room.
#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <ranges>
#include <utility>

#include "terrace/tier/disk/volume_internal.h"

namespace terrace::tier::disk {

Result<LookedAt> Volume::looked_at() const {
  LookedAt at;
  at.directory = owner_.directory;
  at.lock = owner_.lock.id();
  const std::pair<int, std::string> files[] = {{data_.get(), data_path()},
                                               {meta_file_.get(), meta_path()},
                                               {extents_file_.get(), extents_path()}};
  for (std::size_t i = 0; i < at.files.size(); ++i) {
    const auto& [file, path] = files[i];
    // Not of owner.lock: to close that copy would free the lock.
    UniqueFd copy(::fcntl(file, F_DUPFD_CLOEXEC, 0));
    if (!copy.is_open()) return fail(Status::from_errno(errno, "fcntl F_DUPFD", path));
    at.files.at(i) = {std::move(copy), path};
  }
  return at;
}

std::uint32_t Volume::slots_with_room() const {
  // Both files grow from their start.
  const auto ends = std::views::iota(std::uint32_t{0}, run_count());
  const auto run = std::ranges::partition_point(ends, [&](std::uint32_t r) { return has_room(r); });
  return static_cast<std::uint32_t>(run - ends.begin()) * geometry_.run_slots;
}

}  // namespace terrace::tier::disk
