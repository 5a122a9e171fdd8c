// For how long the guarded tier keeps blocks that come back, whatever evicts from it: of those that
// were written, how many were still there when they were asked for again, by how much had been
// written meanwhile, in parts of the tier. Other shares of what is offered make the same tier turn
// over faster or slower, but not otherwise: so it tells, too, what the tier would hold if it
// admitted everything.
// Threading: thread-compatible.  Waits: never.  Memory: 200 bytes.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace terrace::policy {

class Survival {
 public:
  explicit Survival(std::uint64_t tier_blocks) : tier_blocks_(static_cast<double>(tier_blocks)) {
    weigh();
  }

  // Half-octaves of what was written since.
  using Step = std::uint8_t;
  static constexpr Step kSteps = 24;
  static constexpr std::uint32_t kOne = 16;  // Parts of a block that was written.
  [[nodiscard]] Step step_of(std::uint32_t written) const {
    const double tiers = static_cast<double>(written) / kOne / tier_blocks_;
    if (tiers <= kFirst) return 0;
    return static_cast<Step>(std::min(2 * std::log2(tiers / kFirst), kSteps - 1.0));
  }
  // A block that was written came back and was there.
  void note_held(Step step) {
    counts_[step].asked += 1;
    counts_[step].held += 1;
    weigh_some();
  }
  // It was not there after all.
  void note_gone(Step step) { counts_[step].held -= 1; }
  // How likely the tier holds what was used when so much less had been written.
  [[nodiscard]] double chance(std::uint32_t written) const { return chances_[step_of(written)]; }
  void halve() {
    for (Count& count : counts_) {
      count.asked /= 2;
      count.held /= 2;
    }
    weigh();
  }

 private:
  static constexpr double kFirst = 1.0 / 16;  // Of a tier; the last one is 2^7.5 of it.
  static constexpr std::size_t kWhole = 8;    // Steps up to a whole tier.
  // What is expected weighs as much as so many blocks.
  static constexpr double kLean = 256;
  static constexpr std::uint32_t kWeighEvery = 256;
  struct Count {
    double asked = 0;
    double held = 0;
  };

  void weigh_some() {
    if (++since_weighed_ >= kWeighEvery) weigh();
  }
  // At first as an `lru` tier would, with some doubt: beyond one tier half of what was there half
  // an octave before. What is asked for sooner is held no less likely.
  void weigh() {
    since_weighed_ = 0;
    double before = 1;
    for (std::size_t step = 0; step < kSteps; ++step) {
      const double expected = step < kWhole ? before : before / 2;
      before = (counts_[step].held + kLean * expected) / (counts_[step].asked + kLean);
      before = std::clamp(before, 0.0, 1.0);
      chances_[step] = before;
    }
    for (std::size_t step = kSteps - 1; step-- > 0;) {
      chances_[step] = std::max(chances_[step], chances_[step + 1]);
    }
  }

  double tier_blocks_;
  std::uint32_t since_weighed_ = 0;
  std::array<Count, kSteps> counts_{};
  std::array<double, kSteps> chances_{};
};

}  // namespace terrace::policy
