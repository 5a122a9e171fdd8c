// Shard groups on their way out of packs. What was asked for between two polls and lies side by
// side is read by one ranged request, as each costs a round trip.
// Threading: owned by the I/O thread.  Waits: never.  Bounds: ObjectTier::Options::most_reads.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <unordered_map>
#include <vector>

#include "terrace/tier/object/context_internal.h"

namespace terrace::tier::object {

class Reads {
 public:
  explicit Reads(Context& context) : context_(context) {}

  [[nodiscard]] Status begin(std::uint64_t token, GroupId group, const SequenceHash& hash,
                             std::span<const ShardMemory> ranks, transfer::IoClass io_class,
                             Nanoseconds deadline);
  // Hands what waits to the queue.
  void advance(std::vector<ObjectDone>& done);
  void take(const transfer::ObjectAnswer& answer, std::uint64_t number,
            std::vector<ObjectDone>& done);
  [[nodiscard]] bool is_idle() const { return waiting_.empty() && gets_.empty(); }

 private:
  using Page = std::array<std::byte, wire::kFrameHeaderBytes>;
  struct Read {
    std::uint64_t token = 0;
    GroupId group;
    SequenceHash hash;
    PackPlace place;
    std::vector<ShardMemory> ranks;
    transfer::IoClass io_class = transfer::IoClass::kPrefetch;
    Nanoseconds deadline{0};
    wire::PackRange range;
  };
  struct Get {
    std::vector<Read> reads;                   // In the order of their places, without gaps.
    std::vector<std::unique_ptr<Page>> pages;  // Header pages, by read and rank.
  };
  // How many of waiting_ from `first` on one request can take.
  [[nodiscard]] std::size_t together(std::size_t first) const;
  // Errors: as the queue's push.
  [[nodiscard]] Status start(std::span<Read> reads);
  [[nodiscard]] Status verify(const Read& read, std::span<const std::unique_ptr<Page>> pages,
                              std::vector<Checksum>& checksums) const;
  void finish(const Read& read, const Status& status, std::vector<Checksum> checksums,
              std::vector<ObjectDone>& done);

  Context& context_;
  std::uint64_t last_number_ = 0;
  std::size_t count_ = 0;  // Reads, waiting or under way.
  std::vector<Read> waiting_;
  std::unordered_map<std::uint64_t, Get> gets_;
};

}  // namespace terrace::tier::object
