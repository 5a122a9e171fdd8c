// Seeded changes of valid bytes, for tests that give a parser or a socket what nobody should send:
// the cheap form of the fuzz targets in `fuzz/`, over the same seeds.
// Threading: thread-compatible.  Waits: never.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "terrace/base/rng.h"

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

}  // namespace terrace::testing
