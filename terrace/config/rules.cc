#include <fmt/format.h>

#include "terrace/config/source_internal.h"

namespace terrace::config {
namespace {

std::string size_text(Bytes size) {
  return format_value(*find_row("host.size"), static_cast<std::int64_t>(size.value()));
}

std::string_view variable(const Sources& sources, std::string_view name) {
  const auto at = sources.environment.find(name);
  return at == sources.environment.end() ? std::string_view() : std::string_view(at->second);
}

bool is_host_given(const HostSettings& host) {
  return host.size.value() > 0 || host.blocks.value() > 0;
}

// KVBM's combinations: only "nothing at all" is an error, the useless ones are told with numbers.
void check_tiers(Loaded& loaded, Problems& problems) {
  Settings& settings = loaded.settings;
  const bool has_host = is_host_given(settings.host);
  if (!has_host && !settings.disk.is_used()) {
    std::string line =
        "settings host.size, disk.size: no tier has a size; set host.size (TERRACE_HOST_SIZE) or "
        "disk.size (TERRACE_DISK_SIZE), such as 2GiB";
    if (settings.object.enabled) {
      line += fmt::format("; object.enabled ({}) alone does not do: the object tier is not built",
                          loaded.origins.at("object.enabled").text);
    }
    problems.add(std::move(line));
    return;
  }
  settings.host.is_staging = !has_host;
  const bool are_sizes = settings.host.blocks.value() == 0 && settings.disk.blocks.value() == 0;
  if (has_host && settings.disk.is_used() && are_sizes && settings.disk.size < settings.host.size) {
    loaded.warnings.push_back(fmt::format(
        "disk.size {} is smaller than host.size {}: the disk tier holds less than what leaves host",
        size_text(settings.disk.size), size_text(settings.host.size)));
  }
  const bool are_counts = settings.host.blocks.value() > 0 && settings.disk.blocks.value() > 0;
  if (are_counts && settings.disk.blocks < settings.host.blocks) {
    loaded.warnings.push_back(
        fmt::format("disk.blocks {} is smaller than host.blocks {}: the disk tier holds less than "
                    "what leaves host",
                    settings.disk.blocks.value(), settings.host.blocks.value()));
  }
}

void choose_disk_paths(const Sources& sources, Loaded& loaded, Problems& problems) {
  Settings& settings = loaded.settings;
  if (!settings.disk.paths.empty() || !settings.disk.is_used()) return;
  if (const Origin& origin = loaded.origins.at("disk.paths"); origin.level != Level::kDefault) {
    problems.add(fmt::format(
        "setting disk.paths ({}): the list is empty; name a directory, or leave the "
        "setting out for {}, or set disk.size (TERRACE_DISK_SIZE) to 0 for no disk tier",
        origin.text, find_row("disk.paths")->fallback_note));
    return;
  }
  const std::string_view cache = variable(sources, "XDG_CACHE_HOME");
  const std::string_view home = variable(sources, "HOME");
  if (cache.starts_with('/')) {
    settings.disk.paths.push_back(fmt::format("{}/terrace", cache));
  } else if (home.starts_with('/')) {
    settings.disk.paths.push_back(fmt::format("{}/.cache/terrace", home));
  } else {
    problems.add(
        "setting disk.paths: neither XDG_CACHE_HOME nor HOME names a directory; set disk.paths "
        "(TERRACE_DISK_PATHS) to at least one");
  }
}

// Owner and ranks must come to the same answer, so it depends on nothing else.
void choose_attach_directory(const Sources& sources, Loaded& loaded) {
  std::string& directory = loaded.settings.attach.directory;
  if (!directory.empty()) return;
  const std::string_view runtime = variable(sources, "XDG_RUNTIME_DIR");
  std::string wanted = fmt::format("{}/terrace", runtime);
  const auto longest = static_cast<std::size_t>(find_row("attach.directory")->high);
  directory = runtime.starts_with('/') && wanted.size() <= longest
                  ? std::move(wanted)
                  : fmt::format("/tmp/terrace-{}", sources.user_id);
}

}  // namespace

void apply_rules(const Sources& sources, Loaded& loaded, Problems& problems) {
  check_tiers(loaded, problems);
  choose_disk_paths(sources, loaded, problems);
  choose_attach_directory(sources, loaded);
}

}  // namespace terrace::config
