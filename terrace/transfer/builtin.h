// The one list of backends.
// Threading: thread-safe.  Waits: never.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "terrace/transfer/backend.h"

namespace terrace::transfer {

struct ChosenBackend {
  std::unique_ptr<Backend> backend;
  std::string reason;  // Why this one, for the log: "asked for", "io_uring is denied: …".
};

// `name`: io_uring, threads, library = the one at Options::library, or auto = io_uring where the
// kernel lets us, else threads.
// Errors: kInvalid names the known ones; what the backend asked for says when it cannot start.
[[nodiscard]] Result<ChosenBackend> make_backend(std::string_view name,
                                                 const Backend::Options& options);

}  // namespace terrace::transfer
