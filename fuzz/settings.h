// What a settings' target wants of any source: settings, or a refusal that names what is wrong and
// is no longer than a screen. Threading: thread-compatible.
#pragma once

#include <cstdlib>

#include "terrace/config/explain.h"
#include "terrace/config/load.h"

namespace terrace::fuzz {

inline constexpr std::size_t kMostMessageBytes = 64U << 10U;

inline void load_settings(const config::Sources& sources) {
  const auto loaded = config::load(sources);
  if (!loaded) {
    const Status& error = loaded.error();
    if (error.code() != Code::kInvalid || error.message().empty()) std::abort();
    if (error.message().size() > kMostMessageBytes) std::abort();
    return;
  }
  // The same sources give the same settings, and they can be told.
  const auto again = config::load(sources);
  if (!again || again->origins.size() != loaded->origins.size()) std::abort();
  if (config::effective_json(*loaded) != config::effective_json(*again)) std::abort();
}

}  // namespace terrace::fuzz
