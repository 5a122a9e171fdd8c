// Decodes fuzzed bytes twice: as they are, and with their closing checksum made right.
// Threading: thread-compatible.  Waits: never.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>

#include "terrace/wire/xxhash_internal.h"

namespace terrace::fuzz {

inline std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// `decode` gives a Result whose value `encode` turns back into bytes.
template <typename Decode>
void decode_twice(const std::uint8_t* data, std::size_t size, const Decode& decode) {
  std::string message(reinterpret_cast<const char*>(data), size);
  for (int round = 0; round < 2; ++round) {
    if (const auto value = decode(bytes_of(message)); value.has_value()) {
      const auto again = decode(bytes_of(encode(*value)));
      if (!again.has_value() || !(*again == *value)) std::abort();
    }
    if (message.size() < sizeof(std::uint64_t)) return;
    const std::size_t body = message.size() - sizeof(std::uint64_t);
    const std::uint64_t check = wire::xxh3_64(bytes_of(message).first(body));
    std::memcpy(message.data() + body, &check, sizeof(check));
  }
}

}  // namespace terrace::fuzz
