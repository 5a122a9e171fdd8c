#include <fmt/format.h>

#include "terrace/cli/commands_internal.h"
#include "terrace/config/environment.h"
#include "terrace/config/explain.h"
#include "terrace/config/load.h"

namespace terrace::cli {

Answer run_config(const ConfigOptions& options) {
  if (options.is_markdown) return {kDone, config::settings_markdown(), ""};
  if (options.is_explain) {
    return {kDone, options.is_json ? config::explain_json() : config::explain_text(), ""};
  }
  config::Sources sources = config::read_sources(options.engine_json);
  for (const std::string& text : options.set) {
    const auto at = text.find('=');
    if (at == std::string::npos) {
      return {kUsage, "", fmt::format("terrace config: --set {}: give name=value\n", text)};
    }
    sources.overrides.emplace_back(text.substr(0, at), text.substr(at + 1));
  }
  if (!options.file.empty()) sources.overrides.emplace_back("config.file", options.file);
  const auto loaded = config::load(sources);
  if (!loaded.has_value()) {
    return {
        kFailed, "",
        fmt::format("terrace config: the settings are refused\n{}\n", loaded.error().message())};
  }
  return {kDone,
          options.is_json ? config::effective_json(*loaded) : config::effective_text(*loaded), ""};
}

}  // namespace terrace::cli
