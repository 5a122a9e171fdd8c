// What an eviction policy holds beyond `lru`, of pools of any size: beside the miss-ratio curve,
// which is exact for `lru` and tells nothing of others. For sizes a factor of two apart two small
// pools without bytes are kept, one by `lru`, one by the policy. They see the same blocks, chosen
// by their hashes, in proportion to their slots: what of a chain is chosen is a chain. By how many
// hits they differ, that much pools of that size do: chance in which blocks are chosen is in both.
//
// Where the difference may be chance it counts for less, and for nothing if it is within two
// standard errors. Threading: thread-compatible.  Waits: never.  Memory: memory(), from create().
// Source: Waldspurger et al., Cache modeling and optimization using miniature simulations, USENIX
// ATC 2017; the difference is a control variate.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "terrace/base/status.h"
#include "terrace/policy/curve/ghost_pool_internal.h"
#include "terrace/policy/curve/miss_curve.h"

namespace terrace::policy {

class EvictionGain {
 public:
  struct Options {
    std::string eviction = "hazard";
    // Below the smallest size the gain falls to nothing in proportion, and above the largest it is
    // as there.
    std::uint64_t least_blocks = 256;
    std::uint64_t most_blocks = 0;
    std::uint32_t slots = 256;  // Of each pool, at most.
    // Taught of each request by whoever tells of it here.
    std::shared_ptr<const ReturnModel> returns = {};
  };
  // Errors: kInvalid for no blocks or slots, or an unknown policy; kExhausted if memory is refused.
  static Result<EvictionGain> create(const Options& options);

  // A request's chain comes, since it asks for it or (not `is_asked`) since it has ended and used
  // it. By slices, the first one first, so that nobody has to wait for all of a long one; then
  // end(), which is O(slots).
  struct Coming {
    Nanoseconds at{0};
    bool is_asked = true;
    bool is_stored = true;  // What of it is new.
  };
  void begin(const Coming& coming);
  void add(std::span<const SequenceHash> blocks);
  void end(const Use& use);
  // Counts are halved.
  void age();

  // Of all blocks asked for, the share that a pool of `blocks` holds beyond `lru`; below 0 = less.
  [[nodiscard]] double of(std::uint64_t blocks) const;
  [[nodiscard]] Bytes memory() const;

 private:
  struct Size {
    std::uint64_t blocks;
    unsigned bits;  // One in 2^bits blocks is chosen.
    GhostPool reference;
    GhostPool policy;
    double gained =
        0;             // Hits in chosen blocks that the reference has not, less those it alone has,
    double apart = 0;  // and both together.
  };
  explicit EvictionGain(std::vector<Size> sizes) : sizes_(std::move(sizes)) {}
  [[nodiscard]] double of(const Size& size) const;

  std::vector<Size> sizes_;  // They go up, and so do `bits`.
  double asked_ = 0;         // Blocks, chosen or not.
  Coming coming_{};
  std::size_t met_ = 0;  // Of the sizes, those that have seen a block of what comes.
};

// What one pool of a size would have held, of all that was asked for. Both outlive it.
class HitRatio {
 public:
  // `gain` null: by `lru`.
  HitRatio(const MissCurve& curve, const EvictionGain* gain);
  [[nodiscard]] double operator()(std::uint64_t blocks) const;

 private:
  const MissCurve& curve_;
  const EvictionGain* gain_;
  double most_;  // No pool has what nobody has asked for before.
};

}  // namespace terrace::policy
