// Opens the tiers in the background, in the order in which they are of use: host memory, the
// rendezvous, the weights' digest, the disk, the shared store; then makes host memory present while
// serving, and tries again to open a store that was not there.
// Threading: run_opening is the body of `terrace-open`.  Waits: for I/O; ends soon after stop.
#pragma once

#include <atomic>
#include <memory>
#include <stop_token>

#include "terrace/base/hands.h"
#include "terrace/base/mutex.h"
#include "terrace/manager/io_driver_internal.h"

namespace terrace::manager {

// What the opening thread makes. A part is complete before its flag is set; status reads only then.
struct Opened {
  // Held by who asks the tiers from outside (status, metrics, scrub), and by close() while it takes
  // them away. Before the manager's lock.
  mutable Mutex guard;
  std::unique_ptr<Hands> hands;  // Encrypt for the tiers below.
  std::unique_ptr<attach::AttachServer> attach;
  std::unique_ptr<tier::DiskTier> disk;
  std::unique_ptr<LowerTier> lower;
  std::unique_ptr<tier::ObjectTier> objects;
  Fingerprint fingerprint;  // With the weights.
  std::atomic<bool> has_attach{false};
  std::atomic<bool> has_disk{false};
  std::atomic<bool> has_objects{false};
  std::atomic<bool> has_fingerprint{false};

  // Nobody finds them any more when they begin to close, each for at most `limit`. False = one of
  // them was left behind, and goes on with host memory, clock, log and driver.
  [[nodiscard]] bool close_tiers(Nanoseconds limit) {
    std::unique_ptr<Hands> last;
    std::unique_ptr<tier::DiskTier> then;
    std::unique_ptr<LowerTier> next;
    std::unique_ptr<tier::ObjectTier> first;
    {
      const MutexLock lock(guard);
      last.swap(hands);
      then.swap(disk);
      next.swap(lower);
      first.swap(objects);
    }
    const bool has_store_ended = first == nullptr || first->close(limit);
    next.reset();
    const bool has_disk_ended = then == nullptr || then->close(limit);
    return has_store_ended && has_disk_ended;
  }
  // A pass of it; `has_paths`: a disk is wanted. Errors: kUnavailable = it is not open.
  [[nodiscard]] Result<std::uint64_t> start_scrub(std::uint64_t bytes_per_second, bool has_paths);
};

// About what the disk tier will hold, of all groups; known before it is open.
[[nodiscard]] std::uint64_t disk_blocks(const Options& options);
[[nodiscard]] std::uint64_t host_blocks(const Options& options);
// By the settings, for tiers of their sizes. Errors: as policy::make_admission().
[[nodiscard]] Result<std::unique_ptr<policy::AdmissionFilter>> make_disk_admission(
    const Options& options, LogSink& log);
// What the tiers below host encrypt with, and whose hands do it: made at the first call. Where the
// system refuses threads, the I/O thread encrypts by itself.
[[nodiscard]] tier::CryptOptions open_crypt(const Options& options, LogSink& log, Shared& shared,
                                            Opened& opened);
// No shared store, for now or for good. `reason` empty = none was wanted.
void go_without_objects(Shared& shared, LogSink& log, const std::string& reason);
// Ok too when none is wanted. What it returns has been told to the core and the log.
[[nodiscard]] Status open_objects(const Options& options, const Clock& clock, LogSink& log,
                                  Shared& shared, IoDriver& driver, Opened& opened);
// A store that failed to open so may be there later: its server, its mount, its credentials.
[[nodiscard]] bool may_open_later(const Status& status);
// Tries until it opens, ever more rarely, or until `stop`. `why`: of the try before.
void open_objects_later(const Options& options, const std::string& why, const Clock& clock,
                        LogSink& log, Shared& shared, IoDriver& driver, Opened& opened,
                        const std::stop_token& stop);

void run_opening(const Options& options, std::uint64_t owner, const Clock& clock, LogSink& log,
                 Shared& shared, IoDriver& driver, Opened& opened, const std::stop_token& stop);

}  // namespace terrace::manager
