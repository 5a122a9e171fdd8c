// Look-ups: what of a request lies where, how much of it is worth loading, and holding it until the
// engine has room. Poll never waits; an answer that is not ready has a deadline.
// Threading: thread-compatible; the manager's lock guards it.  Waits: never.
// Bounds: waiting requests hold at most pin_share of the host slots; beyond it answers get shorter.
// Source: docs/architecture.md.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "terrace/manager/block_manager.h"
#include "terrace/manager/context_internal.h"
#include "terrace/manager/reads_internal.h"
#include "terrace/manager/request_internal.h"
#include "terrace/manager/shadows_internal.h"
#include "terrace/manager/survey_internal.h"

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
  LookUps(Context& context, Reads& reads, Shadows& shadows)
      : context_(context), reads_(reads), shadows_(shadows), survey_(context) {}

  // Starts bringing to host what lies below it, and finding out what a shared store has. No pins
  // are taken yet.
  void begin(Request& request, Serving serving, Nanoseconds now);
  // The shared store has answered, or will not.
  void on_probed(Request& request, Serving serving, Nanoseconds now);
  // Whose chains the store is to be asked about.
  [[nodiscard]] std::vector<RequestId> take_probes() { return std::exchange(to_probe_, {}); }
  [[nodiscard]] bool has_probes() const { return !to_probe_.empty(); }
  [[nodiscard]] MatchAnswer poll(Request& request, Tokens local, Tokens limit, Serving serving,
                                 Nanoseconds now);
  // The engine took the answer: hands over the pins of blocks [first, first + blocks), by group.
  // Where groups can do with a part, fewer than asked for if they expired meanwhile; else all or
  // none.
  [[nodiscard]] std::vector<Strand> accept(Request& request, std::uint64_t first,
                                           std::uint64_t blocks);
  // Writes what the look-up came to into the ledger and the counters, then forgets it.
  void settle(Request& request, Tokens local, std::uint64_t accepted);
  // Drops what the request holds, deepest first.
  void drop(Request& request);
  // A block that the request waited for is there (`reason` empty), or will not come.
  void on_block(Request& request, GroupId group, std::uint64_t block,
                std::optional<MissReason> reason);
  // If nothing is missing any more: prepares the answer for the next poll, which then needs no
  // lock.
  void complete(Request& request, Nanoseconds now);
  // A read from below brought its block, for whomever.
  void on_disk_read(Nanoseconds now) {
    last_read_ = now;
    is_disk_stuck_ = false;
  }
  // Drops the pins of an answer that was not taken in time.
  void expire(Request& request, Nanoseconds now);

  [[nodiscard]] Survey& survey() { return survey_; }
  [[nodiscard]] const Survey& survey() const { return survey_; }
  [[nodiscard]] std::uint64_t waiting_pins() const { return waiting_pins_; }
  [[nodiscard]] std::uint64_t max_waiting_pins() const;

 private:
  [[nodiscard]] MatchAnswer miss(Request& request, std::optional<MissReason> reason,
                                 Nanoseconds now);
  // The same for a request whose tiers are not asked.
  [[nodiscard]] MatchAnswer do_without(Request& request, NotAsked why, Nanoseconds now);
  // Of a group's chain that a survey found in `runs`.
  [[nodiscard]] std::uint64_t leading_in_host(GroupId group, std::span<const SequenceHash> hashes,
                                              const std::vector<policy::SourceRun>& runs);
  // Once per look-up: the chain was used, the engine's local part included.
  void touch(Request& request, Nanoseconds now);
  // Finds, chooses and holds what is there; the rest is asked for.
  void probe(Request& request, bool may_read, Nanoseconds now);
  // Both leave strands that hold what leads them in host, and `blocks`.
  void prefetch(Request& request, std::uint64_t end, std::vector<policy::SourceRun>& runs,
                Nanoseconds now);
  // Asks the shared store about the chain, once for each request, if it may have more than the
  // `known` leading blocks. True while that is under way.
  bool is_probing(Request& request, std::uint64_t known);
  [[nodiscard]] bool awaits_probe(Request& request);
  void choose_plain(Request& request, bool may_read, Nanoseconds now);
  void choose(Request& request, bool may_read, Nanoseconds now);
  // Where the request stands in its prompt when `found` blocks from `first` on are there.
  [[nodiscard]] policy::PromptPart part_of(const Request& request, std::uint64_t first,
                                           std::uint64_t found) const;
  // How many of `found` blocks that lie in `runs` are worth loading; begins a probe if one is due.
  [[nodiscard]] std::uint64_t worth(Request& request, std::uint64_t found,
                                    const std::vector<policy::SourceRun>& runs, Nanoseconds now);
  // Reads blocks [first, end) that nobody waits for, to see how long that takes.
  void read_probe(Request& request, std::uint64_t first, std::uint64_t end, Nanoseconds now);
  [[nodiscard]] Nanoseconds deadline_of(const LookUp& look_up) const;
  // The most blocks, at most `end`, whose pins fit into what is left of the share.
  [[nodiscard]] std::uint64_t fitting(std::uint64_t first, std::uint64_t end) const;
  [[nodiscard]] std::uint64_t pins_for(std::uint64_t first, std::uint64_t end) const;
  [[nodiscard]] std::uint64_t room() const;
  // Why a run ends before this block; without time to read, what lies on disk is late.
  [[nodiscard]] MissReason why_short(const SequenceHash& hash, bool may_read);
  void collect(Request& request, Nanoseconds now);
  // Why a block is read: a look-up waits for it; the request will most likely ask; to see how long
  // that takes, whatever becomes of the request.
  enum class Purpose : std::uint8_t { kAwaited, kAhead, kProbe };
  [[nodiscard]] bool want(Request& request, GroupId group, std::uint64_t block, Purpose purpose,
                          Nanoseconds now);
  // What is not there by now is not waited for any longer.
  void give_up(Request& request, Nanoseconds now);
  // `block` of `group` will not come.
  void cut(Request& request, GroupId group, std::uint64_t block, MissReason reason);
  void charge(LookUp& look_up, std::uint64_t pins);
  void finish(Request& request, Nanoseconds now);
  [[nodiscard]] std::optional<Event> event_of(const Request& request, GroupId group,
                                              std::uint64_t block) const;

  Context& context_;
  Reads& reads_;
  Shadows& shadows_;
  Survey survey_;
  std::vector<RequestId> to_probe_;
  std::uint64_t waiting_pins_ = 0;
  // One request has waited its whole time for the tiers to open: the next ones do not, until they
  // do.
  bool has_waited_in_vain_ = false;
  // A request waited its whole time and the disk brought nothing to anybody: nobody waits for it
  // until it does. Prefetches go on asking.
  bool is_disk_stuck_ = false;
  Nanoseconds last_read_{0};
};

}  // namespace terrace::manager
