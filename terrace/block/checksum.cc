#include "terrace/block/checksum.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "terrace/block/checksum_internal.h"

namespace terrace {

static_assert(std::endian::native == std::endian::little, "payload words are little-endian");

namespace kernel = checksum_kernel;

// Every source byte is read once and from there goes both into the sum and to the target: what was
// checked is what was copied, whatever happens to the source meanwhile.
void ShardCopier::take(std::byte* target, const std::byte* source, std::size_t bytes,
                       const std::byte* next) {
  const checksum_internal::Path& path = checksum_internal::best_path();
  if (tail_bytes_ != 0) {
    const std::size_t part = std::min(bytes, std::size_t{kernel::kStripeBytes} - tail_bytes_);
    std::memcpy(tail_ + tail_bytes_, source, part);
    if (target != nullptr) {
      std::memcpy(target, tail_ + tail_bytes_, part);
      target += part;
    }
    tail_bytes_ += part;
    source += part;
    bytes -= part;
    if (tail_bytes_ < kernel::kStripeBytes) return;
    path.none(state_, tail_, nullptr, 1, tail_);
    tail_bytes_ = 0;
  }
  const std::size_t stripes = bytes / kernel::kStripeBytes;
  checksum_internal::copy_stripes(state_, path, checksum_internal::best_tuning(), target, source,
                                  stripes, next);
  const std::size_t done = stripes * kernel::kStripeBytes;
  if (done == bytes) return;
  tail_bytes_ = bytes - done;
  std::memcpy(tail_, source + done, tail_bytes_);
  if (target != nullptr) std::memcpy(target + done, tail_, tail_bytes_);
}

void ShardCopier::copy(std::byte* target, const std::byte* source, std::size_t bytes,
                       const std::byte* next) {
  if (bytes != 0) take(target, source, bytes, next);
}

void ShardCopier::add(const std::byte* source, std::size_t bytes) {
  if (bytes != 0) take(nullptr, source, bytes, nullptr);
}

Checksum ShardCopier::finish() {
  static constexpr std::byte kZeros[kernel::kPieceBytes] = {};
  const std::uint64_t bytes = state_.stripes * kernel::kStripeBytes + tail_bytes_;
  if (bytes % kernel::kPieceBytes != 0) {
    take(nullptr, kZeros, kernel::kPieceBytes - bytes % kernel::kPieceBytes, nullptr);
  }
  const Checksum checksum{kernel::finish_payload(state_.sum, bytes)};
  *this = ShardCopier();
  return checksum;
}

Checksum checksum_of(std::span<const std::byte> payload) {
  ShardCopier copier;
  copier.add(payload.data(), payload.size());
  return copier.finish();
}

const char* checksum_path() { return checksum_internal::best_path().name; }

}  // namespace terrace
