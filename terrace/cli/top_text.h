// What `terrace top` shows: one screen about running engines, from what their sockets answer.
// Threading: pure functions.  Waits: never.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace terrace::cli {

// One engine at one moment; JSON of whatever version: what is missing counts as 0.
struct TopEngine {
  std::string name;
  std::string status;        // Of GET /status,
  std::string before = {};   // and an earlier one of the same engine; empty = none.
  double seconds = 0;        // Between the two.
  std::string ledgers = {};  // Of GET /ledgers; empty = none.
};

// Lines of at most 79 columns of ASCII, each ended. Rates are those between the two statuses, or
// since the engine's start where there is one alone. `requests`: so many of the newest for each
// engine. `now`: seconds since 1970.
[[nodiscard]] std::string top_text(const std::vector<TopEngine>& engines, std::size_t requests,
                                   std::int64_t now);
// The first `rows` lines of at most `columns`; where some are left out the last one says so.
[[nodiscard]] std::string cropped(const std::string& text, std::size_t rows, std::size_t columns);

}  // namespace terrace::cli
