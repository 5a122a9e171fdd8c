// Remembers why blocks that are gone went, so that a miss can be told from one never stored. A
// direct-mapped table: a newer block that falls into the same cell replaces the older, so the
// memory is bounded and an answer may be "not known", never a reason of another block but for a
// collision of 60 hash bits. Threading: thread-compatible; the manager's lock guards it.  Waits:
// never. Memory: 8 bytes per cell, 512 KiB to 8 MiB by what the tiers hold.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "terrace/block/sequence_hash.h"
#include "terrace/manager/ledger.h"

namespace terrace::manager {

class Ghosts {
 public:
  static constexpr std::size_t kCells = 65'536;
  static constexpr std::size_t kMostCells = 1U << 20U;

  // For tiers of so many blocks: when as many have gone, three of four are still known.
  [[nodiscard]] static std::size_t cells_for(std::uint64_t blocks) {
    return std::bit_ceil(std::clamp<std::uint64_t>(2 * blocks, kCells, kMostCells));
  }
  explicit Ghosts(std::size_t cells = kCells) : cells_(std::bit_ceil(cells), 0) {}

  void remember(const SequenceHash& hash, MissReason reason) {
    cells_[cell_of(hash)] = tag_of(hash) | (static_cast<std::uint64_t>(reason) + 1);
  }
  [[nodiscard]] std::optional<MissReason> recall(const SequenceHash& hash) const {
    const std::uint64_t cell = cells_[cell_of(hash)];
    if (cell == 0 || (cell & kTagMask) != tag_of(hash)) return std::nullopt;
    return static_cast<MissReason>((cell & ~kTagMask) - 1);
  }
  void clear() { cells_.assign(cells_.size(), 0); }

 private:
  static constexpr std::uint64_t kTagMask = ~std::uint64_t{0xF};
  [[nodiscard]] std::size_t cell_of(const SequenceHash& hash) const {
    return static_cast<std::size_t>(hash.low) & (cells_.size() - 1);
  }
  [[nodiscard]] static std::uint64_t tag_of(const SequenceHash& hash) {
    return hash.high & kTagMask;
  }

  std::vector<std::uint64_t> cells_;
};

}  // namespace terrace::manager
