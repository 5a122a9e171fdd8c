// What host and disk tiers of other sizes would do for an engine, from its status.
// Threading: pure functions.  Waits: never.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace terrace::cli {

struct TierSizes {
  std::uint64_t host = 0;  // Bytes, each.
  std::uint64_t disk = 0;
};

struct AdviceRow {
  TierSizes sizes;
  double hit_percent = 0;     // Of all blocks that prompts ask for, those of the engine included.
  double beyond_percent = 0;  // What the engine's own cache does not have.
  double saved_seconds = 0;   // Of computing prompts, in 24 hours; 0 = its speed is not known.
  double written_bytes = 0;   // To disk, in 24 hours, if everything is written.
};

struct Advice {
  std::uint64_t blocks_asked = 0;  // Learned from,
  double window_seconds = 0;       // in this time; 0 = not told.
  double engine_percent = 0;       // Of prompt tokens then, what the engine's own cache had.
  double tokens_per_second = 0;    // Of prompts.
  double prefill_tokens_per_second = 0;
  std::vector<AdviceRow> rows;
  // No smaller host lends a request that waits as many blocks as nearly all prompts ask for.
  std::uint64_t least_host = 0;
  // The least that gains nine tenths of what any of them gains, with no smaller host than that.
  std::optional<TierSizes> best;
};

// `status` is the JSON of GET /status, of whatever version: what is missing counts as 0. With
// `wanted` the one row of those sizes.
[[nodiscard]] Advice advice_of(std::string_view status, std::optional<TierSizes> wanted);
// "8GiB"; whole units where it is one.
[[nodiscard]] std::string size_name(std::uint64_t bytes);
// The settings of these sizes, as JSON.
[[nodiscard]] std::string settings_of(const TierSizes& sizes);
[[nodiscard]] std::string advice_text(const Advice& advice, std::string_view engine);
// An object.
[[nodiscard]] std::string advice_json(const Advice& advice, std::string_view engine);

}  // namespace terrace::cli
