// How long an onboard read from disk takes while the tier writes as much as it can, beside how long
// it takes on an idle device: the production disk tier on a simulated device, so that the figure is
// the same on every machine and depends on nothing but the order in which the tier asks.
// Threading: one thread.  Waits: never: the clock is virtual.
#pragma once

#include <cstdint>
#include <functional>

#include "terrace/sim/device_rig.h"
#include "terrace/tier/disk/disk_tier.h"

namespace terrace::sim {

struct OnboardLoad {
  DeviceModel device{};  // Fixed service: no jitter unless one is asked for.
  unsigned depth = 64;   // Of the backend.
  std::uint64_t payload_bytes = 256 << 10U;
  unsigned blocks_per_read = 1;  // Begun together; the read is over with the last of them.
  unsigned reads = 1'000;  // Measured, idle and loaded each, after a tenth as many unmeasured.
  Nanoseconds between_reads = milliseconds(4);  // On average; they come at random.
  transfer::IoClass read_class = transfer::IoClass::kTtftRead;
  std::uint64_t seed = 1;
  std::function<void(tier::DiskTier::Options&)> tune{};
};

struct OnboardTimes {
  Nanoseconds idle_p50{0};
  Nanoseconds idle_p99{0};
  Nanoseconds loaded_p50{0};
  Nanoseconds loaded_p99{0};
  // Of what the device could write if it did nothing else: what the load was worth.
  double written_share = 0;
  [[nodiscard]] double ratio() const {
    return static_cast<double>(loaded_p99.value()) / static_cast<double>(idle_p99.value());
  }
};

// Aborts (TERRACE_CHECK) if the tier does not open or a read fails: nothing is broken here.
[[nodiscard]] OnboardTimes measure_onboard(const OnboardLoad& load);

}  // namespace terrace::sim
