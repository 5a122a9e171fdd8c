// The low-level calls are deprecated in OpenSSL 3 in favour of EVP, whose first use reads the
// host's OpenSSL configuration and registers exit handlers: not for a guest in somebody else's
// process.
#define OPENSSL_SUPPRESS_DEPRECATED
#include <nmmintrin.h>
#include <openssl/sha.h>

#include <cstring>
#include <vector>

#include "terrace/transfer/backends/s3/digest_internal.h"

namespace terrace::transfer::s3 {

namespace {
constexpr std::size_t kBlockBytes = 64;

SHA256_CTX* context_of(std::array<std::byte, 112>& memory) {
  static_assert(sizeof(SHA256_CTX) <= sizeof(memory) && alignof(SHA256_CTX) <= 8);
  return reinterpret_cast<SHA256_CTX*>(memory.data());
}
}  // namespace

Sha256::Sha256() { SHA256_Init(context_of(context_)); }

void Sha256::update(std::span<const std::byte> bytes) {
  SHA256_Update(context_of(context_), bytes.data(), bytes.size());
}

Sha256Digest Sha256::finish() {
  Sha256Digest digest;
  SHA256_Final(digest.data(), context_of(context_));
  return digest;
}

Sha256Digest hmac_sha256(std::span<const unsigned char> key, std::string_view message) {
  std::array<unsigned char, kBlockBytes> inner{};
  if (key.size() > kBlockBytes) {
    Sha256 shortened;
    shortened.update(std::as_bytes(key));
    const Sha256Digest digest = shortened.finish();
    std::memcpy(inner.data(), digest.data(), digest.size());
  } else if (!key.empty()) {
    std::memcpy(inner.data(), key.data(), key.size());
  }
  std::array<unsigned char, kBlockBytes> outer = inner;
  for (unsigned char& byte : inner) byte ^= 0x36U;
  for (unsigned char& byte : outer) byte ^= 0x5cU;
  Sha256 first;
  first.update(std::as_bytes(std::span(inner)));
  first.update(message);
  const Sha256Digest digest = first.finish();
  Sha256 second;
  second.update(std::as_bytes(std::span(outer)));
  second.update(std::as_bytes(std::span(digest)));
  return second.finish();
}

std::string hex(std::span<const unsigned char> bytes) {
  static constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes.size());
  for (const unsigned char byte : bytes) {
    text += kDigits[byte >> 4U];
    text += kDigits[byte & 15U];
  }
  return text;
}

std::string sha256_hex(std::string_view bytes) {
  Sha256 sum;
  sum.update(bytes);
  return hex(sum.finish());
}

std::uint32_t crc32c(std::uint32_t before, std::span<const std::byte> bytes) {
  std::uint64_t sum = ~before;
  const std::byte* at = bytes.data();
  std::size_t left = bytes.size();
  for (; left >= 8; left -= 8, at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, at, 8);
    sum = _mm_crc32_u64(sum, word);
  }
  for (; left > 0; --left, ++at) {
    sum = _mm_crc32_u8(static_cast<std::uint32_t>(sum), static_cast<unsigned char>(*at));
  }
  return ~static_cast<std::uint32_t>(sum);
}

std::string crc32c_base64(std::uint32_t sum) {
  static constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  // 4 bytes are 5 digits and 2 bits, and two signs that nothing follows.
  std::string text;
  for (int shift = 26; shift >= 2; shift -= 6) text += kDigits[(sum >> shift) & 63U];
  text += kDigits[(sum << 4U) & 63U];
  return text + "==";
}

}  // namespace terrace::transfer::s3
