#include <fmt/format.h>

#include <cstring>
#include <vector>

#include "terrace/block/checksum.h"
#include "terrace/capi/convert_internal.h"
#include "terrace/capi/guard_internal.h"
#include "terrace/manager/weights.h"

namespace {

void put_big_endian(std::uint64_t value, std::uint8_t* target) {
  for (unsigned i = 0; i < 8; ++i) target[i] = static_cast<std::uint8_t>(value >> (56U - 8U * i));
}

}  // namespace

using namespace terrace;  // NOLINT(google-build-using-namespace): C functions have no namespace.
using namespace terrace::capi;  // NOLINT(google-build-using-namespace)

extern "C" {

terrace_code terrace_hash_sequence(uint32_t block_tokens, const uint32_t* tokens,
                                   uint64_t token_count, const terrace_extra_key* extra_keys,
                                   uint64_t extra_key_count, uint8_t* hashes) {
  return guarded([&] {
    for (const Status& status : {check_block_tokens(block_tokens),
                                 check_array("token_count", tokens, token_count, kMaxTokens)}) {
      if (!status.is_ok()) return set_error(status);
    }
    if (hashes == nullptr && token_count >= block_tokens) {
      return set_error(TERRACE_INVALID, "terrace_hash_sequence: hashes is NULL");
    }
    auto keys = convert_extra_keys(extra_keys, extra_key_count);
    if (!keys) return set_error(keys.error());
    SequenceChain chain(Tokens(block_tokens), std::move(*keys));
    chain.append({tokens, token_count});
    for (const SequenceHash& hash : chain.hashes()) {
      put_big_endian(hash.high, hashes);
      put_big_endian(hash.low, hashes + 8);
      hashes += 16;
    }
    return TERRACE_OK;
  });
}

uint64_t terrace_checksum_bytes(const uint8_t* bytes, uint64_t length) {
  std::uint64_t value = 0;
  (void)guarded([&] {
    const Status status = check_array("terrace_checksum_bytes: length", bytes, length);
    if (!status.is_ok()) return set_error(status);
    value = checksum_of({reinterpret_cast<const std::byte*>(bytes), length}).value;
    return TERRACE_OK;
  });
  return value;
}

terrace_code terrace_digest_weights(const char* model_directory, char digest[65]) {
  return guarded([&] {
    if (model_directory == nullptr || digest == nullptr) {
      return set_error(TERRACE_INVALID, "terrace_digest_weights: a pointer is NULL");
    }
    const auto text = manager::digest_weights(model_directory);
    if (!text) return set_error(text.error());
    std::memcpy(digest, text->c_str(), 65);
    return TERRACE_OK;
  });
}
}
