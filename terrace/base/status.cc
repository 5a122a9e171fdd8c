#include "terrace/base/status.h"

#include <fmt/format.h>

#include <cstring>

namespace terrace {

std::string_view to_string(Code code) {
  switch (code) {
    case Code::kOk:
      return "ok";
    case Code::kInvalid:
      return "invalid";
    case Code::kNotFound:
      return "not_found";
    case Code::kExhausted:
      return "exhausted";
    case Code::kUnavailable:
      return "unavailable";
    case Code::kDeadline:
      return "deadline";
    case Code::kCorrupt:
      return "corrupt";
    case Code::kIo:
      return "io";
    case Code::kRefused:
      return "refused";
    case Code::kClosed:
      return "closed";
    case Code::kInternal:
      return "internal";
  }
  return "unknown";
}

std::string_view to_string(Scope scope) {
  switch (scope) {
    case Scope::kBlock:
      return "block";
    case Scope::kRegion:
      return "region";
    case Scope::kBackend:
      return "backend";
    case Scope::kNode:
      return "node";
  }
  return "unknown";
}

Status Status::from_errno(int error, std::string_view operation, std::string_view path,
                          Scope scope) {
  const char* name = strerrorname_np(error);
  return {Code::kIo,
          fmt::format("{} {}: {} ({}: {})", operation, path, name == nullptr ? "E?" : name, error,
                      name == nullptr ? "unknown error" : strerrordesc_np(error)),
          scope};
}

std::string Status::text() const { return fmt::format("{}: {}", to_string(code_), message_); }

}  // namespace terrace
