#include "terrace/config/nearest.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cstddef>

namespace terrace::config {
namespace {

constexpr std::size_t kMost = 64;

char lower(char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); }

std::size_t distance(std::string_view a, std::string_view b) {
  using Line = std::array<std::size_t, kMost + 1>;
  Line before{};
  Line last{};
  Line now{};
  for (std::size_t j = 0; j <= b.size(); ++j) last.at(j) = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    now[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const bool is_same = lower(a[i - 1]) == lower(b[j - 1]);
      now.at(j) = std::min({last.at(j) + 1, now.at(j - 1) + 1, last.at(j - 1) + (is_same ? 0 : 1)});
      const bool is_crossed = i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) &&
                              lower(a[i - 2]) == lower(b[j - 1]);
      if (is_crossed) now.at(j) = std::min(now.at(j), before.at(j - 2) + 1);
    }
    before = last;
    last = now;
  }
  return last.at(b.size());
}

}  // namespace

std::string_view nearest_of(std::string_view name, std::span<const std::string_view> candidates) {
  name = name.substr(0, kMost);
  std::string_view best;
  std::size_t best_distance = std::max<std::size_t>(2, name.size() / 3) + 1;
  for (const std::string_view candidate : candidates) {
    const std::size_t d = distance(name, candidate.substr(0, kMost));
    if (d < best_distance) {
      best = candidate;
      best_distance = d;
    }
  }
  return best;
}

}  // namespace terrace::config
