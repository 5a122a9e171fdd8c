#include "terrace/block/sequence_hash.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <string_view>

#include "terrace/base/check.h"
#include "terrace/block/sequence_hash_internal.h"
#include "terrace/block/sha256_internal.h"

namespace terrace {
namespace {

static_assert(std::endian::native == std::endian::little, "integers are encoded by memcpy");

constexpr std::string_view kRootDomain{"TERRACE\0root\0\0\0\1", 16};
constexpr std::string_view kBlockDomain{"TRSB\0\0\0\1", 8};
constexpr std::uint64_t kMaxBlockTokens = 1ULL << 20U;
constexpr std::size_t kParentOffset = 16;
constexpr std::size_t kTokensOffset = 32;

template <typename T>
void put(std::vector<std::uint8_t>& message, T value) {
  const auto bytes = std::bit_cast<std::array<std::uint8_t, sizeof(T)>>(value);
  message.insert(message.end(), bytes.begin(), bytes.end());
}

// Whether any token of the item lies in [first, first + count), without overflow.
bool overlaps(const ExtraKey& item, std::uint64_t first, std::uint64_t count) {
  if (item.first_token >= first) {
    return item.token_count > 0 && item.first_token - first < count;
  }
  return item.token_count > first - item.first_token;
}

bool enters(const ExtraKey& key, std::uint64_t block, std::uint64_t block_tokens) {
  if (key.kind == ExtraKey::Kind::kMultimodal) {
    return overlaps(key, block * block_tokens, block_tokens);
  }
  return block == 0;
}

SequenceHash hash_of(std::span<const std::uint8_t> message) {
  const Sha256Digest digest = sha256(message);
  return SequenceHash::from_bytes(std::span(digest).first<16>());
}

}  // namespace

std::string SequenceHash::hex() const { return fmt::format("{:016x}{:016x}", high, low); }

std::array<std::uint8_t, 16> SequenceHash::bytes() const {
  return std::bit_cast<std::array<std::uint8_t, 16>>(
      std::array{__builtin_bswap64(high), __builtin_bswap64(low)});
}

SequenceHash SequenceHash::from_bytes(std::span<const std::uint8_t, 16> bytes) {
  std::array<std::uint64_t, 2> words{};
  std::memcpy(words.data(), bytes.data(), 16);
  return {__builtin_bswap64(words[0]), __builtin_bswap64(words[1])};
}

namespace sequence_hash_internal {

SequenceHash root(std::uint64_t block_tokens) {
  std::vector<std::uint8_t> message(kRootDomain.begin(), kRootDomain.end());
  put(message, block_tokens);
  return hash_of(message);
}

void encode_block(std::vector<std::uint8_t>& message, const SequenceHash& parent,
                  std::uint64_t block, std::span<const std::uint32_t> tokens,
                  std::span<const ExtraKey> extra_keys) {
  const auto taken = std::count_if(extra_keys.begin(), extra_keys.end(), [&](const ExtraKey& key) {
    return enters(key, block, tokens.size());
  });
  message.assign(kBlockDomain.begin(), kBlockDomain.end());
  put(message, static_cast<std::uint32_t>(tokens.size()));
  put(message, static_cast<std::uint32_t>(taken));
  const auto parent_bytes = parent.bytes();
  message.insert(message.end(), parent_bytes.begin(), parent_bytes.end());
  const std::size_t at = message.size();
  message.resize(at + tokens.size_bytes());
  std::memcpy(message.data() + at, tokens.data(), tokens.size_bytes());
  if (taken == 0) return;
  for (const ExtraKey& key : extra_keys) {
    if (!enters(key, block, tokens.size())) continue;
    put(message, static_cast<std::uint8_t>(key.kind));
    put(message, static_cast<std::uint64_t>(key.identity.size()));
    if (key.kind == ExtraKey::Kind::kMultimodal) {
      // Negative where the item began in an earlier block; two's complement.
      put(message, key.first_token - block * tokens.size());
      put(message, key.token_count);
    }
    message.insert(message.end(), key.identity.begin(), key.identity.end());
  }
}

}  // namespace sequence_hash_internal

SequenceChain::SequenceChain(Tokens block_tokens, std::vector<ExtraKey> extra_keys)
    : block_tokens_(block_tokens.value()), extra_keys_(std::move(extra_keys)) {
  TERRACE_CHECK(block_tokens_ > 0 && block_tokens_ <= kMaxBlockTokens);
  tip_ = sequence_hash_internal::root(block_tokens_);
  const std::vector<std::uint32_t> no_tokens(block_tokens_);
  sequence_hash_internal::encode_block(plain_, tip_, 0, no_tokens, {});
  pad_sha256(plain_);
}

void SequenceChain::hash_block(std::span<const std::uint32_t> tokens) {
  const std::uint64_t block = hashes_.size();
  const bool is_plain =
      std::none_of(extra_keys_.begin(), extra_keys_.end(),
                   [&](const ExtraKey& key) { return enters(key, block, block_tokens_); });
  if (is_plain) {
    const auto parent = tip_.bytes();
    std::memcpy(plain_.data() + kParentOffset, parent.data(), parent.size());
    std::memcpy(plain_.data() + kTokensOffset, tokens.data(), tokens.size_bytes());
    const auto words = sha256_of_padded(plain_);
    tip_ = {words[0], words[1]};
  } else {
    sequence_hash_internal::encode_block(message_, tip_, block, tokens, extra_keys_);
    tip_ = hash_of(message_);
  }
  hashes_.push_back(tip_);
}

void SequenceChain::append(std::span<const std::uint32_t> tokens) {
  token_count_ += tokens.size();
  const std::size_t wanted = token_count_ / block_tokens_;
  if (wanted > hashes_.capacity()) hashes_.reserve(std::max(wanted, 2 * hashes_.capacity()));
  if (!partial_.empty()) {
    const std::size_t part = std::min<std::size_t>(tokens.size(), block_tokens_ - partial_.size());
    partial_.insert(partial_.end(), tokens.begin(), tokens.begin() + static_cast<long>(part));
    tokens = tokens.subspan(part);
    if (partial_.size() < block_tokens_) return;
    hash_block(partial_);
    partial_.clear();
  }
  while (tokens.size() >= block_tokens_) {
    hash_block(tokens.first(block_tokens_));
    tokens = tokens.subspan(block_tokens_);
  }
  partial_.assign(tokens.begin(), tokens.end());
}

}  // namespace terrace
