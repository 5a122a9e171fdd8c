#include "terrace/cli/inspect_text.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <iterator>
#include <nlohmann/json.hpp>

#include "terrace/cli/keys_at_hand.h"

namespace terrace::cli {
namespace {

using Json = nlohmann::ordered_json;
using tier::InspectedNamespace;
using tier::InspectedOwner;

std::string short_digest(const std::string& digest) { return digest.substr(0, 12); }

std::string time_text(std::int64_t seconds) {
  if (seconds <= 0) return "unknown";
  return fmt::format("{:%Y-%m-%d %H:%M:%S} UTC", fmt::gmtime(static_cast<std::time_t>(seconds)));
}

std::string size_text(std::uint64_t bytes) {
  constexpr std::uint64_t kMi = 1U << 20U;
  if (bytes < kMi) return fmt::format("{} B", bytes);
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / static_cast<double>(kMi));
}

std::string value_text(const std::optional<std::string>& value) {
  if (!value) return "(absent)";
  std::string out = "\"";
  for (const char c : *value) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  return out + '"';
}

void write_differences(const std::vector<FieldDifference>& fields, std::string_view ours,
                       std::string_view theirs, std::string& out) {
  for (const FieldDifference& field : fields) {
    fmt::format_to(std::back_inserter(out), "      {}.{}: {} {}, {} {}\n", field.part, field.name,
                   ours, value_text(field.ours), theirs, value_text(field.theirs));
  }
}

// Why another namespace's blocks do not match this one's; the first readable one before it is
// enough to see the field that changed.
void write_change(const InspectedNamespace& one, const InspectedNamespace* before,
                  std::string& out) {
  if (before == nullptr) return;
  const auto ours = Fingerprint::parse(one.fingerprint);
  const auto theirs = Fingerprint::parse(before->fingerprint);
  if (!ours.has_value() || !theirs.has_value()) return;
  const auto fields = differences(*ours, *theirs);
  fmt::format_to(std::back_inserter(out), "    differs from namespace {} in {} fields\n",
                 before->number, fields.size());
  write_differences(fields, "here", "there", out);
}

void write_match(const InspectedNamespace& one, const Fingerprint& wanted, std::string& out) {
  const auto theirs = Fingerprint::parse(one.fingerprint);
  if (!theirs.has_value()) return;
  const auto fields = differences(wanted, *theirs);
  if (fields.empty()) {
    out += "    matches the given fingerprint\n";
    return;
  }
  fmt::format_to(std::back_inserter(out), "    differs from the given fingerprint in {} fields\n",
                 fields.size());
  write_differences(fields, "given", "here", out);
}

void write_namespace(const InspectedNamespace& one, bool has_keys, std::string& out) {
  auto end = std::back_inserter(out);
  fmt::format_to(end, "  namespace {}: content {}, layout {}\n", one.number,
                 short_digest(one.content_digest), short_digest(one.layout_digest));
  fmt::format_to(end, "    {} of {} slots hold a block, {}; last used {}; epoch {}\n", one.sealed,
                 one.slots, size_text(one.bytes), time_text(one.used_seconds), one.epoch);
  if (one.sealed > 0 && one.era == 0) {
    out +=
        "    written by an earlier Terrace, whose frames do not say before which reset: its blocks "
        "are misses from the next start on\n";
  }
  if (one.damaged > 0) {
    fmt::format_to(end, "    {} damaged records: their blocks are misses\n", one.damaged);
  }
  if (!one.problem.empty()) fmt::format_to(end, "    problem: {}\n", one.problem);
  if (one.learned_bytes > 0) {
    fmt::format_to(end, "    eviction learned from its requests: {} for the next start\n",
                   size_text(one.learned_bytes));
  }
  out += key_uses_text(one.encryption, has_keys, /*was_opened=*/false, "    ");
  if (one.fingerprint.empty()) {
    fmt::format_to(
        end, "    its fingerprint is damaged ({}): {}\n", one.fingerprint_problem,
        one.content_digest.empty()
            ? "no engine finds it, its space is used again when it is needed"
            : "its frames have these digests; an engine that has them too writes it anew");
    return;
  }
  std::string_view rest = one.fingerprint;
  while (!rest.empty()) {
    const auto at = rest.find('\n');
    fmt::format_to(end, "      {}\n", rest.substr(0, at));
    rest.remove_prefix(at == std::string_view::npos ? rest.size() : at + 1);
  }
}

void write_owner(const InspectedOwner& owner, const InspectView& view, std::string& out) {
  auto end = std::back_inserter(out);
  const std::string use = !owner.lock_problem.empty()
                              ? "perhaps in use: " + owner.lock_problem
                              : (owner.is_locked ? "in use by an engine" : "free");
  fmt::format_to(end, "{}: {}, {}\n", owner.directory, owner.state, use);
  if (!owner.problem.empty()) fmt::format_to(end, "  problem: {}\n", owner.problem);
  if (owner.file_bytes > 0) {
    fmt::format_to(end, "  slot file {}, extents of {}\n", size_text(owner.file_bytes),
                   size_text(owner.extent_bytes));
  }
  if (owner.damaged_extents > 0) {
    fmt::format_to(end, "  {} damaged records in extents.meta: the blocks there are misses\n",
                   owner.damaged_extents);
  }
  const InspectedNamespace* before = nullptr;
  for (const InspectedNamespace& one : owner.namespaces) {
    write_namespace(one, view.has_keys, out);
    if (view.wanted) {
      write_match(one, *view.wanted, out);
    } else {
      write_change(one, before, out);
    }
    if (!one.fingerprint.empty()) before = &one;
  }
}

Json differences_json(const std::vector<FieldDifference>& fields) {
  Json out = Json::array();
  for (const FieldDifference& field : fields) {
    out.push_back({{"part", field.part},
                   {"name", field.name},
                   {"ours", field.ours ? Json(*field.ours) : Json()},
                   {"theirs", field.theirs ? Json(*field.theirs) : Json()}});
  }
  return out;
}

Json namespace_json(const InspectedNamespace& one, const std::optional<Fingerprint>& wanted) {
  Json out = {{"number", one.number},
              {"content_digest", one.content_digest},
              {"layout_digest", one.layout_digest},
              {"used_seconds", one.used_seconds},
              {"bytes", one.bytes},
              {"slots", one.slots},
              {"sealed", one.sealed},
              {"damaged", one.damaged},
              {"problem", one.problem},
              {"epoch", one.epoch},
              {"era", fmt::format("{:016x}", one.era)},
              {"learned_bytes", one.learned_bytes},
              {"encryption", key_uses_json<Json>(one.encryption)},
              {"fingerprint_problem", one.fingerprint_problem},
              {"content", Json::object()},
              {"layout", Json::object()}};
  const auto print = Fingerprint::parse(one.fingerprint);
  if (one.fingerprint.empty() || !print.has_value()) return out;
  for (const FingerprintField& field : print->content) out["content"][field.name] = field.value;
  for (const FingerprintField& field : print->layout) out["layout"][field.name] = field.value;
  if (wanted) out["differences"] = differences_json(differences(*wanted, *print));
  return out;
}

}  // namespace

