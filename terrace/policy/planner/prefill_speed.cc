#include <algorithm>
#include <cmath>
#include <cstdint>

#include "terrace/policy/planner/prefill_speed_internal.h"

namespace terrace::policy {

namespace {

constexpr double kKeep = 0.95;
constexpr double kSlowest = 4;  // As with tiers: a stall counts as at most that.
// So that all terms of a usual step are of one order.
constexpr double kTokenUnit = 1024;
constexpr double kPairUnit = 1 << 20;
constexpr double kBesideUnit = 16;
// From where the last step left off few are needed.
constexpr int kSweeps = 40;
enum Term : std::uint8_t { kFixed, kTokens, kPairs, kBeside };

}  // namespace

PrefillSpeed::Terms PrefillSpeed::terms_of(const PrefillStep& step) {
  return {1, static_cast<double>(step.tokens.value()) / kTokenUnit, step.pairs / kPairUnit,
          step.beside / kBesideUnit};
}

double PrefillSpeed::predict(const Terms& terms) const {
  double sum = 0;
  for (int i = 0; i < kTerms; ++i) sum += costs_[i] * terms[i];
  return sum;
}

void PrefillSpeed::observe(const PrefillStep& step, double elapsed_s) {
  if (step.tokens == Tokens(0) || elapsed_s <= 0) return;
  const auto count = static_cast<double>(step.tokens.value());
  const Terms terms = terms_of(step);
  double y = elapsed_s;
  if (is_measured()) y = std::min(y, kSlowest * predict(terms));
  for (int i = 0; i < kTerms; ++i) {
    for (int j = 0; j < kTerms; ++j) {
      products_[i][j] = kKeep * products_[i][j] + terms[i] * terms[j];
    }
    moments_[i] = kKeep * moments_[i] + terms[i] * y;
  }
  tokens_ = kKeep * tokens_ + count;
  seconds_ = kKeep * seconds_ + y;
  beside_ = kKeep * beside_ + (1 - kKeep) * step.beside;
  largest_step_ = std::max(largest_step_, count);
  fit();
}

// Each term in turn takes what the others leave. Tokens come first: what they explain is theirs.
void PrefillSpeed::fit() {
  constexpr std::array<Term, kTerms> kOrder{kTokens, kFixed, kPairs, kBeside};
  for (int sweep = 0; sweep < kSweeps; ++sweep) {
    const Terms before = costs_;
    for (const Term i : kOrder) {
      if (products_[i][i] <= 0) continue;
      double left = moments_[i];
      for (int j = 0; j < kTerms; ++j) left -= j == i ? 0 : products_[i][j] * costs_[j];
      costs_[i] = std::max(0.0, left / products_[i][i]);
    }
    if (costs_ == before) return;  // No sweep will change them.
  }
}

double PrefillSpeed::seconds(double from, double to, double behind) const {
  if (!is_measured() || to <= from) return 0;
  const double steps_with = std::ceil((to - from + behind) / largest_step_);
  const double steps_without = std::max(1.0, std::ceil(behind / largest_step_));
  const double step_s = costs_[kFixed] + costs_[kBeside] * beside_ / kBesideUnit;
  return costs_[kTokens] * (to - from) / kTokenUnit +
         costs_[kPairs] * (to * to - from * from) / 2 / kPairUnit +
         step_s * std::max(0.0, steps_with - steps_without);
}

}  // namespace terrace::policy
