// The known name that somebody probably meant.
// Threading: pure function.  Waits: never.  Source: optimal string alignment distance.
#pragma once

#include <span>
#include <string_view>

namespace terrace::config {

// The candidate with the smallest edit distance (insert, delete, replace, transpose), case ignored;
// empty when none is near enough to be a misspelling. O(candidates * length^2), names cut at 64
// bytes.
[[nodiscard]] std::string_view nearest_of(std::string_view name,
                                          std::span<const std::string_view> candidates);

}  // namespace terrace::config
