// The miss-ratio curve: which share of the blocks asked for a pool of any size would have held,
// learned from the requests alone. How many other blocks were used since a block's last use is the
// size below which `lru` would have lost it. The last blocks are followed one and all; of those
// further back a quarter, chosen by their hashes, four times as far; of those before a sixteenth,
// and so on: blocks that everybody asks for are near and counted exactly. Of those that are not
// near, the ones that are followed tell which share lies within the next distance; what is left
// over goes on to the one behind. So chance has no say in how many there are, only in how far they
// lie.
//
// Requests hold their blocks until they end and let go of the deepest first, as the pools do, so a
// block is never older than what follows it. Counts of long ago weigh less: they are halved each
// time twice as many blocks were asked for as the largest pool holds (or a smaller one, when that
// is asked for), and 100,000 at least. Threading: thread-compatible.  Waits: never.  Memory:
// memory(), from create(). Source: Mattson et al., Evaluation techniques for storage hierarchies,
// 1970 (stack distance); Waldspurger et al., Efficient MRC construction with SHARDS, FAST 2015
// (sampling by hash).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "terrace/base/status.h"
#include "terrace/block/sequence_hash.h"
#include "terrace/policy/curve/use_order_internal.h"

namespace terrace::policy {

class MissCurve {
 public:
  struct Options {
    std::uint64_t most_blocks = 0;  // Of the largest pool that will be asked about.
    std::uint32_t followed = 4096;  // At each of the distances.
    // Counts are halved each time twice as many blocks were asked for; 0 = as most_blocks.
    std::uint64_t aging_blocks = 0;
  };
  // Errors: kInvalid for 0 blocks or none followed; kExhausted if memory is refused.
  static Result<MissCurve> create(const Options& options);

  // Somebody asked for `chain`, the first block first. O(chain).
  void request(std::span<const SequenceHash> chain) {
    look_for(chain);
    use(chain);
  }
  // The same by slices, so that nobody has to wait for all of a long chain: each slice of it is
  // looked for before any is used, and the deepest is used first. O(blocks).
  void look_for(std::span<const SequenceHash> blocks);
  // These were used, or stored: nobody asked for them, or that was counted by look_for().
  void use(std::span<const SequenceHash> blocks);
  // The same of what is not stored: what the pool has of it was used.
  void refresh(std::span<const SequenceHash> blocks);
  // Of all blocks asked for, the share that a pool of `blocks` would have held; 0 before any
  // request. Larger pools than most_blocks: as that one.
  [[nodiscard]] double hit_ratio(std::uint64_t blocks) const;
  // Blocks asked for that the ratio is taken over, older ones weighing less.
  [[nodiscard]] double weight() const { return asked_; }
  // How often counts were halved.
  [[nodiscard]] std::uint64_t halvings() const { return halvings_; }
  [[nodiscard]] Bytes memory() const;

 private:
  // Distances in cells: below 2^(kFine + 1) each its own, above 2^kFine cells an octave.
  static constexpr unsigned kFine = 5;
  static constexpr unsigned kCells = (40U << kFine) + 1;
  // One that is followed stands for four of the level before.
  static constexpr unsigned kStepBits = 2;

  MissCurve(const Options& options, std::vector<UseOrder> levels);
  [[nodiscard]] static unsigned cell_of(std::uint64_t distance);
  [[nodiscard]] static std::uint64_t first_of(unsigned cell);
  // Of the levels, those that follow this block.
  [[nodiscard]] std::size_t levels_of(const SequenceHash& hash) const;
  void note(const SequenceHash& hash);
  void age();

  std::uint32_t followed_;
  double ages_at_;                // Blocks asked for.
  std::vector<UseOrder> levels_;  // The nearest first.
  double asked_ = 0;
  std::uint64_t halvings_ = 0;
  struct Counts {
    double looked_for = 0;               // Uses of blocks of this level that lie in none before it.
    std::array<double, kCells> cells{};  // Those of them at that distance.
  };
  std::vector<Counts> counts_;  // By level.
};

}  // namespace terrace::policy
