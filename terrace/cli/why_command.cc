#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "terrace/cli/commands_internal.h"
#include "terrace/cli/json_in.h"
#include "terrace/cli/live_search.h"
#include "terrace/cli/why_text.h"
#include "terrace/manager/ledger.h"
#include "terrace/serve/ledger_text.h"

namespace terrace::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kListed = 20;

// A ledger, and whose it is.
struct Found {
  const LiveEngine* engine;
  std::uint64_t block_tokens;
  Json ledger;
};

std::string encoded(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, manager::Label::kMost)) {
    const auto byte = static_cast<unsigned char>(c);
    const bool is_plain = (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') ||
                          (byte >= 'a' && byte <= 'z');
    out += is_plain ? std::string(1, c) : fmt::format("%{:02X}", byte);
  }
  return out;
}

std::string dump(const Json& json) {
  return json.dump(-1, ' ', true, Json::error_handler_t::replace);
}

// Of all engines, in their order; what fails is said in `answer`.
std::vector<Found> ask_all(const LiveSearch& search, const std::string& request, std::size_t most,
                           const Clock& clock, Answer& answer) {
  std::vector<Found> found;
  const std::string target = fmt::format("/ledgers?request={}&most={}", encoded(request), most);
  for (const LiveEngine& one : search.engines) {
    const auto reply = ask_engine(one.socket, "GET", target, "", clock);
    if (!reply.has_value()) {
      answer.exit_code = kFailed;
      answer.error += fmt::format("terrace why: {}: {}\n", one.name, reply.error().message());
      continue;
    }
    const Json json = Json::parse(*reply, nullptr, /*allow_exceptions=*/false);
    for (const Json& ledger : part_of(json, "ledgers", Json::value_t::array)) {
      if (ledger.is_object()) found.push_back({&one, count_in(json, "block_tokens"), ledger});
    }
  }
  return found;
}

std::string listed(const std::vector<Found>& found, std::int64_t now) {
  std::string out = ledger_heading();
  for (const Found& one : found) out += ledger_line(dump(one.ledger), now);
  return out;
}

std::string json_of(const std::vector<Found>& found) {
  Json all = Json::array();
  for (const Found& one : found) all.push_back(one.ledger);
  return all.dump(2, ' ', true, Json::error_handler_t::replace) + '\n';
}

// Only those that bear exactly this id, if there are any: `1` means 1, also where there is 10.
void keep_exact(std::string_view request, std::vector<Found>& found) {
  const std::string_view kept = request.substr(0, manager::Label::kMost);
  const auto is_exact = [&](const Found& one) {
    return text_in(one.ledger, "request", "") == kept;
  };
  if (!std::ranges::any_of(found, is_exact)) return;
  std::erase_if(found, [&](const Found& one) { return !is_exact(one); });
}

Answer unknown(const WhyOptions& options, const LiveSearch& search, const Clock& clock,
               Answer answer) {
  answer.exit_code = kFailed;
  const std::vector<Found> newest = ask_all(search, "", kListed, clock, answer);
  answer.error += fmt::format(
      "terrace why: no request '{}': neither among those that run nor among the last that ended "
      "(ledger.keep says how many are remembered)",
      plain(options.request, manager::Label::kMost));
  answer.error += newest.empty()
                      ? std::string("; none has ended yet\n")
                      : fmt::format("; the newest are:\n{}", listed(newest, clock.wall_seconds()));
  if (options.live.is_json) answer.out = "[]\n";
  return answer;
}

}  // namespace

Answer run_why(const WhyOptions& options) {
  const SystemClock clock;
  LiveChoice choice = find_engines(options.live, clock);
  if (choice.refusal) return *std::move(choice.refusal);
  Answer answer{choice.found.has_failed ? kFailed : kDone, "", choice.found.error};
  const bool is_list = options.request.empty();
  std::vector<Found> found = ask_all(choice.found, options.request,
                                     is_list ? kListed : serve::LedgerQuery::kMost, clock, answer);
  const std::int64_t now = clock.wall_seconds();
  if (is_list) {
    answer.out = options.live.is_json ? json_of(found) : listed(found, now);
    return answer;
  }
  // As `top` and this list cut long ids: what stands before is where they begin.
  if (found.empty() && options.request.size() > 1 && options.request.ends_with('~')) {
    const std::string begin = options.request.substr(0, options.request.size() - 1);
    found = ask_all(choice.found, begin, serve::LedgerQuery::kMost, clock, answer);
  }
  keep_exact(options.request, found);
  if (found.empty()) return unknown(options, choice.found, clock, std::move(answer));
  std::set<std::pair<const LiveEngine*, std::string>> requests;
  for (const Found& one : found) requests.emplace(one.engine, text_in(one.ledger, "request", ""));
  if (options.live.is_json) {
    answer.out = json_of(found);
    return answer;
  }
  if (requests.size() > 1) {
    const std::size_t left_out = found.size() - std::min(found.size(), kListed);
    found.resize(std::min(found.size(), kListed));
    answer.exit_code = kUsage;
    answer.error += fmt::format(
        "terrace why: '{}' begins the ids of several requests: give more of it, or --engine; there "
        "are{}:\n{}",
        plain(options.request, manager::Label::kMost),
        left_out == 0 ? "" : fmt::format(", and {} more", left_out), listed(found, now));
    return answer;
  }
  const Found& first = found.front();
  answer.out = why_text(dump(first.ledger), first.engine->name, first.block_tokens, now);
  if (found.size() > 1) {
    answer.out += fmt::format("\n  {} earlier request{} had the same id: --json shows all\n",
                              found.size() - 1, found.size() == 2 ? "" : "s");
  }
  return answer;
}

}  // namespace terrace::cli
