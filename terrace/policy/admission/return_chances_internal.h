// How many of the blocks that left the tier above came back in time, by the class of the request
// that used them last and by how long ago that was: of what has been seen little of, as of its
// class, and of a class likewise as of all. Threading: thread-compatible.  Waits: never.  Memory:
// 68 KiB.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "terrace/policy/returns/use.h"

namespace terrace::policy {

class ReturnChances {
 public:
  using Cell = std::uint16_t;
  [[nodiscard]] static Cell cell_of(ReturnClass of, std::uint32_t age_s) {
    const auto octave = std::min<unsigned>(static_cast<unsigned>(std::bit_width(age_s)) / 2, 7);
    return static_cast<Cell>(std::min<unsigned>(of.value(), kClasses - 1) * kAges + octave);
  }
  void note(Cell cell, bool has_returned) {
    for (Seen* one : {&cells_[cell], &classes_[cell / kAges], &all_}) {
      one->left += 1;
      one->returned += has_returned ? 1 : 0;
    }
  }
  [[nodiscard]] double chance(Cell cell) const {
    const double all = (all_.returned + 1) / (all_.left + 1);
    return leaning(cells_[cell], leaning(classes_[cell / kAges], all));
  }
  void halve() {
    const auto halve_one = [](Seen& one) {
      one.left /= 2;
      one.returned /= 2;
    };
    std::ranges::for_each(cells_, halve_one);
    std::ranges::for_each(classes_, halve_one);
    halve_one(all_);
  }

 private:
  static constexpr std::size_t kClasses = 512;
  static constexpr std::size_t kAges = 8;  // Each four times as long as the one before.
  // What is leant on weighs as much as so many blocks: those of some ten requests.
  static constexpr float kLean = 512;
  struct Seen {
    float left = 0;
    float returned = 0;
  };
  [[nodiscard]] static double leaning(const Seen& own, double on) {
    return (own.returned + kLean * on) / (own.left + kLean);
  }
  std::vector<Seen> cells_ = std::vector<Seen>(kClasses * kAges);
  std::vector<Seen> classes_ = std::vector<Seen>(kClasses);
  Seen all_;
};

}  // namespace terrace::policy
