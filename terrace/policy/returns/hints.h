// What is said of a request from outside: by its client, and by the engine when it ends. Weights
// only: whoever says what is not so is believed as far as it has come true of others who said the
// same, and changes nothing but which block goes first.
// Threading: values.  Waits: never.
#pragma once

#include <cstdint>
#include <optional>

#include "terrace/base/clock.h"
#include "terrace/block/sequence_hash.h"
#include "terrace/policy/returns/use.h"

namespace terrace::policy {

// How an answer ended, when the engine says.
enum class Ending : std::uint8_t {
  kUnknown = 0,
  kToolCall = 1,
  kDone = 2,  // The model ended it.
  kLength = 3,
  kAborted = 4,
};
inline constexpr std::uint32_t kEndingCount = 5;

struct Hints {
  std::optional<SequenceHash> session{};  // Digest of whatever names it.
  bool is_over = false;                   // Nobody goes on after this answer.
  bool is_tool_call = false;              // Somebody comes back with what a tool found.
  Nanoseconds returns_in{0};              // From the end of the answer on; 0 = not said.
  Priority priority = Priority::kNormal;
};

// What a class of requests promises; each is learned for itself.
using Promise = std::uint32_t;
inline constexpr Promise kPromiseNothing = 0;
inline constexpr Promise kPromiseOver = 1;
inline constexpr Promise kPromiseToolCall = 2;  // At some time.
inline constexpr Promise kPromiseReturn = 3;    // Within a second, four, 16, ... 1,024, later.
inline constexpr Promise kPromiseCount = kPromiseReturn + 7;
[[nodiscard]] Promise promise_of(const Hints& hints);

}  // namespace terrace::policy
