// What benches of a restart are asked for: `--directory=DIR --runs=N --blocks=N …`.
// Threading: pure function.  Waits: never.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

namespace terrace::testing {

struct RestartOptions {
  std::string directory;  // Absolute; of the process unless given.
  int runs = 7;
  std::vector<std::uint64_t> sizes;  // Blocks on disk, one bench each.
};

[[nodiscard]] inline RestartOptions restart_options(int count, char** arguments) {
  RestartOptions options;
  for (int i = 1; i < count; ++i) {
    const std::string argument = arguments[i];
    if (argument.starts_with("--directory=")) options.directory = argument.substr(12);
    if (argument.starts_with("--runs=")) options.runs = std::atoi(argument.c_str() + 7);
    if (argument.starts_with("--blocks=")) {
      options.sizes.push_back(std::strtoull(argument.c_str() + 9, nullptr, 10));
    }
  }
  options.directory =
      std::filesystem::absolute(options.directory.empty() ? "." : options.directory);
  if (options.sizes.empty()) options.sizes = {1'000'000, 10'000'000};
  return options;
}

}  // namespace terrace::testing
