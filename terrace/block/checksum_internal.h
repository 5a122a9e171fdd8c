// The code paths of the payload checksum, for checksum.cc, its tests and its benchmark.
// Threading: pure functions.  Waits: never.
#pragma once

#include <cstddef>
#include <span>

#include "terrace/block/checksum_kernel.h"

namespace terrace::checksum_internal {

// How the fused copy writes its target: not at all, through the cache, through the cache with the
// target's lines asked for some way ahead, or past it.
enum class Store { kNone, kCached, kAsked, kStreaming };

// Adds `stripes` whole stripes of `source` to `state` and copies them to `target`. kStreaming needs
// a target aligned to 64 bytes; its stores are fenced on return. While it works through `source` it
// asks the memory for as many bytes at `ahead` (any address: it is never read).
using StripeFunction = void (*)(checksum_kernel::PayloadState& state, const std::byte* source,
                                std::byte* target, std::size_t stripes, const std::byte* ahead);

// Copies stripes without looking at them.
using CopyFunction = void (*)(std::byte* target, const std::byte* source, std::size_t stripes,
                              const std::byte* ahead);

struct Path {
  const char* name;
  StripeFunction none;
  StripeFunction cached;
  StripeFunction asked;
  StripeFunction streaming;
  CopyFunction copy_streaming;
  [[nodiscard]] StripeFunction get(Store store) const {
    if (store == Store::kNone) return none;
    if (store == Store::kCached) return cached;
    return store == Store::kAsked ? asked : streaming;
  }
};

// Those that this CPU can run, slowest first; [0] is the reference "scalar".
[[nodiscard]] std::span<const Path> available_paths();
[[nodiscard]] const Path& best_path();

// How pieces are written that are short enough for their reader to find them in the cache.
enum class NearWrite {
  kFused,   // Each stripe is stored right behind its load.
  kAsked,   // The same, its lines asked for ahead.
  kStaged,  // A page at a time through a buffer in the first-level cache, from there by `rep
            // movsb`, which fills whole lines without reading them first.
};

// What is fastest on a family of CPUs, as measured (docs/adr/0016-how-a-copy-writes.md).
struct Tuning {
  const char* name;
  NearWrite near_write;
  std::size_t stream_checked_bytes;    // Pieces from this size on are written past the cache,
  std::size_t stream_unchecked_bytes;  // where the target is aligned to 64 bytes.
  std::size_t far_ahead_bytes;  // Shorter pieces are asked for one page ahead: the hardware's
                                // prefetchers do not cross pages and need a few lines to settle.
};

// All there are, whatever CPU this is.
[[nodiscard]] std::span<const Tuning> tunings();
[[nodiscard]] const Tuning& best_tuning();

// Copies `stripes` whole stripes as `tuning` says and adds them to `state`. Every source byte is
// read once. `target` may be null; `next` is the hint of ShardCopier::copy.
void copy_stripes(checksum_kernel::PayloadState& state, const Path& path, const Tuning& tuning,
                  std::byte* target, const std::byte* source, std::size_t stripes,
                  const std::byte* next);

}  // namespace terrace::checksum_internal
