#include "terrace/block/digest.h"

#define OPENSSL_SUPPRESS_DEPRECATED  // The one-shot SHA256 calls: EVP costs an allocation each
                                     // time.
#include <fmt/format.h>
#include <openssl/sha.h>

namespace terrace {

struct Digest::State {
  SHA256_CTX context{};
};

Digest::Digest() : state_(std::make_unique<State>()) { SHA256_Init(&state_->context); }
Digest::Digest(Digest&&) noexcept = default;
Digest& Digest::operator=(Digest&&) noexcept = default;
Digest::~Digest() = default;

void Digest::add_field(std::string_view bytes) {
  std::uint8_t length[8];
  for (unsigned i = 0; i < 8; ++i) {
    length[i] = static_cast<std::uint8_t>(static_cast<std::uint64_t>(bytes.size()) >> (8U * i));
  }
  SHA256_Update(&state_->context, length, sizeof length);
  SHA256_Update(&state_->context, bytes.data(), bytes.size());
}

std::array<std::uint8_t, 32> Digest::finish() {
  std::array<std::uint8_t, 32> digest{};
  SHA256_Final(digest.data(), &state_->context);
  SHA256_Init(&state_->context);
  return digest;
}

std::string Digest::hex() {
  std::string text;
  text.reserve(64);
  for (const std::uint8_t byte : finish()) fmt::format_to(std::back_inserter(text), "{:02x}", byte);
  return text;
}

}  // namespace terrace
