#include <fmt/format.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <iterator>

#include "terrace/tier/disk/open_volumes_internal.h"
#include "terrace/tier/disk/owner_files_internal.h"

namespace terrace::tier::disk {

namespace {
// What an error says too little of: a file system can have room and refuse files.
std::string shortage(const std::string& path, const Status& why) {
  if (why.message().find("EDQUOT") != std::string::npos) {
    return "; the user's or project's quota of blocks or inodes is used up (quota -s shows both): "
           "raise it, or delete files";
  }
  struct statvfs facts{};
  for (std::string folder = path; ::statvfs(folder.c_str(), &facts) != 0;) {  // Not there yet.
    if (!folder.starts_with('/') || folder == "/") return {};
    folder.resize(std::max<std::size_t>(folder.rfind('/'), 1));
  }
  if (facts.f_files == 0 || facts.f_favail > 0 || !why.message().contains("ENOSPC")) return {};
  return fmt::format(
      "; of the {} inodes of its file system none is left, though {} MiB are free (df -i shows "
      "them, df does not): delete files there",
      facts.f_files, facts.f_bavail * facts.f_frsize >> 20U);
}

std::string unusable(const std::string& path, const Status& why) {
  return fmt::format("disk.paths {}: {}{}; put that right, or name another directory in disk.paths",
                     path, why.message(), shortage(path, why));
}
// Their blocks are misses, and nothing else would say why.
void tell_leftovers(const std::string& path, LogSink& log) {
  const auto leftovers = find_leftovers(path);
  for (const std::string& directory : leftovers.value_or(std::vector<std::string>())) {
    log.write(LogLevel::kWarn,
              fmt::format("disk path={} leftover=\"{}\": of a `terrace move` that has not ended: "
                          "what lies in it is not used; run that move again, or remove it with "
                          "`terrace wipe`",
                          path, directory));
  }
}

void tell_unguarded(const std::string& path, const Status& why, LogSink& log) {
  if (why.is_ok()) return;
  log.write(why.code() == Code::kUnavailable ? LogLevel::kWarn : LogLevel::kInfo,
            fmt::format("disk path={} unguarded=\"{}\": engines that start at the same time may "
                        "take each other's directory here, or make one too many",
                        path, why.message()));
}
}  // namespace

std::vector<std::string> OpenedVolumes::unopened(const DiskTier::Options& options) const {
  std::vector<std::string> missing;
  std::ranges::copy_if(options.paths, std::back_inserter(missing), [&](const std::string& path) {
    const bool is_open = std::ranges::any_of(volumes, [&](const auto& volume) {
      return volume->directory().starts_with(path + "/terrace-");
    });
    return !is_open && (options.first_look->is_silent(path) || may_hold_owners(path));
  });
  return missing;
}

OpenedVolumes open_volumes(const DiskTier::Options& options, const Clock& clock, LogSink& log) {
  OpenedVolumes opened;
  const std::string content = options.fingerprint.content_digest();
  const std::string layout = options.fingerprint.layout_digest();
  const std::uint64_t total =
      options.blocks > 0 ? options.blocks * block_bytes_of(options.layout) : options.size.value();
  for (const SilentPath& silent : options.first_look->silent) {
    opened.problems.push_back(text_of(silent));
  }
  for (const std::string& path : options.first_look->answering(options.paths)) {
    auto adoption = adopt_owner_directory(path, content, layout);
    if (!adoption) {
      opened.problems.push_back(unusable(path, adoption.error()));
      continue;
    }
    for (std::string& problem : adoption->problems) {
      opened.problems.push_back("disk.paths " + std::move(problem));
    }
    tell_leftovers(path, log);
    opened.generation = std::max(opened.generation, adoption->generation);
    if (!adoption->owner) continue;
    tell_unguarded(path, adoption->unguarded, log);
    Volume::Options volume_options;
    volume_options.layout = &options.layout;
    volume_options.fingerprint = &options.fingerprint;
    volume_options.share_bytes = total / options.paths.size();
    volume_options.is_direct = options.is_direct;
    volume_options.is_direct_by_fcntl = options.is_direct_by_fcntl;
    volume_options.now_seconds = clock.wall_seconds();
    auto volume = Volume::open(*std::move(adoption->owner), volume_options, log);
    if (volume) {
      opened.volumes.push_back(*std::move(volume));
    } else {
      opened.problems.push_back(unusable(path, volume.error()));
    }
  }
  return opened;
}

void fit_volumes(const DiskTier::Options& options, OpenedVolumes& opened) {
  const std::uint64_t block = block_bytes_of(options.layout);
  std::uint64_t total = options.size.value();
  if (options.blocks > 0) {
    // Runs and extents are whole: a sixteenth and a run of each volume more holds all blocks.
    total = options.blocks * block;
    total += total / 16;
    for (const auto& volume : opened.volumes) {
      total += 2 * volume->extent_bytes() + block;
    }
  }
  std::vector<VolumeShare> shares;
  shares.reserve(opened.volumes.size());
  for (const auto& volume : opened.volumes) {
    const auto neighbours = std::ranges::count(opened.volumes, volume->device(),
                                               [](const auto& other) { return other->device(); });
    shares.push_back(volume->share(static_cast<std::uint64_t>(neighbours)));
  }
  const auto given = divide(total, shares);
  std::uint64_t sum = 0;
  std::string rooms;
  for (std::size_t i = 0; i < given.size(); ++i) {
    sum += given[i];
    rooms += "; " + opened.volumes[i]->room_text();
    if (const Status status = opened.volumes[i]->fit(given[i], opened.generation);
        !status.is_ok()) {
      const std::string& directory = opened.volumes[i]->directory();
      opened.problems.push_back(fmt::format(
          "disk.paths {}: {}{} ({}); raise disk.size, free space there, or name another "
          "directory in disk.paths",
          directory, status.message(), shortage(directory, status),
          opened.volumes[i]->room_text()));
      opened.volumes[i].reset();
    }
  }
  std::erase(opened.volumes, nullptr);
  const std::uint64_t wanted = options.blocks > 0 ? options.blocks * block : options.size.value();
  if (!opened.volumes.empty() && sum < wanted) {
    opened.problems.push_back(fmt::format(
        "disk.size: {} MiB asked for, {} MiB can be had in disk.paths: the disk tier is "
        "smaller; lower disk.size, or free or add space{}",
        wanted >> 20U, sum >> 20U, rooms));
  }
}

}  // namespace terrace::tier::disk

namespace terrace::tier {

bool DiskTier::may_hold_blocks(std::span<const std::string> paths, const FirstLook& first_look) {
  return std::ranges::any_of(paths, [&](const std::string& path) {
    return first_look.is_silent(path) || disk::may_hold_owners(path);
  });
}

}  // namespace terrace::tier
