// Gives fuzzed bytes to one end of a socket, as its foreign_bytes_test does with changed seeds.
// Threading: thread-compatible.  Waits: until that end has closed.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

namespace terrace::fuzz {

template <typename End>
int run_end(const std::uint8_t* data, std::size_t size) {
  static End end;
  const std::string problem = end.run(std::string_view(reinterpret_cast<const char*>(data), size));
  if (problem.empty()) return 0;
  std::fprintf(stderr, "%s\n", problem.c_str());
  std::abort();
}

}  // namespace terrace::fuzz
