// Why a request hit or missed, in plain words, from its ledger; and lists of ledgers.
// Threading: pure functions.  Waits: never.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace terrace::cli {

// What a reason of docs/formats/admin.md means, and what to do about it.
struct ReasonWords {
  std::string_view what;
  std::string_view way_out;
};
// Of a miss, or of tiers that were not asked; of an unknown one nothing.
[[nodiscard]] ReasonWords words_of(std::string_view reason);

// For a terminal: ASCII alone, nothing that it would obey, at most `width` columns. What is cut
// ends with `~`.
[[nodiscard]] std::string plain(std::string_view text, std::size_t width);
// "1.2 ms", "45 s", "3 min"; "-" for 0.
[[nodiscard]] std::string duration_name(double nanoseconds);

// `ledger`: one object of the ledgers of GET /ledgers, of whatever version: what is missing counts
// as 0. `now`: seconds since 1970.
[[nodiscard]] std::string why_text(std::string_view ledger, std::string_view engine,
                                   std::uint64_t block_tokens, std::int64_t now);
// A line: id, age, tokens, shares, reason; 79 columns at most. `ledger_heading()`: what is what.
[[nodiscard]] std::string ledger_line(std::string_view ledger, std::int64_t now);
[[nodiscard]] std::string ledger_heading();

}  // namespace terrace::cli
