// Traces that tell the lengths of prompts alone.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <numeric>
#include <optional>

#include "terrace/trace/reader_internal.h"

namespace terrace::trace {
namespace {

constexpr std::size_t kTokenBytes = 4;            // Of English text, as most tokenizers cut it.
constexpr std::uint64_t kMostBlocks = 1U << 23U;  // They share none: 400 MB.
constexpr std::string_view kLengthsHeader = "TIMESTAMP,ContextTokens,GeneratedTokens";

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
  if (!text.empty() || year < 1970 || year > 2090 || month > 12 || day > 31 || !date.ok() ||
      hour > 23 || minute > 59 || second > 60) {
    return std::nullopt;
  }
  const std::int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  const std::int64_t in_seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
  return seconds(in_seconds) + Nanoseconds(nanoseconds);
}

}  // namespace

std::string_view first_line(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
  return text.substr(0, text.find('\n'));
}

bool has_lengths(std::string_view text) { return first_line(text).starts_with(kLengthsHeader); }

Status read_lengths(const std::string& where, std::string_view text, const ReadOptions& options,
                    Workload& workload) {
  TERRACE_ASSIGN_OR_RETURN(const std::uint32_t block_tokens,
                           choose_blocks(where, options, workload));
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
    if (next_id + ids.size() > kMostBlocks) {
      return bad_line(where, line,
                      fmt::format("more than {} blocks by here: give larger ones (--block-tokens)",
                                  kMostBlocks));
    }
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
