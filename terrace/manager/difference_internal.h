// Two versions of one shard, stored and computed anew: how far apart they are, measured against
// what computing the same again in other pieces makes of it.
// Threading: pure functions.  Waits: never; reads both shards once or twice.
// Source: docs/adr/0036-a-share-of-hits-is-checked.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "terrace/block/element.h"
#include "terrace/block/layout.h"

namespace terrace::manager {

// Numbers may differ by so much. Each piece is taken in two halves, as keys and values have
// magnitudes of their own; `rms` is the root of the mean square of such a half, of the version
// where it is larger.
struct NoiseFloor {
  double element = 0;  // |stored - computed| <= element * (the smaller of both sizes + rms)
  double rms = 0;      // rms of the differences <= rms * rms
};
// Some times what was measured (docs/results/vllm-noise.jsonl), and well below another block.
// `tolerance` scales it; 0 = the bytes must be equal.
[[nodiscard]] NoiseFloor noise_floor(ElementType type, double tolerance);

struct Difference {
  std::uint64_t elements = 0;  // That differ,
  std::uint64_t beyond = 0;    // and those of them beyond the floor's `element`.
  double element = 0;          // The largest, in the floor's unit; 1e9 where one is not finite.
  double rms = 0;              // The largest of a half.
  std::size_t piece = 0;       // Where the largest element lies,
  std::uint64_t at = 0;        // counted in elements of the piece,
  double stored = 0;           // and both its versions.
  double computed = 0;

  [[nodiscard]] bool is_beyond(const NoiseFloor& floor) const {
    return elements > 0 && (beyond > 0 || rms > floor.rms);
  }
  // For logs and health.
  [[nodiscard]] std::string text() const;
};

// `stored` and `computed` are the group's shard_bytes() long.
[[nodiscard]] Difference difference_of(std::span<const std::byte> stored,
                                       std::span<const std::byte> computed,
                                       const GroupLayout& layout, ElementType type,
                                       const NoiseFloor& floor);

}  // namespace terrace::manager
