// The low-level calls are deprecated in OpenSSL 3 in favour of EVP, whose look-up and allocation
// per digest cost more than hashing one block of tokens does.
#define OPENSSL_SUPPRESS_DEPRECATED

#include <openssl/sha.h>

#include "terrace/block/sha256_internal.h"

namespace terrace {

Sha256Digest sha256(std::span<const std::uint8_t> message) {
  SHA256_CTX context;
  Sha256Digest digest;
  SHA256_Init(&context);
  SHA256_Update(&context, message.data(), message.size());
  SHA256_Final(digest.data(), &context);
  return digest;
}

void pad_sha256(std::vector<std::uint8_t>& message) {
  const std::uint64_t bits = std::uint64_t{message.size()} * 8;
  message.push_back(0x80);
  while (message.size() % SHA256_CBLOCK != SHA256_CBLOCK - 8) message.push_back(0);
  for (unsigned shift = 64; shift > 0; shift -= 8) {
    message.push_back(static_cast<std::uint8_t>(bits >> (shift - 8)));
  }
}

std::array<std::uint64_t, 2> sha256_of_padded(std::span<const std::uint8_t> padded) {
  SHA256_CTX context;
  SHA256_Init(&context);
  SHA256_Update(&context, padded.data(), padded.size());
  const auto word = [&](int i) { return std::uint64_t{context.h[i]} << 32U | context.h[i + 1]; };
  return {word(0), word(2)};
}

}  // namespace terrace
