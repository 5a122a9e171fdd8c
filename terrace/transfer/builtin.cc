#include "terrace/transfer/builtin.h"

#include <fmt/format.h>

#include "terrace/transfer/backends/io_uring/io_uring_backend.h"
#include "terrace/transfer/backends/plugin/plugin_backend.h"
#include "terrace/transfer/backends/threads/threads_backend.h"

namespace terrace::transfer {

Result<ChosenBackend> make_backend(std::string_view name, const Backend::Options& options) {
  if (name == "threads") {
    TERRACE_ASSIGN_OR_RETURN(auto backend, make_threads_backend(options));
    return ChosenBackend{std::move(backend), "asked for"};
  }
  if (name == "library") {
    TERRACE_ASSIGN_OR_RETURN(auto backend, make_plugin_backend(options));
    return ChosenBackend{std::move(backend), "asked for: " + options.library};
  }
  if (name != "io_uring" && name != "auto") {
    return fail(Code::kInvalid,
                fmt::format("unknown disk backend '{}': use auto, io_uring or threads", name));
  }
  auto ring = make_io_uring_backend(options);
  if (ring.has_value()) {
    return ChosenBackend{*std::move(ring), name == "auto" ? "the kernel has it" : "asked for"};
  }
  if (name == "io_uring" || ring.error().code() == Code::kInvalid) return fail(ring.error());
  TERRACE_ASSIGN_OR_RETURN(auto backend, make_threads_backend(options));
  return ChosenBackend{std::move(backend),
                       fmt::format("io_uring is denied: {}", ring.error().message())};
}

}  // namespace terrace::transfer
