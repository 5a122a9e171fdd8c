#include "terrace/config/environment.h"

#include <unistd.h>

#include <array>
#include <string_view>
#include <utility>

namespace terrace::config {
namespace {

constexpr std::array<std::string_view, 3> kPrefixes = {"TERRACE_", "DYN_", "KVBM_"};
constexpr std::array<std::string_view, 6> kNames = {"ENABLE_KVBM_RECORD", "ETCD_ENDPOINTS",
                                                    "NATS_SERVER",        "HOME",
                                                    "XDG_CACHE_HOME",     "XDG_RUNTIME_DIR"};

bool is_wanted(std::string_view name) {
  for (const std::string_view prefix : kPrefixes) {
    if (name.starts_with(prefix)) return true;
  }
  for (const std::string_view known : kNames) {
    if (name == known) return true;
  }
  return false;
}

}  // namespace

Sources read_sources(std::string engine_json) {
  Sources sources;
  for (char** line = environ; line != nullptr && *line != nullptr; ++line) {
    const std::string_view text(*line);
    const auto at = text.find('=');
    if (at == std::string_view::npos || !is_wanted(text.substr(0, at))) continue;
    sources.environment.emplace(text.substr(0, at), text.substr(at + 1));
  }
  sources.engine_json = std::move(engine_json);
  sources.user_id = static_cast<std::uint32_t>(::getuid());
  return sources;
}

std::string terminal_kind() {
  constexpr std::string_view kName = "TERM=";
  for (char** line = environ; line != nullptr && *line != nullptr; ++line) {
    const std::string_view text(*line);
    if (text.starts_with(kName)) return std::string(text.substr(kName.size()));
  }
  return "";
}

}  // namespace terrace::config
