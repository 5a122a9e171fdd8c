#include <fmt/format.h>

#include <array>
#include <ctime>

#include "terrace/transfer/backends/s3/xml_internal.h"

namespace terrace::transfer::s3 {

namespace {

constexpr std::array<std::string_view, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                      "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

// The number in text[at, at + digits); -1 if it is none.
int number_at(std::string_view text, std::size_t at, std::size_t digits) {
  if (at + digits > text.size()) return -1;
  int value = 0;
  for (const char byte : text.substr(at, digits)) {
    if (byte < '0' || byte > '9') return -1;
    value = 10 * value + (byte - '0');
  }
  return value;
}

struct Moment {
  int year, month, day, hour, minute, second;
};

Result<std::int64_t> seconds_of(const Moment& moment, std::string_view text) {
  const bool is_date = moment.year >= 1970 && moment.month >= 1 && moment.month <= 12 &&
                       moment.day >= 1 && moment.day <= 31;
  const bool is_time = moment.hour >= 0 && moment.hour <= 23 && moment.minute >= 0 &&
                       moment.minute <= 59 && moment.second >= 0 && moment.second <= 60;
  if (!is_date || !is_time) {
    return fail(Code::kCorrupt, fmt::format("'{}' is no date", text.substr(0, 40)));
  }
  std::tm parts{};
  parts.tm_year = moment.year - 1900;
  parts.tm_mon = moment.month - 1;
  parts.tm_mday = moment.day;
  parts.tm_hour = moment.hour;
  parts.tm_min = moment.minute;
  parts.tm_sec = moment.second;
  return static_cast<std::int64_t>(::timegm(&parts));
}

int hex_digit(char byte) {
  if (byte >= '0' && byte <= '9') return byte - '0';
  if (byte >= 'a' && byte <= 'f') return byte - 'a' + 10;
  if (byte >= 'A' && byte <= 'F') return byte - 'A' + 10;
  return -1;
}

}  // namespace

Result<std::int64_t> parse_iso_date(std::string_view text) {
  const bool has_shape = text.size() >= 20 && text.size() <= 40 && text[4] == '-' &&
                         text[7] == '-' && text[10] == 'T' && text[13] == ':' && text[16] == ':' &&
                         (text[19] == '.' || text[19] == 'Z') && text.ends_with('Z');
  if (!has_shape) return fail(Code::kCorrupt, fmt::format("'{}' is no date", text.substr(0, 40)));
  return seconds_of({number_at(text, 0, 4), number_at(text, 5, 2), number_at(text, 8, 2),
                     number_at(text, 11, 2), number_at(text, 14, 2), number_at(text, 17, 2)},
                    text);
}

Result<std::int64_t> parse_http_date(std::string_view text) {
  // Sun, 06 Nov 1994 08:49:37 GMT
  Moment moment{-1, 0, 0, 0, 0, 0};
  if (text.size() == 29 && text.substr(3, 2) == ", " && text.ends_with(" GMT")) {
    int month = 0;
    for (std::size_t i = 0; i < kMonths.size(); ++i) {
      if (text.substr(8, 3) == kMonths[i]) month = static_cast<int>(i) + 1;
    }
    moment = {number_at(text, 12, 4), month,
              number_at(text, 5, 2),  number_at(text, 17, 2),
              number_at(text, 20, 2), number_at(text, 23, 2)};
  }
  return seconds_of(moment, text);
}

Result<std::uint64_t> parse_number(std::string_view text) {
  std::uint64_t value = 0;
  bool is_number = !text.empty() && text.size() <= 18;
  for (const char byte : text) {
    if (!is_number || byte < '0' || byte > '9') {
      is_number = false;
      break;
    }
    value = 10 * value + static_cast<std::uint64_t>(byte - '0');
  }
  if (is_number) return value;
  return fail(Code::kCorrupt, fmt::format("'{}' is no number", text.substr(0, 24)));
}

Result<std::string> uri_decode(std::string_view text) {
  std::string made;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '+') {
      made += ' ';
    } else if (text[at] != '%') {
      made += text[at];
    } else {
      const int high = at + 2 < text.size() ? hex_digit(text[at + 1]) : -1;
      const int low = at + 2 < text.size() ? hex_digit(text[at + 2]) : -1;
      if (high < 0 || low < 0) return fail(Code::kCorrupt, "a listed name with a broken %XX");
      made += static_cast<char>(16 * high + low);
      at += 2;
    }
  }
  return made;
}

}  // namespace terrace::transfer::s3
