// What scrubbing the disk tier has found: plain data for people and for monitoring.
// Threading: immutable values.  Owns: its texts.  Waits: never.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "terrace/base/strong.h"
#include "terrace/block/sequence_hash.h"

namespace terrace::tier {

// A block that was dropped, by the frame that was not what its record says.
struct ScrubFinding {
  std::string file = {};
  std::uint64_t offset = 0;  // Of the frame.
  GroupId group{0};
  RankId rank{0};
  SequenceHash hash = {};
  std::string reason = {};
};

struct ScrubReport {
  std::uint64_t pass = 0;  // The last one begun; 0 = none yet. Counts from 1 at each start.
  bool is_running = false;
  bool is_asked = false;               // Somebody asked for it; else it was due.
  bool is_held = false;                // Begins nothing for now: somebody paused the engine.
  std::uint64_t bytes_per_second = 0;  // Of the pass; when none runs, of those that come by
                                       // themselves, 0 = none do.
  double progress = 0;                 // 0 to 1.
  // Of this pass. A block that changed hands meanwhile is in none of these.
  std::uint64_t good_blocks = 0;
  std::uint64_t bad_blocks = 0;      // Dropped.
  std::uint64_t skipped_blocks = 0;  // Of directories that are left alone for now.
  std::uint64_t bytes = 0;           // Read.
  Nanoseconds took{0};               // So far, or in all.
  // Directories of which blocks were skipped, as they were left alone, or did not answer.
  std::vector<std::string> passed_over;
  std::string waits_for;  // A directory that owes a read for more than a second; empty = none.
  // The latest of all passes, at most kMostScrubFindings; oldest first.
  std::vector<ScrubFinding> found;
};
inline constexpr std::size_t kMostScrubFindings = 100;

}  // namespace terrace::tier
