// The one table of settings, and what a row can say.
// Threading: immutable.  Owns: nothing; rows are constants.  Waits: never.
// Source: KVBM's names as compared with its package `kvbm` 1.6.1.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "terrace/config/settings.h"

namespace terrace::config {

enum class Type : std::uint8_t {
  kSize,      // Bytes, with a unit.
  kBlocks,    // A number of blocks.
  kInteger,   // A plain number.
  kDuration,  // Nanoseconds, with a unit.
  kFloat,
  kBool,
  kChoice,  // One word of `choices`.
  kText,    // At most `high` bytes, no control characters.
  kPath,    // Absolute, at most `high` bytes.
  kPathList,
  kWordList,
};

// How an alias' text becomes the text of the setting.
enum class AliasKind : std::uint8_t {
  kNone,            // Unused place.
  kAsIs,            // The same text.
  kGigabytes,       // Float times 1e9 bytes.
  kCount,           // Number of blocks; 0 = not set.
  kSeconds,         // Whole seconds.
  kPresence,        // Any value, even an empty one: the setting becomes `map`.
  kBoolMap,         // Boolean; `map` = "text for true/text for false", an empty text sets nothing.
  kWordMap,         // `map` = "word=text,word=text".
  kDiskFilter,      // KVBM's "no filter" switch.
  kConfiguresTier,  // Sets `map` if the alias gives a tier a size.
  kPublisherPort,   // Port + 1000, as an address to bind.
  kEnginePort,      // Port of the engine's event publisher on this machine.
};

struct Alias {
  std::string_view name;
  AliasKind kind = AliasKind::kNone;
  std::string_view map{};
  bool is_weak = false;  // Only moves the default: a file, too, overrides it.
};

struct EnumField {
  void* target;
  void (*store)(void* target, std::size_t index);
  std::size_t (*fetch)(const void* target);
};
using Field = std::variant<bool*, std::uint32_t*, std::uint64_t*, double*, Bytes*, Blocks*,
                           Nanoseconds*, std::string*, std::vector<std::string>*, EnumField>;

struct Row {
  std::string_view name;
  Type type;
  std::string_view fallback;  // Default, as text.
  double low = 0;             // Range; texts and paths: longest length in `high`.
  double high = 0;
  double low_nonzero = 0;      // > 0: besides 0, values below it are refused.
  std::string_view choices{};  // kChoice: "auto|off".
  std::string_view text;       // One sentence or two, for people.
  Field (*field)(Settings& settings);
  std::array<Alias, 5> aliases{};
  std::string_view fallback_note{};  // Says what an empty default means.
  std::string_view missing{};        // Not built yet: said when the value differs from the default.
  bool is_secret = false;
  bool is_environment_only = false;  // Files and command lines are seen by too many.
};

struct Ineffective {
  std::string_view name;
  std::string_view reason;
};

// All rows, grouped by the part before the dot.
[[nodiscard]] std::span<const Row> rows();
[[nodiscard]] const Row* find_row(std::string_view name);
// Known names of KVBM and around it that change nothing here, and why.
[[nodiscard]] std::span<const Ineffective> ineffective_names();
// TERRACE_ variables that belong to tools, not to the settings.
[[nodiscard]] std::span<const std::string_view> tool_names();
// `disk.direct_at` -> `TERRACE_DISK_DIRECT_AT`.
[[nodiscard]] std::string environment_name(std::string_view name);

// Prefix of KVBM's switches per NIXL backend; they add to transfer.backends.
inline constexpr std::string_view kBackendPrefix = "DYN_KVBM_NIXL_BACKEND_";

}  // namespace terrace::config
