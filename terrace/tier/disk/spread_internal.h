// Which of several volumes takes the next block: in proportion to how fast their devices are, so
// that what is written, and read again, together is through on all of them at about the same time.
// Smooth weighted round robin: of two equal ones the blocks alternate.
// Threading: thread-compatible; the slots' lock guards it.  Waits: never.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace terrace::tier::disk {

class Spread {
 public:
  explicit Spread(std::size_t volumes) : shares_(volumes, 1.0), credits_(volumes, 0.0) {}

  // Bytes a second; 0 = not known, taken for the mean of the others. None gets less than a
  // sixteenth of what the fastest gets: its speed is to be known tomorrow as well.
  void set_speeds(std::span<const double> speeds) {
    double sum = 0;
    double fastest = 0;
    std::size_t known = 0;
    for (const double speed : speeds) {
      sum += speed;
      fastest = std::max(fastest, speed);
      known += speed > 0 ? 1 : 0;
    }
    if (known == 0) return;
    for (std::size_t v = 0; v < shares_.size(); ++v) {
      const double speed = speeds[v] > 0 ? speeds[v] : sum / static_cast<double>(known);
      shares_[v] = std::max(speed / fastest, kLeastShare);
    }
  }
  [[nodiscard]] double share(std::uint32_t volume) const { return shares_[volume]; }

  // Of those that can take it; there is one.
  [[nodiscard]] std::uint32_t next(const std::vector<bool>& can_take) {
    std::uint32_t chosen = 0;
    double sum = 0;
    bool is_first = true;
    for (std::uint32_t v = 0; v < shares_.size(); ++v) {
      if (!can_take[v]) continue;
      sum += shares_[v];
      credits_[v] += shares_[v];
      if (is_first || credits_[v] > credits_[chosen]) chosen = v;
      is_first = false;
    }
    credits_[chosen] -= sum;
    return chosen;
  }

 private:
  static constexpr double kLeastShare = 1.0 / 16;
  std::vector<double> shares_;  // Of the fastest one's.
  std::vector<double> credits_;
};

}  // namespace terrace::tier::disk
