// Reads the test vectors of docs/formats/vectors: tab-separated columns, `#` begins a comment line.
// Threading: thread-safe.  Waits: for a file read.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace terrace::testing {

// One row per vector. Throws std::runtime_error when the file is not there: a test must not pass
// for want of vectors.
[[nodiscard]] std::vector<std::vector<std::string>> read_vectors(std::string_view file_name);

// `split("a,b", ',')` = {"a", "b"}; "" = no parts.
[[nodiscard]] std::vector<std::string> split(std::string_view text, char separator);

[[nodiscard]] std::string from_hex(std::string_view hex);
[[nodiscard]] std::string to_hex(std::string_view bytes);

}  // namespace terrace::testing
