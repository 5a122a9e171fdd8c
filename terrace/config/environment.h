// The only reader of the process environment.
// Threading: not while another thread calls setenv; engines read theirs at start as well.
// Waits: never.
#pragma once

#include <string>

#include "terrace/config/load.h"

namespace terrace::config {

// The variables that can matter (TERRACE_*, DYN_*, KVBM_*, a few single names, HOME, XDG_*) and the
// user's id, together with the engine's own part.
[[nodiscard]] Sources read_sources(std::string engine_json);

// What kind of terminal this is (TERM); empty = nobody said.
[[nodiscard]] std::string terminal_kind();

}  // namespace terrace::config
