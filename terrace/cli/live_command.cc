#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "terrace/cli/commands_internal.h"
#include "terrace/config/environment.h"
#include "terrace/config/load.h"
#include "terrace/serve/admin_client.h"

namespace terrace::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr Nanoseconds kAnswerLimit = seconds(5);

// Of another version, or of a stranger's socket: what is not of the type expected is not there.
std::string text_in(const Json& json, const char* name, const char* otherwise = "?") {
  const auto at = json.find(name);
  return at != json.end() && at->is_string() ? at->get<std::string>() : otherwise;
}

double number_in(const Json& json, const char* name) {
  const auto at = json.find(name);
  return at != json.end() && at->is_number() ? at->get<double>() : 0;
}

Json part_of(const Json& json, const char* name, Json::value_t type) {
  const auto at = json.find(name);
  return at != json.end() && at->type() == type ? *at : Json(type);
}

struct Found {
  std::string socket;
  Json status;
  [[nodiscard]] std::string engine() const { return text_in(status, "engine"); }
  [[nodiscard]] std::string name() const {
    return fmt::format("engine {} (process {:.0f})", engine(), number_in(status, "process"));
  }
};

struct Search {
  std::vector<Found> engines;
  bool has_failed = false;
  std::string error;  // Of dead sockets and failures, whole lines.
};

std::string_view verb_of(LiveVerb verb) {
  switch (verb) {
    case LiveVerb::kStatus:
      return "status";
    case LiveVerb::kPause:
      return "pause";
    case LiveVerb::kReadOnly:
      return "readonly";
    case LiveVerb::kResume:
      return "resume";
  }
  return "?";
}

std::string_view mode_of(LiveVerb verb) {
  switch (verb) {
    case LiveVerb::kPause:
      return "paused";
    case LiveVerb::kReadOnly:
      return "readonly";
    case LiveVerb::kStatus:
    case LiveVerb::kResume:
      break;
  }
  return "on";
}

// Settings without a tier are fine here: only the directory is asked for.
Result<std::string> directory_of(const LiveOptions& options) {
  if (!options.directory.empty()) return options.directory;
  config::Sources sources = config::read_sources("");
  auto loaded = config::load(sources);
  if (!loaded.has_value()) {
    const Status first = loaded.error();
    sources.overrides.emplace_back("host.size", "1GiB");
    loaded = config::load(sources);
    if (!loaded.has_value()) return fail(first);
  }
  return loaded->settings.attach.directory;
}

// An object of a status, or nothing that can be read as one.
Result<Json> object_in(const serve::AdminReply& reply) {
  Json json = Json::parse(reply.body, nullptr, /*allow_exceptions=*/false);
  if (json.is_object() && reply.code == 200) return json;
  const std::string said = json.is_object() && json.contains("error") && json["error"].is_string()
                               ? json["error"].get<std::string>()
                               : fmt::format("answer {} is no JSON object", reply.code);
  return fail(Code::kInvalid, said);
}

Result<Json> ask(const std::string& socket, std::string_view method, std::string_view target,
                 std::string_view body, const Clock& clock) {
  TERRACE_ASSIGN_OR_RETURN(const serve::AdminReply reply,
                           serve::ask_admin(socket, method, target, body, kAnswerLimit, clock));
  return object_in(reply);
}

Search search(const std::vector<std::string>& sockets, std::string_view verb, const Clock& clock) {
  Search found;
  for (const std::string& socket : sockets) {
    auto status = ask(socket, "GET", "/status", "", clock);
    if (status.has_value()) {
      found.engines.push_back({socket, std::move(*status)});
      continue;
    }
    const bool is_dead = status.error().code() == Code::kUnavailable;
    found.has_failed = found.has_failed || !is_dead;
    fmt::format_to(std::back_inserter(found.error), "terrace {}: {}{}\n", verb,
                   status.error().message(), is_dead ? " (skipped: it has ended)" : "");
  }
  return found;
}

std::string list_of(const std::vector<Found>& engines) {
  std::string out;
  for (const Found& one : engines) out += fmt::format("  {}\n", one.name());
  return out;
}

void write_counts(const Json& status, const char* field, std::string_view title, std::string& out) {
  if (!status.contains(field) || !status[field].is_object()) return;
  std::string counts;
  for (const auto& [name, value] : status[field].items()) {
    if (value.is_number() && value != 0) counts += fmt::format(" {} {}", name, value.dump());
  }
  if (!counts.empty()) fmt::format_to(std::back_inserter(out), "  {}:{}\n", title, counts);
}

