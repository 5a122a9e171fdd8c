// A rank's side: copies between the engine's blocks and its lane as the orders say, checksums what
// leaves, verifies what returns, reports. A bad block is always named, never passed on.
// Threading: engine-thread calls (run_*, build_report) one at a time; the rest thread-safe.
// Owns: the attachment; the engine owns the regions, which outlive the worker.
// Waits: run_* copy memory; close() up to its limit; nothing else.  Source: docs/architecture.md
// and docs/formats/orders.md.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/log.h"
#include "terrace/base/status.h"
#include "terrace/block/layout.h"
#include "terrace/memory/device/api/device.h"
#include "terrace/wire/orders.h"

namespace terrace::worker {

using DeviceRegion = memory::DeviceRegion;
using GroupRegions = memory::GroupRegions;

// For status pages. Counts are of blocks since open().
struct WorkerFacts {
  bool is_attached = false;
  std::uint64_t owner = 0;
  Epoch epoch;
  bool uses_huge_pages = false;
  std::uint32_t extents = 0;
  std::uint32_t populated_extents = 0;
  std::uint64_t loaded = 0;
  std::uint64_t corrupt = 0;  // Loads whose bytes did not match their checksum.
  std::uint64_t refused = 0;  // Loads and saves that could not be run at all.
  std::uint64_t saved = 0;
  wire::CanaryResult canary = wire::CanaryResult::kNotRun;
  unsigned threads = 1;
  std::string device;
  std::string problem;
};

class Worker {
 public:
  struct Options {
    RankId rank;
    Layout layout;
    std::vector<GroupRegions> groups;
    std::string engine_id;
    std::string attach_directory;
    Nanoseconds attach_timeout = seconds(120);
    unsigned threads = 2;  // For copies, the caller's included.
    // Replaces the cpu device over `groups`: another accelerator, or a fault in a test.
    std::shared_ptr<const memory::Device> device;
  };
  // Errors: kInvalid names what is wrong with the regions (stride < bytes, null address, overlap
  // …), rank, layout or attach.directory.
  static Result<std::unique_ptr<Worker>> open(Options options, const Clock& clock, LogSink& log);
  ~Worker();  // close(), if that was not done; what hangs even then is left, with all it uses.
  // Lets a running call finish, then stops the threads; further calls are kClosed. Takes at most
  // `limit` for the call and kCloseGrace for the threads. False: a copy or a thread hangs, and goes
  // on one day with this object, its clock and its log; call again, or leave them alone.
  // Thread-safe.
  [[nodiscard]] bool close(Nanoseconds limit);
  static constexpr Nanoseconds kCloseGrace = seconds(1);

  // Does nothing when the orders ask for no canary. Errors: kInvalid, kRefused = unreadable orders;
  // kUnavailable = not attached, or another owner's orders; kCorrupt = it differs: reported too.
  [[nodiscard]] Status run_canary(std::span<const std::byte> encoded);
  // Device blocks of any group that must not be used, ascending. If orders cannot be run at all
  // (not attached, other owner), all their blocks. Errors: kInvalid, kRefused = they cannot be
  // read. std::bad_alloc: as if never called, and the step's saves are not run either.
  [[nodiscard]] Result<std::vector<std::uint32_t>> run_loads(std::span<const std::byte> encoded);
  // All loads of the orders as failed, nothing touched: for a poisoned instance.
  [[nodiscard]] Result<std::vector<std::uint32_t>> refuse_loads(std::span<const std::byte> encoded);
  // What could not be saved is reported as not filled; orders of nothing are reported as well, so
  // that the owner knows how long their step took. Errors: kInvalid, kRefused = unreadable
  // orders; kUnavailable = their loads were not run, so nothing is saved or reported.
  [[nodiscard]] Status run_saves(std::span<const std::byte> encoded);
  // Encoded wire::Reports, one after the other, of all work since the last call, one for each step;
  // empty when there was none.
  [[nodiscard]] std::string build_report();

  [[nodiscard]] bool is_attached() const;
  [[nodiscard]] std::string problem() const;
  [[nodiscard]] WorkerFacts facts() const;

 private:
  struct State;
  explicit Worker(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace terrace::worker
