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

}  // namespace terrace
