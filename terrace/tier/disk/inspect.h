// A read-only look at what lies below one path of disk.paths, for the command line. Works beside a
// live owner; writes nothing, takes no lock, and sees what that owner has made durable or nearly
// so. Threading: thread-safe.  Waits: file I/O; call it from a tool, not from an engine.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "terrace/base/status.h"
#include "terrace/block/key_ring.h"
#include "terrace/tier/key_use.h"

namespace terrace::tier {

struct InspectedNamespace {
  std::uint32_t number = 0;
  std::string fingerprint;          // Clear text, Fingerprint::parse reads it; empty = damaged,
  std::string fingerprint_problem;  // and why. The digests are then those of its frames, or empty.
  std::string content_digest;
  std::string layout_digest;
  std::int64_t used_seconds = 0;  // When an owner opened it last, since 1970; 0 = not known.
  std::uint64_t bytes = 0;        // Of the slot file that belong to it.
  std::uint64_t slots = 0;        // In those, of all groups,
  std::uint64_t sealed = 0;       // of which hold a block,
  std::uint64_t damaged = 0;      // and whose record does not match its checksum.
  std::string problem;            // What else is lost of it, and why; empty = nothing.
  std::uint32_t epoch = 0;        // 1 when made; a reset or a new shape raises it,
  std::uint64_t era = 0;          // and draws this anew. 0 = of an earlier Terrace, as its blocks.
  KeyUses encryption;             // Of the sealed ones; none was opened.
  // What eviction learned, for the next owner, as this directory has it; 0 = nothing that is whole.
  // Of all directories the newest counts.
  std::uint64_t learned_bytes = 0;
};

struct InspectedOwner {
  std::string directory;
  std::string state;    // "usable", "empty", "newer", "foreign"
  std::string problem;  // Why it would not be used, and the way out; empty = fine.
  bool is_locked = false;
  std::string lock_problem;  // Why nobody can tell whether it is; empty = `is_locked` says it.
  std::uint64_t extent_bytes = 0;
  std::uint64_t file_bytes = 0;       // Of the slot file.
  std::uint64_t damaged_extents = 0;  // Records of extents.meta; the blocks there are misses.
  std::vector<InspectedNamespace> namespaces;
};

// The records of a large directory take a while.
struct InspectProgress {
  std::string folder;         // Of a namespace.
  std::uint64_t extents = 0;  // Of the slot file, whose records have been read,
  std::uint64_t of = 0;       // and how many it has.
};

// `path`: as in disk.paths, or one `terrace-NN`. `keys`: those at hand; null = none. Errors: kIo
// when the path cannot be read.
[[nodiscard]] Result<std::vector<InspectedOwner>> inspect_directory(
    const std::string& path, const std::shared_ptr<const KeyRing>& keys = nullptr,
    const std::function<void(const InspectProgress&)>& progress = {});

// Directories there that no engine opens: of a `terrace move` that has not ended. Errors: kIo.
[[nodiscard]] Result<std::vector<std::string>> inspect_leftovers(const std::string& path);

}  // namespace terrace::tier
