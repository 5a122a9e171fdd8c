// Finds out where a namespace's frames lie when no engine says so: nothing on the medium names the
// sizes of its groups and its ranks, but every frame says its own.
// Threading: thread-safe.  Waits: file I/O.  Memory: none of size.  Source: docs/formats/disk.md.
#pragma once

#include <optional>
#include <string>

#include "terrace/tier/disk/geometry_internal.h"
#include "terrace/tier/disk/meta_scan_internal.h"

namespace terrace::tier::disk {

// The geometry of namespace `number`, whose files lie in `directory`/`name`. Groups without a
// sealed block have payload 0 if nothing behind them needs their size. Nothing when too few frames
// are whole to tell, or when they contradict each other.
[[nodiscard]] std::optional<RunGeometry> find_shape(const std::string& directory,
                                                    const std::string& name, std::uint32_t number,
                                                    const ExtentTable& table, int data);

}  // namespace terrace::tier::disk
