#include <fmt/format.h>

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

Answer run_key_id(const std::string& path) {
  const auto secret = manager::read_key_file(path);
  if (!secret) return {kFailed, "", fmt::format("terrace key id: {}\n", secret.error().message())};
  return {kDone, key_id_of(*secret).hex() + "\n", ""};
}

}  // namespace terrace::cli
