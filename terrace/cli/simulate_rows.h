// What `terrace simulate` prints: one row for each trace, size and policy, as JSON, as a line, or
// as one chart for each trace. Threading: pure functions.  Waits: never.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "terrace/trace/replay.h"

namespace terrace::cli {

struct SimulateRow {
  std::string trace = {};
  std::string scenario = {};  // What is mixed in; empty = nothing. Counts and times leave it out.
  std::string policy = {};
  std::string admission = {};
  std::string write = {};
  std::string scope = {};
  std::uint32_t host_blocks = 0;
  std::uint32_t disk_blocks = 0;
  std::uint64_t unique_blocks = 0;  // Of the trace.
  trace::Counts counts{};           // Of the trace's own requests; writes of all.
  std::uint64_t all_blocks = 0;     // That were asked for, mixed-in ones too.
  std::uint64_t block_bytes = 0;
  trace::EngineTimes times{};
  std::uint64_t optimum_hits = 0;  // Of the trace alone, in one cache as large as both tiers.
  std::uint64_t alone_hits = 0;    // By the same policy without the scenario.
  [[nodiscard]] std::uint64_t hits() const { return counts.host_hits + counts.disk_hits; }
};

// With the newline.
[[nodiscard]] std::string row_json(const SimulateRow& row);
[[nodiscard]] std::string row_text(const SimulateRow& row);
// Rows of one trace, those of one size after each other, `lru` first. No line is longer than 80.
[[nodiscard]] std::string chart_text(std::span<const SimulateRow> rows);

}  // namespace terrace::cli
