// Reads JSON of another version, or of a stranger: what is not of the type expected is not there.
// Threading: pure functions.  Waits: never.
#pragma once

#include <cstdint>
#include <string>

namespace terrace::cli {

// `Json` is nlohmann's; its header is for sources alone.
template <typename Json>
[[nodiscard]] std::string text_in(const Json& json, const char* name, const char* otherwise = "?") {
  if (!json.is_object()) return otherwise;
  const auto at = json.find(name);
  return at != json.end() && at->is_string() ? at->template get<std::string>() : otherwise;
}

template <typename Json>
[[nodiscard]] double number_in(const Json& json, const char* name) {
  if (!json.is_object()) return 0;
  const auto at = json.find(name);
  return at != json.end() && at->is_number() ? at->template get<double>() : 0;
}

template <typename Json>
[[nodiscard]] std::uint64_t count_in(const Json& json, const char* name) {
  if (!json.is_object()) return 0;
  const auto at = json.find(name);
  return at != json.end() && at->is_number_unsigned() ? at->template get<std::uint64_t>() : 0;
}

template <typename Json>
[[nodiscard]] bool is_true_in(const Json& json, const char* name) {
  if (!json.is_object()) return false;
  const auto at = json.find(name);
  return at != json.end() && at->is_boolean() && at->template get<bool>();
}

template <typename Json>
[[nodiscard]] Json part_of(const Json& json, const char* name, typename Json::value_t type) {
  if (!json.is_object()) return Json(type);
  const auto at = json.find(name);
  return at != json.end() && at->type() == type ? *at : Json(type);
}

}  // namespace terrace::cli
