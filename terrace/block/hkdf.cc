#define OPENSSL_SUPPRESS_DEPRECATED  // As in sha256.cc: no look-ups and allocations per message.

#include "terrace/block/hkdf.h"

#include <openssl/sha.h>

#include <algorithm>
#include <array>

namespace terrace {
namespace {

using Block = std::array<std::uint8_t, SHA256_CBLOCK>;

class Hmac {
 public:
  explicit Hmac(std::span<const std::uint8_t> key) {
    if (key.size() > pad_.size()) {
      SHA256(key.data(), key.size(), pad_.data());
    } else {
      std::ranges::copy(key, pad_.begin());
    }
    begin(0x36);
  }
  Hmac(const Hmac&) = delete;
  Hmac& operator=(const Hmac&) = delete;
  ~Hmac() {
    wipe(pad_);
    wipe({reinterpret_cast<std::uint8_t*>(&context_), sizeof context_});
  }
  void add(std::span<const std::uint8_t> bytes) {
    SHA256_Update(&context_, bytes.data(), bytes.size());
  }
  void finish(std::span<std::uint8_t, SHA256_DIGEST_LENGTH> out) {
    std::array<std::uint8_t, SHA256_DIGEST_LENGTH> inner{};
    SHA256_Final(inner.data(), &context_);
    begin(0x36 ^ 0x5c);
    add(inner);
    SHA256_Final(out.data(), &context_);
    wipe(inner);
  }

 private:
  // The pad of the last round, if there was one, goes with the mask.
  void begin(std::uint8_t mask) {
    for (std::uint8_t& byte : pad_) byte ^= mask;
    SHA256_Init(&context_);
    add(pad_);
  }
  Block pad_{};
  SHA256_CTX context_{};
};

}  // namespace

void hkdf_sha256(std::span<const std::uint8_t> key, std::span<const std::uint8_t> salt,
                 std::span<const std::uint8_t> info, std::span<std::uint8_t, kSecretBytes> out) {
  BriefSecret pseudorandom;
  // HMAC fills a short key up with zeros: an empty one is the 32 zeros that the RFC asks for.
  Hmac extract(salt);
  extract.add(key);
  extract.finish(pseudorandom.bytes());
  Hmac expand(pseudorandom.bytes());
  expand.add(info);
  constexpr std::array<std::uint8_t, 1> kFirstRound{1};
  expand.add(kFirstRound);
  expand.finish(out);
}

}  // namespace terrace
