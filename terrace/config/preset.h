// Settings that go together, by what an engine is used for: `preset` = chat, agents, rag or batch.
// A preset is the lowest voice but for the table's own defaults, which it stands in place of:
// whatever anybody says of a setting, and a default that a name of KVBM moves, is above it.
// Threading: immutable.  Owns: nothing; rows are constants.  Waits: never.
#pragma once

#include <span>
#include <string_view>

namespace terrace::config {

// One setting of one preset. Of policies alone: never a size, a place, a port or what guards bytes.
struct PresetValue {
  std::string_view preset;
  std::string_view name;  // Of the setting.
  std::string_view text;  // Its value.
  std::string_view why;   // For people; docs/results/presets.jsonl has the figures.
};

// All of them, those of a preset side by side. A preset without any is the defaults.
[[nodiscard]] std::span<const PresetValue> preset_values();

// The choice of `preset` that sets nothing.
inline constexpr std::string_view kNoPreset = "none";

}  // namespace terrace::config
