#include "terrace/config/load.h"

#include <fmt/format.h>

#include <exception>
#include <new>
#include <optional>

#include "terrace/base/file.h"
#include "terrace/config/nearest.h"
#include "terrace/config/preset.h"
#include "terrace/config/source_internal.h"

namespace terrace::config {
namespace {

struct Chosen {
  const Row* row;
  Value value;
  Origin origin;
  bool is_alias;  // A name of KVBM gave it.
  bool is_own;    // A name of ours gave it; both may have.
};
using ChosenMap = std::map<std::string, Chosen, std::less<>>;

// How the value can be given instead, in the words of the source it came from.
std::string way_out(const Row& row, const Origin& origin) {
  if (origin.level == Level::kEnvironment) {
    return fmt::format("; set {} to {}", environment_name(row.name), allowed_text(row));
  }
  return fmt::format("; give {}", allowed_text(row));
}

std::string scalar_text(const Row& row, const Scalar& scalar) {
  if (row.is_secret) return "the value";
  if (const auto* text = std::get_if<std::string>(&scalar)) return quote(*text);
  if (const auto* flag = std::get_if<bool>(&scalar)) return *flag ? "true" : "false";
  if (const auto* number = std::get_if<double>(&scalar)) return fmt::format("{}", *number);
  if (const auto* integer = std::get_if<std::int64_t>(&scalar)) return fmt::format("{}", *integer);
  return quote(fmt::format("{}", fmt::join(std::get<std::vector<std::string>>(scalar), ",")));
}

// Two voices at one level must agree: the operator sees both names, nobody guesses.
void merge(const Given& given, ChosenMap& chosen, Problems& problems) {
  const Row* row = find_row(given.name);
  if (row == nullptr) {
    problems.add(fmt::format("unknown setting {} ({}){}", quote(given.name), given.origin.text,
                             nearest_setting_hint(given.name)));
    return;
  }
  if (row->name == "config.file" && given.origin.level == Level::kFile) {
    problems.add(
        fmt::format("setting config.file ({}): a file cannot name another; use "
                    "TERRACE_CONFIG_FILE or the engine's settings",
                    given.origin.text));
    return;
  }
  if (row->is_environment_only && given.origin.level != Level::kEnvironment) {
    problems.add(
        fmt::format("setting {} ({}): it is taken from the environment alone; set {}, or "
                    "name a file with encryption.key_file",
                    row->name, given.origin.text, environment_name(row->name)));
    return;
  }
  auto value = convert_value(*row, given.scalar);
  if (!value.has_value()) {
    problems.add(fmt::format("setting {} ({}): {} {}{}", row->name, given.origin.text,
                             scalar_text(*row, given.scalar), value.error().message(),
                             way_out(*row, given.origin)));
    return;
  }
  Chosen next{row, std::move(*value), given.origin, given.is_alias, !given.is_alias};
  const auto at = chosen.find(given.name);
  if (at == chosen.end() || at->second.origin.level < next.origin.level) {
    chosen.insert_or_assign(given.name, std::move(next));
    return;
  }
  if (at->second.origin.level > next.origin.level) return;
  if (at->second.value == next.value) {
    // Who says it in our words, too, asks for it: it counts, and is told, as ours.
    if (next.is_own && !at->second.is_own) at->second.origin = std::move(next.origin);
    at->second.is_alias |= next.is_alias;
    at->second.is_own |= next.is_own;
    return;
  }
  // Weak aliases of one setting do not contradict: the first in the table's order stays.
  if (next.origin.level == Level::kWeakAlias) return;
  problems.add(fmt::format("setting {}: {} says {}, {} says {}; keep one of them", row->name,
                           at->second.origin.text, format_value(*row, at->second.value),
                           next.origin.text, format_value(*row, next.value)));
}

void read_overrides(const Sources& sources, std::vector<Given>& given) {
  for (const auto& [name, text] : sources.overrides) {
    given.push_back({name, text, {Level::kCommandLine, "command line"}, false});
  }
}

// KVBM's filter belongs to a disk that KVBM's names size, not to one that a higher source sizes.
// A file is the lowest source, so it need not be read before.
void drop_filter_of_another_disk(ChosenMap& chosen) {
  const auto filter = chosen.find("disk.admission");
  const bool is_kvbms = filter != chosen.end() && filter->second.is_alias &&
                        filter->second.value == Value(std::string("frequency"));
  if (!is_kvbms) return;
  const auto blocks = chosen.find("disk.blocks");
  const bool is_by_blocks =
      blocks != chosen.end() && blocks->second.value != Value(std::int64_t{0});
  const auto sized = is_by_blocks ? blocks : chosen.find("disk.size");
  if (sized == chosen.end() || !sized->second.is_alias) chosen.erase(filter);
}

// The file is named by the other sources, so they are read first.
void read_file_named_in(const ChosenMap& chosen, std::vector<Given>& given, Problems& problems) {
  const auto at = chosen.find("config.file");
  if (at == chosen.end()) return;
  const auto& path = std::get<std::string>(at->second.value);
  if (path.empty()) return;
  const auto text = read_file(path, kMostSourceBytes);
  if (!text.has_value()) {
    problems.add(fmt::format("setting config.file ({}): {}; name a readable TOML file or unset it",
                             at->second.origin.text, text.error().message()));
    return;
  }
  read_toml(*text, path, given, problems);
}

// A preset stands in place of defaults that nobody has moved. Where a name of KVBM has moved one
// without anybody having said so, that is told.
void apply_preset(ChosenMap& chosen, std::vector<std::string>& notes) {
  const auto at = chosen.find("preset");
  if (at == chosen.end()) return;
  const std::string preset = std::get<std::string>(at->second.value);
  for (const PresetValue& item : preset_values()) {
    if (item.preset != preset) continue;
    const Row* row = find_row(item.name);
    auto value = parse_value(*row, item.text);
    if (!value.has_value()) continue;  // None is wrong: preset_test.cc.
    Chosen next{.row = row,
                .value = std::move(*value),
                .origin = {Level::kPreset, fmt::format("preset {}", preset)},
                .is_alias = false,
                .is_own = false};
    const auto [said, is_free] = chosen.try_emplace(std::string(item.name), std::move(next));
    if (is_free || said->second.origin.level != Level::kWeakAlias) continue;
    notes.push_back(fmt::format("preset {}: {} stays {} ({}); set it to {} to have the preset's",
                                preset, item.name, format_value(*row, said->second.value),
                                said->second.origin.text, item.text));
  }
}

void fill(const ChosenMap& chosen, Loaded& loaded) {
  loaded.settings = defaults();
  for (const Row& row : rows()) loaded.origins.emplace(row.name, Origin{});
  for (const auto& [name, entry] : chosen) {
    store_value(*entry.row, entry.value, loaded.settings);
    loaded.origins.insert_or_assign(name, entry.origin);
  }
}

// What a part that is not built would have done: said, not ignored.
void tell_missing(const ChosenMap& chosen, Loaded& loaded) {
  const Settings usual = defaults();
  for (const auto& [name, entry] : chosen) {
    const Row& row = *entry.row;
    if (row.missing.empty() || entry.value == fetch_value(row, usual)) continue;
    loaded.warnings.push_back(fmt::format("setting {} ({}): {}: {}", row.name, entry.origin.text,
                                          quote(format_value(row, entry.value)), row.missing));
  }
}

Result<Loaded> load_all(const Sources& sources) {
  Problems problems;
  Loaded loaded;
  std::vector<Given> given;
  ChosenMap chosen;
  read_environment(sources, given, problems, loaded.warnings, loaded.notes);
  read_json(sources, given, problems);
  read_overrides(sources, given);
  for (const Given& item : given) merge(item, chosen, problems);
  given.clear();
  drop_filter_of_another_disk(chosen);
  read_file_named_in(chosen, given, problems);
  for (const Given& item : given) merge(item, chosen, problems);
  apply_preset(chosen, loaded.notes);
  fill(chosen, loaded);
  tell_missing(chosen, loaded);
  if (problems.is_empty()) apply_rules(sources, loaded, problems);
  if (!problems.is_empty()) return fail(Code::kInvalid, problems.text());
  return loaded;
}

}  // namespace

std::string Problems::text() const {
  std::string out = fmt::format("{}", fmt::join(lines_, "\n"));
  if (more_ > 0) out += fmt::format("\nand {} more problems", more_);
  return out;
}

std::string nearest_setting_hint(std::string_view name) {
  std::vector<std::string_view> known;
  for (const Row& row : rows()) known.push_back(row.name);
  const std::string_view near = nearest_of(name, known);
  if (near.empty()) return "; `terrace config --explain` lists all settings";
  return fmt::format("; did you mean {}?", near);
}

Settings defaults() {
  Settings settings;
  for (const Row& row : rows()) {
    const auto value = parse_value(row, row.fallback);
    if (value.has_value()) store_value(row, *value, settings);
  }
  return settings;
}

Result<Loaded> load(const Sources& sources) {
  try {
    return load_all(sources);
  } catch (const std::bad_alloc&) {
    throw;  // No fault of the settings.
  } catch (const std::exception& error) {
    return fail(Code::kInternal, fmt::format("settings: {}", error.what()));
  }
}

}  // namespace terrace::config
