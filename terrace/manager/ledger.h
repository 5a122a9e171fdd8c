// Per request: tokens hit per tier, why the first miss was one, and where the time went. Terrace's
// own truth: the engine's hit counters tell what was promised, also when a load failed later.
// Threading: immutable values.  Owns: its texts, inside.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>

#include "terrace/base/strong.h"
#include "terrace/block/location.h"
#include "terrace/policy/returns/hints.h"

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
  kPaused,       // Somebody paused the owner.
  kShadow,       // There, and computed anew to check it.
  kQuarantined,  // Such a check found a difference.
};
inline constexpr int kMissReasonCount = 11;
[[nodiscard]] std::string_view to_string(MissReason reason);

// Why tiers were not asked at all: no miss, as nobody wanted a hit.
enum class NotAsked : std::uint8_t {
  kOptedOut,    // The request itself is not to load.
  kStoresOnly,  // The owner was opened to store alone.
  kObserves,    // mode = observe.
  kNotServing,  // Shut, poisoned, closing, or the ranks came too late.
};
[[nodiscard]] std::string_view to_string(NotAsked why);

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

// Where a request's time went. Zero = it did not come to that, or is not known.
struct Stages {
  Nanoseconds queued{0};    // From its begin to the engine's first poll.
  Nanoseconds placed{0};    // From the ready answer to the engine's taking it.
  Nanoseconds copied{0};    // Its part of the copies from host to device.
  Nanoseconds computed{0};  // The steps that computed its prompt, as far as reported.
  Nanoseconds total{0};     // From its begin to its end.
  Tokens computed_tokens{0};
};

struct Ledger {
  RequestId request;
  Tokens prompt{0};
  Tokens local{0};                       // Hit in the engine's own cache.
  std::array<Tokens, kTierCount> hit{};  // Verified in the device, by the tier they came from.
  Tokens failed{0};                      // Promised, then not delivered.
  Tokens pending{0};                     // Promised, and not reported yet when the request ended.
  std::optional<MissReason> first_miss;
  std::optional<NotAsked> not_asked;
  Nanoseconds lookup_wait{0};  // From the first poll to the ready answer.
  Stages stages;
  std::optional<Decision> decision;  // Nothing was found: nothing.
  policy::Hints hints;               // Its client's.
  std::uint64_t ignored_hints = 0;   // Those that were none.
  policy::Ending ending = policy::Ending::kUnknown;
  std::uint32_t turn = 0;  // Of its conversation, as far as anybody knows; 0 = nobody asked.
};

// By the name that metrics and the ledger have for it.
[[nodiscard]] std::string_view to_string(policy::Ending ending);
// Of what was said, "session", "session_over", "tool_call", "return" and "priority".
inline constexpr std::size_t kHintKinds = 5;
[[nodiscard]] std::string_view hint_name(std::size_t kind);
[[nodiscard]] std::array<bool, kHintKinds> said(const policy::Hints& hints);

// A short text inside the object: what does not fit is cut, and nobody need allocate for it.
class Label {
 public:
  static constexpr std::size_t kMost = 95;  // Bytes; the whole is 96.

  Label() = default;
  explicit Label(std::string_view text)
      : size_(static_cast<std::uint8_t>(std::min(text.size(), kMost))) {
    if (size_ > 0) std::memcpy(bytes_.data(), text.data(), size_);
  }
  [[nodiscard]] std::string_view view() const { return {bytes_.data(), size_}; }

 private:
  std::uint8_t size_ = 0;
  std::array<char, kMost> bytes_{};
};

enum class LedgerState : std::uint8_t {
  kRunning,    // The request has not ended.
  kReporting,  // It has; some of its loads are not reported yet.
  kEnded,
};
[[nodiscard]] std::string_view to_string(LedgerState state);

// A ledger as it is kept for people: with what the engine calls the request.
struct KeptLedger {
  std::uint64_t number = 0;  // Of the ring, from 1 on; 0 = not in it.
  LedgerState state = LedgerState::kRunning;
  Label name;            // The engine's id of it, as far as it fits; empty = the engine gave none.
  Label unkeyable;       // What cannot be keyed; empty = all can, or nobody said.
  Nanoseconds ended{0};  // Clock::now() then; of one that runs, when it was looked at.
  // The same in seconds since 1970: taken once, so that whoever tells of it tells the same.
  std::int64_t ended_wall_seconds = 0;
  Ledger ledger;
};

}  // namespace terrace::manager
