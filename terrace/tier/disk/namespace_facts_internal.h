// What one `ns-NNNN` of an owner directory is, read without writing anything. Its fingerprint.txt
// says so in words; its frames, each with its own checksum, say so in digests. Where the two differ
// the frames are believed: a damaged text must not lose what is sealed.
// Threading: thread-safe.  Waits: file I/O.  Memory: one run's records.
// Source: docs/formats/disk.md.
#pragma once

#include <cstdint>
#include <string>

#include "terrace/tier/disk/extent_table_internal.h"

namespace terrace::tier::disk {

struct NamespaceFacts {
  std::uint32_t number = 0;
  std::string directory;       // "ns-0001"
  std::string text;            // The fingerprint in clear text; empty if it cannot be believed.
  std::string text_problem;    // Why fingerprint.txt cannot be believed; empty = it can.
  std::string content_digest;  // In hex; empty = nothing there says whose blocks these are.
  std::string layout_digest;
  std::int64_t used_seconds = 0;  // When an owner opened it last, since 1970; 0 = not known.
  std::uint64_t extents = 0;      // In whole runs.
  std::uint64_t generation = 0;   // The last reset, as slots.meta has it.
  bool has_blocks = true;         // False: no record counts, so there is nothing to lose.
  std::uint32_t sealed = 0;       // Filled in by inspect_directory only.
};

[[nodiscard]] NamespaceFacts read_namespace(const std::string& directory, const std::string& name,
                                            std::uint32_t number, const ExtentTable& table);

}  // namespace terrace::tier::disk
