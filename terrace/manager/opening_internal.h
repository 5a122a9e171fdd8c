// Opens the tiers in the background, in the order in which they are of use: host memory, the
// rendezvous, the weights' digest, the disk; then makes host memory present while serving.
// Threading: run_opening is the body of `terrace-open`.  Waits: for I/O; ends soon after stop.
#pragma once

#include <atomic>
#include <memory>
#include <stop_token>

#include "terrace/manager/io_driver_internal.h"

namespace terrace::manager {

// What the opening thread makes. A part is complete before its flag is set; status reads only then.
struct Opened {
  std::unique_ptr<attach::AttachServer> attach;
  std::unique_ptr<tier::DiskTier> disk;
  std::unique_ptr<LowerTier> lower;
  std::unique_ptr<tier::ObjectTier> objects;
  Fingerprint fingerprint;  // With the weights.
  std::atomic<bool> has_attach{false};
  std::atomic<bool> has_disk{false};
  std::atomic<bool> has_objects{false};
  std::atomic<bool> has_fingerprint{false};
};

void run_opening(const Options& options, std::uint64_t owner, const Clock& clock, LogSink& log,
                 Shared& shared, IoDriver& driver, Opened& opened, const std::stop_token& stop);

}  // namespace terrace::manager
