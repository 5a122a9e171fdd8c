// SHA-256, HMAC-SHA-256 and CRC-32C of what is sent to the store.
// Threading: thread-compatible values.  Waits: never.  Source: FIPS 180-4, RFC 2104, RFC 3720 B.4.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace terrace::transfer::s3 {

using Sha256Digest = std::array<unsigned char, 32>;

class Sha256 {
 public:
  Sha256();
  void update(std::span<const std::byte> bytes);
  void update(std::string_view bytes) { update(std::as_bytes(std::span(bytes))); }
  [[nodiscard]] Sha256Digest finish();

 private:
  // As large as OpenSSL's context (checked in the source), so that no header of it is needed here.
  alignas(8) std::array<std::byte, 112> context_{};
};

[[nodiscard]] Sha256Digest hmac_sha256(std::span<const unsigned char> key,
                                       std::string_view message);
[[nodiscard]] std::string hex(std::span<const unsigned char> bytes);
[[nodiscard]] std::string sha256_hex(std::string_view bytes);

// CRC-32C of what was seen before (0 at first) and of `bytes` after it.
[[nodiscard]] std::uint32_t crc32c(std::uint32_t before, std::span<const std::byte> bytes);
// Big-endian and in base64, as the header x-amz-checksum-crc32c has it.
[[nodiscard]] std::string crc32c_base64(std::uint32_t sum);

}  // namespace terrace::transfer::s3
