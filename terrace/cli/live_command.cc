#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "terrace/cli/commands_internal.h"
#include "terrace/cli/json_in.h"
#include "terrace/cli/live_search.h"
#include "terrace/cli/live_text.h"

namespace terrace::cli {
namespace {

using Json = nlohmann::ordered_json;

Json parsed(const std::string& text) {
  return Json::parse(text, nullptr, /*allow_exceptions=*/false);
}

std::string_view mode_of(LiveVerb verb) {
  switch (verb) {
    case LiveVerb::kPause:
      return "paused";
    case LiveVerb::kReadOnly:
      return "readonly";
    case LiveVerb::kStatus:
    case LiveVerb::kResume:
    case LiveVerb::kScrub:
    case LiveVerb::kAdvise:
    case LiveVerb::kWhy:
    case LiveVerb::kTop:
      break;
  }
  return "on";
}

std::string dump(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
}

Answer show(const LiveOptions& options, const LiveSearch& found) {
  Answer answer{found.has_failed ? kFailed : kDone, "", found.error};
  Json all = Json::array();
  for (const LiveEngine& one : found.engines) {
    const Json status = parsed(one.status);
    if (text_in(status, "health") != "green") answer.exit_code = kFailed;
    if (!options.is_json) answer.out += live_text(one.name, one.status);
    all.push_back(status);
    all.back()["socket"] = one.socket;
  }
  if (options.is_json) answer.out = dump(all);
  return answer;
}

Answer switch_all(const LiveOptions& options, const LiveSearch& found, const Clock& clock) {
  const std::string_view verb = verb_of(options.verb);
  Answer answer{found.has_failed ? kFailed : kDone, "", found.error};
  Json all = Json::array();
  for (const LiveEngine& one : found.engines) {
    const auto reply = ask_engine(one.socket, "PUT", "/mode",
                                  fmt::format("{{\"mode\":\"{}\"}}", mode_of(options.verb)), clock);
    if (!reply.has_value()) {
      answer.exit_code = kFailed;
      answer.error += fmt::format("terrace {}: {}: {}\n", verb, one.name, reply.error().message());
      continue;
    }
    const std::string mode = text_in(parsed(*reply), "mode");
    const Json status = parsed(one.status);
    if (!options.is_json) answer.out += fmt::format("{}: mode {}\n", one.name, mode);
    all.push_back({{"engine", one.engine},
                   {"process", part_of(status, "process", Json::value_t::number_unsigned)},
                   {"mode", mode},
                   {"before", text_in(status, "mode")}});
  }
  if (options.is_json) answer.out = dump(all);
  return answer;
}

}  // namespace

Answer run_live(const LiveOptions& options) {
  const SystemClock clock;
  LiveChoice choice = find_engines(options, clock);
  if (choice.refusal) return *std::move(choice.refusal);
  return options.verb == LiveVerb::kStatus ? show(options, choice.found)
                                           : switch_all(options, choice.found, clock);
}

}  // namespace terrace::cli
