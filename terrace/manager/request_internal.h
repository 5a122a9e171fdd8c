// One engine request as the owner knows it.
// Threading: thread-compatible. `chain` belongs to the engine thread, which grows it outside the
// manager's lock, `has_lost_tokens` with it; others read it under that lock, and only while
// `is_growing` is not set. Everything else is guarded by the lock.  Waits: never.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "terrace/block/sequence_hash.h"
#include "terrace/catalog/pool.h"
#include "terrace/manager/events.h"
#include "terrace/manager/ledger.h"
#include "terrace/policy/returns/return_model.h"

namespace terrace::manager {

class Survey;
struct Options;
struct RequestOptions;

// What a look-up holds of one KV group: pins for blocks from(), from() + 1, ... in chain order, the
// leading ones in a run, then a tail, which fills up as reads from disk arrive. Only Survey puts
// pins in, and none of a slot in doubt: nobody else can forget to ask.
class Strand {
 public:
  Strand(GroupId group, std::uint64_t from) : group_(group), from_(from) {}

  [[nodiscard]] GroupId group() const { return group_; }
  [[nodiscard]] std::uint64_t from() const { return from_; }
  [[nodiscard]] std::uint64_t size() const { return run_.size() + tail_.size(); }
  [[nodiscard]] std::uint64_t tail_from() const { return from_ + run_.size(); }
  // Blocks of the tail that are not held yet.
  [[nodiscard]] std::uint64_t missing() const { return missing_; }
  // Of a closed strand.
  [[nodiscard]] std::optional<SlotRef> slot_of(std::uint64_t block) const {
    if (block < from_ || block >= tail_from()) return std::nullopt;
    return run_.slot(block - from_);
  }
  [[nodiscard]] bool is_missing(std::uint64_t block) const {
    return block >= tail_from() && block < from_ + size() && !tail_[block - tail_from()].holds();
  }
  [[nodiscard]] std::optional<std::uint64_t> first_missing() const {
    for (std::uint64_t i = 0; missing_ > 0 && i < tail_.size(); ++i) {
      if (!tail_[i].holds()) return tail_from() + i;
    }
    return std::nullopt;
  }
  // Behind the run, all blocks before `end` are missing from now on.
  void await(std::uint64_t end) {
    if (tail_from() >= end) return;
    tail_.resize(end - tail_from());
    missing_ = tail_.size();
  }
  // Drops pins from the deepest on until `count` are left.
  void shrink(std::uint64_t count) {
    while (!tail_.empty() && size() > count) {
      if (!tail_.back().holds()) --missing_;
      tail_.pop_back();
    }
    run_.shrink(count);
  }
  // Nothing is missing: all is one run.
  void close() {
    for (catalog::Pin& pin : tail_) run_.add(std::move(pin));
    tail_.clear();
  }
  [[nodiscard]] catalog::PinRun take_run() { return std::move(run_); }

 private:
  friend class Survey;
  GroupId group_;
  std::uint64_t from_;
  catalog::PinRun run_;
  std::vector<catalog::Pin> tail_;
  std::uint64_t missing_ = 0;
};

// From the first poll to accept_load.
struct LookUp {
  enum class Phase : std::uint8_t {
    kNone,     // Not probed, or nothing held: the next poll probes.
    kWaiting,  // Some of the tail is on its way.
    kReady,    // Answered, or can be; held until `expires`.
  };
  Phase phase = Phase::kNone;
  bool is_fresh = false;  // Ready, and no poll has asked the core since.
  std::optional<Nanoseconds> first_poll;
  std::optional<Nanoseconds> first_probe;  // The first poll that could be served.
  std::optional<Nanoseconds> answered_at;  // The first ready answer.
  bool has_touched = false;
  std::uint64_t first = 0;  // Blocks of the request that the answer is about: [first, end).
  std::uint64_t end = 0;
  std::uint64_t blocks = 0;          // The answer, once it is complete: [first, first + blocks).
  std::uint64_t limit = UINT64_MAX;  // A read failed: not beyond this block any more.
  bool is_host_only = false;         // Nothing more is waited for.
  Nanoseconds planned_at{0};
  Bytes awaited{0};                  // From below host, by plan.
  Nanoseconds gives_up{INT64_MAX};   // The planner's patience ends.
  std::vector<Strand> strands;       // [group]; empty = nothing held.
  std::uint64_t charged = 0;         // Pins counted against the waiting requests' share.
  std::optional<MissReason> reason;  // Why the run ends where it ends.
  Nanoseconds expires{0};

