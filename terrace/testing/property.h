// Seed and length of a property test: `--seed=N --steps=N` on the test executable's command line,
// else the test's defaults. Printed, so that a failure can be run again.
// Threading: thread-safe.  Waits: never.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <string>

namespace terrace::testing {

struct Property {
  std::uint64_t seed = 0;
  std::uint64_t steps = 0;
};

[[nodiscard]] inline Property property(std::uint64_t seed, std::uint64_t steps) {
  Property chosen{seed, steps};
  for (const std::string& argument : ::testing::internal::GetArgvs()) {
    if (argument.starts_with("--seed=")) chosen.seed = std::stoull(argument.substr(7));
    if (argument.starts_with("--steps=")) chosen.steps = std::stoull(argument.substr(8));
  }
  std::cout << "seed=" << chosen.seed << " steps=" << chosen.steps << std::endl;
  return chosen;
}

}  // namespace terrace::testing
