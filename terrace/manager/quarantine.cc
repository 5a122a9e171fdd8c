#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "terrace/base/file.h"
#include "terrace/manager/quarantine_internal.h"

namespace terrace::manager {

namespace {

namespace fs = std::filesystem;

constexpr Bytes kMostText(4096);  // A reason has some hundred.
// Of 64 digits: a file's name must not be longer than 255 bytes, and people read it.
constexpr std::size_t kDigits = 16;

}  // namespace

std::string quarantine_path(const ShadowOptions& options, const Fingerprint& fingerprint) {
  if (options.marks.empty()) return {};
  return fmt::format("{}/{}-{}.quarantined", options.marks,
                     fingerprint.content_digest().substr(0, kDigits),
                     fingerprint.layout_digest().substr(0, kDigits));
}

std::optional<std::string> read_quarantine(const std::string& path) {
  if (path.empty()) return std::nullopt;
  std::error_code error;
  const fs::file_status found = fs::symlink_status(path, error);
  if (found.type() == fs::file_type::not_found) return std::nullopt;
  if (error) return fmt::format("{} cannot be looked at: {}", path, error.message());
  auto text = read_file(path, kMostText);
  if (!text) return fmt::format("what it says cannot be read: {}", text.error().message());
  // One line of a log.
  text->resize(std::min(text->size(), text->find('\n')));
  std::ranges::replace_if(*text, [](unsigned char one) { return one < ' ' || one == '"'; }, ' ');
  return *std::move(text);
}

Status write_quarantine(const std::string& path, std::string_view reason) {
  TERRACE_RETURN_IF_ERROR(make_directories(fs::path(path).parent_path().string()));
  return write_file_atomic(path, fmt::format("{}\n", reason));
}

}  // namespace terrace::manager
