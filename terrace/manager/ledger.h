// Per request: tokens hit per tier and why the first miss was one. Terrace's own truth: the
// engine's hit counters tell what was promised, also when a load failed later. Threading: immutable
// values.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "terrace/base/strong.h"
#include "terrace/block/location.h"

namespace terrace::manager {

enum class MissReason : std::uint8_t {
  kNeverStored,
  kEvicted,
  kOtherNamespace,
  kCorrupt,
  kLate,
  kDropped,
  kNotWorthIt,
  kUnkeyable,
  kPaused,  // Somebody paused the owner.
};
inline constexpr int kMissReasonCount = 9;
[[nodiscard]] std::string_view to_string(MissReason reason);

struct Ledger {
  RequestId request;
  Tokens prompt{0};
  Tokens local{0};                       // Hit in the engine's own cache.
  std::array<Tokens, kTierCount> hit{};  // Verified in the device, by the tier they came from.
  Tokens failed{0};                      // Promised, then not delivered.
  Tokens pending{0};                     // Promised, and not reported yet when the request ended.
  std::optional<MissReason> first_miss;
  Nanoseconds lookup_wait{0};  // From the first poll to the ready answer.
};

}  // namespace terrace::manager
