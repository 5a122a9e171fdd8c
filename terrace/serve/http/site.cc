#include "terrace/serve/http/site.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "terrace/serve/http/page_files.h"

namespace terrace::serve {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kQuoted = 64;  // Of what somebody sent, in an error.
constexpr std::int64_t kDay = 86'400;
constexpr std::int64_t kUsualSpan = 3'600;
constexpr std::string_view kPlaces =
    "/, /metrics, /api/status, /api/history?seconds=3600, /api/ledger or /api/settings";

std::string_view type_of(std::string_view name) {
  if (name.ends_with(".html")) return "text/html; charset=utf-8";
  if (name.ends_with(".css")) return "text/css; charset=utf-8";
  if (name.ends_with(".js")) return "text/javascript; charset=utf-8";
  if (name.ends_with(".svg")) return "image/svg+xml";
  return "application/octet-stream";
}

// The value of `name` in `a=1&b=2`, or nothing.
std::optional<std::string_view> parameter(std::string_view query, std::string_view name) {
  while (!query.empty()) {
    const std::string_view one = query.substr(0, query.find('&'));
    const std::size_t sign = one.find('=');
    if (one.substr(0, sign) == name) {
      return sign == std::string_view::npos ? std::string_view() : one.substr(sign + 1);
    }
    query.remove_prefix(std::min(query.size(), one.size() + 1));
  }
  return std::nullopt;
}

}  // namespace

SiteAnswer site_error(unsigned code, std::string_view text) {
  SiteAnswer answer;
  answer.code = code;
  answer.body =
      Json{{"error", text}}.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
  answer.body += '\n';
  return answer;
}

bool is_own_name(std::string_view host) {
  if (host.empty()) return true;  // No browser.
  if (host.starts_with('[')) return host.substr(0, host.find(']') + 1) == "[::1]";
  const std::string_view name = host.substr(0, host.rfind(':'));
  if (name == "localhost" || name.ends_with(".localhost")) return true;
  const bool is_number =
      std::ranges::all_of(name, [](char c) { return c == '.' || (c >= '0' && c <= '9'); });
  return is_number && name.starts_with("127.");
}

Site::Site(SiteHooks hooks, bool is_local, const Clock& clock)
    : hooks_(std::move(hooks)), is_local_(is_local), clock_(clock), slow_(hooks_.ledgers) {}

void Site::sample() {
  slow_.take_in();
  if (hooks_.visit) history_.take(hooks_.visit, clock_.now());
}

std::string Site::status() {
  const Nanoseconds now = clock_.now();
  if (status_.empty() || now - status_at_ >= kStatusAge) {
    status_ = hooks_.status() + '\n';
    status_at_ = now;
  }
  return status_;
}

SiteAnswer Site::history(std::string_view query) const {
  std::int64_t span = kUsualSpan;
  if (const auto text = parameter(query, "seconds")) {
    const auto* const begin = std::to_address(text->begin());
    const auto* const end = begin + text->size();
    const auto [rest, error] = std::from_chars(begin, end, span);
    if (error != std::errc() || rest != end || span < 1 || span > kDay) {
      return site_error(400, fmt::format("seconds={}: give whole seconds from 1 to {}",
                                         text->substr(0, kQuoted), kDay));
    }
  }
  SiteAnswer answer;
  answer.body = history_.json(seconds(span), clock_.now(), clock_.wall_seconds());
  return answer;
}

SiteAnswer Site::get(std::string_view path, std::string_view query) {
  SiteAnswer answer;
  if (path == "/metrics") {
    answer.type = "text/plain; version=0.0.4; charset=utf-8";
    answer.body = hooks_.metrics();
    return answer;
  }
  if (path == "/api/status") {
    answer.body = status();
    return answer;
  }
  if (path == "/api/history") return history(query);
  if (path == "/api/ledger") {
    slow_.take_in();
    answer.body = slow_.json(clock_.now());
    return answer;
  }
  if (path == "/api/settings") {
    answer.body = hooks_.settings;
    return answer;
  }
  const std::string_view name = path == "/" ? "index.html" : path.substr(1);
  for (const PageFile& file : page_files()) {
    if (file.name != name) continue;
    answer.type = type_of(name);
    answer.body = file.content;
    return answer;
  }
  return site_error(404, fmt::format("there is no '{}': ask {}", path.substr(0, kQuoted), kPlaces));
}

SiteAnswer Site::answer(const SiteRequest& request) {
  if (is_local_ && !is_own_name(request.host)) {
    return site_error(421, fmt::format("'{}' is no name of this machine for itself: ask "
                                       "http://localhost, or set metrics.address",
                                       request.host.substr(0, kQuoted)));
  }
  if (request.method != "GET" && request.method != "HEAD") {
    SiteAnswer answer = site_error(405, "this port only tells: GET and HEAD");
    answer.allow = "GET, HEAD";
    return answer;
  }
  const std::size_t mark = request.target.find('?');
  const std::string_view path = request.target.substr(0, mark);
  if (!path.starts_with('/')) return site_error(400, "a path begins with '/'");
  return get(path, mark == std::string_view::npos ? "" : request.target.substr(mark + 1));
}

}  // namespace terrace::serve
