#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "terrace/cli/commands_internal.h"
#include "terrace/manager/key_files.h"

namespace terrace::cli {

Answer run_key_new(const std::string& path) {
  const auto id = manager::make_key_file(path);
  if (!id) return {kFailed, "", fmt::format("terrace key new: {}\n", id.error().message())};
  return {kDone,
          fmt::format("{}: a new key, {}. Set encryption.key_file to it, and keep a copy where the "
                      "cache does not lie.\n",
                      path, id->hex()),
          ""};
}

namespace {

// What writes comes first; the others only read.
Answer ids_of_settings(const KeyIdOptions& options) {
  const auto ring = keys_at_hand(options.settings);
  if (!ring) {
    return {kFailed, "", fmt::format("terrace key id: {}\n", ring.error().message())};
  }
  nlohmann::ordered_json ids = nlohmann::ordered_json::array();
  std::string text;
  if (*ring != nullptr) {
    for (const KeyRing::Key& key : (*ring)->keys()) {
      text += fmt::format("{} {}\n", key.id.hex(), ids.empty() ? "writes and reads" : "reads");
      ids.push_back(key.id.hex());
    }
  }
  if (options.is_json) return {kDone, ids.dump() + "\n", ""};
  if (text.empty()) {
    text = "the settings name no key: nothing is encrypted; encryption.key_file names one\n";
  }
  return {kDone, text, ""};
}

}  // namespace

Answer run_key_id(const KeyIdOptions& options) {
  if (options.path.empty()) return ids_of_settings(options);
  const auto secret = manager::read_key_file(options.path);
  if (!secret) return {kFailed, "", fmt::format("terrace key id: {}\n", secret.error().message())};
  const std::string id = key_id_of(*secret).hex();
  return {kDone, options.is_json ? nlohmann::ordered_json::array({id}).dump() + "\n" : id + "\n",
          ""};
}

}  // namespace terrace::cli
