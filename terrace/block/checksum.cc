#include "terrace/block/checksum.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "terrace/block/checksum_internal.h"

namespace terrace {

static_assert(std::endian::native == std::endian::little, "payload words are little-endian");

namespace kernel = checksum_kernel;

void ShardCopier::take(std::byte* target, const std::byte* source, std::size_t bytes) {
  using checksum_internal::Path;
  using checksum_internal::Store;
  static const Path path = checksum_internal::available_paths().back();
  const Store store = target == nullptr ? Store::kNone : Store::kCached;
  if (tail_bytes_ != 0) {
    const std::size_t part = std::min(bytes, std::size_t{kernel::kStripeBytes} - tail_bytes_);
    std::memcpy(tail_ + tail_bytes_, source, part);
    if (target != nullptr) {
      std::memcpy(target, source, part);
      target += part;
    }
    tail_bytes_ += part;
    source += part;
    bytes -= part;
    if (tail_bytes_ < kernel::kStripeBytes) return;
    path.none(state_, tail_, nullptr, 1);
    tail_bytes_ = 0;
  }
  const std::size_t stripes = bytes / kernel::kStripeBytes;
  path.get(store)(state_, source, target, stripes);
  const std::size_t done = stripes * kernel::kStripeBytes;
  if (done == bytes) return;
  tail_bytes_ = bytes - done;
  std::memcpy(tail_, source + done, tail_bytes_);
  if (target != nullptr) std::memcpy(target + done, source + done, tail_bytes_);
}

void ShardCopier::copy(std::byte* target, const std::byte* source, std::size_t bytes) {
  if (bytes != 0) take(target, source, bytes);
}

void ShardCopier::add(const std::byte* source, std::size_t bytes) {
  if (bytes != 0) take(nullptr, source, bytes);
}

Checksum ShardCopier::finish() {
  static constexpr std::byte kZeros[kernel::kPieceBytes] = {};
  const std::uint64_t bytes = state_.stripes * kernel::kStripeBytes + tail_bytes_;
  if (bytes % kernel::kPieceBytes != 0) {
    take(nullptr, kZeros, kernel::kPieceBytes - bytes % kernel::kPieceBytes);
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

const char* checksum_path() { return checksum_internal::available_paths().back().name; }

}  // namespace terrace
