// What a person lets the owner do while the engine runs: everything, serve only, or nothing.
// Threading: immutable values.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "terrace/base/status.h"

namespace terrace::manager {

// kReadOnly: hits are served, nothing new is stored in any tier and nothing is lost: a hit on disk
// takes host slots that are free or whose block the disk has, too. kPaused: every look-up misses as
// well, and nothing is brought up from disk. What is under way when the mode changes ends as it
// would have; what was promised to the engine is loaded. kObserve: from its start to its end the
// owner has no tier and only learns; nobody switches to it or from it.
enum class Mode : std::uint8_t { kOn, kReadOnly, kPaused, kObserve };

// "on", "readonly", "paused", "observe".
[[nodiscard]] std::string_view to_string(Mode mode);
// One that can be switched to; nothing when `text` is none of them.
[[nodiscard]] std::optional<Mode> mode_of(std::string_view text);

// kRefused: an owner that observes cannot be switched; says what to do.
[[nodiscard]] Status observes_to_its_end();

}  // namespace terrace::manager