bool is_match_missing(const std::vector<PathReport>& reports, const Fingerprint& wanted) {
  const std::string content = wanted.content_digest();
  const std::string layout = wanted.layout_digest();
  for (const PathReport& report : reports) {
    for (const InspectedOwner& owner : report.owners) {
      for (const InspectedNamespace& one : owner.namespaces) {
        if (one.content_digest == content && one.layout_digest == layout) return false;
      }
    }
  }
  return true;
}

bool has_problem(const std::vector<PathReport>& reports) {
  for (const PathReport& report : reports) {
    for (const InspectedOwner& owner : report.owners) {
      if (!owner.problem.empty() || owner.damaged_extents > 0) return true;
      for (const InspectedNamespace& one : owner.namespaces) {
        if (one.damaged > 0 || !one.problem.empty() || one.fingerprint.empty()) return true;
      }
    }
  }
  return false;
}

std::string leftover_text(const std::string& directory) {
  return fmt::format(
      "{}: of a `terrace move` that has not ended: engines pass over it; run that move again, or "
      "remove it with `terrace wipe`\n",
      directory);
}

std::string inspect_text(const std::vector<PathReport>& reports, const InspectView& view) {
  std::string out;
  for (const PathReport& report : reports) {
    if (report.owners.empty() && report.leftovers.empty()) {
      fmt::format_to(std::back_inserter(out), "{}: no owner has stored anything here\n",
                     report.path);
    }
    for (const InspectedOwner& owner : report.owners) write_owner(owner, view, out);
    for (const std::string& directory : report.leftovers) out += leftover_text(directory);
  }
  return out;
}

std::string inspect_json(const std::vector<PathReport>& reports, const InspectView& view) {
  Json out = Json::array();
  for (const PathReport& report : reports) {
    Json owners = Json::array();
    for (const InspectedOwner& owner : report.owners) {
      Json namespaces = Json::array();
      for (const InspectedNamespace& one : owner.namespaces) {
        namespaces.push_back(namespace_json(one, view.wanted));
      }
      owners.push_back({{"directory", owner.directory},
                        {"state", owner.state},
                        {"problem", owner.problem},
                        {"locked", owner.is_locked},
                        {"lock_problem", owner.lock_problem},
                        {"extent_bytes", owner.extent_bytes},
                        {"file_bytes", owner.file_bytes},
                        {"damaged_extents", owner.damaged_extents},
                        {"namespaces", std::move(namespaces)}});
    }
    out.push_back(
        {{"path", report.path}, {"owners", std::move(owners)}, {"leftovers", report.leftovers}});
  }
  return out.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
}

}  // namespace terrace::cli
