// Which namespace owns which extent of a slot file (extents.meta): read, judged, changed.
// Reading writes nothing. Changes are made in memory first; their bytes go to the file through the
// tier's backend while it serves, and by store() before that.
// Threading: thread-compatible.  Memory: 24 B per extent, at most 2^20 extents.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "terrace/base/status.h"
#include "terrace/tier/disk/format_internal.h"

namespace terrace::tier::disk {

inline constexpr std::uint64_t kMostExtents = 1ULL << 20U;

class ExtentTable {
 public:
  // Extents whose record is missing or damaged, and parts of broken runs, count as free.
  // Errors: kCorrupt, kRefused as decode_volume; kIo.
  static Result<ExtentTable> read(const std::string& path);

  [[nodiscard]] std::uint64_t extent_bytes() const { return extent_bytes_; }
  [[nodiscard]] const ExtentRecord& operator[](std::uint32_t extent) const;
  [[nodiscard]] std::uint32_t size() const { return static_cast<std::uint32_t>(records_.size()); }
  [[nodiscard]] std::uint64_t highest_stamp() const { return highest_stamp_; }
  // Records that were there but damaged.
  [[nodiscard]] std::uint64_t damaged() const { return damaged_; }
  // Number of the first extent after the last owned one.
  [[nodiscard]] std::uint32_t used() const;
  [[nodiscard]] std::map<std::uint32_t, std::uint64_t> extents_by_namespace() const;

  void set(std::uint32_t extent, const ExtentRecord& record);
  // Extents from `extents` on go; runs that reach over the edge with them. Returns those changed.
  [[nodiscard]] std::vector<std::uint32_t> shrink(std::uint32_t extents);
  [[nodiscard]] static std::uint64_t offset(std::uint32_t extent) {
    return kPageBytes + static_cast<std::uint64_t>(extent) * kExtentRecordBytes;
  }

 private:
  void drop_broken_runs();
  std::uint64_t extent_bytes_ = 0;
  std::uint64_t highest_stamp_ = 0;
  std::uint64_t damaged_ = 0;
  std::vector<ExtentRecord> records_;
};

}  // namespace terrace::tier::disk
