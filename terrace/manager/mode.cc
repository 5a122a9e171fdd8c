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
    case Mode::kObserve:
      return "observe";
  }
  return "unknown";
}

std::optional<Mode> mode_of(std::string_view text) {
  for (const Mode mode : {Mode::kOn, Mode::kReadOnly, Mode::kPaused}) {
    if (text == to_string(mode)) return mode;
  }
  return std::nullopt;
}

Status observes_to_its_end() {
  return {Code::kRefused,
          "this engine was started with mode=observe and has no tier: start it again with mode=on"};
}

}  // namespace terrace::manager
