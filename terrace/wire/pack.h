// A pack: consecutive blocks of one chain as one object of a shared store. Where each frame lies
// follows from the layout; the footer says the same to who does not know it.
// Threading: immutable values.  Waits: never.  Source: docs/formats/pack.md.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/status.h"
#include "terrace/base/strong.h"
#include "terrace/block/layout.h"
#include "terrace/block/sequence_hash.h"

namespace terrace::wire {

inline constexpr std::uint32_t kMostPackBlocks = 4096;
inline constexpr std::size_t kPackAlignment = 4096;
// Resets count seconds: a higher one was put there by nobody of ours, and after the highest number
// there would be no reset any more.
inline constexpr std::uint64_t kMostGeneration = 1'000'000'000'000'000'000;

// The range of a pack that one or more frames take.
struct PackRange {
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

class PackGeometry {
 public:
  // `layout` is valid, `blocks` is 1 … kMostPackBlocks (checked).
  PackGeometry(const Layout& layout, std::uint32_t blocks);

  [[nodiscard]] std::uint32_t blocks() const { return blocks_; }
  [[nodiscard]] std::uint16_t ranks() const { return ranks_; }
  [[nodiscard]] std::uint16_t groups() const {
    return static_cast<std::uint16_t>(payload_bytes_.size());
  }
  [[nodiscard]] Tokens block_tokens() const { return block_tokens_; }
  [[nodiscard]] std::uint64_t payload_bytes(GroupId group) const {
    return payload_bytes_[group.value()];
  }
  // Header page and padded payload of one rank.
  [[nodiscard]] std::uint64_t frame_bytes(GroupId group) const;
  // All ranks of one group of a block.
  [[nodiscard]] PackRange shard_group(std::uint32_t block, GroupId group) const;
  [[nodiscard]] std::uint64_t footer_offset() const { return block_bytes_ * blocks_; }
  [[nodiscard]] std::uint64_t footer_bytes() const;
  [[nodiscard]] std::uint64_t bytes() const { return footer_offset() + footer_bytes(); }

 private:
  std::uint32_t blocks_;
  std::uint16_t ranks_;
  Tokens block_tokens_;
  std::vector<std::uint64_t> payload_bytes_;  // [group]
  std::vector<std::uint64_t> group_offset_;   // [group], within a block.
  std::uint64_t block_bytes_ = 0;
};

struct PackFooter {
  std::array<std::uint8_t, 32> content_digest{};
  std::array<std::uint8_t, 32> layout_digest{};
  Tokens block_tokens;
  std::uint16_t ranks = 1;
  std::vector<std::uint64_t> payload_bytes;  // [group]
  std::vector<SequenceHash> hashes;          // [block]
  friend bool operator==(const PackFooter&, const PackFooter&) = default;
};

// A multiple of 4096 bytes.
[[nodiscard]] std::string encode(const PackFooter& footer);
// `bytes`: the end of a pack, at least its whole footer.
// Errors: kCorrupt = no footer, or a damaged one; kRefused = of another version.
[[nodiscard]] Result<PackFooter> decode_pack_footer(std::span<const std::byte> bytes);
// How long the footer is, from the last 24 bytes of a pack or more. Errors: kCorrupt.
[[nodiscard]] Result<std::uint64_t> footer_bytes_of(std::span<const std::byte> tail);

// What the name of a pack of any namespace says, for who knows none of them.
struct PackName {
  std::string_view name_space;  // 32 hex digits.
  std::uint64_t generation = 0;
  std::uint32_t blocks = 0;
  std::string_view key = {};  // Id of the key that its frames are encrypted with; empty = plain.
  friend bool operator==(const PackName&, const PackName&) = default;
};
// Nothing if `name`, which outlives what is found, is not a pack's.
[[nodiscard]] std::optional<PackName> parse_pack_name(std::string_view name);
// What the names of all packs begin with, and those that say whose turn it is to collect old ones.
inline constexpr std::string_view kAllPacks = "v1/";
inline constexpr std::string_view kTurns = "turns/";
// An object that is put once, so that everybody sees whether it stays.
inline constexpr std::string_view kIfAbsent = "writable/if-absent";
// `number` of the turn: 20 digits, so that they sort.
[[nodiscard]] std::string turn_name(std::uint64_t number);
// Nothing if `name` is not a turn's.
[[nodiscard]] std::optional<std::uint64_t> turn_of(std::string_view name);

// Names of the objects of one namespace in one store.
class PackNames {
 public:
  PackNames(std::span<const std::uint8_t, 32> content_digest,
            std::span<const std::uint8_t, 32> layout_digest);
  // `v1/<namespace>/`: what all of them begin with.
  [[nodiscard]] const std::string& folder() const { return folder_; }
  // `key`: id of the key that frames are encrypted with; empty = they are not.
  [[nodiscard]] std::string pack(std::uint64_t generation, std::uint32_t blocks,
                                 const SequenceHash& last, std::string_view key = {}) const;
  // What the names of resets begin with, and one of them.
  [[nodiscard]] std::string resets() const { return folder_ + "resets/"; }
  [[nodiscard]] std::string reset(std::uint64_t generation) const;
  // Nothing if `name` is not that of a reset of this namespace, or above kMostGeneration.
  [[nodiscard]] std::optional<std::uint64_t> generation_of(std::string_view name) const;

 private:
  std::string folder_;
};

}  // namespace terrace::wire
