#include "terrace/block/location.h"

namespace terrace {

std::string_view to_string(Tier tier) {
  switch (tier) {
    case Tier::kDevice:
      return "device";
    case Tier::kHost:
      return "host";
    case Tier::kDisk:
      return "disk";
    case Tier::kObject:
      return "object";
    case Tier::kPeer:
      return "peer";
  }
  return "unknown";
}

}  // namespace terrace
