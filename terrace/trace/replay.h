// Replays a workload through a host pool and, if there is one, a disk pool below, as the manager
// uses them: what a request computes is sealed in host and offered to the disk's admission filter,
// what it hits is a sighting and written when the filter wants it by then, and what host evicts is
// asked about again. A request holds its blocks to its end and lets go of the deepest first.
// Threading: thread-compatible.  Waits: never.  Memory: that of the pools and the filter.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "terrace/catalog/pool.h"
#include "terrace/policy/admission/admission.h"
#include "terrace/trace/workload.h"

namespace terrace::trace {

struct Counts {
  std::uint64_t blocks = 0;  // Of all prompts.
  std::uint64_t host_hits = 0;
  std::uint64_t disk_hits = 0;    // Prefix-contiguous, as those of host.
  std::uint64_t disk_writes = 0;  // Blocks.
  // `part` in percent of all prompt blocks; 0 of a workload without any.
  [[nodiscard]] double percent(std::uint64_t part) const {
    return blocks == 0 ? 0 : 100.0 * static_cast<double>(part) / static_cast<double>(blocks);
  }
};

class Replay {
 public:
  struct Options {
    std::uint32_t host_slots = 0;
    std::uint32_t disk_slots = 0;  // 0 = no disk.
    std::string eviction = "lru";
    std::string admission = "all";
  };
  // Errors: kInvalid for no host slots or unknown policies, kExhausted if memory is refused.
  static Result<Replay> create(const Options& options);
  Counts run(const Workload& workload);

 private:
  Replay() = default;
  void serve(const Request& request, const std::vector<std::uint32_t>& blocks);
  // In both pools.
  void note_use(policy::ReturnClass of, policy::Priority priority);
  void compute(std::size_t from, catalog::PinRun& run);
  // Takes what leads from wherever it lies; returns how many blocks.
  std::size_t load(catalog::PinRun& run);
  void sight(const BlockKey& key);
  bool store(const BlockKey& key, catalog::PinRun& run);
  void write(const BlockKey& key);
  [[nodiscard]] bool has_on_disk(const BlockKey& key) const {
    return disk_ != nullptr && disk_->contains(key);
  }

  std::shared_ptr<policy::ReturnModel> returns_;
  std::unique_ptr<catalog::Pool> host_;
  std::unique_ptr<catalog::Pool> disk_;
  std::unique_ptr<policy::AdmissionFilter> filter_;
  std::vector<SequenceHash> hashes_;  // Of the request that is served.
  Nanoseconds now_{0};
  Counts counts_;
};

}  // namespace terrace::trace
