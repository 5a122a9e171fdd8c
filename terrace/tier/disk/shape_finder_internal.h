// Finds out where a namespace's frames lie when no engine says so: nothing on the medium names the
// sizes of its groups and its ranks, but every frame says its own.
// Threading: thread-safe.  Waits: file I/O.  Memory: none of size.  Source: docs/formats/disk.md.
#pragma once

#include <cstdlib>
#include <memory>
#include <optional>
#include <string>

#include "terrace/tier/disk/geometry_internal.h"
#include "terrace/tier/disk/meta_scan_internal.h"
#include "terrace/wire/frame.h"

namespace terrace::tier::disk {

// Reads header pages of a slot file; with O_DIRECT, too.
class HeaderPages {
 public:
  explicit HeaderPages(int file)
      : file_(file), page_(static_cast<std::byte*>(std::aligned_alloc(kPageBytes, kPageBytes))) {}
  // Nothing where no whole header lies.
  [[nodiscard]] std::optional<wire::FrameHeader> read(std::uint64_t offset) const;

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  int file_;
  std::unique_ptr<std::byte, Free> page_;
};

// The geometry of namespace `number`, whose files lie in `directory`/`name`. Groups without a
// sealed block have payload 0 if nothing behind them needs their size. Nothing when too few frames
// are whole to tell, or when they contradict each other.
[[nodiscard]] std::optional<RunGeometry> find_shape(const std::string& directory,
                                                    const std::string& name, std::uint32_t number,
                                                    const ExtentTable& table, int data);

}  // namespace terrace::tier::disk
