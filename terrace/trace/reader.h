// Reads workloads as others publish them: Mooncake's JSONL, one request a line; coding-agent
// conversations, one JSON file each; LMCache's JSONL of texts; both of these alone or in a tar
// archive; Azure's CSV of lengths. Each of them plain or .zst.
// Threading: thread-safe.  Waits: for the file.  Memory: the file unpacked, 4 GiB at most.
// Source: docs/formats/traces.md.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "terrace/base/status.h"
#include "terrace/trace/workload.h"

namespace terrace::trace {

struct ReadOptions {
  // Conversations have no common clock: each starts at a random moment of the window.
  std::uint64_t seed = 1;
  Nanoseconds window = seconds(3600);
  // So many times as many requests a second: times of a JSONL, and the window, shrink by it.
  double rate = 1;
  // 0 = the trace's own; else a multiple of it. Of traces that have no blocks any; 0 = 64.
  std::uint32_t block_tokens = 0;
};

// Errors: kInvalid for what is no such trace, names file and line and what to do; kIo of reading.
[[nodiscard]] Result<Workload> read_workload(const std::string& path, const ReadOptions& options);

}  // namespace terrace::trace
