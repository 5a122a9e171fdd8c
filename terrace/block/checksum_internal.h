// The code paths of the payload checksum, for checksum.cc, its tests and its benchmark.
// Threading: pure functions.  Waits: never.
#pragma once

#include <cstddef>
#include <span>

#include "terrace/block/checksum_kernel.h"

namespace terrace::checksum_internal {

// How the fused copy writes its target: not at all, through the cache, or past it.
enum class Store { kNone, kCached, kStreaming };

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
  StripeFunction streaming;
  CopyFunction copy_cached;
  CopyFunction copy_streaming;
  [[nodiscard]] StripeFunction get(Store store) const {
    return store == Store::kNone ? none : store == Store::kCached ? cached : streaming;
  }
};

// Those that this CPU can run, slowest first; [0] is the reference "scalar".
[[nodiscard]] std::span<const Path> available_paths();
[[nodiscard]] const Path& best_path();

}  // namespace terrace::checksum_internal
