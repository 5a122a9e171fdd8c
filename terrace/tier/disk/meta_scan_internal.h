// Reads what one namespace's slots.meta says is sealed, beside whoever owns it.
// Threading: thread-safe.  Waits: file I/O.  Memory: one run's records.
// Source: docs/formats/disk.md.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "terrace/tier/disk/extent_table_internal.h"
#include "terrace/tier/disk/format_internal.h"

namespace terrace::tier::disk {

struct SealedSlot {
  SlotRecord record;
  std::uint32_t slot = 0;  // In the volume.
  bool is_first_of_run = false;
  std::uint32_t first_extent = 0;  // Of its run.
  std::uint64_t era = 0;           // Of its frames.
};

struct MetaScan {
  std::uint64_t slots = 0;    // In the namespace's runs, of all groups.
  std::uint64_t damaged = 0;  // Records that do not match their checksum,
  std::uint64_t missing = 0;  // and those that the file is too short for.
  std::uint32_t epoch = 0;
  std::uint64_t generation = 0;
  std::uint64_t era = 0;
};

// The header that counts of `directory`/`name`/slots.meta; nothing when there is none that is whole
// and can be.
[[nodiscard]] std::optional<MetaHeader> read_meta_header(const std::string& directory,
                                                         const std::string& name);

// Visits the sealed records of namespace `number`, whose files lie in `directory`/`name`, until
// `visit` says false, where damaged ones lie in slots.meta, and before each run its first extent.
// Nothing when slots.meta is missing or its header is damaged.
[[nodiscard]] std::optional<MetaScan> scan_meta(
    const std::string& directory, const std::string& name, std::uint32_t number,
    const ExtentTable& table, const std::function<bool(const SealedSlot&)>& visit,
    const std::function<void(std::uint64_t offset)>& visit_damaged = {},
    const std::function<void(std::uint32_t extent)>& visit_run = {});

}  // namespace terrace::tier::disk
