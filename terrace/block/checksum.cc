#include "terrace/block/checksum.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "terrace/block/checksum_internal.h"

namespace terrace {

static_assert(std::endian::native == std::endian::little, "payload words are little-endian");

namespace kernel = checksum_kernel;

namespace {

using checksum_internal::Store;

// Measured thresholds (docs/adr/0002-payload-checksum.md). Larger pieces are written past the
// cache: below, the target is still in the second-level cache when it is read; above, streaming
// saves reading the target's lines before they are overwritten.
constexpr std::size_t kStreamCheckedBytes = std::size_t{64} << 10U;
constexpr std::size_t kStreamUncheckedBytes = std::size_t{32} << 10U;
// Pieces below these are too short for the hardware prefetchers, which do not cross pages, to
// settle.
constexpr std::size_t kFarAheadCheckedBytes = std::size_t{256} << 10U;
constexpr std::size_t kFarAheadUncheckedBytes = kStreamUncheckedBytes;
// How far ahead of the copy such a piece is asked for: one page.
constexpr std::size_t kAheadStripes = 4096 / kernel::kStripeBytes;

Store store_for(const std::byte* target, std::size_t bytes, std::size_t stream_bytes) {
  if (target == nullptr) return Store::kNone;
  const bool is_aligned = std::bit_cast<std::uintptr_t>(target) % kernel::kStripeBytes == 0;
  return is_aligned && bytes >= stream_bytes ? Store::kStreaming : Store::kCached;
}

// Calls work(first stripe, stripes, ahead): once for a long piece; else for the part whose page
// ahead lies in the piece itself, then for the rest, whose page ahead is the next piece's.
template <typename Work>
void with_ahead(const std::byte* source, std::size_t stripes, const std::byte* next,
                std::size_t far_ahead_bytes, const Work& work) {
  if (stripes * kernel::kStripeBytes >= far_ahead_bytes) return work(0, stripes, source);
  const std::size_t body = stripes > kAheadStripes ? stripes - kAheadStripes : 0;
  if (body > 0) work(0, body, source + kAheadStripes * kernel::kStripeBytes);
  const std::byte* rest = source + body * kernel::kStripeBytes;
  work(body, stripes - body, next == nullptr ? rest : next);
}

}  // namespace

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
  const auto stripes_of = path.get(store_for(target, bytes, kStreamCheckedBytes));
  const auto work = [&](std::size_t first, std::size_t count, const std::byte* ahead) {
    const std::size_t at = first * kernel::kStripeBytes;
    stripes_of(state_, source + at, target == nullptr ? nullptr : target + at, count, ahead);
  };
  with_ahead(source, stripes, next, kFarAheadCheckedBytes, work);
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

void copy_unchecked(std::byte* target, const std::byte* source, std::size_t bytes,
                    const std::byte* next) {
  if (bytes == 0) return;
  const checksum_internal::Path& path = checksum_internal::best_path();
  const auto copy = store_for(target, bytes, kStreamUncheckedBytes) == Store::kStreaming
                        ? path.copy_streaming
                        : path.copy_cached;
  const std::size_t stripes = bytes / kernel::kStripeBytes;
  const auto work = [&](std::size_t first, std::size_t count, const std::byte* ahead) {
    const std::size_t at = first * kernel::kStripeBytes;
    copy(target + at, source + at, count, ahead);
  };
  with_ahead(source, stripes, next, kFarAheadUncheckedBytes, work);
  const std::size_t done = stripes * kernel::kStripeBytes;
  std::memcpy(target + done, source + done, bytes - done);
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
