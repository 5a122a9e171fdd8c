// Where a copy of a block is.
// Threading: immutable values.
#pragma once

#include <string_view>

#include "terrace/base/strong.h"

namespace terrace {

enum class Tier : std::uint8_t { kDevice = 0, kHost = 1, kDisk = 2, kObject = 3, kPeer = 4 };
inline constexpr int kTierCount = 5;
// "device", "host", … as in metric labels.
[[nodiscard]] std::string_view to_string(Tier tier);

// A place in a pool at one moment: a slot that was given to another block has another generation,
// so a stale reference is detected, never followed.
struct SlotRef {
  SlotIndex index;
  Generation generation;
  friend auto operator<=>(const SlotRef&, const SlotRef&) = default;
};

}  // namespace terrace
