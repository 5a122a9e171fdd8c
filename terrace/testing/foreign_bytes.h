// Seeded changes of valid bytes, for tests that give a parser or a socket what nobody should send:
// the cheap form of the fuzz targets in `fuzz/`, over the same seeds.
// Threading: thread-compatible.  Waits: never.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/testing/property.h"

namespace terrace::testing {

// One seed with 1 to 8 changes: a bit, a byte, a run of bytes gone, doubled, of another seed or of
// chance, the end cut off.
[[nodiscard]] inline std::string changed(const std::vector<std::string>& seeds, Rng& rng) {
  std::string bytes = seeds[rng.below(seeds.size())];
  for (std::uint64_t left = 1 + rng.below(8); left > 0; --left) {
    const std::size_t at = rng.below(bytes.size() + 1);
    const std::size_t run = rng.below(16) + 1;
    switch (rng.below(7)) {
      case 0:
        if (at < bytes.size()) bytes[at] = static_cast<char>(bytes[at] ^ (1 << rng.below(8)));
        break;
      case 1:
        if (at < bytes.size()) bytes[at] = static_cast<char>(rng.below(256));
        break;
      case 2:
        bytes.erase(at, run);
        break;
      case 3:
        bytes.insert(at, bytes.substr(at, run));
        break;
      case 4: {
        const std::string& other = seeds[rng.below(seeds.size())];
        bytes.insert(at, other.substr(rng.below(other.size() + 1)));
        break;
      }
      case 5:
        for (std::size_t i = 0; i < run; ++i) {
          bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                       static_cast<char>(rng.below(256)));
        }
        break;
      default:
        bytes.resize(at);
    }
  }
  return bytes;
}

// Gives `end` each of its seeds, then changes of them. An End has `seeds()` and `run(bytes)`, which
// says what went wrong; "" = it stands.
template <typename End>
void expect_to_stand(End& end, std::uint64_t seed) {
  const std::vector<std::string> seeds = End::seeds();
  for (std::size_t i = 0; i < seeds.size(); ++i) ASSERT_EQ(end.run(seeds[i]), "") << "seed " << i;
  const Property chosen = property(seed, 3000);
  Rng rng(chosen.seed);
  for (std::uint64_t i = 0; i < chosen.steps; ++i) {
    ASSERT_EQ(end.run(changed(seeds, rng)), "") << "step " << i;
  }
}

}  // namespace terrace::testing
