#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <optional>

#include "terrace/config/nearest.h"
#include "terrace/config/source_internal.h"

namespace terrace::config {
namespace {

constexpr std::string_view kKvbmPrefix = "DYN_KVBM_";
constexpr std::string_view kOwnPrefix = "TERRACE_";

struct Reader {
  const Sources& sources;
  std::vector<Given>& given;
  Problems& problems;
  std::vector<std::string>& warnings;
  std::vector<std::string>& notes;

  void refuse(const Row& row, std::string_view variable, std::string_view value,
              std::string_view why) const {
    problems.add(fmt::format("setting {} (environment {}): {} {}; unset it or set {} to {}",
                             row.name, variable, row.is_secret ? "the value" : quote(value), why,
                             environment_name(row.name), allowed_text(row)));
  }
  void give(const Row& row, const Alias& alias, std::string text) const {
    const Level level = alias.is_weak ? Level::kWeakAlias : Level::kEnvironment;
    given.push_back({std::string(row.name),
                     std::move(text),
                     {level, fmt::format("environment {}", alias.name)},
                     true});
  }
};

// 1e9 bytes times a float, rounded down as KVBM does.
Result<std::string> gigabytes(std::string_view text) {
  TERRACE_ASSIGN_OR_RETURN(const double number, parse_float(text));
  const double bytes = std::floor(number * 1e9);
  if (bytes < 0) return fail(Code::kInvalid, "is negative");
  if (bytes > 9e18) return fail(Code::kInvalid, "is too large");
  return fmt::format("{}", static_cast<std::int64_t>(bytes));
}

// True if the variable gives a tier a size. Malformed text does not: it is refused elsewhere.
bool gives_size(const Sources& sources, std::string_view variable) {
  const auto at = sources.environment.find(variable);
  if (at == sources.environment.end()) return false;
  const auto number = parse_float(at->second);
  return number.has_value() && *number > 0;
}

bool is_disk_given_by_alias(const Sources& sources) {
  return gives_size(sources, "DYN_KVBM_DISK_CACHE_GB") ||
         gives_size(sources, "DYN_KVBM_DISK_CACHE_OVERRIDE_NUM_BLOCKS");
}

Result<std::int64_t> port(std::string_view text, std::int64_t highest) {
  TERRACE_ASSIGN_OR_RETURN(const std::int64_t number, parse_integer(text));
  if (number < 1 || number > highest) {
    return fail(Code::kInvalid, fmt::format("is no port from 1 to {}", highest));
  }
  return number;
}

Result<std::optional<std::string>> map_word(std::string_view map, std::string_view text) {
  std::vector<std::string_view> known;
  for (const std::string_view pair : split_words(map, ',')) {
    const auto at = pair.find('=');
    if (pair.substr(0, at) == text) return std::string(pair.substr(at + 1));
    known.push_back(pair.substr(0, at));
  }
  return fail(Code::kInvalid, fmt::format("is not one of {}", fmt::join(known, ", ")));
}

// The setting's own text for the alias' text; nothing when the alias leaves the setting alone.
Result<std::optional<std::string>> translate(const Alias& alias, std::string_view text,
                                             const Sources& sources) {
  constexpr std::int64_t kPublisherOffset = 1000;
  switch (alias.kind) {
    case AliasKind::kNone:
      return std::nullopt;
    case AliasKind::kAsIs:
      return std::string(text);
    case AliasKind::kPresence:
      return std::string(alias.map);
    case AliasKind::kWordMap:
      return map_word(alias.map, text);
    case AliasKind::kGigabytes: {
      TERRACE_ASSIGN_OR_RETURN(std::string bytes, gigabytes(text));
      return bytes;
    }
    case AliasKind::kCount: {
      TERRACE_ASSIGN_OR_RETURN(const std::int64_t number, parse_integer(text));
      if (number == 0) return std::nullopt;
      return fmt::format("{}", number);
    }
    case AliasKind::kSeconds: {
      TERRACE_ASSIGN_OR_RETURN(const std::int64_t number, parse_integer(text));
      return fmt::format("{}s", number);
    }
    case AliasKind::kBoolMap: {
      TERRACE_ASSIGN_OR_RETURN(const bool flag, parse_bool(text));
      const auto words = split_words(alias.map, '/');
      const std::string_view word = flag ? words.front() : words.back();
      if (word.empty()) return std::nullopt;
      return std::string(word);
    }
    case AliasKind::kDiskFilter: {
      TERRACE_ASSIGN_OR_RETURN(const bool is_off, parse_bool(text));
      if (is_off) return "all";
      if (!is_disk_given_by_alias(sources)) return std::nullopt;
      return "frequency";
    }
    case AliasKind::kConfiguresTier:
      if (!gives_size(sources, alias.name)) return std::nullopt;
      return std::string(alias.map);
    case AliasKind::kPublisherPort: {
      TERRACE_ASSIGN_OR_RETURN(const std::int64_t number, port(text, 65535 - kPublisherOffset));
      return fmt::format("tcp://127.0.0.1:{}", number + kPublisherOffset);
    }
    case AliasKind::kEnginePort: {
      TERRACE_ASSIGN_OR_RETURN(const std::int64_t number, port(text, 65535));
      return fmt::format("tcp://127.0.0.1:{}", number);
    }
  }
  return std::nullopt;
}

bool read_alias(const Reader& reader, std::string_view variable, const std::string& text) {
  bool is_known = false;
  for (const Row& row : rows()) {
    for (const Alias& alias : row.aliases) {
      if (alias.kind == AliasKind::kNone || alias.name != variable) continue;
      // A malformed value is reported once, by the row that the alias is mainly for.
      const bool is_second = is_known;
      is_known = true;
      const auto own = translate(alias, text, reader.sources);
      if (!own.has_value()) {
        if (!is_second) reader.refuse(row, variable, text, own.error().message());
        continue;
      }
      if (!own->has_value()) continue;
      const auto value = parse_value(row, **own);
      if (!value.has_value()) {
        reader.refuse(row, variable, text, value.error().message());
        continue;
      }
      reader.give(row, alias, **own);
    }
  }
  return is_known;
}

// KVBM reads no such switch; they say which NIXL plug-ins may move bytes.
void read_backend(const Reader& reader, std::string_view variable, std::string_view text,
                  std::vector<std::string>& names) {
  const auto flag = parse_bool(text);
  if (!flag.has_value()) {
    reader.refuse(*find_row("transfer.backends"), variable, text, flag.error().message());
    return;
  }
  std::string name;
  for (const char c : variable.substr(kBackendPrefix.size())) {
    name += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  if (*flag && !name.empty()) names.push_back(std::move(name));
}

void warn_unknown_alias(const Reader& reader, std::string_view variable) {
  std::vector<std::string_view> known;
  for (const Row& row : rows()) {
    for (const Alias& alias : row.aliases) {
      if (alias.name.starts_with(kKvbmPrefix)) known.push_back(alias.name);
    }
  }
  for (const Ineffective& name : ineffective_names()) known.push_back(name.name);
  const std::string_view near = nearest_of(variable, known);
  if (reader.warnings.size() >= kMostGiven) return;
  reader.warnings.push_back(
      near.empty()
          ? fmt::format("environment {}: no known KVBM setting, ignored", quote(variable))
          : fmt::format("environment {}: no known KVBM setting, ignored; the nearest is {}",
                        quote(variable), near));
}

std::string_view own_part(std::string_view variable) { return variable.substr(kOwnPrefix.size()); }

void read_own(const Reader& reader, const std::string& variable, const std::string& text) {
  if (std::ranges::count(tool_names(), std::string_view(variable)) > 0) return;
  std::vector<std::string> names;
  for (const Row& row : rows()) {
    names.push_back(environment_name(row.name));
    if (names.back() != variable) continue;
    reader.given.push_back({std::string(row.name),
                            text,
                            {Level::kEnvironment, fmt::format("environment {}", variable)},
                            false});
    return;
  }
  // Without what they all begin with, which would make any two of them near.
  std::vector<std::string_view> views;
  views.reserve(names.size());
  for (const std::string& name : names) views.push_back(own_part(name));
  const std::string_view near = nearest_of(own_part(variable), views);
  reader.problems.add(fmt::format("environment {}: unknown setting; {}", quote(variable),
                                  near.empty()
                                      ? "unset it; `terrace config --explain` lists all settings"
                                      : fmt::format("did you mean {}{}?", kOwnPrefix, near)));
}

// The unreleased second version of KVBM has settings of its own; guessing what they mean is worse
// than saying so.
void refuse_second_version(const Reader& reader, const std::string& variable) {
  if (variable == "KVBM_CONFIG_PATH") {
    reader.problems.add(
        "environment KVBM_CONFIG_PATH: KVBM v2's file is not read; unset it and name a file of "
        "Terrace's settings with config.file (TERRACE_CONFIG_FILE)");
    return;
  }
  std::vector<std::string> names;
  for (const Row& row : rows()) names.emplace_back(own_part(environment_name(row.name)));
  const std::vector<std::string_view> views(names.begin(), names.end());
  const std::string_view near = nearest_of(std::string_view(variable).substr(5), views);
  reader.problems.add(fmt::format(
      "environment {}: settings of KVBM v2 are not read; unset it and use {}", quote(variable),
      near.empty() ? "Terrace's own (`terrace config --explain`), or a file (TERRACE_CONFIG_FILE)"
                   : fmt::format("TERRACE_{}", near)));
}

}  // namespace

void read_environment(const Sources& sources, std::vector<Given>& given, Problems& problems,
                      std::vector<std::string>& warnings, std::vector<std::string>& notes) {
  const Reader reader{sources, given, problems, warnings, notes};
  std::vector<std::string> backends;
  for (const auto& [variable, text] : sources.environment) {
    if (variable.starts_with(kOwnPrefix)) {
      read_own(reader, variable, text);
      continue;
    }
    if (variable.starts_with("KVBM_")) {
      refuse_second_version(reader, variable);
      continue;
    }
    if (variable.starts_with(kBackendPrefix)) {
      read_backend(reader, variable, text, backends);
      continue;
    }
    const auto unused = std::ranges::find(ineffective_names(), variable, &Ineffective::name);
    if (unused != ineffective_names().end()) {
      notes.push_back(fmt::format("environment {} has no effect: {}", variable, unused->reason));
      continue;
    }
    if (!read_alias(reader, variable, text) && variable.starts_with(kKvbmPrefix)) {
      warn_unknown_alias(reader, variable);
    }
  }
  if (!backends.empty()) {
    given.push_back({"transfer.backends",
                     std::move(backends),
                     {Level::kEnvironment, fmt::format("environment {}*", kBackendPrefix)},
                     true});
  }
}

}  // namespace terrace::config
