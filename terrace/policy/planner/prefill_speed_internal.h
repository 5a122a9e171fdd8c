// What computing tokens takes, from the engine's own steps:
//   step = fixed + tokens x a + token pairs x b + sequences that decode beside it x c
// with nothing below 0, by least squares over steps that lose a twentieth of their weight with each
// new one. Pairs are what attention looks at: a token deep in a long prompt is dearer. Where the
// steps so far do not tell two terms apart, the tokens have it all.
// Threading: thread-compatible.  Waits: never.  Source: coordinate descent for non-negative least
// squares.
#pragma once

#include <array>

#include "terrace/base/strong.h"

namespace terrace::policy {

// What an engine step computed.
struct PrefillStep {
  Tokens tokens{0};   // Of prompts.
  double pairs = 0;   // Sum over these of the tokens before each in its request.
  double beside = 0;  // Sequences that decode in the same step.
};

class PrefillSpeed {
 public:
  void observe(const PrefillStep& step, double elapsed_s);
  // What tokens [from, to) of a request add, when it has `behind` more to compute after them.
  [[nodiscard]] double seconds(double from, double to, double behind) const;
  [[nodiscard]] bool is_measured() const { return tokens_ > 0; }
  [[nodiscard]] double tokens_per_second() const { return seconds_ > 0 ? tokens_ / seconds_ : 0; }

 private:
  static constexpr int kTerms = 4;
  using Terms = std::array<double, kTerms>;
  static Terms terms_of(const PrefillStep& step);
  [[nodiscard]] double predict(const Terms& terms) const;
  void fit();

  std::array<Terms, kTerms> products_{};  // Decayed sums of terms x terms
  Terms moments_{};                       // and of terms x seconds.
  Terms costs_{};
  double tokens_ = 0;  // Decayed sums, for people.
  double seconds_ = 0;
  double beside_ = 0;        // Lately.
  double largest_step_ = 0;  // Prompts that are longer are computed in several.
};

}  // namespace terrace::policy
