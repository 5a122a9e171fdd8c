#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>

#include "terrace/block/checksum.h"
#include "terrace/trace/reader_internal.h"

namespace terrace::trace {
namespace {

using Json = nlohmann::json;

constexpr std::uint32_t kLineBlockTokens = 512;
constexpr double kMostSeconds = 4e9;  // 126 years, clocks that began in 1970 too; fits nanoseconds.
constexpr std::uint64_t kMostBlockTokens = 1U << 20U;
constexpr std::size_t kTokenBytes = 4;      // Of English text, as most tokenizers cut it.
constexpr std::size_t kMostSubagents = 16;  // One below the other.

// The objects of a text of lines, empty ones left out, until `take` refuses one.
using TakeObject = std::function<Status(std::size_t line, const Json& json)>;
Status each_object(const std::string& where, std::string_view text, const TakeObject& take) {
  for (std::size_t line = 1; !text.empty(); ++line) {
    const std::string_view one = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), one.size() + 1));
    if (one.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const Json json = Json::parse(one, nullptr, false);
    if (!json.is_object()) return bad_line(where, line, "no JSON object");
    TERRACE_RETURN_IF_ERROR(take(line, json));
  }
  return {};
}

// Nothing if it is no time, or below 0, or beyond what nanoseconds hold.
std::optional<Nanoseconds> time_of(const Json& json, const char* name, double unit_seconds) {
  const auto at = json.find(name);
  if (at == json.end() || !at->is_number()) return std::nullopt;
  const double value = at->get<double>() * unit_seconds;
  if (!(value >= 0 && value <= kMostSeconds)) return std::nullopt;
  return Nanoseconds(std::llround(value * 1e9));
}

bool ids_of(const Json& json, std::vector<std::uint64_t>& ids) {
  ids.clear();
  const auto at = json.find("hash_ids");
  if (at == json.end() || !at->is_array()) return false;
  for (const Json& id : *at) {
    if (!id.is_number_unsigned()) return false;
    ids.push_back(id.get<std::uint64_t>());
  }
  return true;
}

// 0 where it does not say, or nonsense: a policy then knows as little as of an engine's.
std::uint32_t tokens_of(const Json& json, const char* name) {
  const auto at = json.find(name);
  if (at == json.end() || !at->is_number_unsigned()) return 0;
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(at->get<std::uint64_t>(), UINT32_MAX));
}

policy::Ending ending_of(const Json& json) {
  const auto at = json.find("stop");
  if (at == json.end() || !at->is_string()) return policy::Ending::kUnknown;
  if (*at == "tool_use") return policy::Ending::kToolCall;
  return *at == "end_turn" ? policy::Ending::kDone : policy::Ending::kUnknown;
}

std::size_t line_of(std::string_view text, std::size_t byte) {
  const std::string_view before = text.substr(0, byte);
  return 1 + static_cast<std::size_t>(std::ranges::count(before, '\n'));
}

// How many blocks of the trace make one; 0 = none do.
std::size_t group_of(std::uint32_t wanted, std::uint64_t own) {
  if (wanted == 0) return 1;
  return own > 0 && wanted % own == 0 ? wanted / own : 0;
}

std::string no_group(std::uint32_t wanted, std::uint64_t own) {
  return fmt::format("blocks of {} tokens cannot be made of its blocks of {}", wanted, own);
}

std::uint32_t tokens_in(const std::string& text) {
  return static_cast<std::uint32_t>(
      std::min<std::size_t>((text.size() + kTokenBytes - 1) / kTokenBytes, UINT32_MAX));
}

// One id for the text of each whole block.
void ids_of_text(std::string_view text, std::size_t block_bytes, std::vector<std::uint64_t>& ids) {
  ids.clear();
  for (; text.size() >= block_bytes; text.remove_prefix(block_bytes)) {
    ids.push_back(checksum_of(std::as_bytes(std::span(text.data(), block_bytes))).value);
  }
}

struct Conversation {
  const std::string& where;
  Scope scope;
  std::size_t group;
  Workload& workload;
  std::vector<std::uint64_t> ids = {};
};

