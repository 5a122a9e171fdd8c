// By which blocks a request is known to go on where another ended: hash -> that one's number. The
// latest stay; of eight that meet in one place the oldest goes.
// Threading: thread-compatible.  Waits: never.  Memory: 512 KiB, from create().
#pragma once

#include <cstdint>
#include <optional>

#include "terrace/base/status.h"
#include "terrace/block/sequence_hash.h"
#include "terrace/index/zeroed_array.h"

namespace terrace::policy {

class Anchors {
 public:
  static Result<Anchors> create();
  // In place of an older one at the same block. Numbers go up, and around.
  void set(const SequenceHash& hash, std::uint32_t number);
  [[nodiscard]] std::optional<std::uint32_t> find(const SequenceHash& hash) const;
  [[nodiscard]] Bytes memory() const { return cells_.memory(); }

 private:
  static constexpr std::size_t kSets = 1U << 13U;
  static constexpr std::size_t kWays = 8;
  struct Cell {
    std::uint32_t mark;  // Of the hash; 0 = empty.
    std::uint32_t number;
  };
  explicit Anchors(index::ZeroedArray<Cell> cells) : cells_(std::move(cells)) {}
  [[nodiscard]] static std::uint32_t mark_of(const SequenceHash& hash) {
    return static_cast<std::uint32_t>(hash.low) | 1U;
  }
  [[nodiscard]] static std::size_t set_of(const SequenceHash& hash) {
    return hash.high % kSets * kWays;
  }
  index::ZeroedArray<Cell> cells_;
};

}  // namespace terrace::policy
