#include "terrace/cli/keys_at_hand.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "terrace/config/environment.h"
#include "terrace/manager/key_files.h"

namespace terrace::cli {

config::Sources sources_of(const SettingsOptions& options) {
  config::Sources sources = config::read_sources("");
  for (const std::string& text : options.set) {
    const std::size_t at = std::min(text.find('='), text.size());
    sources.overrides.emplace_back(text.substr(0, at), text.substr(std::min(at + 1, text.size())));
  }
  if (!options.file.empty()) sources.overrides.emplace_back("config.file", options.file);
  return sources;
}

config::Sources tierless_sources_of(const SettingsOptions& options) {
  config::Sources sources = sources_of(options);
  sources.overrides.emplace(sources.overrides.begin(), "host.size", "1GiB");
  return sources;
}

Result<std::shared_ptr<const KeyRing>> keys_at_hand(const SettingsOptions& options) {
  TERRACE_ASSIGN_OR_RETURN(const config::Loaded loaded, config::load(tierless_sources_of(options)));
  const config::EncryptionSettings& encryption = loaded.settings.encryption;
  return manager::load_keys({.key_file = encryption.key_file,
                             .key = encryption.key,
                             .old_key_files = encryption.old_key_files});
}

// Where no frame told it: a record says 15 bits of it.
std::string key_name(const tier::KeyUse& use) {
  if (!use.id.empty()) return use.id;
  const unsigned least = static_cast<unsigned>(use.tag) << 1U;
  return fmt::format("{:04x}… or {:04x}…", least, least | 1U);
}

std::string key_uses_text(const tier::KeyUses& uses, bool has_keys, bool was_opened,
                          std::string_view indent) {
  std::string out;
  auto end = std::back_inserter(out);
  for (const tier::KeyUse& use : uses.keys) {
    fmt::format_to(end, "{}encrypted with key {}: {} blocks; ", indent, key_name(use), use.blocks);
    if (!use.is_at_hand) {
      fmt::format_to(end, "that key is not at hand{}\n",
                     was_opened ? ", so only what is stored was verified" : "");
    } else if (was_opened) {
      fmt::format_to(end, "{} opened\n", use.opened);
    } else {
      fmt::format_to(end, "that key is at hand\n");
    }
  }
  if (uses.plain_blocks > 0) {
    fmt::format_to(end, "{}not encrypted: {} blocks{}\n", indent, uses.plain_blocks,
                   has_keys ? "; beside a key only encryption.accept_plain serves them" : "");
  }
  return out;
}

}  // namespace terrace::cli
