// The identity of a block's content: a 128-bit chained hash over everything that determines its KV.
// Threading: values are immutable; SequenceChain is thread-compatible.  Waits: never.
// Source: docs/formats/sequence-hash.md (SHA-256, FIPS 180-4, truncated to 16 bytes).
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "terrace/base/strong.h"

namespace terrace {

struct SequenceHash {
  std::uint64_t high = 0;  // Digest bytes 0..7, big-endian.
  std::uint64_t low = 0;   // Digest bytes 8..15, big-endian.
  friend auto operator<=>(const SequenceHash&, const SequenceHash&) = default;
  // 32 lower-case hex digits.
  [[nodiscard]] std::string hex() const;
  // The first 16 digest bytes, in digest order; as in files and in the C ABI.
  [[nodiscard]] std::array<std::uint8_t, 16> bytes() const;
  static SequenceHash from_bytes(std::span<const std::uint8_t, 16> bytes);
};

// What else than token ids changes the KV. kSalt and kLora act from the first block on; a
// kMultimodal item enters every block that it overlaps, with its distance from the block's first
// token.
struct ExtraKey {
  enum class Kind : std::uint8_t { kSalt = 1, kLora = 2, kMultimodal = 3 };
  Kind kind;
  std::string identity;           // Raw bytes: the salt, the adapter's identity, the item's hash.
  std::uint64_t first_token = 0;  // kMultimodal only: where the item starts in the sequence,
  std::uint64_t token_count = 0;  // and how many tokens it covers.
};

// The chain of one request, grown as tokens come; nothing is hashed twice.
class SequenceChain {
 public:
  // `extra_keys` in the order given; order is part of the key. `block_tokens` is 1..2^20 (checked).
  SequenceChain(Tokens block_tokens, std::vector<ExtraKey> extra_keys);

  // Appends token ids; hashes each block that becomes full. O(tokens).
  void append(std::span<const std::uint32_t> tokens);

  // One hash per full block, in order.
  [[nodiscard]] std::span<const SequenceHash> hashes() const { return hashes_; }
  [[nodiscard]] Tokens token_count() const { return Tokens(token_count_); }

 private:
  void hash_block(std::span<const std::uint32_t> tokens);

  std::uint64_t block_tokens_;
  std::vector<ExtraKey> extra_keys_;
  SequenceHash tip_;
  std::vector<std::uint32_t> partial_;
  std::vector<std::uint8_t> plain_;    // Padded message of a block without extra keys; only parent
                                       // and tokens change from block to block.
  std::vector<std::uint8_t> message_;  // Of a block with extra keys; kept for its capacity.
  std::vector<SequenceHash> hashes_;
  std::uint64_t token_count_ = 0;
};

}  // namespace terrace
