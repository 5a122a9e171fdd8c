// The host tier: a pool over the shared segment. Knows both the keys and the bytes.
// Threading: thread-compatible; the manager's lock guards the pool. Slot memory is written outside
// the lock by whoever holds the filling slot; populate() runs in a thread of its own meanwhile.
// Owns: lanes, pool, the shards' checksums and aliases. Memory: 64 bytes a slot for the pool, 8 + 8
// a slot and rank beside it.  Waits: never, except populate().  Source: docs/adr/0009.
#pragma once

#include <functional>
#include <memory>
#include <span>
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
    Bytes size;                // All ranks together; 0 = staging only.
    std::uint64_t blocks = 0;  // Beats size when not 0.
    Bytes staging = 256_MiB;   // All ranks together, when neither size nor blocks is given.
    bool huge_pages = true;
    std::string eviction = "lru";
    std::shared_ptr<const policy::ReturnModel> returns = {};  // For policies that ask one.
    std::string system_root;  // Before /proc and /sys when asking for free memory; for tests.
  };
  // The fewest slots that disk -> host -> device can work with: half may be pinned by waiting
  // requests, one is read into and one written from. A staging pool has at least these, whatever
  // its size.
  static constexpr std::uint32_t kStagingSlots = 8;

  // Maps the lanes without touching them. Errors: kInvalid names host.size when not one slot fits;
  // kExhausted names host.size and the limit when the machine or its control group has not that
  // much.
  static Result<std::unique_ptr<HostTier>> create(const Options& options);

  [[nodiscard]] catalog::Pool& pool() { return *pool_; }
  [[nodiscard]] const catalog::Pool& pool() const { return *pool_; }
  [[nodiscard]] const memory::SegmentGeometry& geometry() const { return geometry_; }
  [[nodiscard]] const std::vector<memory::Lane>& lanes() const { return lanes_; }
  // All ranks together.
  [[nodiscard]] Bytes bytes() const { return geometry_.lane_bytes() * geometry_.lanes; }
  [[nodiscard]] bool uses_huge_pages() const;
  // The shard of `slot` in each lane, slot_bytes long.
  [[nodiscard]] std::span<std::byte> shard(SlotIndex slot, RankId rank) const;

  // Makes all memory present, extent by extent in every lane, until done or `is_stopping`.
  // Thread-safe; 0.15-0.4 s per GiB. Errors: kExhausted names host.size: the tier must not be used
  // any more, a first touch could end the process.
  [[nodiscard]] Status populate(const std::function<bool()>& is_stopping) const;
  // Leading slots that are present in every lane of this process.
  [[nodiscard]] std::uint32_t populated_slots() const;

  void set_checksum(SlotIndex slot, RankId rank, Checksum checksum);
  [[nodiscard]] Checksum checksum(SlotIndex slot, RankId rank) const;
  void set_alias(SlotIndex slot, std::uint64_t alias);
  [[nodiscard]] std::uint64_t alias(SlotIndex slot) const;

 private:
  HostTier() = default;
  memory::SegmentGeometry geometry_;
  std::vector<memory::Lane> lanes_;
  std::unique_ptr<catalog::Pool> pool_;
  std::vector<Checksum> checksums_;     // [slot][rank]
  std::vector<std::uint64_t> aliases_;  // [slot]
};

}  // namespace terrace::tier
