// The bytes that are hashed, for sequence_hash.cc and the tests that prove them unambiguous.
// Threading: pure functions.  Waits: never.  Source: docs/formats/sequence-hash.md.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "terrace/block/sequence_hash.h"

namespace terrace::sequence_hash_internal {

// Parent of a sequence's first block.
[[nodiscard]] SequenceHash root(std::uint64_t block_tokens);

// Replaces `message` by the encoding of block number `block`, whose `tokens` are all of its tokens.
void encode_block(std::vector<std::uint8_t>& message, const SequenceHash& parent,
                  std::uint64_t block, std::span<const std::uint32_t> tokens,
                  std::span<const ExtraKey> extra_keys);

}  // namespace terrace::sequence_hash_internal
