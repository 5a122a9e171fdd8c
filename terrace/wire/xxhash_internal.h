// XXH3 of a byte string (xxHash specification), for headers and messages.
// Threading: pure functions.  Waits: never.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace terrace::wire {

[[nodiscard]] std::uint64_t xxh3_64(std::span<const std::byte> bytes);
// Canonical form: big-endian, high half first.
[[nodiscard]] std::array<std::uint8_t, 16> xxh3_128(std::span<const std::byte> bytes);

}  // namespace terrace::wire
