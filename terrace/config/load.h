// From all sources of settings to the effective ones: defaults < those of the preset < KVBM aliases
// that only move a default < TOML file < environment (KVBM's aliases beside our own names) < the
// engine's JSON < command line. Threading: load() is a pure function of its sources, but reads the
// TOML file that they name. Waits: for that file.  Memory: sources over 1 MiB are refused. Errors:
// kInvalid; the message has one line per problem (at most 16), each naming the setting, the source,
// the value, what is allowed, and for an unknown name the nearest known one. Words:
// docs/settings.md.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terrace/base/status.h"
#include "terrace/config/settings.h"

namespace terrace::config {

// Lowest first.
enum class Level : std::uint8_t {
  kDefault,
  kPreset,
  kWeakAlias,
  kFile,
  kEnvironment,
  kEngine,
  kCommandLine
};

struct Sources {
  std::map<std::string, std::string, std::less<>> environment;
  std::string engine_json;  // A JSON object, flat ("host.size") or nested; "" = none.
  std::vector<std::pair<std::string, std::string>> overrides;  // The command line's `--set`.
  std::uint32_t user_id = 0;  // Names the fallback directory in /tmp.
};

struct Origin {
  Level level = Level::kDefault;
  std::string text =
      "default";  // "environment TERRACE_HOST_SIZE", "preset chat", "/etc/terrace.toml:3", …
};

struct Loaded {
  Settings settings;
  std::map<std::string, Origin, std::less<>> origins;  // One per row of the table.
  std::vector<std::string> warnings;                   // An operator may want to act.
  std::vector<std::string> notes;                      // Known names without effect: log once.
};

[[nodiscard]] Result<Loaded> load(const Sources& sources);

// What is set when nothing is: for parts and tests that need settings but no sources. No tier has a
// size in it.
[[nodiscard]] Settings defaults();

}  // namespace terrace::config
