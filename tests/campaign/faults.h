// One round of ./dev campaign faults: every backend, every kind of fault, from one seed.
// Threading: thread-compatible.
#pragma once

#include "campaign/report.h"

namespace terrace::campaign {

// How long each part is, in percent of what the campaign does in a round.
void run_faults(std::uint64_t seed, int percent, Figures& figures);

}  // namespace terrace::campaign
