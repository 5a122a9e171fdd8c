// Reads everything that counts below one path of disk.paths and says what is damaged, for the
// command line. Writes nothing and takes no lock: a directory that an engine has, or takes
// meanwhile, is left out and said to be in use. Without keys it reads encrypted frames as they are
// stored, which their checksums cover; with them it opens them, too.
// Threading: thread-safe.  Waits: file I/O, a whole medium's; call it from a tool.
// Memory: one frame, and the damage found, at most kMostDamage a directory.
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

inline constexpr std::size_t kMostDamage = 10'000;

struct Damage {
  std::string file = {};
  std::uint64_t offset = 0;
  std::string key = {};  // The sequence hash in hex; empty = not known.
  std::uint32_t group = 0;
  std::uint32_t rank = 0;
  std::string reason = {};
};

struct VerifiedNamespace {
  std::uint32_t number = 0;
  std::string content_digest;
  std::string layout_digest;
  std::string problem;  // Of the namespace as a whole; empty = none.
  std::uint64_t sealed_blocks = 0;
  std::uint64_t good_blocks = 0;
  std::uint64_t damaged_blocks = 0;
  std::uint64_t damaged_records = 0;
  std::uint64_t unread_blocks = 0;  // Nobody can say where their frames lie.
  std::uint64_t bytes = 0;          // Read of frames.
  KeyUses encryption;               // Of the sealed ones, by their records.
  std::vector<Damage> damage;
  std::uint64_t damage_left_out = 0;
};

struct VerifiedOwner {
  std::string directory;
  bool is_in_use = false;  // Nothing below is said then.
  std::string problem;     // Of the directory; empty = none.
  std::uint64_t damaged_extents = 0;
  std::vector<VerifiedNamespace> namespaces;
  [[nodiscard]] bool is_good() const;
};

struct VerifyProgress {
  std::string directory;
  std::uint64_t blocks = 0;  // Looked at, in this directory,
  std::uint64_t of = 0;      // of so many.
};

// `path` as in disk.paths, or one `terrace-NN` below it. `keys`: those at hand; null = none.
// Errors: kIo when it cannot be read; kExhausted.
[[nodiscard]] Result<std::vector<VerifiedOwner>> verify_directory(
    const std::string& path, const std::function<void(const VerifyProgress&)>& progress,
    const std::shared_ptr<const KeyRing>& keys = nullptr);

}  // namespace terrace::tier
