// How many of the blocks that left the tier above came back in time, by the class of the request
// that used them last and by how long ago that was: of what has been seen little of, as of its
// class, and of a class likewise as of all. A class that begins in the place of another has been
// seen nothing of; what is still to come of the other counts for all alone.
// Threading: thread-compatible.  Waits: never.  Memory: 38 KiB.
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
  // Of a class and an age: bears the class as a whole.
  using Cell = std::uint32_t;
  [[nodiscard]] static Cell cell_of(ReturnClass of, std::uint32_t age_s) {
    const auto octave = std::min<unsigned>(static_cast<unsigned>(std::bit_width(age_s)) / 2, 7);
    return of.value() * static_cast<Cell>(kAges) + octave;
  }
  // A request of this class begins: it is the one that has its place now.
  void begin(ReturnClass of) {
    const std::size_t place = of.value() % kPlaces;
    if (classes_[place].of == of) return;
    classes_[place] = {.of = of};
    std::fill_n(cells_.begin() + static_cast<std::ptrdiff_t>(place * kAges), kAges, Seen{});
  }
  // A block left; if it comes back, later, as one that the tier would hold by this chance.
  void note_seen(Cell cell) { count(cell, {.left = 1, .returned = 0}); }
  void note_returned(Cell cell, double held) {
    count(cell, {.left = 0, .returned = static_cast<float>(held)});
  }
  // Of any block.
  [[nodiscard]] double chance() const { return (all_.returned + 1) / (all_.left + 1); }
  [[nodiscard]] double chance(Cell cell) const {
    const double all = chance();
    if (!is_present(cell)) return all;
    return leaning(cells_[cell % kCells], leaning(class_of(cell).seen, all));
  }
  void halve() {
    const auto halve_one = [](Seen& one) {
      one.left /= 2;
      one.returned /= 2;
    };
    std::ranges::for_each(cells_, halve_one);
    std::ranges::for_each(classes_, halve_one, &Class::seen);
    halve_one(all_);
  }

 private:
  static constexpr std::size_t kPlaces = 512;
  static constexpr std::size_t kAges = 8;  // Each four times as long as the one before.
  static constexpr std::size_t kCells = kPlaces * kAges;
  // What is leant on weighs as much as so many blocks: those of some ten requests.
  static constexpr float kLean = 512;
  struct Seen {
    float left = 0;
    float returned = 0;
  };
  struct Class {
    ReturnClass of{0};
    Seen seen{};
  };
  void count(Cell cell, const Seen& more) {
    const auto add = [&](Seen& one) {
      one.left += more.left;
      one.returned += more.returned;
    };
    add(all_);
    if (!is_present(cell)) return;
    add(cells_[cell % kCells]);
    add(class_of(cell).seen);
  }
  [[nodiscard]] Class& class_of(Cell cell) { return classes_[cell / kAges % kPlaces]; }
  [[nodiscard]] const Class& class_of(Cell cell) const { return classes_[cell / kAges % kPlaces]; }
  [[nodiscard]] bool is_present(Cell cell) const {
    return class_of(cell).of.value() == cell / kAges;
  }
  [[nodiscard]] static double leaning(const Seen& own, double on) {
    return (own.returned + kLean * on) / (own.left + kLean);
  }
  std::vector<Seen> cells_ = std::vector<Seen>(kCells);
  std::vector<Class> classes_ = std::vector<Class>(kPlaces);  // The last known of each place.
  Seen all_;
};

}  // namespace terrace::policy