Status read_requests(Conversation& to, const Json& json, Nanoseconds start, std::size_t depth);

Status read_request(Conversation& to, const Json& json, std::size_t number, Nanoseconds start,
                    std::size_t depth) {
  const auto wrong = [&](std::string_view what) {
    return Status(Code::kInvalid, fmt::format("{}: request {}: {}; give a trace of "
                                              "docs/formats/traces.md",
                                              to.where, number, what));
  };
  if (!json.is_object()) return wrong("no object");
  const auto at = time_of(json, "t", 1);
  if (!at) return wrong("no seconds from 0 to 4e9 in 't'");
  if (seconds(static_cast<std::int64_t>(kMostSeconds)) - *at < start) {
    return wrong("more than a century after the conversation's start");
  }
  const auto type = json.find("type");
  if (type != json.end() && *type == "subagent") {
    if (depth == kMostSubagents) return wrong("sub-agents nest deeper than 16");
    return read_requests(to, json, start + *at, depth + 1);
  }
  if (!ids_of(json, to.ids)) return wrong("no list of numbers in 'hash_ids'");
  coarsen(to.ids, to.group);
  to.workload.add_request({.at = start + *at,
                           .tip = to.scope.tip(to.ids),
                           .depth = static_cast<std::uint32_t>(to.ids.size()),
                           .answer_tokens = tokens_of(json, "out"),
                           .ending = ending_of(json),
                           .prompt_tokens = tokens_of(json, "in")});
  return {};
}

// One deeper for each sub-agent.
Status read_requests(Conversation& to, const Json& json, Nanoseconds start, std::size_t depth) {
  const auto requests = json.find("requests");
  if (requests == json.end() || !requests->is_array()) {
    return {Code::kInvalid, to.where +
                                ": no list of requests: no conversation; give a trace of "
                                "docs/formats/traces.md"};
  }
  std::size_t number = 0;
  for (const Json& request : *requests) {
    TERRACE_RETURN_IF_ERROR(read_request(to, request, ++number, start, depth));
  }
  return {};
}

}  // namespace

Status bad_line(const std::string& where, std::size_t line, std::string_view what) {
  return {Code::kInvalid,
          fmt::format("{}:{}: {}; take that out, or give a trace of docs/formats/traces.md", where,
                      line, what)};
}

Result<std::uint32_t> choose_blocks(const std::string& where, const ReadOptions& options,
                                    Workload& workload) {
  constexpr std::uint32_t kUsual = 64;
  const std::uint32_t tokens = options.block_tokens == 0 ? kUsual : options.block_tokens;
  if (workload.set_block_tokens(tokens)) return tokens;
  return fail(Code::kInvalid,
              fmt::format("{}: the files before have blocks of {} tokens; give --block-tokens, or "
                          "one archive for each",
                          where, workload.block_tokens()));
}

Status add_spread(const std::string& where, std::vector<Request> requests, double rate,
                  Workload& workload) {
  if (requests.empty()) return {};
  const auto [first, last] = std::ranges::minmax(requests, {}, &Request::at);
  const Nanoseconds begin = first.at;
  if (static_cast<double>((last.at - begin).value()) / rate > kMostSeconds * 1e9) {
    return {Code::kInvalid, fmt::format("{}: at a rate of {} it lasts more than a century; give a "
                                        "larger one",
                                        where, rate)};
  }
  for (Request& one : requests) {
    one.at = Nanoseconds(std::llround(static_cast<double>((one.at - begin).value()) / rate));
    workload.add_request(one);
  }
  return {};
}

