// A settings file in TOML, read as load() reads it: from a path.
#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "fuzz/settings.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const int file = ::memfd_create("settings", MFD_CLOEXEC);
  if (::ftruncate(file, 0) != 0) std::abort();
  if (::pwrite(file, data, size, 0) != static_cast<ssize_t>(size)) std::abort();
  terrace::config::Sources sources;
  sources.environment["TERRACE_CONFIG_FILE"] = "/proc/self/fd/" + std::to_string(file);
  terrace::fuzz::load_settings(sources);
  return 0;
}