std::string text_of(const Found& one) {
  const Json& status = one.status;
  const bool is_ready = part_of(status, "ready", Json::value_t::boolean).get<bool>();
  std::string out =
      fmt::format("{}: health {}, mode {}, {}, up {:.0f} s\n", one.name(),
                  text_in(status, "health"), text_in(status, "mode"),
                  is_ready ? "ready" : "not ready yet", number_in(status, "uptime_seconds"));
  for (const Json& problem : part_of(status, "problems", Json::value_t::array)) {
    out += fmt::format("  problem: {}\n", problem.is_string() ? problem.get<std::string>() : "?");
  }
  for (const Json& tier : part_of(status, "tiers", Json::value_t::array)) {
    if (!tier.is_object() || text_in(tier, "state", "off") == "off") continue;
    const Json slots = part_of(tier, "slots", Json::value_t::object);
    out += fmt::format("  {}: {}, {:.0f} blocks, {:.0f} slots free; {}\n", text_in(tier, "tier"),
                       text_in(tier, "state"), number_in(slots, "sealed"), number_in(slots, "free"),
                       text_in(tier, "detail", ""));
  }
  write_counts(status, "hit_tokens", "hit tokens", out);
  write_counts(status, "miss_blocks", "missed blocks", out);
  return out;
}

std::string dump(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
}

Answer show(const LiveOptions& options, const Search& found) {
  Answer answer{found.has_failed ? kFailed : kDone, "", found.error};
  Json all = Json::array();
  for (const Found& one : found.engines) {
    if (text_in(one.status, "health") != "green") answer.exit_code = kFailed;
    if (!options.is_json) answer.out += text_of(one);
    all.push_back(one.status);
    all.back()["socket"] = one.socket;
  }
  if (options.is_json) answer.out = dump(all);
  return answer;
}

Answer switch_all(const LiveOptions& options, const Search& found, const Clock& clock) {
  const std::string_view verb = verb_of(options.verb);
  Answer answer{found.has_failed ? kFailed : kDone, "", found.error};
  Json all = Json::array();
  for (const Found& one : found.engines) {
    const auto reply = ask(one.socket, "PUT", "/mode",
                           fmt::format("{{\"mode\":\"{}\"}}", mode_of(options.verb)), clock);
    if (!reply.has_value()) {
      answer.exit_code = kFailed;
      answer.error +=
          fmt::format("terrace {}: {}: {}\n", verb, one.name(), reply.error().message());
      continue;
    }
    const std::string mode = text_in(*reply, "mode");
    if (!options.is_json) answer.out += fmt::format("{}: mode {}\n", one.name(), mode);
    all.push_back({{"engine", one.engine()},
                   {"process", part_of(one.status, "process", Json::value_t::number_unsigned)},
                   {"mode", mode},
                   {"before", text_in(one.status, "mode")}});
  }
  if (options.is_json) answer.out = dump(all);
  return answer;
}

// Of all that answer, those that are meant; an answer if that cannot be told.
std::optional<Answer> choose(const LiveOptions& options, const std::string& directory,
                             Search& found) {
  const std::string_view verb = verb_of(options.verb);
  if (found.engines.empty()) {
    return Answer{
        kFailed, options.is_json ? "[]\n" : "",
        found.error + fmt::format("terrace {}: no engine answers in {}: if one runs, give "
                                  "its attach.directory with --directory, and ask as its "
                                  "user; admin.enabled must be true\n",
                                  verb, directory)};
  }
  if (!options.engine.empty()) {
    const std::string known = list_of(found.engines);
    std::erase_if(found.engines, [&](const Found& one) { return one.engine() != options.engine; });
    if (!found.engines.empty()) return std::nullopt;
    return Answer{kFailed, "",
                  found.error + fmt::format("terrace {}: no engine '{}' answers; there are:\n{}",
                                            verb, options.engine, known)};
  }
  if (options.verb == LiveVerb::kStatus || options.is_all || found.engines.size() == 1) {
    return std::nullopt;
  }
  return Answer{kUsage, "",
                found.error + fmt::format("terrace {}: several engines answer: choose one with "
                                          "--engine ID, or --all; there are:\n{}",
                                          verb, list_of(found.engines))};
}

}  // namespace

Answer run_live(const LiveOptions& options) {
  const std::string_view verb = verb_of(options.verb);
  const auto failed = [&](const Status& status) {
    return Answer{kFailed, "", fmt::format("terrace {}: {}\n", verb, status.message())};
  };
  if (options.is_all && !options.engine.empty()) {
    return {kUsage, "", fmt::format("terrace {}: give --engine or --all, not both\n", verb)};
  }
  const auto directory = directory_of(options);
  if (!directory.has_value()) return failed(directory.error());
  const auto sockets = serve::admin_sockets(*directory);
  if (!sockets.has_value()) return failed(sockets.error());
  const SystemClock clock;
  Search found = search(*sockets, verb, clock);
  if (auto answer = choose(options, *directory, found)) return std::move(*answer);
  return options.verb == LiveVerb::kStatus ? show(options, found)
                                           : switch_all(options, found, clock);
}

}  // namespace terrace::cli
