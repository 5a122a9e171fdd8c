#include <cpuid.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "terrace/block/checksum.h"
#include "terrace/block/checksum_internal.h"

namespace terrace {
namespace checksum_internal {
namespace {

namespace kernel = checksum_kernel;
constexpr std::size_t kStripe = kernel::kStripeBytes;
constexpr std::size_t kPage = 4096;
constexpr std::size_t kKiB = 1024;

enum Family { kOther, kIntel, kZen5 };

constexpr std::array<Tuning, 3> kTunings = {{
    {"other", NearWrite::kFused, 64 * kKiB, 32 * kKiB, 256 * kKiB},
    {"intel", NearWrite::kAsked, 64 * kKiB, 64 * kKiB, SIZE_MAX},
    {"zen5", NearWrite::kStaged, 192 * kKiB, 640 * kKiB, 256 * kKiB},
}};

Family family() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  if (__get_cpuid(0, &eax, &ebx, &ecx, &edx) == 0) return kOther;
  if (ebx == signature_INTEL_ebx && ecx == signature_INTEL_ecx) return kIntel;
  if (ebx != signature_AMD_ebx || ecx != signature_AMD_ecx) return kOther;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return kOther;
  const unsigned number = (eax >> 8U & 0xFU) + (eax >> 20U & 0xFFU);
  return number >= 0x1A ? kZen5 : kOther;
}

bool is_aligned(const std::byte* target) {
  return std::bit_cast<std::uintptr_t>(target) % kStripe == 0;
}

// Calls work(first stripe, stripes, ahead): once for a long piece; else for the part whose page
// ahead lies in the piece itself, then for the rest, whose page ahead is the next piece's.
template <typename Work>
void with_ahead(const std::byte* source, std::size_t stripes, const std::byte* next,
                std::size_t far_ahead_bytes, const Work& work) {
  if (stripes * kStripe >= far_ahead_bytes) return work(0, stripes, source);
  const std::size_t body = stripes > kPage / kStripe ? stripes - kPage / kStripe : 0;
  if (body > 0) work(0, body, source + kPage);
  const std::byte* rest = source + body * kStripe;
  work(body, stripes - body, next == nullptr ? rest : next);
}

// Fills whole lines of the target without reading them. The last line goes by itself: a count of
// whole pages takes a path in the CPU that is a sixth slower.
void fill_lines(std::byte* target, const std::byte* source, std::size_t bytes) {
  const std::byte* from = source;
  std::byte* to = target;
  std::size_t count = bytes - kStripe;
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
  std::memcpy(target + bytes - kStripe, source + bytes - kStripe, kStripe);
}

void copy_staged(kernel::PayloadState& state, const Path& path, std::byte* target,
                 const std::byte* source, std::size_t stripes, const std::byte* next) {
  alignas(kStripe) std::byte page[kPage];
  for (std::size_t at = 0; at < stripes * kStripe; at += kPage) {
    const std::size_t bytes = std::min(kPage, stripes * kStripe - at);
    const bool is_last = at + bytes == stripes * kStripe;
    const std::byte* ahead = is_last ? next : source + at + kPage;
    path.cached(state, source + at, page, bytes / kStripe, ahead == nullptr ? source : ahead);
    fill_lines(target + at, page, bytes);
  }
}

}  // namespace

std::span<const Tuning> tunings() { return kTunings; }

const Tuning& best_tuning() {
  static const Tuning& best = kTunings[family()];
  return best;
}

void copy_stripes(kernel::PayloadState& state, const Path& path, const Tuning& tuning,
                  std::byte* target, const std::byte* source, std::size_t stripes,
                  const std::byte* next) {
  const std::size_t bytes = stripes * kStripe;
  const bool is_near = bytes < tuning.stream_checked_bytes || !is_aligned(target);
  if (target != nullptr && is_near && tuning.near_write == NearWrite::kStaged) {
    return copy_staged(state, path, target, source, stripes, next);
  }
  Store store = Store::kNone;
  if (target != nullptr) {
    const bool is_asked = tuning.near_write == NearWrite::kAsked;
    store = !is_near ? Store::kStreaming : is_asked ? Store::kAsked : Store::kCached;
  }
  const StripeFunction stripes_of = path.get(store);
  with_ahead(source, stripes, next, tuning.far_ahead_bytes,
             [&](std::size_t first, std::size_t count, const std::byte* ahead) {
               const std::size_t at = first * kStripe;
               std::byte* to = target == nullptr ? nullptr : target + at;
               stripes_of(state, source + at, to, count, ahead);
             });
}

}  // namespace checksum_internal

void copy_unchecked(std::byte* target, const std::byte* source, std::size_t bytes,
                    const std::byte* next) {
  namespace in = checksum_internal;
  if (bytes == 0) return;
  if (bytes < in::best_tuning().stream_unchecked_bytes || !in::is_aligned(target)) {
    std::memcpy(target, source, bytes);
    for (std::size_t at = 0; next != nullptr && at < in::kPage; at += in::kStripe) {
      __builtin_prefetch(next + at, 0, 2);
    }
    return;
  }
  const std::size_t stripes = bytes / in::kStripe;
  in::best_path().copy_streaming(target, source, stripes, source);
  const std::size_t done = stripes * in::kStripe;
  std::memcpy(target + done, source + done, bytes - done);
}

}  // namespace terrace
