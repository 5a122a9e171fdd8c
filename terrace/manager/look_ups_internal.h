// Look-ups: what of a request lies where, how much of it is worth loading, and holding it until the
// engine has room. Poll never waits; an answer that is not ready has a deadline.
// Threading: thread-compatible; the manager's lock guards it.  Waits: never.
// Bounds: waiting requests hold at most pin_share of the host slots; beyond it answers get shorter.
// Source: design.md sections 3, 5 and 7.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "terrace/manager/block_manager.h"
#include "terrace/manager/context_internal.h"
#include "terrace/manager/reads_internal.h"
#include "terrace/manager/request_internal.h"

namespace terrace::manager {

// How far the owner can serve at this moment.
enum class Serving : std::uint8_t {
  kNothing,   // Not any more, or not for a long time: miss at once.
  kNotYet,    // Opening: wait for attach_lookup_wait, then miss.
  kHostOnly,  // The disk is still opening: wait likewise, then serve from host.
  kAll,
};

class LookUps {
 public:
  LookUps(Context& context, Reads& reads) : context_(context), reads_(reads) {}

  // Starts bringing to host what lies on disk. No pins are taken yet.
  void begin(Request& request, Serving serving, Nanoseconds now);
  [[nodiscard]] MatchAnswer poll(Request& request, Tokens local, Tokens limit, Serving serving,
                                 Nanoseconds now);
  // The engine took the answer: hands over the pins of blocks [first, first + blocks). Fewer than
  // asked for when they expired meanwhile.
  [[nodiscard]] catalog::PinRun accept(Request& request, std::uint64_t first, std::uint64_t blocks);
  // Writes what the look-up came to into the ledger and the counters, then forgets it.
  void settle(Request& request, Tokens local, std::uint64_t accepted);
  // Drops what the request holds, deepest first.
  void drop(Request& request);
  // A block that the request waited for is there (`reason` empty), or will not come.
  void on_block(Request& request, std::uint64_t block, std::optional<MissReason> reason);
  // A read from disk brought its block, for whomever.
  void on_disk_read(Nanoseconds now) {
    last_read_ = now;
    is_disk_stuck_ = false;
  }
  // Drops the pins of an answer that was not taken in time.
  void expire(Request& request, Nanoseconds now);

  // A slot whose bytes are in doubt: not offered until it is cleared or removed.
  void condemn(SlotRef slot) { condemned_.push_back(slot); }
  void absolve(SlotRef slot) { std::erase(condemned_, slot); }
  [[nodiscard]] const std::vector<SlotRef>& condemned() const { return condemned_; }
  [[nodiscard]] bool is_condemned(SlotRef slot) const;
  [[nodiscard]] std::uint64_t waiting_pins() const { return waiting_pins_; }
  [[nodiscard]] std::uint64_t max_waiting_pins() const;

 private:
  static constexpr std::size_t kMaxRuns = 64;
  [[nodiscard]] MatchAnswer miss(Request& request, std::optional<MissReason> reason,
                                 Nanoseconds now);
  // Once per look-up: the chain was used, the engine's local part included.
  void touch(Request& request);
  void probe(Request& request, std::span<const SequenceHash> hashes, bool may_read,
             Nanoseconds now);
  // Leading blocks of `hashes` that some tier offers, as runs.
  [[nodiscard]] std::uint64_t survey(std::span<const SequenceHash> hashes, std::uint64_t in_host,
                                     std::vector<policy::SourceRun>& runs) const;
  // Why a run ends before this block; without time to read, what lies on disk is late.
  [[nodiscard]] MissReason why_short(const SequenceHash& hash, bool may_read);
  void collect_tail(Request& request, std::span<const SequenceHash> hashes, std::uint64_t count,
                    Nanoseconds now);
  void cut(LookUp& look_up, std::uint64_t blocks, MissReason reason);
  void charge(LookUp& look_up, std::uint64_t pins);
  void finish(Request& request, Nanoseconds now);
  [[nodiscard]] std::optional<Event> event_of(const Request& request, std::uint64_t block) const;

  Context& context_;
  Reads& reads_;
  std::uint64_t waiting_pins_ = 0;
  // One request has waited its whole time for the tiers to open: the next ones do not, until they
  // do.
  bool has_waited_in_vain_ = false;
  // A request waited its whole time and the disk brought nothing to anybody: nobody waits for it
  // until it does. Prefetches go on asking.
  bool is_disk_stuck_ = false;
  Nanoseconds last_read_{0};
  std::vector<SlotRef> condemned_;
};

}  // namespace terrace::manager
