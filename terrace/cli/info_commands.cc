#include <fmt/format.h>
#include <terrace/terrace.h>

#include "terrace/cli/commands_internal.h"
#include "terrace/serve/metric_table.h"

namespace terrace::cli {

Answer run_metrics(const MetricsOptions& options) {
  if (options.is_markdown) return {kDone, serve::metrics_markdown(), ""};
  return {kDone, options.is_json ? serve::metrics_json() : serve::metrics_list(), ""};
}

Answer run_version(bool is_json) {
  if (is_json) {
    return {kDone,
            fmt::format("{{\"version\":\"{}\",\"abi\":{}}}\n", TERRACE_VERSION_TEXT,
                        TERRACE_ABI_VERSION),
            ""};
  }
  return {kDone, fmt::format("terrace {} (C ABI {})\n", TERRACE_VERSION_TEXT, TERRACE_ABI_VERSION),
          ""};
}

}  // namespace terrace::cli
