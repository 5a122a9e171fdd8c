// The policies that settings can name.
#include <fmt/format.h>

#include "terrace/policy/eviction/eviction.h"

namespace terrace::policy {

Result<std::unique_ptr<EvictionPolicy>> make_eviction(std::string_view name, std::uint32_t slots,
                                                      std::shared_ptr<const ReturnModel> returns) {
  if (slots == 0) return fail(Code::kInvalid, "an eviction policy needs at least one slot");
  std::unique_ptr<EvictionPolicy> policy;
  if (name == "lru") {
    policy = make_lru(slots);
  } else if (name == "hazard") {
    if (slots > kMostHazardSlots) {
      return fail(Code::kInvalid,
                  fmt::format("eviction hazard knows {} slots at most, and the tier "
                              "has {}: choose eviction lru, or lower the tier's size",
                              kMostHazardSlots, slots));
    }
    policy = make_hazard(slots, std::move(returns));
  } else {
    return fail(Code::kInvalid,
                "eviction policy \"" + std::string(name) + "\" is unknown; known: hazard, lru");
  }
  if (policy == nullptr) {
    return fail(Code::kExhausted, "no memory for the eviction order of " + std::to_string(slots) +
                                      " slots: lower the tier's size");
  }
  return policy;
}

}  // namespace terrace::policy
