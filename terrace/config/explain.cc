#include "terrace/config/explain.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "terrace/config/preset.h"
#include "terrace/config/value.h"

namespace terrace::config {
namespace {

using Json = nlohmann::ordered_json;

std::string fallback_text(const Row& row) {
  if (!row.fallback_note.empty()) return std::string(row.fallback_note);
  return row.fallback.empty() ? "empty" : std::string(row.fallback);
}

// What KVBM's name does to the setting, in few words.
std::string alias_text(const Alias& alias) {
  const std::string_view weak = alias.is_weak ? ", moves the default" : "";
  switch (alias.kind) {
    case AliasKind::kGigabytes:
      return fmt::format("{} (GB of 1e9 bytes{})", alias.name, weak);
    case AliasKind::kCount:
      return fmt::format("{} (0 = unset{})", alias.name, weak);
    case AliasKind::kSeconds:
      return fmt::format("{} (seconds{})", alias.name, weak);
    case AliasKind::kPresence:
      return fmt::format("{} (any value: {})", alias.name, alias.map);
    case AliasKind::kPublisherPort:
      return fmt::format("{} (port + 1000{})", alias.name, weak);
    case AliasKind::kEnginePort:
      return fmt::format("{} (port{})", alias.name, weak);
    case AliasKind::kBoolMap: {
      const auto words = split_words(alias.map, '/');
      return fmt::format("{} (true: {}{}{}{})", alias.name, words.front(),
                         words.back().empty() ? "" : ", false: ", words.back(), weak);
    }
    case AliasKind::kWordMap:
      return fmt::format("{} ({})", alias.name, alias.map);
    case AliasKind::kDiskFilter:
      return fmt::format("{} (true: all; false: frequency, if KVBM's names size the disk)",
                         alias.name);
    case AliasKind::kConfiguresTier:
      return fmt::format("{} (not 0: {}{})", alias.name, alias.map, weak);
    case AliasKind::kAsIs:
      return weak.empty() ? std::string(alias.name)
                          : fmt::format("{} (moves the default)", alias.name);
    case AliasKind::kNone:
      break;
  }
  return {};
}

std::vector<std::string> alias_texts(const Row& row) {
  std::vector<std::string> out;
  for (const Alias& alias : row.aliases) {
    if (alias.kind != AliasKind::kNone) out.push_back(alias_text(alias));
  }
  if (row.name == "transfer.backends") {
    out.push_back(fmt::format("{}<NAME> (true: adds it)", kBackendPrefix));
  }
  return out;
}

// What presets make of the setting.
std::vector<const PresetValue*> presets_of(const Row& row) {
  std::vector<const PresetValue*> out;
  for (const PresetValue& item : preset_values()) {
    if (item.name == row.name) out.push_back(&item);
  }
  return out;
}

std::string_view group_of(const Row& row) { return row.name.substr(0, row.name.find('.')); }

std::string dump(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string_view level_name(Level level) {
  switch (level) {
    case Level::kDefault:
      return "default";
    case Level::kPreset:
      return "preset";
    case Level::kWeakAlias:
      return "default moved by environment";
    case Level::kFile:
      return "file";
    case Level::kEnvironment:
      return "environment";
    case Level::kEngine:
      return "engine";
    case Level::kCommandLine:
      return "command line";
  }
  return "?";
}

constexpr std::string_view kMarkdownHead =
    "# Settings\n\n"
    "Made by `terrace config --markdown` from `terrace/config/table.cc`; a test fails when this "
    "page "
    "is stale.\n\n"
    "Sources, lowest first: the defaults below; those of `preset`, at the end; a TOML file (named "
    "by `config.file` or "
    "`TERRACE_CONFIG_FILE`);\nthe environment, `TERRACE_A_B` for `a.b`, with KVBM's `DYN_KVBM_*` "
    "names beside it; the engine's own JSON\n(vLLM: `kv_connector_extra_config`), flat "
    "(`\"host.size\": \"2GiB\"`) or nested (`\"host\": {\"size\": \"2GiB\"}`).\n"
    "Unknown names, malformed values, values out of range, and two names at one level that "
    "disagree "
    "stop the\nstart with a message that says which, where and what is allowed. `terrace config` "
    "prints the effective\nvalues and where each came from.\n\n"
    "Sizes take B, KB, KiB, MB, MiB, GB, GiB, TB, TiB, a bare number is bytes; durations ns, us, "
    "ms, "
    "s, min, h;\nbooleans 1/0, true/false, on/off, yes/no; lists are JSON or TOML lists, or "
    "separated "
    "by commas.\n\n"
    "At least one of `host.size`, `host.blocks`, `disk.size`, `disk.blocks` must be given,\n"
    "unless `mode` is `observe`.\n";

void write_presets(std::string& out) {
  out +=
      "\n## Presets\n\nWhat `preset` puts in place of defaults, and why; the rest stays as above. "
      "How to choose, and what was measured:\n[operations.md](operations.md).\n\n"
      "| preset | setting | value | why |\n|---|---|---|---|\n";
  for (const PresetValue& item : preset_values()) {
    fmt::format_to(std::back_inserter(out), "| `{}` | `{}` | {} | {} |\n", item.preset, item.name,
                   item.text, item.why);
  }
}

void write_ineffective(std::string& out) {
  out +=
      "\n## Names of KVBM without effect\n\nKnown, logged once, and ignored. Other `DYN_KVBM_*` "
      "names "
      "give a warning with the nearest known name;\n`KVBM_*` (KVBM v2) is refused.\n\n"
      "| variable | why |\n|---|---|\n";
  for (const Ineffective& name : ineffective_names()) {
    fmt::format_to(std::back_inserter(out), "| `{}` | {} |\n", name.name, name.reason);
  }
}

}  // namespace

std::string explain_text() {
  std::string out;
  auto end = std::back_inserter(out);
  for (const Row& row : rows()) {
    fmt::format_to(end, "{}  ({}, default {})\n    {}\n    {}; {}\n", row.name, type_name(row.type),
                   fallback_text(row), row.text, allowed_text(row), environment_name(row.name));
    for (const std::string& alias : alias_texts(row)) fmt::format_to(end, "    also {}\n", alias);
    for (const PresetValue* item : presets_of(row)) {
      fmt::format_to(end, "    preset {}: {}; {}\n", item->preset, item->text, item->why);
    }
    if (!row.missing.empty()) fmt::format_to(end, "    not built yet: {}\n", row.missing);
  }
  return out;
}

std::string explain_json() {
  Json out = Json::array();
  for (const Row& row : rows()) {
    Json presets = Json::object();
    for (const PresetValue* item : presets_of(row)) {
      presets[std::string(item->preset)] = {{"value", item->text}, {"why", item->why}};
    }
    out.push_back({{"name", row.name},
                   {"type", type_name(row.type)},
                   {"default", row.fallback},
                   {"default_note", row.fallback_note},
                   {"allowed", allowed_text(row)},
                   {"text", row.text},
                   {"variable", environment_name(row.name)},
                   {"aliases", alias_texts(row)},
                   {"presets", std::move(presets)},
                   {"not_built", row.missing}});
  }
  return dump(out);
}

std::string settings_markdown() {
  std::string out(kMarkdownHead);
  auto end = std::back_inserter(out);
  std::string_view group;
  for (const Row& row : rows()) {
    if (group != group_of(row)) {
      group = group_of(row);
      fmt::format_to(end,
                     "\n## {}\n\n| setting | type, default | allowed | meaning | KVBM |\n"
                     "|---|---|---|---|---|\n",
                     group);
    }
    std::string meaning(row.text);
    if (!row.missing.empty()) meaning += fmt::format(" *Not built yet: {}.*", row.missing);
    const auto aliases = alias_texts(row);
    fmt::format_to(end, "| `{}` | {}, {} | {} | {} | {} |\n", row.name, type_name(row.type),
                   fallback_text(row), allowed_text(row), meaning,
                   aliases.empty() ? "–" : fmt::format("{}", fmt::join(aliases, "; ")));
  }
  write_presets(out);
  write_ineffective(out);
  return out;
}

std::string effective_text(const Loaded& loaded) {
  std::size_t widest_name = 0;
  std::size_t widest_value = 0;
  std::vector<std::string> values;
  for (const Row& row : rows()) {
    std::string value = format_value(row, fetch_value(row, loaded.settings));
    values.push_back(value.empty() ? std::string(1, '-') : std::move(value));
    widest_name = std::max(widest_name, row.name.size());
    widest_value = std::max(widest_value, std::min<std::size_t>(values.back().size(), 40));
  }
  std::string out;
  auto end = std::back_inserter(out);
  for (std::size_t i = 0; i < rows().size(); ++i) {
    const Row& row = rows()[i];
    fmt::format_to(end, "{:<{}}  {:<{}}  {}\n", row.name, widest_name, values[i], widest_value,
                   loaded.origins.at(std::string(row.name)).text);
  }
  for (const std::string& line : loaded.warnings) fmt::format_to(end, "warning: {}\n", line);
  for (const std::string& line : loaded.notes) fmt::format_to(end, "note: {}\n", line);
  return out;
}

std::string effective_json(const Loaded& loaded) {
  Json out;
  out["settings"] = Json::object();
  for (const Row& row : rows()) {
    const Origin& origin = loaded.origins.at(std::string(row.name));
    out["settings"][std::string(row.name)] = {
        {"value", format_value(row, fetch_value(row, loaded.settings))},
        {"level", level_name(origin.level)},
        {"origin", origin.text}};
  }
  out["host_is_staging"] = loaded.settings.host.is_staging;
  out["warnings"] = loaded.warnings;
  out["notes"] = loaded.notes;
  return dump(out);
}

}  // namespace terrace::config
