// Values of settings: parsing text as a row's type demands, checking ranges, and printing so that
// parsing gives the same value again.
// Threading: pure functions.  Waits: never.
// Errors: kInvalid whose message says what the value is not; the caller adds setting and source.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "terrace/base/status.h"
#include "terrace/config/table.h"

namespace terrace::config {

// Sizes in bytes and durations in nanoseconds are integers; choices, texts and paths are strings.
using Value = std::variant<bool, std::int64_t, double, std::string, std::vector<std::string>>;

// What a source said, before the row's type is applied. Environment and command line say text;
// TOML and JSON also numbers, booleans and lists.
using Scalar = std::variant<bool, std::int64_t, double, std::string, std::vector<std::string>>;

// 1/0, true/false, on/off, yes/no in any case; nothing else.
[[nodiscard]] Result<bool> parse_bool(std::string_view text);
// "1.5GiB": B, KB, KiB, MB, MiB, GB, GiB, TB, TiB; a bare number is bytes.
[[nodiscard]] Result<std::int64_t> parse_size(std::string_view text);
// "250ms": ns, us, ms, s, min, h; only 0 may stand without a unit.
[[nodiscard]] Result<std::int64_t> parse_duration(std::string_view text);
[[nodiscard]] Result<std::int64_t> parse_integer(std::string_view text);
[[nodiscard]] Result<double> parse_float(std::string_view text);

// Lists in text are separated by commas.
[[nodiscard]] Result<Value> parse_value(const Row& row, std::string_view text);
[[nodiscard]] Result<Value> convert_value(const Row& row, const Scalar& scalar);

// With the largest unit that divides the value; secrets as "<hidden>" unless empty.
[[nodiscard]] std::string format_value(const Row& row, const Value& value);
// "a size from 1MiB to 1TiB, or 0, such as 2GiB".
[[nodiscard]] std::string allowed_text(const Row& row);
// "size", "duration", "choice", …
[[nodiscard]] std::string_view type_name(Type type);
// The words of a row's `choices`.
[[nodiscard]] std::vector<std::string_view> split_words(std::string_view text, char separator);
// In quotes, cut at 80 bytes, control characters escaped: for error messages.
[[nodiscard]] std::string quote(std::string_view text);

// Copies between a Value and the field of Settings it belongs to. `value` has the row's type.
void store_value(const Row& row, const Value& value, Settings& settings);
[[nodiscard]] Value fetch_value(const Row& row, const Settings& settings);

}  // namespace terrace::config
