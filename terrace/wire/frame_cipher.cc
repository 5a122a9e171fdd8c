#include "terrace/wire/frame_cipher.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "terrace/base/rng.h"
#include "terrace/block/hkdf.h"

namespace terrace::wire {
namespace {

using namespace std::string_view_literals;

constexpr std::string_view kFrameInfo = "TERRACE\0frame\1"sv;
constexpr std::array<std::uint8_t, 12> kNonce{};
// Encrypted and summed while it is in the second-level cache.
constexpr std::size_t kPieceBytes = 64U << 10U;

struct FreeContext {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using ContextPointer = std::unique_ptr<EVP_CIPHER_CTX, FreeContext>;

const std::uint8_t* raw(const std::byte* bytes) {
  return reinterpret_cast<const std::uint8_t*>(bytes);
}
std::uint8_t* raw(std::byte* bytes) { return reinterpret_cast<std::uint8_t*>(bytes); }

// One message; `is_ok` once something was refused stays false.
class Cipher {
 public:
  Cipher(const KeyRing::Key& key, const FrameHeader& header, bool is_encrypting) {
    // Guests register nothing for the process's end, and read no configuration of its OpenSSL.
    OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT | OPENSSL_INIT_NO_LOAD_CONFIG, nullptr);
    const auto identity = frame_identity(header);
    std::array<std::uint8_t, kFrameInfo.size() + kFrameIdentityBytes> info{};
    std::ranges::copy(kFrameInfo, info.begin());
    std::ranges::copy(identity, info.begin() + kFrameInfo.size());
    BriefSecret frame_key;
    hkdf_sha256(key.secret.bytes(), header.seal.salt, info, frame_key.bytes());
    context_.reset(EVP_CIPHER_CTX_new());
    int moved = 0;
    is_ok_ = context_ != nullptr &&
             EVP_CipherInit_ex(context_.get(), EVP_aes_256_gcm(), nullptr, frame_key.bytes().data(),
                               kNonce.data(), is_encrypting ? 1 : 0) == 1 &&
             EVP_CipherUpdate(context_.get(), nullptr, &moved, identity.data(),
                              static_cast<int>(identity.size())) == 1;
  }
  void update(const std::uint8_t* source, std::uint8_t* target, std::size_t bytes) {
    int moved = 0;
    is_ok_ = is_ok_ &&
             EVP_CipherUpdate(context_.get(), target, &moved, source, static_cast<int>(bytes)) == 1;
  }
  // The whole payload; returns the checksum of what it has become.
  Checksum update(const std::byte* source, std::byte* target, std::size_t bytes) {
    ShardCopier copier;
    for (std::size_t at = 0; at < bytes; at += kPieceBytes) {
      const std::size_t piece = std::min(kPieceBytes, bytes - at);
      update(raw(source + at), raw(target + at), piece);
      copier.add(target + at, piece);
    }
    return copier.finish();
  }
  void finish_tag(std::array<std::uint8_t, 16>& tag) {
    std::array<std::uint8_t, 16> none{};
    int moved = 0;
    is_ok_ = is_ok_ && EVP_CipherFinal_ex(context_.get(), none.data(), &moved) == 1 &&
             EVP_CIPHER_CTX_ctrl(context_.get(), EVP_CTRL_AEAD_GET_TAG,
                                 static_cast<int>(tag.size()), tag.data()) == 1;
  }
  [[nodiscard]] bool has_tag(std::array<std::uint8_t, 16> tag) {
    std::array<std::uint8_t, 16> none{};
    int moved = 0;
    return is_ok_ &&
           EVP_CIPHER_CTX_ctrl(context_.get(), EVP_CTRL_AEAD_SET_TAG, static_cast<int>(tag.size()),
                               tag.data()) == 1 &&
           EVP_CipherFinal_ex(context_.get(), none.data(), &moved) == 1;
  }
  [[nodiscard]] bool is_ok() const { return is_ok_; }

 private:
  ContextPointer context_;
  bool is_ok_ = false;
};

constexpr std::string_view kRefused = "frame: the cipher refused to work";

std::array<std::uint8_t, 16> private_part(Checksum plain) {
  std::array<std::uint8_t, 16> bytes{};
  std::memcpy(bytes.data(), &plain.value, sizeof plain.value);
  return bytes;
}

// Counter mode is its own inverse: what was opened becomes what was stored. Tells whether that is
// what its header says.
FrameVerdict judge(const KeyRing::Key& key, const FrameHeader& header,
                   const std::array<std::uint8_t, 16>& hidden, std::span<std::byte> payload) {
  Cipher back(key, header, true);
  std::array<std::uint8_t, 16> ignored{};
  back.update(hidden.data(), ignored.data(), hidden.size());
  const Checksum stored = back.update(payload.data(), payload.data(), payload.size());
  std::ranges::fill(payload, std::byte{0});
  return back.is_ok() && stored == header.payload_checksum ? FrameVerdict::kForged
                                                           : FrameVerdict::kDamaged;
}

}  // namespace

FrameSalt FrameSalt::random() {
  FrameSalt salt;
  for (std::size_t at = 0; at < salt.bytes.size(); at += sizeof(std::uint64_t)) {
    const std::uint64_t word = random_u64();
    std::memcpy(salt.bytes.data() + at, &word, sizeof word);
  }
  return salt;
}

Status seal_frame(const KeyRing::Key& key, const FrameSalt& salt, std::span<const std::byte> plain,
                  std::span<std::byte> stored, FrameHeader& header) {
  if (plain.size() != header.payload_bytes || stored.size() != plain.size()) {
    return {Code::kInvalid, fmt::format("frame: {} bytes into {}, the header says {}", plain.size(),
                                        stored.size(), header.payload_bytes)};
  }
  header.codec = FrameCodec::kAes256Gcm;
  header.seal.key = key.id;
  header.seal.salt = salt.bytes;
  const auto hidden = private_part(header.payload_checksum);
  Cipher cipher(key, header, true);
  cipher.update(hidden.data(), header.seal.hidden.data(), hidden.size());
  header.payload_checksum = cipher.update(plain.data(), stored.data(), plain.size());
  cipher.finish_tag(header.seal.tag);
  if (!cipher.is_ok()) return {Code::kInternal, std::string(kRefused)};
  return {};
}

Result<OpenedFrame> open_frame(const KeyRing::Key& key, const FrameHeader& header,
                               std::span<std::byte> payload) {
  if (payload.size() != header.payload_bytes || header.codec != FrameCodec::kAes256Gcm) {
    return fail(Code::kInternal, "frame: not the payload of an encrypted header");
  }
  Cipher cipher(key, header, false);
  std::array<std::uint8_t, 16> hidden{};
  cipher.update(header.seal.hidden.data(), hidden.data(), hidden.size());
  const Checksum plain = cipher.update(payload.data(), payload.data(), payload.size());
  if (!cipher.is_ok()) {
    std::ranges::fill(payload, std::byte{0});
    return fail(Code::kInternal, std::string(kRefused));
  }
  if (!cipher.has_tag(header.seal.tag)) return OpenedFrame{judge(key, header, hidden, payload), {}};
  // Sealed by the key, and yet not what the engine's side had summed: damaged before it came here.
  if (hidden != private_part(plain)) {
    std::ranges::fill(payload, std::byte{0});
    return OpenedFrame{FrameVerdict::kDamaged, {}};
  }
  return OpenedFrame{FrameVerdict::kRight, plain};
}

}  // namespace terrace::wire
