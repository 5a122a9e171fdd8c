// How long requests wait for their first token: the production planner says what is loaded of what
// was found, a stated model of engine, host memory and disk how long that takes. Virtual time.
//
// The engine computes so many tokens of a prompt a second, as if it were alone: requests wait for
// each other at the disk, which reads one load after the other, and nowhere else. What is loaded is
// waited for, copied to the device, and then the rest is computed; one block at least is. The
// planner learns what a load and a step took when the request has its first token, nothing before.
// Threading: thread-compatible.  Waits: never.  Memory: 24 bytes per request.
#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <span>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/policy/planner/planner.h"

namespace terrace::trace {

// A model of 8 billion weights with 128 KiB of KV a token, one accelerator, one NVMe disk.
struct CostModel {
  double prefill_tokens_per_s = 10'000;
  double token_bytes = 131'072;
  double host_bytes_per_s = 20e9;
  double disk_bytes_per_s = 3e9;
  Nanoseconds disk_latency{200'000};
};

struct EngineTimes {
  // Of the trace's own requests, in order of arrival.
  std::vector<Nanoseconds> first_token;
  std::vector<Nanoseconds> off;  // The same with everything computed.
  // The same by somebody who knows what loading and computing will take, in the same queue.
  std::vector<Nanoseconds> best;
  Nanoseconds saved_prefill{0};  // Of the blocks that were loaded.
  std::uint64_t loaded_blocks = 0;
  std::uint64_t abandoned_loads = 0;
  // The time that `share` of the requests do not exceed; 0 if there is none.
  [[nodiscard]] static Nanoseconds quantile(std::vector<Nanoseconds> times, double share);
  // How much longer all first tokens took than the best ones, in percent; 0 if there is none.
  [[nodiscard]] double regret_percent() const;
};

// A prompt of which these runs were found, in chain order from its first block on.
struct FoundPrompt {
  Nanoseconds at{0};
  std::span<const policy::SourceRun> runs = {};
  std::uint64_t tokens = 0;
  bool is_counted = true;
};

class EngineModel {
 public:
  EngineModel(const CostModel& cost, std::uint32_t block_tokens);
  // Times do not go back.
  void serve(const FoundPrompt& prompt);
  [[nodiscard]] const EngineTimes& times() const { return times_; }
  [[nodiscard]] std::uint64_t block_tokens() const { return block_tokens_; }
  [[nodiscard]] std::uint64_t block_bytes() const { return block_bytes_; }

 private:
  // What the planner is told once the request has its first token.
  struct Lesson {
    Nanoseconds at{0};
    std::uint64_t order = 0;
    std::uint64_t disk_blocks = 0;
    Nanoseconds disk_time{0};
    std::uint64_t missing_blocks = 0;  // Of an abandoned load.
    std::uint64_t copied_blocks = 0;
    Nanoseconds copy_time{0};
    Tokens computed{0};
    Nanoseconds compute_time{0};
    policy::LoadPlan plan{};
    Nanoseconds load_time{0};
    friend bool operator>(const Lesson& a, const Lesson& b) {
      return a.at == b.at ? a.order > b.order : a.at > b.at;
    }
  };
  void teach(Nanoseconds until);
  void teach(const Lesson& lesson);
  // Reads `blocks` from disk; returns when they would be there. What is not there by `give_up` is
  // left unread.
  Nanoseconds read(Nanoseconds now, std::uint64_t blocks, Nanoseconds give_up, Lesson& lesson);
  void probe(Nanoseconds now, std::uint64_t blocks);
  // What of the found runs may be loaded, in runs_; how many blocks.
  std::uint64_t take_found(const FoundPrompt& prompt);
  // The least that any number of leading blocks of runs_ would make of the prompt's time.
  [[nodiscard]] Nanoseconds best_time(const FoundPrompt& prompt) const;
  [[nodiscard]] std::uint64_t load(const FoundPrompt& prompt, std::uint64_t found, Lesson& lesson,
                                   Nanoseconds& waited);
  [[nodiscard]] Nanoseconds disk_time(std::uint64_t blocks) const;
  [[nodiscard]] Nanoseconds compute_time(std::uint64_t tokens) const;
  [[nodiscard]] Bytes bytes_of(std::uint64_t blocks) const { return Bytes(block_bytes_ * blocks); }

  const CostModel cost_;
  const std::uint64_t block_tokens_;
  const std::uint64_t block_bytes_;
  policy::Planner planner_;
  Nanoseconds disk_free_{0};  // From then on.
  std::priority_queue<Lesson, std::vector<Lesson>, std::greater<>> lessons_;
  std::uint64_t order_ = 0;
  std::vector<policy::SourceRun> runs_;  // Of the request that is served.
  EngineTimes times_;
};

}  // namespace terrace::trace
