#include "terrace/config/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>
#include <ranges>
#include <utility>

#include "terrace/config/nearest.h"

namespace terrace::config {
namespace {

struct UnitName {
  std::string_view name;
  std::int64_t factor;
};
// Largest first: the printer takes the first that divides, so 20GB stays 20GB.
constexpr std::array<UnitName, 9> kSizeUnits = {{{"TiB", 1LL << 40},
                                                 {"TB", 1'000'000'000'000},
                                                 {"GiB", 1LL << 30},
                                                 {"GB", 1'000'000'000},
                                                 {"MiB", 1LL << 20},
                                                 {"MB", 1'000'000},
                                                 {"KiB", 1LL << 10},
                                                 {"KB", 1'000},
                                                 {"B", 1}}};
constexpr std::array<UnitName, 6> kDurationUnits = {{{"h", 3'600'000'000'000},
                                                     {"min", 60'000'000'000},
                                                     {"s", 1'000'000'000},
                                                     {"ms", 1'000'000},
                                                     {"us", 1'000},
                                                     {"ns", 1}}};
constexpr std::string_view kSizeWords = "B, KB, KiB, MB, MiB, GB, GiB, TB or TiB";
constexpr std::string_view kDurationWords = "ns, us, ms, s, min or h";

std::string_view trimmed(std::string_view text) {
  const auto is_space = [](char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

// A decimal number and the rest: "1.5GiB" is 15, 1 digit after the point, "GiB".
struct Decimal {
  std::int64_t digits = 0;
  std::int64_t scale = 1;  // 10^(digits after the point), at most 10^9.
  std::string_view rest;
};

std::optional<Decimal> read_decimal(std::string_view text) {
  Decimal out;
  std::size_t at = 0;
  std::size_t digits = 0;
  bool has_point = false;
  for (; at < text.size(); ++at) {
    if (text[at] == '.' && !has_point && digits > 0) {
      has_point = true;
      continue;
    }
    if (text[at] < '0' || text[at] > '9') break;
    const std::int64_t digit = text[at] - '0';
    if (out.digits > (std::numeric_limits<std::int64_t>::max() - digit) / 10) return std::nullopt;
    if (has_point && out.scale == 1'000'000'000) return std::nullopt;
    out.digits = out.digits * 10 + digit;
    if (has_point) out.scale *= 10;
    ++digits;
  }
  if (digits == 0 || text[at - 1] == '.') return std::nullopt;
  out.rest = trimmed(text.substr(at));
  return out;
}

// digits / scale * factor, rounded down; nothing when it does not fit.
std::optional<std::int64_t> scaled(const Decimal& number, std::int64_t factor) {
  __extension__ using Wide = __int128;
  const Wide wide = static_cast<Wide>(number.digits) * factor / number.scale;
  if (wide > std::numeric_limits<std::int64_t>::max()) return std::nullopt;
  return static_cast<std::int64_t>(wide);
}

template <std::size_t N>
Result<std::int64_t> parse_with_unit(std::string_view text, const std::array<UnitName, N>& units,
                                     std::string_view kind, std::string_view words,
                                     bool is_unit_needed) {
  const auto number = read_decimal(trimmed(text));
  if (!number)
    return fail(Code::kInvalid, fmt::format("is not a {}: a number and {}", kind, words));
  if (number->rest.empty()) {
    if (is_unit_needed && number->digits != 0) {
      return fail(Code::kInvalid, fmt::format("has no unit: {}", words));
    }
    if (number->scale != 1) {
      return fail(Code::kInvalid, fmt::format("is a fraction without a unit: {}", words));
    }
    return number->digits;
  }
  for (const UnitName& unit : units) {
    if (unit.name != number->rest) continue;
    const auto value = scaled(*number, unit.factor);
    if (!value) return fail(Code::kInvalid, "is too large");
    return *value;
  }
  return fail(Code::kInvalid,
              fmt::format("has the unknown unit {}: {}", quote(number->rest), words));
}

template <std::size_t N>
std::string format_with_unit(std::int64_t value, const std::array<UnitName, N>& units,
                             std::string_view zero) {
  if (value == 0) return std::string(zero);
  for (const UnitName& unit : units) {
    if (value % unit.factor == 0) return fmt::format("{}{}", value / unit.factor, unit.name);
  }
  return fmt::format("{}{}", value, units.back().name);
}

std::string format_number(Type type, double number) {
  if (type == Type::kFloat) return fmt::format("{}", number);
  const auto integer = static_cast<std::int64_t>(number);
  if (type == Type::kSize) return format_with_unit(integer, kSizeUnits, "0");
  if (type == Type::kDuration) return format_with_unit(integer, kDurationUnits, "0s");
  return fmt::format("{}", integer);
}

bool has_control(std::string_view text) {
  return std::ranges::any_of(text, [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 0x20 || byte == 0x7F;
  });
}

Result<Value> check_number(const Row& row, double number, Value value) {
  const bool is_zero_apart = row.low_nonzero > 0 && number != 0 && number < row.low_nonzero;
  if (number < row.low || number > row.high || is_zero_apart) {
    return fail(Code::kInvalid, "is out of range");
  }
  return value;
}

Status check_string(const Row& row, std::string_view text) {
  if (has_control(text)) return {Code::kInvalid, "contains control characters"};
  if (static_cast<double>(text.size()) > row.high) {
    return {Code::kInvalid, fmt::format("is longer than {} bytes", row.high)};
  }
  const bool is_path = row.type == Type::kPath || row.type == Type::kPathList;
  if (is_path && !text.empty() && text.front() != '/') {
    return {Code::kInvalid, "is not an absolute path"};
  }
  return {};
}

// "/tmp/", "/./tmp" and "//tmp" are all "/tmp", so they must compare equal. ".." stays: what it
// means depends on links.
std::string normal_string(const Row& row, std::string_view text) {
  const bool is_path = row.type == Type::kPath || row.type == Type::kPathList;
  if (!is_path || text.empty()) return std::string(text);
  std::string out;
  for (const auto part : std::views::split(text, '/')) {
    const std::string_view name(part.begin(), part.end());
    if (!name.empty() && name != ".") out.append("/").append(name);
  }
  return out.empty() ? "/" : out;
}

bool is_inside(std::string_view path, std::string_view directory) {
  const std::string start = directory == "/" ? "/" : std::string(directory) + "/";
  return path.size() > start.size() && path.starts_with(start);
}

// Directories of which one holds the other would be counted twice.
Status check_nesting(const std::vector<std::string>& paths) {
  for (const std::string& inner : paths) {
    for (const std::string& outer : paths) {
      if (is_inside(inner, outer)) {
        return {Code::kInvalid,
                fmt::format("names {} and, inside it, {}", quote(outer), quote(inner))};
      }
    }
  }
  return {};
}

constexpr std::size_t kMostListItems = 64;

Result<Value> check_list(const Row& row, const std::vector<std::string>& items) {
  std::vector<std::string> out;
  if (items.size() > kMostListItems) {
    return fail(Code::kInvalid, fmt::format("has more than {} items", kMostListItems));
  }
  for (const std::string& item : items) {
    if (item.empty()) return fail(Code::kInvalid, "has an empty item");
    TERRACE_RETURN_IF_ERROR(check_string(row, item));
    out.push_back(normal_string(row, item));
    if (std::ranges::count(out, out.back()) > 1) {
      return fail(Code::kInvalid, fmt::format("names {} twice", quote(item)));
    }
  }
  if (row.type == Type::kPathList) TERRACE_RETURN_IF_ERROR(check_nesting(out));
  return Value(std::move(out));
}

std::unexpected<Status> no_choice(std::string_view word, std::span<const std::string_view> words) {
  const std::string_view near = nearest_of(word, words);
  if (near.empty()) return fail(Code::kInvalid, "is no known choice");
  return fail(Code::kInvalid, fmt::format("is no known choice, the nearest is {}", near));
}

Result<Value> parse_list(const Row& row, std::string_view text) {
  std::vector<std::string> items;
  if (!trimmed(text).empty()) {
    for (const std::string_view item : split_words(text, ',')) items.emplace_back(trimmed(item));
  }
  return check_list(row, items);
}

}  // namespace

Result<bool> parse_bool(std::string_view text) {
  std::string low(trimmed(text));
  for (char& c : low) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (low == "1" || low == "true" || low == "on" || low == "yes") return true;
  if (low == "0" || low == "false" || low == "off" || low == "no") return false;
  return fail(Code::kInvalid, "is not a boolean: 1/0, true/false, on/off, yes/no");
}

Result<std::int64_t> parse_size(std::string_view text) {
  return parse_with_unit(text, kSizeUnits, "size", kSizeWords, false);
}

Result<std::int64_t> parse_duration(std::string_view text) {
  return parse_with_unit(text, kDurationUnits, "duration", kDurationWords, true);
}

Result<std::int64_t> parse_integer(std::string_view text) {
  const auto number = read_decimal(trimmed(text));
  if (!number || number->scale != 1 || !number->rest.empty()) {
    return fail(Code::kInvalid, "is not a whole number");
  }
  return number->digits;
}

Result<double> parse_float(std::string_view text) {
  text = trimmed(text);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !std::isfinite(value)) {
    return fail(Code::kInvalid, "is not a number");
  }
  return value;
}

Result<Value> parse_value(const Row& row, std::string_view text) {
  const bool may_be_empty = row.type == Type::kText || row.type == Type::kPath ||
                            row.type == Type::kPathList || row.type == Type::kWordList;
  if (trimmed(text).empty() && !may_be_empty) return fail(Code::kInvalid, "is empty");
  switch (row.type) {
    case Type::kSize: {
      TERRACE_ASSIGN_OR_RETURN(const std::int64_t value, parse_size(text));
      return check_number(row, static_cast<double>(value), value);
    }
    case Type::kDuration: {
      TERRACE_ASSIGN_OR_RETURN(const std::int64_t value, parse_duration(text));
      return check_number(row, static_cast<double>(value), value);
    }
    case Type::kBlocks:
    case Type::kInteger: {
      TERRACE_ASSIGN_OR_RETURN(const std::int64_t value, parse_integer(text));
      return check_number(row, static_cast<double>(value), value);
    }
    case Type::kFloat: {
      TERRACE_ASSIGN_OR_RETURN(const double value, parse_float(text));
      return check_number(row, value, value);
    }
    case Type::kBool: {
      TERRACE_ASSIGN_OR_RETURN(const bool value, parse_bool(text));
      return Value(value);
    }
    case Type::kChoice: {
      const auto words = split_words(row.choices, '|');
      const auto word = trimmed(text);
      if (std::ranges::count(words, word) == 0) return no_choice(word, words);
      return Value(std::string(word));
    }
    case Type::kText:
    case Type::kPath: {
      TERRACE_RETURN_IF_ERROR(check_string(row, text));
      return Value(normal_string(row, text));
    }
    case Type::kPathList:
    case Type::kWordList:
      return parse_list(row, text);
  }
  return fail(Code::kInternal, "has an unknown type");
}

Result<Value> convert_value(const Row& row, const Scalar& scalar) {
  const bool is_list = row.type == Type::kPathList || row.type == Type::kWordList;
  if (const auto* text = std::get_if<std::string>(&scalar)) return parse_value(row, *text);
  if (const auto* list = std::get_if<std::vector<std::string>>(&scalar)) {
    if (!is_list) return fail(Code::kInvalid, "is a list where one value is expected");
    return check_list(row, *list);
  }
  if (const auto* flag = std::get_if<bool>(&scalar)) {
    if (row.type != Type::kBool) return fail(Code::kInvalid, "is a boolean");
    return Value(*flag);
  }
  const bool is_text =
      is_list || row.type == Type::kText || row.type == Type::kPath || row.type == Type::kChoice;
  if (is_text) return fail(Code::kInvalid, "is a number where a text is expected");
  if (const auto* integer = std::get_if<std::int64_t>(&scalar)) {
    if (*integer < 0) return fail(Code::kInvalid, "is negative");
    return parse_value(row, fmt::format("{}", *integer));
  }
  const double number = std::get<double>(scalar);
  // 2e9 is how some writers print whole numbers; 2^53 is where doubles stop being exact.
  const bool is_whole = number >= 0 && number < 9007199254740992.0 && std::floor(number) == number;
  if (row.type == Type::kFloat) return parse_value(row, fmt::format("{}", number));
  if (!is_whole) return fail(Code::kInvalid, "is not a whole number");
  return parse_value(row, fmt::format("{}", static_cast<std::int64_t>(number)));
}

std::string format_value(const Row& row, const Value& value) {
  if (const auto* text = std::get_if<std::string>(&value)) {
    return row.is_secret && !text->empty() ? "<hidden>" : *text;
  }
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* list = std::get_if<std::vector<std::string>>(&value)) {
    return fmt::format("{}", fmt::join(*list, ","));
  }
  if (const auto* number = std::get_if<double>(&value)) return fmt::format("{}", *number);
  const std::int64_t integer = std::get<std::int64_t>(value);
  if (row.type == Type::kSize) return format_with_unit(integer, kSizeUnits, "0");
  if (row.type == Type::kDuration) return format_with_unit(integer, kDurationUnits, "0s");
  return fmt::format("{}", integer);
}

std::string allowed_text(const Row& row) {
  const auto number = [&row](double n) { return format_number(row.type, n); };
  const auto range = [&](std::string_view kind) {
    if (row.low_nonzero > 0) {
      return fmt::format("{} from {} to {}, or 0", kind, number(row.low_nonzero), number(row.high));
    }
    return fmt::format("{} from {} to {}", kind, number(row.low), number(row.high));
  };
  switch (row.type) {
    case Type::kSize:
      return range("a size");
    case Type::kDuration:
      return range("a duration");
    case Type::kBlocks:
      return range("a number of blocks");
    case Type::kInteger:
      return range("a whole number");
    case Type::kFloat:
      return range("a number");
    case Type::kBool:
      return "true or false";
    case Type::kChoice:
      return fmt::format("one of {}", fmt::join(split_words(row.choices, '|'), ", "));
    case Type::kText:
      return fmt::format("a text of at most {} bytes", row.high);
    case Type::kPath:
      return fmt::format("an absolute path of at most {} bytes", row.high);
    case Type::kPathList:
      return fmt::format("at most {} absolute paths, as a list or separated by commas",
                         kMostListItems);
    case Type::kWordList:
      return "words, as a list or separated by commas";
  }
  return {};
}

std::string_view type_name(Type type) {
  switch (type) {
    case Type::kSize:
      return "size";
    case Type::kBlocks:
      return "blocks";
    case Type::kInteger:
      return "integer";
    case Type::kDuration:
      return "duration";
    case Type::kFloat:
      return "number";
    case Type::kBool:
      return "boolean";
    case Type::kChoice:
      return "choice";
    case Type::kText:
      return "text";
    case Type::kPath:
      return "path";
    case Type::kPathList:
      return "list of paths";
    case Type::kWordList:
      return "list of words";
  }
  return "?";
}

std::vector<std::string_view> split_words(std::string_view text, char separator) {
  std::vector<std::string_view> out;
  while (true) {
    const auto at = text.find(separator);
    out.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return out;
    text.remove_prefix(at + 1);
  }
}

std::string quote(std::string_view text) {
  constexpr std::size_t kMost = 80;
  std::string out = "\"";
  for (const char c : text.substr(0, kMost)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7F || c == '"' || c == '\\') {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  out += text.size() > kMost ? "...\"" : "\"";
  return out;
}

}  // namespace terrace::config
