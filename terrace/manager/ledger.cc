#include "terrace/manager/ledger.h"

namespace terrace::manager {

std::string_view to_string(MissReason reason) {
  switch (reason) {
    case MissReason::kNeverStored:
      return "never_stored";
    case MissReason::kEvicted:
      return "evicted";
    case MissReason::kOtherNamespace:
      return "other_namespace";
    case MissReason::kCorrupt:
      return "corrupt";
    case MissReason::kLate:
      return "late";
    case MissReason::kDropped:
      return "dropped";
    case MissReason::kNotWorthIt:
      return "not_worth_it";
    case MissReason::kUnkeyable:
      return "unkeyable";
    case MissReason::kPaused:
      return "paused";
    case MissReason::kShadow:
      return "shadow";
    case MissReason::kQuarantined:
      return "quarantined";
  }
  return "unknown";
}

std::string_view to_string(NotAsked why) {
  switch (why) {
    case NotAsked::kOptedOut:
      return "opted_out";
    case NotAsked::kStoresOnly:
      return "stores_only";
    case NotAsked::kObserves:
      return "observes";
    case NotAsked::kNotServing:
      return "not_serving";
  }
  return "unknown";
}

std::string_view to_string(policy::Ending ending) {
  switch (ending) {
    case policy::Ending::kUnknown:
      return "unknown";
    case policy::Ending::kToolCall:
      return "tool_call";
    case policy::Ending::kDone:
      return "stop";
    case policy::Ending::kLength:
      return "length";
    case policy::Ending::kAborted:
      return "abort";
  }
  return "unknown";
}

std::string_view to_string(LedgerState state) {
  switch (state) {
    case LedgerState::kRunning:
      return "running";
    case LedgerState::kReporting:
      return "reporting";
    case LedgerState::kEnded:
      return "ended";
  }
  return "unknown";
}

std::string_view hint_name(std::size_t kind) {
  static constexpr std::array<std::string_view, kHintKinds> kNames = {
      "session", "session_over", "tool_call", "return", "priority"};
  return kNames.at(kind);
}

std::array<bool, kHintKinds> said(const policy::Hints& hints) {
  return {hints.session.has_value(), hints.is_over, hints.is_tool_call,
          hints.returns_in > Nanoseconds(0), hints.priority != policy::Priority::kNormal};
}

}  // namespace terrace::manager
