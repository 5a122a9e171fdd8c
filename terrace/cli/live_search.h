// Finds running engines by their admin sockets and asks them: what the commands that speak to an
// engine share. Threading: single-threaded.  Waits: up to a limit for each engine.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/status.h"
#include "terrace/cli/commands_internal.h"

namespace terrace::cli {

// One that answers.
struct LiveEngine {
  std::string socket;
  std::string status;  // A JSON object.
  std::string engine;  // Its id,
  std::string name;    // and what it is called in front of people: with its process.
};

struct LiveSearch {
  std::vector<LiveEngine> engines;
  bool has_failed = false;
  std::string error;  // Of dead sockets and failures, whole lines.
};

[[nodiscard]] std::string_view verb_of(LiveVerb verb);

// The engines that are meant, all asked for their status; or the answer, if that cannot be told.
struct LiveChoice {
  LiveSearch found;
  std::optional<Answer> refusal;
};
[[nodiscard]] LiveChoice find_engines(const LiveOptions& options, const Clock& clock);

// The body of the answer: a JSON object. Errors: as serve::ask_admin; kInvalid = what the engine
// says is wrong.
[[nodiscard]] Result<std::string> ask_engine(const std::string& socket, std::string_view method,
                                             std::string_view target, std::string_view body,
                                             const Clock& clock);

}  // namespace terrace::cli
