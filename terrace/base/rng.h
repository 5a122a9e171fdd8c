// Seeded pseudo-random numbers (SplitMix64, Steele, Lea and Flood, OOPSLA 2014). Not for secrets.
// Threading: thread-compatible.  Waits: never.
#pragma once

#include <cstdint>

namespace terrace {

class Rng {
 public:
  explicit Rng(std::uint64_t seed) : state_(seed) {}
  [[nodiscard]] std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15ULL);
    z = (z ^ (z >> 30U)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27U)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31U);
  }
  // Uniform in [0, bound); bound > 0.
  [[nodiscard]] std::uint64_t below(std::uint64_t bound) {
    return static_cast<std::uint64_t>((static_cast<unsigned __int128>(next()) * bound) >> 64U);
  }
  // True with probability `percent` / 100.
  [[nodiscard]] bool chance(unsigned percent) { return below(100) < percent; }

 private:
  std::uint64_t state_;
};

// 64 bits from the operating system, for names and epochs that must not collide.
[[nodiscard]] std::uint64_t random_u64();

}  // namespace terrace
