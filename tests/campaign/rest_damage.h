// Damage of what lies on a medium, while nobody looks and while somebody serves it: flipped bits in
// every field and in payloads, zeroed sectors, blocks that changed places, and older states of a
// place. Each is a miss, or finds the right bytes.
// Threading: thread-compatible.  Waits: for the tiers' I/O, bounded.
#pragma once

#include <string>

#include "campaign/report.h"

namespace terrace::campaign {

void damage_disk(const std::string& backend, std::uint64_t seed, int rounds, Figures& figures);
void damage_packs(std::uint64_t seed, int rounds, Figures& figures);

}  // namespace terrace::campaign
