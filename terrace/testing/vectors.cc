#include "terrace/testing/vectors.h"

#include <fmt/format.h>

#include <fstream>
#include <stdexcept>

namespace terrace::testing {

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const auto end = text.find(separator);
    parts.emplace_back(text.substr(0, end));
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
    if (text.empty()) parts.emplace_back();
  }
  return parts;
}

std::vector<std::vector<std::string>> read_vectors(std::string_view file_name) {
  const std::string path =
      std::string(TERRACE_SOURCE_DIR "/docs/formats/vectors/").append(file_name);
  std::ifstream file(path);
  std::vector<std::vector<std::string>> rows;
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with('#')) rows.push_back(split(line, '\t'));
  }
  if (rows.empty()) throw std::runtime_error("no test vectors in " + path);
  return rows;
}

std::string from_hex(std::string_view hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoul(std::string(hex.substr(i, 2)), nullptr, 16));
  }
  return bytes;
}

std::string to_hex(std::string_view bytes) {
  std::string hex;
  for (const char c : bytes) hex += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return hex;
}

}  // namespace terrace::testing
