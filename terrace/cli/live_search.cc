#include "terrace/cli/live_search.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "terrace/cli/json_in.h"
#include "terrace/config/environment.h"
#include "terrace/config/load.h"
#include "terrace/serve/admin_client.h"

namespace terrace::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr Nanoseconds kAnswerLimit = seconds(5);

}  // namespace

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
    case LiveVerb::kScrub:
      return "scrub";
    case LiveVerb::kAdvise:
      return "advise";
    case LiveVerb::kWhy:
      return "why";
    case LiveVerb::kTop:
      return "top";
  }
  return "?";
}

namespace {

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
Result<std::string> object_in(const serve::AdminReply& reply) {
  Json json = Json::parse(reply.body, nullptr, /*allow_exceptions=*/false);
  if (json.is_object() && reply.code == 200) return reply.body;
  const std::string said = json.is_object() && json.contains("error") && json["error"].is_string()
                               ? json["error"].get<std::string>()
                               : fmt::format("answer {} is no JSON object", reply.code);
  return fail(Code::kInvalid, said);
}

}  // namespace

Result<std::string> ask_engine(const std::string& socket, std::string_view method,
                               std::string_view target, std::string_view body, const Clock& clock) {
  TERRACE_ASSIGN_OR_RETURN(const serve::AdminReply reply,
                           serve::ask_admin(socket, method, target, body, kAnswerLimit, clock));
  return object_in(reply);
}

namespace {

std::string name_of(const Json& status) {
  return fmt::format("engine {} (process {:.0f})", text_in(status, "engine"),
                     number_in(status, "process"));
}

LiveSearch search(const std::vector<std::string>& sockets, std::string_view verb,
                  const Clock& clock) {
  LiveSearch found;
  for (const std::string& socket : sockets) {
    auto status = ask_engine(socket, "GET", "/status", "", clock);
    if (status.has_value()) {
      const Json json = Json::parse(*status, nullptr, /*allow_exceptions=*/false);
      found.engines.push_back({socket, *std::move(status), text_in(json, "engine"), name_of(json)});
      continue;
    }
    const bool is_dead = status.error().code() == Code::kUnavailable;
    found.has_failed = found.has_failed || !is_dead;
    fmt::format_to(std::back_inserter(found.error), "terrace {}: {}{}\n", verb,
                   status.error().message(), is_dead ? " (skipped: it has ended)" : "");
  }
  return found;
}

std::string list_of(const std::vector<LiveEngine>& engines) {
  std::string out;
  for (const LiveEngine& one : engines) out += fmt::format("  {}\n", one.name);
  return out;
}

// Of all that answer, those that are meant; an answer if that cannot be told.
std::optional<Answer> choose(const LiveOptions& options, const std::string& directory,
                             LiveSearch& found) {
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
    std::erase_if(found.engines,
                  [&](const LiveEngine& one) { return one.engine != options.engine; });
    if (!found.engines.empty()) return std::nullopt;
    return Answer{kFailed, "",
                  found.error + fmt::format("terrace {}: no engine '{}' answers; there are:\n{}",
                                            verb, options.engine, known)};
  }
  // Who only looks may look at all of them.
  const bool is_switch = options.verb == LiveVerb::kPause || options.verb == LiveVerb::kReadOnly ||
                         options.verb == LiveVerb::kResume || options.verb == LiveVerb::kScrub;
  if (!is_switch || options.is_all || found.engines.size() == 1) {
    return std::nullopt;
  }
  return Answer{kUsage, "",
                found.error + fmt::format("terrace {}: several engines answer: choose one with "
                                          "--engine ID, or --all; there are:\n{}",
                                          verb, list_of(found.engines))};
}

}  // namespace

LiveChoice find_engines(const LiveOptions& options, const Clock& clock) {
  const std::string_view verb = verb_of(options.verb);
  const auto failed = [&](const Status& status) {
    return LiveChoice{{},
                      Answer{kFailed, "", fmt::format("terrace {}: {}\n", verb, status.message())}};
  };
  if (options.is_all && !options.engine.empty()) {
    return {
        {},
        Answer{kUsage, "", fmt::format("terrace {}: give --engine or --all, not both\n", verb)}};
  }
  const auto directory = directory_of(options);
  if (!directory.has_value()) return failed(directory.error());
  const auto sockets = serve::admin_sockets(*directory);
  if (!sockets.has_value()) return failed(sockets.error());
  LiveChoice choice;
  choice.found = search(*sockets, verb, clock);
  choice.refusal = choose(options, *directory, choice.found);
  return choice;
}

}  // namespace terrace::cli
