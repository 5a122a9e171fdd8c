// SHA-256 (FIPS 180-4) by libcrypto, for sequence hashes and fingerprints.
// Threading: thread-safe.  Waits: never.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace terrace {

using Sha256Digest = std::array<std::uint8_t, 32>;
[[nodiscard]] Sha256Digest sha256(std::span<const std::uint8_t> message);

// Appends FIPS 180-4 padding: 0x80, zeros up to a multiple of 64 bytes, the length in bits.
void pad_sha256(std::vector<std::uint8_t>& message);
// The first 16 digest bytes, as two big-endian words, of a message that is padded already: spares a
// chain of equally long messages the padding of each.
[[nodiscard]] std::array<std::uint64_t, 2> sha256_of_padded(std::span<const std::uint8_t> padded);

}  // namespace terrace
