// A plug-in's library: found, looked at before anything of it is called but its own initialization,
// and its table copied. Never unloaded: threads of it may outlive their backend.
// Threading: thread-safe.  Waits: for the file system.  Source: include/terrace/backend.h.
#pragma once

#include <terrace/backend.h>

#include <string>

#include "terrace/base/status.h"

namespace terrace::transfer::plugin {

struct Library {
  terrace_backend_table table{};
  std::string name;  // Outlives what the table's own points to.
};

// Errors: kRefused = another version or sizes, or the file could be another user's; kInvalid = no
// such library, or its table is incomplete; each names the file and the way out.
[[nodiscard]] Result<Library> load_library(const std::string& path);

// The same of a table that is there already.
[[nodiscard]] Result<Library> check_table(const terrace_backend_table* table,
                                          const std::string& path);

}  // namespace terrace::transfer::plugin
