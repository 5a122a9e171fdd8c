// Tells the admission filter what requests hit, and has written what it then wants: a block that
// was refused at first sight would else reach the disk only when host evicts it, and the hottest
// prompts, which host never evicts, would not outlive a restart. Long chains are worked off slice
// by slice, so that nobody holds the lock for long. Threading: thread-compatible; the manager's
// lock guards it.  Waits: never.  Bounds: kMostChains chains; further ones are not told.
#pragma once

#include <deque>
#include <span>
#include <vector>

#include "terrace/manager/writes_internal.h"

namespace terrace::manager {

class Sightings {
 public:
  Sightings(Context& context, Writes& writes) : context_(context), writes_(writes) {}

  // A request resumes after these blocks. `sources`: where those of them came from that were read
  // for it; what came out of a shared store has been offered when it came.
  void note(std::span<const SequenceHash> hit, std::span<const Tier> sources);
  // True when more is left to do.
  bool work(Nanoseconds now);
  void clear() { chains_.clear(); }

 private:
  static constexpr std::size_t kMostChains = 64;
  static constexpr std::size_t kAtOnce = 256;  // Shard groups; some 50 us.
  struct Chain {
    std::vector<SequenceHash> hashes;
    std::size_t done = 0;
    std::vector<BlockKey> wanted;  // In chain order.
  };

  Context& context_;
  Writes& writes_;
  std::deque<Chain> chains_;
};

}  // namespace terrace::manager