Status read_lines(const std::string& where, std::string_view text, const ReadOptions& options,
                  Workload& workload) {
  const std::size_t group = group_of(options.block_tokens, kLineBlockTokens);
  if (group == 0) {
    return {Code::kInvalid, where + ": " + no_group(options.block_tokens, kLineBlockTokens)};
  }
  (void)workload.set_block_tokens(static_cast<std::uint32_t>(kLineBlockTokens * group));
  Scope scope(workload);
  std::vector<std::uint64_t> ids;
  std::vector<Request> requests;
  const auto take = [&](std::size_t line, const Json& json) -> Status {
    const auto at = time_of(json, "timestamp", 1e-3);
    if (!at) return bad_line(where, line, "no milliseconds from 0 to 4e12 in 'timestamp'");
    if (!ids_of(json, ids)) return bad_line(where, line, "no list of numbers in 'hash_ids'");
    coarsen(ids, group);
    requests.push_back({.at = *at,
                        .tip = scope.tip(ids),
                        .depth = static_cast<std::uint32_t>(ids.size()),
                        .answer_tokens = tokens_of(json, "output_length"),
                        .prompt_tokens = tokens_of(json, "input_length")});
    return {};
  };
  TERRACE_RETURN_IF_ERROR(each_object(where, text, take));
  return add_spread(where, std::move(requests), options.rate, workload);
}

Status read_conversation(const std::string& where, std::string_view text, Nanoseconds start,
                         const ReadOptions& options, Workload& workload) {
  Json json;
  try {
    json = Json::parse(text);
  } catch (const Json::parse_error& error) {
    return bad_line(where, line_of(text, error.byte), "no JSON");
  } catch (const Json::out_of_range&) {  // Does not say where.
    return bad_line(where, 1, "somewhere from here on a number that is too large");
  }
  if (!json.is_object()) return bad_line(where, 1, "no JSON object");
  const auto size = json.find("block_size");
  const std::uint64_t own = size != json.end() && size->is_number_unsigned()
                                ? size->get<std::uint64_t>()
                                : std::uint64_t{0};
  const std::size_t group = group_of(options.block_tokens, own);
  if (group == 0) return {Code::kInvalid, where + ": " + no_group(options.block_tokens, own)};
  if (own > kMostBlockTokens ||
      (own > 0 && !workload.set_block_tokens(static_cast<std::uint32_t>(own * group)))) {
    return {
        Code::kInvalid,
        fmt::format("{}: its blocks are of {} tokens, those before of {}; give --block-tokens, a "
                    "multiple of both, or one archive for each",
                    where, own * group, workload.block_tokens())};
  }
  Conversation to{where, Scope(workload), group, workload};
  return read_requests(to, json, start, 0);
}

bool has_texts(std::string_view text) {
  const Json json = Json::parse(first_line(text), nullptr, false);
  return json.is_object() && json.contains("input") && !json.contains("hash_ids");
}

TextRequests::TextRequests(const ReadOptions& options, Workload& workload)
    : options_(options), workload_(workload), scope_(workload) {}

Status TextRequests::read(const std::string& where, std::string_view text) {
  TERRACE_ASSIGN_OR_RETURN(const std::uint32_t block_tokens,
                           choose_blocks(where, options_, workload_));
  std::vector<std::uint64_t> ids;
  return each_object(where, text, [&](std::size_t line, const Json& json) -> Status {
    const auto at = time_of(json, "timestamp", 1e-6);
    if (!at) return bad_line(where, line, "no microseconds from 0 to 4e15 in 'timestamp'");
    const auto input = json.find("input");
    if (input == json.end() || !input->is_string()) {
      return bad_line(where, line, "no text in 'input'");
    }
    const auto& prompt = input->get_ref<const std::string&>();
    ids_of_text(prompt, kTokenBytes * block_tokens, ids);
    const auto output = json.find("output");
    const bool has_answer = output != json.end() && output->is_string();
    requests_.push_back(
        {.at = *at,
         .tip = scope_.tip(ids),
         .depth = static_cast<std::uint32_t>(ids.size()),
         .answer_tokens = has_answer ? tokens_in(output->get_ref<const std::string&>()) : 0,
         .prompt_tokens = tokens_in(prompt)});
    return {};
  });
}

Status TextRequests::finish(const std::string& where) {
  return add_spread(where, std::move(requests_), options_.rate, workload_);
}

}  // namespace terrace::trace
