// What `terrace status` shows of a running engine: its answer in lines for people.
// Threading: pure functions.  Waits: never.  Source: docs/operations.md.
#pragma once

#include <string>
#include <string_view>

namespace terrace::cli {

// `status`: a JSON object as serve::status_json() writes it; what is missing in it, or of another
// type, is left out. `name` is what the engine is called. Nothing that a terminal obeys.
[[nodiscard]] std::string live_text(std::string_view name, std::string_view status);

}  // namespace terrace::cli
