// A rank's side: copies between the engine's blocks and its lane as the orders say, checksums what
// leaves, verifies what returns, reports. A bad block is always named, never passed on.
// Threading: engine-thread calls (run_*, build_report) one at a time; the rest thread-safe.
// Owns: the attachment; the engine owns the regions, which outlive the worker.
// Waits: run_* copy memory; nothing else.
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
#include "terrace/wire/orders.h"

namespace terrace::worker {

// One piece of a group in the engine's memory: block b's bytes at address + b * block_stride.
struct DeviceRegion {
  std::byte* address = nullptr;
  std::uint64_t block_stride = 0;
  std::uint64_t piece_bytes = 0;
};

struct GroupRegions {
  std::vector<DeviceRegion> regions;
  std::uint64_t block_count = 0;
  bool has_null_block = false;
  std::uint32_t null_block = 0;
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
  };
  // Errors: kInvalid names what is wrong with the regions (stride < bytes, null address, overlap …).
  static Result<std::unique_ptr<Worker>> open(Options options, const Clock& clock, LogSink& log);
  ~Worker();

  [[nodiscard]] Status run_canary(std::span<const std::byte> orders);
  // Device blocks of group 0 that must not be used. If orders cannot be run at all (not attached, other
  // owner), all their blocks; if they cannot be read: kInvalid.
  [[nodiscard]] Result<std::vector<std::uint32_t>> run_loads(std::span<const std::byte> orders);
  // All loads of the orders as failed, nothing touched: for a poisoned instance.
  [[nodiscard]] Result<std::vector<std::uint32_t>> refuse_loads(std::span<const std::byte> orders);
  [[nodiscard]] Status run_saves(std::span<const std::byte> orders);
  // Encoded wire::Report of all work since the last call; empty when there was none.
  [[nodiscard]] std::string build_report();

  [[nodiscard]] bool is_attached() const;
  [[nodiscard]] std::string problem() const;

 private:
  struct State;
  explicit Worker(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace terrace::worker
