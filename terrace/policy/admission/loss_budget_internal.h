// Which blocks a tier can do without: those that are least likely to return, as many as cost it no
// more hits than it may lose beside admitting everything. What is lost is measured: of blocks of
// each expectation, how many left the tier above and how many came back while the tier would have
// held them. What the others gain by staying longer may be lost again.
// Threading: thread-compatible.  Waits: never.  Memory: 2 KiB.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>

namespace terrace::policy {

class LossBudget {
 public:
  // Counts are halved each time so many blocks left, or eight times as many were asked for.
  // `most_lost`: a share of all blocks asked for.
  LossBudget(std::uint64_t half_life, double most_lost)
      : half_life_(static_cast<double>(half_life)), most_lost_(most_lost) {}

  // Steps of expectation: narrow where it is small, which is where most of it decides.
  static constexpr std::uint8_t kSteps = 64;
  [[nodiscard]] static std::uint8_t step_of(double chance) {
    const double step = std::sqrt(std::clamp(chance, 0.0, 1.0)) * kSteps;
    return static_cast<std::uint8_t>(std::min(step, kSteps - 1.0));
  }

  [[nodiscard]] static double expectation(std::uint8_t step) {
    return std::pow((step + 0.5) / kSteps, 2);
  }

  // Blocks of a chain that was used; each request is told of twice. True when that halved all.
  bool note_uses(double blocks) {
    asked_ += blocks / 2;
    since_halved_ += blocks / 2 / kAskedToLeaving;
    if (since_halved_ < half_life_) return false;
    halve();
    return true;
  }
  // So much more likely the tier has a block that came back than one that admits everything.
  void note_gained(double count) { gained_ += count; }
  void note_leaving(std::uint8_t step) {
    leaving_[step] += 1;
    since_halved_ += 1;
  }
  // What came of a block that left: to be told of each once, and also if it comes back.
  void note_seen(std::uint8_t step) { seen_[step] += 1; }
  void note_returned(std::uint8_t step, double held) { returned_[step] += held; }
  // Which steps to refuse from now on.
  void judge() {
    const double allowed = most_lost_ * asked_ + gained_;
    // What was lost beyond it is to be saved by as much.
    double left = std::max(0.0, allowed + std::min(0.0, allowed - lost_));
    whole_steps_ = 0;
    part_ = 0;
    for (std::uint8_t step = 0; step < kSteps; ++step) {
      const double lost = leaving_[step] * chance_of(step);
      if (lost > left) {
        part_ = left / lost;
        return;
      }
      left -= lost;
      whole_steps_ = static_cast<std::uint8_t>(step + 1);
    }
  }
  // `draw` of [0, 1) decides within the last step.
  [[nodiscard]] bool refuses(std::uint8_t step, double draw) const {
    return step < whole_steps_ || (step == whole_steps_ && draw < part_);
  }
  // What was refused came back, when a tier that admits everything would hold it by this chance.
  void note_lost(double held) { lost_ += held; }

 private:
  // Counts live as long where so many are asked for that hardly any leave.
  static constexpr double kAskedToLeaving = 8;
  // What a step is expected to do weighs as much as so many blocks of which it is known.
  static constexpr double kLean = 64;

  [[nodiscard]] double chance_of(std::uint8_t step) const {
    return (returned_[step] + kLean * expectation(step)) / (seen_[step] + kLean);
  }
  void halve() {
    since_halved_ = 0;
    asked_ /= 2;
    gained_ /= 2;
    lost_ /= 2;
    for (auto* counts : {&leaving_, &seen_, &returned_}) {
      for (double& count : *counts) count /= 2;
    }
  }

  const double half_life_;
  const double most_lost_;
  double asked_ = 0;
  double since_halved_ = 0;
  double gained_ = 0;
  double lost_ = 0;
  std::array<double, kSteps> leaving_{};
  std::array<double, kSteps> seen_{};
  std::array<double, kSteps> returned_{};
  std::uint8_t whole_steps_ = 0;  // Of the lowest expectation.
  double part_ = 0;               // Of the next one.
};

}  // namespace terrace::policy
