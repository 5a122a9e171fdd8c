// The engine's JSON object of settings.
#include "fuzz/settings.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  terrace::config::Sources sources;
  sources.engine_json.assign(reinterpret_cast<const char*>(data), size);
  terrace::fuzz::load_settings(sources);
  return 0;
}
