// Traces that name no blocks: prompts as text, and their lengths alone.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "terrace/block/checksum.h"
#include "terrace/trace/reader_internal.h"

namespace terrace::trace {
namespace {

using Json = nlohmann::json;

constexpr std::uint32_t kTextBlockTokens = 64;
constexpr std::size_t kTokenBytes = 4;  // Of English text, as most tokenizers cut it.
constexpr std::string_view kLengthsHeader = "TIMESTAMP,ContextTokens,GeneratedTokens";

std::uint32_t block_tokens_of(const ReadOptions& options) {
  return options.block_tokens == 0 ? kTextBlockTokens : options.block_tokens;
}

Status wrong_blocks(const std::string& where, const Workload& workload) {
  return {Code::kInvalid,
          fmt::format("{}: the files before have blocks of {} tokens; give --block-tokens, or one "
                      "archive for each",
                      where, workload.block_tokens())};
}

std::string_view first_line(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
  return text.substr(0, text.find('\n'));
}

std::uint32_t tokens_in(const std::string& text) {
  return static_cast<std::uint32_t>(
      std::min<std::size_t>((text.size() + kTokenBytes - 1) / kTokenBytes, UINT32_MAX));
}

// One id for the text of each whole block.
void ids_of(std::string_view text, std::size_t block_bytes, std::vector<std::uint64_t>& ids) {
  ids.clear();
  for (; text.size() >= block_bytes; text.remove_prefix(block_bytes)) {
    ids.push_back(checksum_of(std::as_bytes(std::span(text.data(), block_bytes))).value);
  }
}

bool take_number(std::string_view& text, unsigned& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{}) return false;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return true;
}

bool take(std::string_view& text, char wanted) {
  if (!text.starts_with(wanted)) return false;
  text.remove_prefix(1);
  return true;
}

// "2023-11-16 18:15:46.6805900", since 1970.
std::optional<Nanoseconds> moment_of(std::string_view text) {
  unsigned year = 0;
  unsigned month = 0;
  unsigned day = 0;
  unsigned hour = 0;
  unsigned minute = 0;
  unsigned second = 0;
  if (!take_number(text, year) || !take(text, '-') || !take_number(text, month) ||
      !take(text, '-') || !take_number(text, day) || !take(text, ' ') || !take_number(text, hour) ||
      !take(text, ':') || !take_number(text, minute) || !take(text, ':') ||
      !take_number(text, second)) {
    return std::nullopt;
  }
  std::int64_t nanoseconds = 0;
  if (take(text, '.')) {
    if (text.empty() || text.size() > 9) return std::nullopt;
    unsigned fraction = 0;
    const std::size_t digits = text.size();
    if (!take_number(text, fraction)) return std::nullopt;
    nanoseconds = fraction;
    for (std::size_t i = digits; i < 9; ++i) nanoseconds *= 10;
  }
  const std::chrono::year_month_day date{std::chrono::year(static_cast<int>(year)),
                                         std::chrono::month(month), std::chrono::day(day)};
  if (!text.empty() || year < 1970 || year > 2090 || !date.ok() || hour > 23 || minute > 59 ||
      second > 60) {
    return std::nullopt;
  }
  const std::int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  const std::int64_t in_seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
  return seconds(in_seconds) + Nanoseconds(nanoseconds);
}

}  // namespace

bool has_texts(std::string_view text) {
  const Json json = Json::parse(first_line(text), nullptr, false);
  return json.is_object() && json.contains("input") && !json.contains("hash_ids");
}

bool has_lengths(std::string_view text) { return first_line(text).starts_with(kLengthsHeader); }

TextRequests::TextRequests(const ReadOptions& options, Workload& workload)
    : options_(options), workload_(workload), scope_(workload) {}

Status TextRequests::read(const std::string& where, std::string_view text) {
  const std::uint32_t block_tokens = block_tokens_of(options_);
  if (!workload_.set_block_tokens(block_tokens)) return wrong_blocks(where, workload_);
  std::vector<std::uint64_t> ids;
  return each_object(where, text, [&](std::size_t line, const Json& json) -> Status {
    const auto at = time_of(json, "timestamp", 1e-6);
    if (!at) return bad_line(where, line, "no microseconds from 0 to 4e15 in 'timestamp'");
    const auto input = json.find("input");
    if (input == json.end() || !input->is_string()) {
      return bad_line(where, line, "no text in 'input'");
    }
    const auto& prompt = input->get_ref<const std::string&>();
    ids_of(prompt, kTokenBytes * block_tokens, ids);
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

Status read_lengths(const std::string& where, std::string_view text, const ReadOptions& options,
                    Workload& workload) {
  const std::uint32_t block_tokens = block_tokens_of(options);
  if (!workload.set_block_tokens(block_tokens)) return wrong_blocks(where, workload);
  Scope scope(workload);
  std::vector<std::uint64_t> ids;
  std::vector<Request> requests;
  std::uint64_t next_id = 0;  // Nobody can tell what they share: nothing.
  for (std::size_t line = 1; !text.empty(); ++line) {
    std::string_view one = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), one.size() + 1));
    if (one.ends_with('\r')) one.remove_suffix(1);
    if (one.empty() || one.starts_with(kLengthsHeader)) continue;
    const auto at = moment_of(one.substr(0, one.find(',')));
    if (!at) return bad_line(where, line, "no time like 2023-11-16 18:15:46.6805900");
    one.remove_prefix(std::min(one.find(','), one.size()));
    unsigned prompt = 0;
    unsigned answer = 0;
    if (!take(one, ',') || !take_number(one, prompt) || !take(one, ',') ||
        !take_number(one, answer) || !one.empty() || prompt > kMostPromptTokens) {
      return bad_line(where, line, "no two numbers of tokens, the prompt's at most 16777216");
    }
    ids.resize(prompt / block_tokens);
    std::iota(ids.begin(), ids.end(), next_id);
    next_id += ids.size();
    requests.push_back({.at = *at,
                        .tip = scope.tip(ids),
                        .depth = static_cast<std::uint32_t>(ids.size()),
                        .answer_tokens = answer,
                        .prompt_tokens = prompt});
  }
  return add_spread(where, std::move(requests), options.rate, workload);
}

}  // namespace terrace::trace
