// The keys that the settings name, for commands that look at what was encrypted, and what they say
// of it. Threading: single-threaded.  Waits: for the files of settings and keys.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terrace/base/status.h"
#include "terrace/block/key_ring.h"
#include "terrace/config/load.h"
#include "terrace/tier/key_use.h"

namespace terrace::cli {

// Where settings come from beside the environment.
struct SettingsOptions {
  std::string file;
  std::vector<std::string> set;  // "name=value".
};
[[nodiscard]] config::Sources sources_of(const SettingsOptions& options);
// For who needs no tier: settings without one are refused elsewhere.
[[nodiscard]] config::Sources tierless_sources_of(const SettingsOptions& options);

// Null where none is named. Errors: those of the settings, and of key files.
[[nodiscard]] Result<std::shared_ptr<const KeyRing>> keys_at_hand(const SettingsOptions& options);

// One line for each key, each beginning with `indent`; nothing where no block is sealed.
[[nodiscard]] std::string key_uses_text(const tier::KeyUses& uses, bool has_keys, bool was_opened,
                                        std::string_view indent);
// Its id, or what is known of it.
[[nodiscard]] std::string key_name(const tier::KeyUse& use);
// `Json` is nlohmann's; its header is for sources alone.
template <typename Json>
[[nodiscard]] Json key_uses_json(const tier::KeyUses& uses) {
  Json keys = Json::array();
  for (const tier::KeyUse& use : uses.keys) {
    keys.push_back({{"id", key_name(use)},
                    {"at_hand", use.is_at_hand},
                    {"blocks", use.blocks},
                    {"opened", use.opened}});
  }
  return {{"plain_blocks", uses.plain_blocks}, {"keys", std::move(keys)}};
}

}  // namespace terrace::cli
