#include <cstring>

#include "terrace/block/checksum_internal.h"

namespace terrace::checksum_internal {
namespace {

namespace kernel = checksum_kernel;

template <Store kStore>
void stripes_scalar(kernel::PayloadState& state, const std::byte* source, std::byte* target,
                    std::size_t stripes) {
  for (std::size_t s = 0; s < stripes; ++s) {
    kernel::Accumulators words;
    std::memcpy(words.data(), source + s * kernel::kStripeBytes, kernel::kStripeBytes);
    const auto stripe = static_cast<std::uint32_t>(state.stripes % kernel::kStripesPerPiece);
    for (std::uint32_t lane = 0; lane < kernel::kLanes; ++lane) {
      kernel::add_word(state.sums, stripe, lane, words[lane]);
    }
    if constexpr (kStore != Store::kNone) {
      std::memcpy(target + s * kernel::kStripeBytes, words.data(), kernel::kStripeBytes);
    }
    ++state.stripes;
    kernel::close_stripe(state);
  }
}

}  // namespace

std::span<const Path> available_paths() {
  static constexpr Path kPaths[] = {{"scalar", stripes_scalar<Store::kNone>,
                                     stripes_scalar<Store::kCached>,
                                     stripes_scalar<Store::kStreaming>}};
  return kPaths;
}

}  // namespace terrace::checksum_internal
