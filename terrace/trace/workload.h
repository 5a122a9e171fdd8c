// What a replay is fed with: requests in order of arrival, each a path in a tree of prompt blocks.
// Blocks are numbered in order of appearance, so equal numbers are equal prefixes.
// Threading: thread-compatible.  Waits: never.
// Memory: 4 bytes per distinct block, 88 per request.  Source: docs/formats/traces.md.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/policy/returns/return_model.h"

namespace terrace::trace {

// Whose request it is: the trace's own, or mixed in by a scenario.
enum class Part : std::uint8_t { kTrace = 0, kScan = 1, kBurst = 2 };
inline constexpr std::size_t kPartCount = 3;

struct Request {
  Nanoseconds at{0};
  std::uint32_t tip = 0;    // Number + 1 of its deepest block; 0 = it has no block.
  std::uint32_t depth = 0;  // Blocks of its prompt.
  std::uint32_t answer_tokens = 0;
  policy::Ending ending = policy::Ending::kUnknown;
  policy::Hints hints{};  // Of traces none; foresight.h makes some.
  Part part = Part::kTrace;
  std::uint32_t prompt_tokens = 0;  // 0 = not said: those of its blocks.
  std::uint32_t answer_tip = 0;     // As tip, of the blocks that its answer adds; 0 = not known.
};

class Workload {
 public:
  [[nodiscard]] const std::vector<Request>& requests() const { return requests_; }
  [[nodiscard]] std::size_t unique_blocks() const { return parents_.size(); }
  // Prompt blocks of all requests.
  [[nodiscard]] std::uint64_t references() const { return references_; }
  // Tokens of a block; 0 = nobody said.
  [[nodiscard]] std::uint32_t block_tokens() const { return block_tokens_; }
  // False if another number was said before.
  [[nodiscard]] bool set_block_tokens(std::uint32_t tokens);
  // Numbers of one request's blocks, in chain order, in place of what `blocks` held.
  void chain(const Request& request, std::vector<std::uint32_t>& blocks) const;
  // Number + 1 of the block before `block` in its chain; 0 = it is the first.
  [[nodiscard]] std::uint32_t parent(std::uint32_t block) const { return parents_[block]; }

  // One more block below `tip` (number + 1, 0 = none); returns its number + 1.
  std::uint32_t add_block(std::uint32_t tip);
  void add_request(const Request& request);
  // By time of arrival; those of one time stay in the order in which they were added.
  void sort();

 private:
  std::vector<std::uint32_t> parents_;
  std::vector<Request> requests_;
  std::uint64_t references_ = 0;
  std::uint32_t block_tokens_ = 0;
};

// Turns ids that mean something within one scope (a trace file, a conversation) into blocks.
class Scope {
 public:
  explicit Scope(Workload& workload) : workload_(workload) {}
  // The deepest block of the chain `ids`, made where it was not there.
  [[nodiscard]] std::uint32_t tip(std::span<const std::uint64_t> ids);

 private:
  struct Step {
    std::uint32_t tip;
    std::uint64_t id;
    friend bool operator==(const Step&, const Step&) = default;
  };
  struct StepHash {
    std::size_t operator()(const Step& step) const {
      return (step.id * 0x9E3779B97F4A7C15ULL) ^ (step.tip * 0xC2B2AE3D27D4EB4FULL);
    }
  };
  Workload& workload_;
  std::unordered_map<Step, std::uint32_t, StepHash> children_;
  // The chain before: the next one mostly begins with it.
  std::vector<std::uint64_t> last_ids_;
  std::vector<std::uint32_t> last_tips_;
};

}  // namespace terrace::trace
