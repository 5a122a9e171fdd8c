#include "terrace/serve/admin_answers.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "terrace/attach/claim.h"

namespace terrace::serve {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kEnding = "-admin.sock";
constexpr std::string_view kModeWayOut =
    R"(send one JSON object such as {"mode":"paused"}; modes are on, readonly and paused)";
constexpr std::string_view kScrubWayOut =
    R"(send a JSON object: {}, or {"bytes_per_second":67108864})";
constexpr std::size_t kQuoted = 64;  // Of what somebody sent, in an error.

AdminAnswer put_mode(const AdminHooks& hooks, std::string_view body, std::string_view by) {
  const auto refuse = [](std::string_view what) {
    return admin_error(400, fmt::format("{}: {}", what, kModeWayOut));
  };
  const Json json = Json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return refuse("the body is no JSON");
  if (!json.is_object()) return refuse("the body is no JSON object");
  for (const auto& [name, value] : json.items()) {
    if (name != "mode") return refuse(fmt::format("unknown field '{}'", name.substr(0, kQuoted)));
  }
  if (!json.contains("mode") || !json["mode"].is_string()) return refuse("no text in field 'mode'");
  const auto text = json["mode"].get<std::string>();
  const auto mode = manager::mode_of(text);
  if (!mode) return refuse(fmt::format("unknown mode '{}'", text.substr(0, kQuoted)));
  if (const Status status = hooks.set_mode(*mode, by); !status.is_ok()) {
    return admin_error(409, status.message());
  }
  AdminAnswer answer;
  answer.body = fmt::format("{{\"mode\":\"{}\"}}\n", to_string(*mode));
  return answer;
}

AdminAnswer put_scrub(const AdminHooks& hooks, std::string_view body, std::string_view by) {
  const auto refuse = [](std::string_view what) {
    return admin_error(400, fmt::format("{}: {}", what, kScrubWayOut));
  };
  const Json json = Json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return refuse("the body is no JSON object");
  std::uint64_t rate = 0;
  for (const auto& [name, value] : json.items()) {
    if (name != "bytes_per_second") {
      return refuse(fmt::format("unknown field '{}'", name.substr(0, kQuoted)));
    }
    if (!value.is_number_unsigned()) return refuse("bytes_per_second is no whole number");
    rate = value.get<std::uint64_t>();
  }
  if (!hooks.scrub) return admin_error(409, "there is no disk tier: nothing to scrub");
  const auto pass = hooks.scrub(rate, by);
  if (!pass.has_value()) return admin_error(409, pass.error().message());
  AdminAnswer answer;
  answer.body = fmt::format("{{\"pass\":{}}}\n", *pass);
  return answer;
}

AdminAnswer get_ledgers(const AdminHooks& hooks, std::string_view target) {
  const auto at = target.find('?');
  const auto query =
      ledger_query(at == std::string_view::npos ? std::string_view() : target.substr(at + 1));
  if (!query.has_value()) return admin_error(400, query.error().message());
  if (!hooks.ledgers) return admin_error(409, "no ledgers are kept here");
  AdminAnswer answer;
  answer.body = hooks.ledgers(*query) + '\n';
  return answer;
}

AdminAnswer wrong_method(std::string_view path, std::string_view right) {
  AdminAnswer answer = admin_error(405, fmt::format("{} takes {} only", path, right));
  answer.allow = right;
  return answer;
}

}  // namespace

Result<std::string> admin_path(const std::string& directory, const std::string& engine_id) {
  return attach::place_of(directory, engine_id, kEnding);
}

bool may_ask(uid_t peer, uid_t owner) { return peer == owner || peer == 0; }

AdminAnswer admin_error(unsigned code, std::string_view text) {
  AdminAnswer answer;
  answer.code = code;
  answer.body =
      Json{{"error", text}}.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
  answer.body += '\n';
  return answer;
}

AdminAnswer answer_admin(const AdminHooks& hooks, std::string_view method, std::string_view target,
                         std::string_view body, std::string_view by) {
  const std::string_view path = target.substr(0, target.find('?'));
  AdminAnswer answer;
  if (path == "/status") {
    if (method != "GET") return wrong_method(path, "GET");
    answer.body = hooks.status() + '\n';
    return answer;
  }
  if (path == "/metrics") {
    if (method != "GET") return wrong_method(path, "GET");
    answer.type = "text/plain; version=0.0.4; charset=utf-8";
    answer.body = hooks.metrics();
    return answer;
  }
  if (path == "/ledgers") {
    return method == "GET" ? get_ledgers(hooks, target) : wrong_method(path, "GET");
  }
  if (path == "/mode") {
    return method == "PUT" ? put_mode(hooks, body, by) : wrong_method(path, "PUT");
  }
  if (path == "/scrub") {
    return method == "PUT" ? put_scrub(hooks, body, by) : wrong_method(path, "PUT");
  }
  return admin_error(
      404,
      fmt::format("there is no '{}': ask GET /status, GET /metrics, GET /ledgers, PUT /mode or PUT "
                  "/scrub",
                  path.substr(0, kQuoted)));
}

}  // namespace terrace::serve
