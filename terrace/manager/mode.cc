#include "terrace/manager/mode.h"

namespace terrace::manager {

std::string_view to_string(Mode mode) {
  switch (mode) {
    case Mode::kOn:
      return "on";
    case Mode::kReadOnly:
      return "readonly";
    case Mode::kPaused:
      return "paused";
  }
  return "unknown";
}

std::optional<Mode> mode_of(std::string_view text) {
  for (const Mode mode : {Mode::kOn, Mode::kReadOnly, Mode::kPaused}) {
    if (text == to_string(mode)) return mode;
  }
  return std::nullopt;
}

}  // namespace terrace::manager
