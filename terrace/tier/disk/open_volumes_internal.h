// Opens the volumes of a disk tier: adopts a directory on each path, gives each its share of the
// size. What cannot be used becomes a problem in words, never an error of the whole.
// Threading: the opening thread's.  Waits: file I/O.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "terrace/tier/disk/disk_tier.h"
#include "terrace/tier/disk/volume_internal.h"

namespace terrace::tier::disk {

struct OpenedVolumes {
  std::vector<std::unique_ptr<Volume>> volumes;
  std::vector<std::string> problems;
  std::uint64_t generation = 0;  // The newest found of the namespace.

  // Paths without a volume, and perhaps with what others could open.
  [[nodiscard]] std::vector<std::string> unopened(const DiskTier::Options& options) const;
};

// Adopts and opens each path that answered the first look, which `options` has.
[[nodiscard]] OpenedVolumes open_volumes(const DiskTier::Options& options, const Clock& clock,
                                         LogSink& log);
// Gives each volume its share of the size; those that cannot hold a block are let go.
void fit_volumes(const DiskTier::Options& options, OpenedVolumes& opened);

}  // namespace terrace::tier::disk
