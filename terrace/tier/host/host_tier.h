// The host tier: a pool over the shared segment. Knows both the keys and the bytes.
// Threading: thread-compatible; the manager's lock guards the pool. Slot memory is written outside the
// lock by whoever holds the filling slot.  Owns: lanes, pool, the shards' checksums and aliases.
// Waits: never, except populate().
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "terrace/base/status.h"
#include "terrace/block/checksum.h"
#include "terrace/block/layout.h"
#include "terrace/catalog/pool.h"
#include "terrace/memory/host_segment.h"

namespace terrace::tier {

class HostTier {
 public:
  struct Options {
    Layout layout;
    Bytes size;                // All ranks together.
    std::uint64_t blocks = 0;  // Beats size when not 0.
    bool huge_pages = true;
    std::string eviction = "lru";
  };
  // Maps the lanes without touching them. Errors: kInvalid names host.size when not one slot fits.
  static Result<std::unique_ptr<HostTier>> create(const Options& options);

  [[nodiscard]] catalog::Pool& pool() { return *pool_; }
  [[nodiscard]] const memory::SegmentGeometry& geometry() const { return geometry_; }
  [[nodiscard]] const std::vector<memory::Lane>& lanes() const { return lanes_; }
  // The shard of `slot` in each lane.
  [[nodiscard]] std::span<std::byte> shard(SlotIndex slot, RankId rank) const;

  void set_checksum(SlotIndex slot, RankId rank, Checksum checksum);
  [[nodiscard]] Checksum checksum(SlotIndex slot, RankId rank) const;
  void set_alias(SlotIndex slot, std::uint64_t alias);
  [[nodiscard]] std::uint64_t alias(SlotIndex slot) const;

 private:
  HostTier() = default;
  memory::SegmentGeometry geometry_;
  std::vector<memory::Lane> lanes_;
  std::unique_ptr<catalog::Pool> pool_;
  std::vector<Checksum> checksums_;   // [slot][rank]
  std::vector<std::uint64_t> aliases_;  // [slot]
};

}  // namespace terrace::tier
