#include <arpa/inet.h>
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
  const bool is_observing = settings.mode == Mode::kObserve;
  if (!has_host && !settings.disk.is_used() && !is_observing) {
    std::string line =
        "settings host.size, disk.size: no tier has a size; set host.size (TERRACE_HOST_SIZE) or "
        "disk.size (TERRACE_DISK_SIZE), such as 2GiB";
    if (settings.object.is_used()) {
      const char* name = settings.object.enabled ? "object.enabled" : "object.path";
      line += fmt::format("; {} ({}) alone does not do: what is loaded goes through host memory",
                          name, loaded.origins.at(name).text);
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

bool is_given(const Loaded& loaded, std::string_view name) {
  const Level level = loaded.origins.find(name)->second.level;
  return level != Level::kDefault && level != Level::kPreset && level != Level::kWeakAlias;
}

// KVBM's variables come in sets, often from an image: what it ignores in silence is no error here.
bool is_own(const Loaded& loaded, std::string_view name) {
  return is_given(loaded, name) &&
         loaded.origins.find(name)->second.text.find("environment DYN_") == std::string::npos;
}

std::string source_of(const Loaded& loaded, std::string_view name) {
  return fmt::format("{} ({})", name, loaded.origins.find(name)->second.text);
}

// What an S3 bucket cannot be reached without.
std::vector<std::string> missing_for_bucket(const ObjectSettings& object) {
  std::vector<std::string> lines;
  for (const auto& [name, value] : {std::pair("object.bucket", &object.bucket),
                                    std::pair("object.endpoint", &object.endpoint)}) {
    if (!value->empty()) continue;
    lines.push_back(fmt::format("setting {}: object.enabled needs it; set {} ({})", name, name,
                                environment_name(name)));
  }
  const bool has_scheme =
      object.endpoint.starts_with("http://") || object.endpoint.starts_with("https://");
  if (!object.endpoint.empty() && !has_scheme) {
    lines.push_back(
        fmt::format("setting object.endpoint: \"{}\" is no address; begin with http:// or https://",
                    object.endpoint));
  }
  if (object.access_key.empty() && object.credentials_file.empty()) {
    lines.emplace_back(
        "settings object.access_key, object.credentials_file: object.enabled needs credentials; "
        "set object.access_key and object.secret_key (TERRACE_OBJECT_ACCESS_KEY, "
        "TERRACE_OBJECT_SECRET_KEY), or object.credentials_file");
  }
  return lines;
}

void check_objects(Loaded& loaded, Problems& problems) {
  ObjectSettings& object = loaded.settings.object;
  if (!object.enabled) return;
  if (!object.path.empty()) {
    problems.add(
        "settings object.path, object.enabled: one owner has one shared store; give the directory "
        "or the bucket, not both");
  }
  for (std::string& line : missing_for_bucket(object)) {
    if (is_own(loaded, "object.enabled")) {
      problems.add(std::move(line));
    } else {
      loaded.warnings.push_back(fmt::format("{} ({}): no bucket is used", line,
                                            loaded.origins.at("object.enabled").text));
      object.enabled = false;
    }
  }
}

std::string duration_text(Nanoseconds duration) {
  return format_value(*find_row("attach.timeout"), duration.value());
}

// Who asks for a wait longer than the default limit does not get it, either: that nobody chose the
// limit is no excuse. A wait that nobody chose, though, just ends with a shorter limit.
void check_waits(Loaded& loaded, Problems& problems) {
  const AttachSettings& attach = loaded.settings.attach;
  if (!is_own(loaded, "attach.lookup_wait") || attach.lookup_wait <= attach.timeout) return;
  std::string line = fmt::format(
      "settings {}, {}: requests would wait {} for ranks, and the owner gives up after {}; set "
      "attach.lookup_wait to at most attach.timeout, or raise attach.timeout",
      source_of(loaded, "attach.lookup_wait"), source_of(loaded, "attach.timeout"),
      duration_text(attach.lookup_wait), duration_text(attach.timeout));
  if (is_given(loaded, "attach.timeout") && !is_own(loaded, "attach.timeout")) {
    loaded.warnings.push_back(std::move(line));
  } else {
    problems.add(std::move(line));
  }
}

// Settings of which each is right and both together cannot be what was meant.
void check_contradictions(Loaded& loaded, Problems& problems) {
  const Settings& settings = loaded.settings;
  const bool is_disk_refused = is_given(loaded, "disk.size") || is_given(loaded, "disk.blocks");
  if (!settings.disk.paths.empty() && !settings.disk.is_used() && !is_disk_refused) {
    std::string line = fmt::format(
        "settings {}, disk.size: directories are named, and no size for what may lie in them, so "
        "there is no disk tier; set disk.size (TERRACE_DISK_SIZE) such as 100GiB, or to 0 if none "
        "is wanted",
        source_of(loaded, "disk.paths"));
    if (is_own(loaded, "disk.paths")) {
      problems.add(std::move(line));
    } else {
      loaded.warnings.push_back(std::move(line));
    }
  }
  check_waits(loaded, problems);
  // A read ends with the patience of whoever it is for.
  const bool has_lower = settings.disk.is_used() || settings.object.is_used();
  if (has_lower && settings.lookup.deadline == Nanoseconds(0)) {
    loaded.warnings.push_back(
        fmt::format("{} is 0s: no request waits for what lies below host, so it is written and "
                    "never read; give it a time, such as 2s",
                    source_of(loaded, "lookup.deadline")));
  }
}

void check_keys(Loaded& loaded, Problems& problems) {
  const EncryptionSettings& encryption = loaded.settings.encryption;
  if (!encryption.key_file.empty() && !encryption.key.empty()) {
    problems.add(
        fmt::format("settings {}, {}: two keys to encrypt with; keep one, and name the "
                    "other one's file in encryption.old_key_files if blocks are encrypted "
                    "with it",
                    source_of(loaded, "encryption.key_file"), source_of(loaded, "encryption.key")));
  }
  if (!encryption.is_used() && !encryption.old_key_files.empty()) {
    problems.add(
        fmt::format("setting {}: old keys only read; name the key to encrypt with in "
                    "encryption.key_file (TERRACE_ENCRYPTION_KEY_FILE)",
                    source_of(loaded, "encryption.old_key_files")));
  }
}

// A setting without effect beside another one: somebody expects something of it.
void tell_useless(Loaded& loaded) {
  struct Useless {
    std::string_view name;
    bool is_useless;
    std::string_view because;  // Names the other setting, and what to do.
  };
  const Settings& settings = loaded.settings;
  const bool has_host = is_host_given(settings.host);
  const bool counts = settings.disk.admission == "frequency";
  const bool expects = settings.disk.admission == "expected";
  const bool remembers = settings.disk.admission != "all";
  const bool has_library = !settings.disk.backend_library.empty();
  const bool has_ring_only = !has_library && settings.disk.backend == DiskBackend::kIoUring;
  const EncryptionSettings& encryption = settings.encryption;
  const bool has_lower = settings.disk.is_used() || settings.object.is_used();
  const std::string no_frequency =
      fmt::format("disk.admission is {}, which counts nothing; set disk.admission = frequency",
                  settings.disk.admission);
  const std::string no_loss =
      fmt::format("disk.admission is {}, which aims at no loss; set disk.admission = expected",
                  settings.disk.admission);
  const ObjectSettings& object = settings.object;
  const bool has_store = object.is_used();
  const bool is_bounded =
      object.size.value() > 0 || object.max_age > Nanoseconds(0) || object.blocks.value() > 0;
  constexpr std::string_view kNoStore =
      "there is no shared store; set object.path, or object.enabled";
  const Useless all[] = {
      {"host.staging", has_host, "the host tier has a size: host.size or host.blocks counts"},
      {"disk.direct_at", !settings.disk.direct,
       "disk.direct is false, so O_DIRECT is never asked for; set disk.direct = true"},
      {"disk.admission_threshold", !counts, no_frequency},
      {"disk.admission_decay", !counts, no_frequency},
      {"disk.admission_entries", !remembers,
       "disk.admission is all, which remembers nothing; set disk.admission = frequency, reuse or "
       "expected"},
      {"disk.admission_loss", !expects, no_loss},
      {"disk.backend", has_library,
       "disk.backend_library names another one; leave one of them out"},
      {"disk.threads", has_ring_only,
       "disk.backend is io_uring; set disk.backend to threads or auto"},
      {"object.size", !has_store, kNoStore},
      {"object.max_age", !has_store, kNoStore},
      {"object.admission", !has_store, kNoStore},
      {"object.promote", !has_store, kNoStore},
      {"object.gc_every", !is_bounded,
       "the shared store has no bound: object.size, object.max_age and object.blocks are all 0"},
      {"metrics.port", !settings.metrics.enabled, "metrics.enabled is false: there is no port"},
      {"metrics.address", !settings.metrics.enabled, "metrics.enabled is false: there is no port"},
      {"encryption.accept_plain", encryption.accept_plain && !encryption.is_used(),
       "without a key nothing is encrypted; set encryption.key_file"},
      {"encryption.threads", !encryption.is_used(),
       "without a key nothing is encrypted; set encryption.key_file"},
      {"encryption.key_file", !encryption.key_file.empty() && !has_lower,
       "host memory is not encrypted, and there is no tier below it; set disk.size, object.path or "
       "object.enabled"},
  };
  for (const auto& [name, is_useless, because] : all) {
    if (is_useless && is_own(loaded, name)) {
      loaded.warnings.push_back(
          fmt::format("setting {} has no effect: {}", source_of(loaded, name), because));
    }
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

void check_metrics(const Loaded& loaded, Problems& problems) {
  const std::string& address = loaded.settings.metrics.address;
  in6_addr figures{};
  if (::inet_pton(AF_INET, address.c_str(), &figures) == 1) return;
  if (::inet_pton(AF_INET6, address.c_str(), &figures) == 1) return;
  problems.add(
      fmt::format("setting metrics.address ({}): \"{}\" is no IPv4 or IPv6 address in figures; "
                  "such as 127.0.0.1, 0.0.0.0, ::1 or ::",
                  loaded.origins.at("metrics.address").text, address));
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
  check_objects(loaded, problems);
  check_contradictions(loaded, problems);
  check_keys(loaded, problems);
  check_metrics(loaded, problems);
  tell_useless(loaded);
  choose_disk_paths(sources, loaded, problems);
  choose_attach_directory(sources, loaded);
}

}  // namespace terrace::config
