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
  }
  return "unknown";
}

}  // namespace terrace::manager
