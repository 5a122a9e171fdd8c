// Replays a workload through a host pool and, if there is one, a disk pool below, as the manager
// uses them: what a request computes is sealed in host and offered to the disk's admission filter,
// what it hits is a sighting and written when the filter wants it by then, and what host evicts is
// asked about again. So are the blocks of its answer, where the workload knows any. Where what is
// sealed is not written at once, who leaves host is chosen ahead, as many as the manager chooses;
// of what a load or a step pushes out beyond those nothing is written. A request holds its blocks
// to its end and lets go of the deepest first. What was found counts as hit, loaded or not:
// computing a block leaves it in host as loading does, so what the planner decides changes the
// times, and no hit. Threading: thread-compatible.  Waits: never.  Memory: that of the pools and
// the filter.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "terrace/catalog/free_ahead.h"
#include "terrace/catalog/leaving.h"
#include "terrace/catalog/pool.h"
#include "terrace/policy/admission/admission.h"
#include "terrace/trace/engine_model.h"
#include "terrace/trace/workload.h"

namespace terrace::trace {

struct Counts {
  std::uint64_t requests = 0;
  std::uint64_t blocks = 0;  // Of all prompts.
  std::uint64_t host_hits = 0;
  std::uint64_t disk_hits = 0;    // Prefix-contiguous, as those of host.
  std::uint64_t disk_writes = 0;  // Blocks.
  std::uint64_t stores = 0;       // Blocks copied from the engine to host.
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
    std::uint64_t admission_entries = 0;  // Of `expected`; 0 = as many as it wants.
    double admission_loss = policy::ExpectedOptions().most_lost;  // Of `expected`, likewise.
    bool is_demote = false;            // Written when host evicts; else when sealed, too.
    bool is_prompt_only = false;       // Answers are not stored.
    std::uint32_t step_tokens = 8192;  // A prompt is computed so many at once; 0 = all of them.
    CostModel cost{};
    // Makes the policy of both pools in place of `eviction`; empty = as is.
    std::function<std::unique_ptr<policy::EvictionPolicy>(std::uint32_t slots)> make_policy = {};
  };
  // Errors: kInvalid for no host slots or unknown policies, kExhausted if memory is refused.
  static Result<Replay> create(const Options& options);
  // All that was asked for.
  Counts run(const Workload& workload);
  // Of that, what requests of `part` asked for; blocks written by whomever are in run()'s alone.
  [[nodiscard]] const Counts& counts_of(Part part) const {
    return counts_[static_cast<std::size_t>(part)];
  }
  // Of the trace's own requests; none before run().
  [[nodiscard]] EngineTimes times() const { return engine_ ? engine_->times() : EngineTimes{}; }
  // 0 before run().
  [[nodiscard]] std::uint64_t block_bytes() const { return engine_ ? engine_->block_bytes() : 0; }

 private:
  explicit Replay(const Options& options)
      : is_demote_(options.is_demote),
        is_prompt_only_(options.is_prompt_only),
        step_tokens_(options.step_tokens),
        cost_(options.cost) {}
  void serve(const Workload& workload, const Request& request,
             const std::vector<std::uint32_t>& blocks);
  void note_found(Tier source);
  // In both pools.
  void note_use(policy::ReturnClass of, policy::Priority priority);
  void compute(std::size_t from, catalog::PinRun& run);
  // What the engine does after the prompt: computes the blocks of the answer.
  void answer(const Workload& workload, const Request& request, catalog::PinRun& run);
  // Takes what leads from wherever it lies; returns how many blocks.
  std::size_t load(catalog::PinRun& run);
  void sight(const BlockKey& key);
  // A block that host lacks.
  bool store(const BlockKey& key, catalog::PinRun& run);
  void write(const BlockKey& key);
  // One block leaves host where no slot is free.
  void make_room();
  // The manager's turn: chooses ahead who leaves host next.
  void choose_leaving();
  // Host's next victim, written if it is to be.
  catalog::EvictingSlot evict(const catalog::Eviction& victim);
  [[nodiscard]] bool has_on_disk(const BlockKey& key) const {
    return disk_ != nullptr && disk_->contains(key);
  }

  std::shared_ptr<policy::ReturnModel> returns_;
  std::unique_ptr<catalog::Pool> host_;
  catalog::Leaving leaving_;  // Of host.
  catalog::FreeAhead ahead_;
  std::unique_ptr<catalog::Pool> disk_;
  std::unique_ptr<policy::AdmissionFilter> filter_;
  bool is_demote_;
  bool is_prompt_only_;
  std::uint32_t step_tokens_;
  bool is_written_late_ = false;  // Much of host is not on disk.
  CostModel cost_;
  std::optional<EngineModel> engine_;
  // Of the request that is served.
  std::vector<SequenceHash> hashes_;
  std::vector<policy::SourceRun> found_;
  Nanoseconds now_{0};
  std::uint64_t writes_ = 0;
  std::uint64_t stores_ = 0;
  std::uint64_t taken_ = 0;  // Slots of host.
  std::array<Counts, kPartCount> counts_{};
};

}  // namespace terrace::trace
