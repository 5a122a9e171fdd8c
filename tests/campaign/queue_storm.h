// Storms of faults over the transfer queues: each transfer and each request ends exactly once,
// whatever its device or store does, and what was given back is not touched again.
// Threading: thread-compatible.  Waits: for I/O, bounded.
#pragma once

#include <memory>
#include <string>

#include "campaign/report.h"
#include "terrace/base/rng.h"
#include "terrace/transfer/object_store.h"

namespace terrace::campaign {

// Over a real file and the backend of that name.
void storm_queue(const std::string& backend, std::uint64_t seed, int steps, Figures& figures);

// Over `store`, which may fail in ways of its own. `name`: in the figures.
void storm_object_queue(const std::string& name, std::unique_ptr<transfer::ObjectStore> store,
                        std::uint64_t seed, int steps, Figures& figures);

}  // namespace terrace::campaign
