// SHA-256 (FIPS 180-4) by libcrypto, for sequence hashes and fingerprints.
// Threading: thread-safe.  Waits: never.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace terrace {

using Sha256Digest = std::array<std::uint8_t, 32>;
[[nodiscard]] Sha256Digest sha256(std::span<const std::uint8_t> message);

}  // namespace terrace
