// Runs the `terrace` command as a shell would and keeps what it said.
// Waits: until the command ends.
#pragma once

#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "terrace/base/file.h"
#include "terrace/base/rng.h"

namespace terrace::scenario {

struct Ran {
  int code = -1;
  std::string out;
  std::string error;
};

// `arguments` as a shell would read them; `environment` as `NAME=value …`.
inline Ran terrace_command(const std::string& arguments,
                           const std::string& environment = "HOME=/home/u") {
  const std::string folder = "/tmp/terrace_cli_" + std::to_string(random_u64());
  std::filesystem::create_directory(folder);
  std::string line = "env -i ";
  line += environment;
  line += " " TERRACE_CLI " ";
  line += arguments;
  line += " >" + folder + "/out 2>" + folder + "/error";
  const int status = std::system(line.c_str());
  Ran ran;
  ran.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  ran.out = read_file(folder + "/out", 1_MiB).value_or("");
  ran.error = read_file(folder + "/error", 1_MiB).value_or("");
  std::filesystem::remove_all(folder);
  return ran;
}

}  // namespace terrace::scenario
