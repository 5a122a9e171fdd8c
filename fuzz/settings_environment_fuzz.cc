// Variables of the environment, one "NAME=value" between two zero bytes, as a process has them.
#include <string_view>

#include "fuzz/settings.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  terrace::config::Sources sources;
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  while (!rest.empty()) {
    const std::string_view one = rest.substr(0, rest.find('\0'));
    rest.remove_prefix(std::min(rest.size(), one.size() + 1));
    const std::size_t equals = one.find('=');
    if (equals == std::string_view::npos) continue;
    // No files of the machine that the campaign runs on.
    if (one.substr(0, equals) == "TERRACE_CONFIG_FILE") continue;
    sources.environment.emplace(one.substr(0, equals), one.substr(equals + 1));
  }
  terrace::fuzz::load_settings(sources);
  return 0;
}
