// Reads workloads as others publish them: Mooncake's JSONL, one request a line, and coding-agent
// conversations, one JSON file each, alone or in a tar archive; each of them plain or .zst.
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
  // 0 = the trace's own; else a multiple of it.
  std::uint32_t block_tokens = 0;
};

// Errors: kInvalid for what is no such trace, names file and line and what to do; kIo of reading.
[[nodiscard]] Result<Workload> read_workload(const std::string& path, const ReadOptions& options);

}  // namespace terrace::trace
