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

// What the planner decided about what was found, what it predicted, and what came of it.
struct Decision {
  Tokens found{0};                     // In tiers, beyond the engine's own.
  Tokens planned{0};                   // To be loaded of these.
  Tier slowest = Tier::kHost;          // Of those to load from.
  Nanoseconds predicted_load{0};       // 0 = not measured yet.
  Nanoseconds predicted_recompute{0};  // Of what was planned; 0 = not measured yet.
  Nanoseconds load{0};                 // From the decision to all of it in host, and the copy.
  Nanoseconds recompute{0};            // Of the steps that computed the rest, as far as reported.
  Tokens recomputed{0};                // In these.
  bool is_abandoned = false;           // The load took too long; what was missing was computed.
};

struct Ledger {
  RequestId request;
  Tokens prompt{0};
  Tokens local{0};                       // Hit in the engine's own cache.
  std::array<Tokens, kTierCount> hit{};  // Verified in the device, by the tier they came from.
  Tokens failed{0};                      // Promised, then not delivered.
  Tokens pending{0};                     // Promised, and not reported yet when the request ended.
  std::optional<MissReason> first_miss;
  Nanoseconds lookup_wait{0};        // From the first poll to the ready answer.
  std::optional<Decision> decision;  // Nothing was found: nothing.
};

}  // namespace terrace::manager
