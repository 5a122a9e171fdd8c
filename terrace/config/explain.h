// The table of settings and the effective settings, for people and programs.
// Threading: pure functions.  Waits: never.  Secrets are never printed.
#pragma once

#include <string>

#include "terrace/config/load.h"

namespace terrace::config {

// Every setting: type, default, what is allowed, variable, KVBM's names, text.
[[nodiscard]] std::string explain_text();
[[nodiscard]] std::string explain_json();
// docs/settings.md, whole.
[[nodiscard]] std::string settings_markdown();

// Effective values with where each came from, then warnings and notes.
[[nodiscard]] std::string effective_text(const Loaded& loaded);
[[nodiscard]] std::string effective_json(const Loaded& loaded);

}  // namespace terrace::config
