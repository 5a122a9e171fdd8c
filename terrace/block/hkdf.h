// HKDF with SHA-256, 32 bytes of it: keys from keys.
// Threading: thread-safe.  Waits: never.  Source: RFC 5869, RFC 2104.
#pragma once

#include <cstdint>
#include <span>

#include "terrace/block/secret.h"

namespace terrace {

// An empty salt is RFC 5869's default one. What was computed on the way is wiped.
void hkdf_sha256(std::span<const std::uint8_t> key, std::span<const std::uint8_t> salt,
                 std::span<const std::uint8_t> info, std::span<std::uint8_t, kSecretBytes> out);

}  // namespace terrace