  [[nodiscard]] std::uint64_t missing() const {
    std::uint64_t sum = 0;
    for (const Strand& strand : strands) sum += strand.missing();
    return sum;
  }
};

// A hit that is checked: the request computes blocks [cursor, end), which tiers have, and they are
// compared.
struct Shadow {
  bool is_drawn = false;   // Whether it is to be checked has been decided:
  bool is_wanted = false;  // its next hit is.
  bool is_on = false;      // Look-ups answer 0.
  bool has_begun = false;  // It computes.
  std::uint64_t cursor = 0;
  std::uint64_t end = 0;
  std::vector<Strand> strands;  // [group]: the stored versions.
  Nanoseconds expires{0};
};

struct Request {
  Request(RequestId request, Tokens block_tokens, std::vector<ExtraKey> keys)
      : id(request), chain(block_tokens, std::move(keys)) {}

  const RequestId id;
  SequenceChain chain;
  bool has_lost_tokens = false;  // Some are not in `chain`, which ends for good. Engine thread.

  Label name;       // What the engine calls it.
  Label unkeyable;  // Why it is not keyed, if somebody said.
  Nanoseconds began{0};
  bool is_polled = false;   // Once at least.
  bool is_growing = false;  // The engine thread may be changing `chain` at this moment.
  bool is_keyed = true;
  bool can_load = true;
  bool can_store = true;
  bool has_begun = false;  // The engine has placed it: it computes.
  bool has_looked_up = false;
  bool has_failed = false;    // A load failed: look-ups answer 0 from then on.
  bool has_given_up = false;  // A load took too long: nothing below host is waited for again.
  enum class Probe : std::uint8_t { kNone, kRunning, kDone };
  Probe probe = Probe::kNone;  // Of the shared store, about this chain.
  std::uint64_t prompt_blocks = 0;
  std::uint64_t found_blocks = 0;   // That it did not compute: the engine's own, and those loaded.
  std::uint64_t cursor = 0;         // First block that advance has not considered yet.
  std::uint64_t over_cap = 0;       // Full blocks that the last advance left for the next step,
  bool is_over_budget = false;      // for offload.time_share; else for offload.step_bytes.
  std::uint64_t over_cap_from = 0;  // The first of them.
  Tokens computed{0};
  policy::Visit visit;         // What its first look-up told the model of returns.
  bool is_prefilling = false;  // In the step that was told of last.
  LookUp look_up;
  Shadow shadow;
  std::vector<Tier> sources;  // Per block: where this request had it read from; kHost = nowhere.
  std::vector<std::uint64_t> aliases;  // The engine's own hashes as far as told.
  std::vector<std::uint32_t> tokens;   // All ids so far; only kept when somebody wants events.
  std::vector<ExtraKey> extra_keys;    // The same.
  Ledger ledger;

  [[nodiscard]] std::uint64_t alias(std::uint64_t block) const {
    return block < aliases.size() ? aliases[block] : 0;
  }
};

// What whoever learns from requests is told of one: when it begins, the first block first,
struct AskedChain {
  RequestId id{};
  Nanoseconds at{0};
  std::span<const SequenceHash> chain;
  bool is_stored = true;
};
[[nodiscard]] inline AskedChain asked_chain(const Request& request, Nanoseconds now) {
  return {request.id, now, request.chain.hashes(), request.can_store};
}
// and when it ends, prompt and answer as far as they are stored.
struct EndedChain {
  RequestId id{};
  Nanoseconds at{0};
  std::span<const SequenceHash> chain;  // The request's own.
  bool is_stored = true;
  std::size_t prompt_blocks = 0;
  std::uint64_t answer_tokens = 0;
  policy::Ending ending = policy::Ending::kUnknown;
  policy::Hints hints{};
};

// Hashes its tokens. `made_for`: the owner's options.
[[nodiscard]] std::unique_ptr<Request> make_request(RequestId id, const RequestOptions& options,
                                                    const Options& made_for);

// A `stored` event of one of the request's full blocks in one group, tier left open.
[[nodiscard]] Event describe(const Request& request, GroupId group, std::uint64_t block,
                             Tokens block_tokens);

}  // namespace terrace::manager
