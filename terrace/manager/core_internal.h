// The owner's logic without threads and without I/O: look-ups, offloads, steps, the ledger. It is
// told what happened (engine calls, reports, attachments, finished I/O) and hands out what is to be
// done. So seeded simulations and tests drive the production code with virtual time. Threading:
// thread-compatible; the manager's lock guards it.  Waits: never. Source:
// docs/adr/0011-the-owners-logic-is-a-state-machine.md.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "terrace/attach/attach_server.h"
#include "terrace/manager/block_manager.h"
#include "terrace/manager/context_internal.h"
#include "terrace/manager/copy_budget_internal.h"
#include "terrace/manager/gate_internal.h"
#include "terrace/manager/hit_window.h"
#include "terrace/manager/ledger_ring.h"
#include "terrace/manager/look_ups_internal.h"
#include "terrace/manager/packs_internal.h"
#include "terrace/manager/quarantine_internal.h"
#include "terrace/manager/rate_line_internal.h"
#include "terrace/manager/reads_internal.h"
#include "terrace/manager/request_internal.h"
#include "terrace/manager/shadows_internal.h"
#include "terrace/manager/sightings_internal.h"
#include "terrace/manager/steps_internal.h"
#include "terrace/manager/writes_internal.h"

namespace terrace::manager {

// Is a sealed host block still what its checksums say? Asked after a rank found a load bad.
struct CheckJob {
  std::uint64_t token = 0;
  GroupId group{};
  SlotIndex slot{};
  std::vector<Checksum> checksums{};
};

// What of a request's chain does the shared store have?
struct ProbeJob {
  RequestId request{};
  std::vector<SequenceHash> chain{};
  Nanoseconds deadline{0};
};

struct Jobs {
  std::vector<std::uint64_t> cancels;  // Reads that nobody wants any more, begun before.
  std::vector<ReadJob> reads;
  std::vector<WriteJob> writes;
  std::vector<CheckJob> checks;
  std::vector<ProbeJob> probes;
  std::vector<PackJob> packs;
  std::vector<CompareJob> comparisons;
};

class Core {
 public:
  // `answers`: where polls find what they need not ask for. `ledgers`: where requests that ended
  // are kept.
  Core(const Options& options, std::uint64_t owner, Counters& counters, AnswerBoard& answers,
       LedgerRing& ledgers, Nanoseconds now);

  // ---- Opening.
  void open_host(std::unique_ptr<tier::HostTier> host);
  // `lower` outlives the core's use of it, until close_lower().
  void open_lower(LowerTier& lower);
  // `objects` outlives the core's use of it, until close_objects().
  void open_objects(tier::ObjectTier& objects);
  // No shared store from now on. `reason` empty = none was wanted.
  void close_objects(const std::string& reason);
  // No disk from now on. `reason` empty = none was wanted. `has_remains`: a later owner may find
  // something there.
  void close_lower(const std::string& reason, bool has_remains);
  // The disk leg of the canary came back right (empty) or not: blocks on disk may be offered, or
  // never.
  void on_lower_canary(const std::string& problem);
  // A host slot for the disk leg; not sealed, freed when dropped. Errors: kExhausted.
  [[nodiscard]] Result<catalog::FillingSlot> reserve_canary();
  void shut(const std::string& reason) {
    gate_.shut(reason);
    context_.answers.revoke_all();
  }
  void on_attach(const attach::AttachEvent& event, Nanoseconds now);

  // ---- Engine. See block_manager.h.
  Request& add_request(std::unique_ptr<Request> request, Nanoseconds now);
  // Null if unknown.
  [[nodiscard]] Request* find(RequestId request);
  // The same; nobody else looks at its chain until `is_growing` is cleared.
  [[nodiscard]] Request* find_to_grow(RequestId request) {
    Request* found = find(request);
    if (found != nullptr) found->is_growing = true;
    return found;
  }
  [[nodiscard]] MatchAnswer poll(Request& request, Tokens local, Tokens limit, Nanoseconds now);
  [[nodiscard]] Status accept(Request& request, Tokens local, Tokens external,
                              std::span<const std::span<const std::uint32_t>> block_tables,
                              Nanoseconds now);
  void advance(Request& request, const Progress& progress);
  // Nothing when nothing is due.
  [[nodiscard]] std::optional<wire::Orders> build_orders(Nanoseconds now);
  [[nodiscard]] Status take_report(const wire::Report& report, Nanoseconds now);
  // Nothing is stored of steps that are ordered and not over, nor of the one being put together.
  void taint_steps();
  void hint(Request& request, const GivenHints& given, Nanoseconds now);
  [[nodiscard]] Ledger end_request(Request& request, Nanoseconds now, const AnswerEnd& end = {});
  [[nodiscard]] std::vector<Event> take_events();
  // Nothing stored before matches in this process from here on.
  void reset();
  // Answers whether that is a change.
  bool set_mode(Mode mode);
  // Whether no later owner can find it either. Nothing while the I/O thread may still bring that
  // about; kUnavailable, with what to do, when it cannot.
  [[nodiscard]] std::optional<Status> drop_outcome() const;
  // The same, and what is in the way, once nobody waits any more.
  [[nodiscard]] Status undropped() const;
  void poison(const std::string& reason);
  // The same where nothing may be thrown and no memory is to be had; the reason follows if it can.
  void poison_at_once() noexcept;
  [[nodiscard]] bool is_poisoned() const { return is_poisoned_; }

  // ---- I/O thread.
  // Deadlines, eviction ahead.
  void tick(Nanoseconds now);
  void take_jobs(std::size_t limit, Nanoseconds now, Jobs& jobs);
  void put_back_read(std::uint64_t token) { reads_.put_back(token); }
  void put_back_write(std::uint64_t token) { writes_.put_back(token); }
  void put_back_pack(std::uint64_t token) { packs_.put_back(token); }
  // The shared store was asked about a request's chain, or could not be.
  void on_probed(RequestId request, Nanoseconds now);
  void on_read(std::uint64_t token, const Status& status, std::span<const Checksum> checksums,
               std::uint64_t alias, Nanoseconds now);
  void on_write(std::uint64_t token, const Status& status) { writes_.finish(token, status); }
  void on_pack(std::uint64_t token, const Status& status) { packs_.finish(token, status); }
  void on_check(std::uint64_t token, bool is_right);
  // True: beyond the floor. The service has ended, and both versions stay until on_kept().
  [[nodiscard]] bool on_compared(const Compared& found);
  // Where both versions lie, or why they do not.
  void on_kept(std::uint64_t token, const std::string& where);
  // Before anything is served: where a quarantine of this namespace is written down, and what an
  // earlier owner wrote there.
  void open_quarantine(std::vector<std::string> marks, const std::optional<FoundQuarantine>& found);
  // What eviction learned is to go to the disk: every ten minutes in which requests ended, and once
  // more at the close.
  [[nodiscard]] bool is_learned_due(Nanoseconds now) const;
  [[nodiscard]] std::string take_learned(Nanoseconds now);
  // No more stores and loads; what is queued for disk is still written.
  void begin_close();
  void stop_writes() {
    writes_.stop();
    packs_.stop();
  }

  // ---- Facts.
  [[nodiscard]] bool has_jobs() const;
  // Leading blocks that were computed, and that offload.scope lets be stored. In every mode.
  [[nodiscard]] std::uint64_t storable(const Request& request) const;
  // What of it is told when it ends; nothing of one that is unknown or not keyed.
  [[nodiscard]] std::optional<EndedChain> ended_chain(RequestId id, const AnswerEnd& end,
                                                      Nanoseconds now) const;
  // Nobody has switched storing off: old packs may be removed from the shared store, too.
  [[nodiscard]] bool allows_upkeep() const {
    return context_.mode == Mode::kOn && context_.options.can_store && !is_closing_;
  }
  [[nodiscard]] bool has_queued_writes() const {
    return writes_.size() + packs_.size() > 0 || (is_closing_ && is_learned_due(Nanoseconds(0)));
  }
  [[nodiscard]] Context& context() { return context_; }
  [[nodiscard]] const Context& context() const { return context_; }
  [[nodiscard]] const Gate& gate() const { return gate_; }
  [[nodiscard]] const HitWindow& hits() const { return hits_; }
  [[nodiscard]] const Steps& steps() const { return steps_; }
  [[nodiscard]] const LookUps& look_ups() const { return look_ups_; }
  [[nodiscard]] std::size_t requests() const { return requests_.size(); }
  // Adds those whose name begins with `name` to `found`, as far as it has room.
  void find_running(std::string_view name, Nanoseconds now, std::vector<KeptLedger>& found) const;
  [[nodiscard]] std::size_t reads() const { return reads_.size(); }
  [[nodiscard]] std::size_t writes() const { return writes_.size(); }
  [[nodiscard]] const Packs& packs() const { return packs_; }
  [[nodiscard]] const Shadows& shadows() const { return shadows_; }
  [[nodiscard]] const std::string& objects_problem() const { return objects_problem_; }
  [[nodiscard]] bool is_lower_settled() const { return is_lower_settled_; }
  [[nodiscard]] const std::string& lower_problem() const { return lower_problem_; }
  [[nodiscard]] const std::string& poison_reason() const { return poison_reason_; }
  // Something for the engine to fetch appeared since the last call.
  [[nodiscard]] bool take_signal() { return std::exchange(has_signal_, false); }

  // What the tiers' eviction asks; null if none does.
  [[nodiscard]] std::shared_ptr<policy::ReturnModel> returns() { return context_.returns; }

 private:
  struct Check {
    catalog::Pin pin{};
    BlockKey key{};
    bool is_begun = false;
  };
  struct Comparison {
    catalog::Pin stored{};
    catalog::FillingSlot computed{};
    Tally tally{};
    BlockKey key{};
    std::vector<Checksum> checksums{};  // [rank], of what was computed.
    bool is_begun = false;
  };
  [[nodiscard]] Serving serving(Nanoseconds now) const;
  // Every tier below host is open, or will not be.
  [[nodiscard]] bool is_below_settled() const;
  [[nodiscard]] bool wants_objects() const { return bool{context_.options.object.open_store}; }
  [[nodiscard]] bool can_store_now() const;
  // As far as every group's table goes.
  [[nodiscard]] std::uint64_t blocks_in(
      std::span<const std::span<const std::uint32_t>> block_tables) const;
  void add_load(Request& request, std::uint64_t first, std::uint64_t count,
                std::span<const std::span<const std::uint32_t>> block_tables);
  void offload(Request& request, std::uint64_t end,
               std::span<const std::span<const std::uint32_t>> tables);
  // False when this step takes no more. `is_in_doubt`: a load of a host copy failed, and whether
  // that copy is bad is still being checked.
  [[nodiscard]] bool offload_block(const Request& request, std::uint64_t block,
                                   std::span<const std::span<const std::uint32_t>> tables,
                                   bool& is_in_doubt);
  // A request that is checked: its blocks are copied out beside the stored ones.
  void order_comparisons(Request& request, const Progress& progress);
  void order_comparison(const Request& request, GroupId group, std::uint32_t device_block);
  void finish_comparisons(Step& step);
  void judge(Save save);
  void take_comparisons(Jobs& jobs);
  void note_noise(const Difference& difference);
  void quarantine(std::string reason);
  [[nodiscard]] std::uint64_t leading_in_host(std::span<const SequenceHash> hashes);
  [[nodiscard]] bool is_held(const Request& request, std::uint64_t block,
                             const BlockKey& key) const;
  [[nodiscard]] bool is_step_full() const;
  void add_save(const Request& request, GroupId group, std::uint64_t block,
                catalog::FillingSlot slot, std::uint32_t device_block);
  // True when blocks that it loaded are bad: whatever was ordered since may build on them.
  bool finish(Step step, Nanoseconds now);
  void finish_all(std::vector<Step> over, Nanoseconds now);
  void finish_loads(Step& step);
  void finish_batch(const LoadBatch& batch, bool is_known, Nanoseconds copy_time);
  void settle_decision(Decision& decision, Nanoseconds copy_time);
  void settle_late(const LoadBatch& batch);
  // What of its prompt nobody asked the tiers for, and why.
  void close_ledger(Request& request, Nanoseconds now);
  void finish_saves(Step& step, Nanoseconds now);
  void keep_roots(RequestId id, std::size_t stored, Nanoseconds now);
  // Its blocks were used to its end; what it stores is sealed by and by.
  void note_end(Request& request, const AnswerEnd& end, Nanoseconds now);
  void settle_ended(std::span<const RequestId> stored);
  // Nothing when somebody else's block of this key was first.
  [[nodiscard]] std::optional<catalog::Pin> seal(Save& save);
  // Their requests offer them again.
  void drop_saves(std::span<const Save> saves, Counter& counter);
  void rewind(RequestId request, std::uint64_t block);
  void finish_canary(const Step& step, Nanoseconds now);
  void lose_canary(Nanoseconds now);
  void observe(const Step& step, Nanoseconds now);
  void question(SlotRef slot);
  // False while somebody else holds it.
  bool remove_condemned(SlotRef slot);
  void take_checks(std::size_t limit, Jobs& jobs);
  // A block came from the shared store into host.
  void promote(ReadOutcome outcome, Nanoseconds now);
  // Nothing more is read from disk; who waits for it is told.
  void cancel_reads();
  void load_learned(const LowerTier& lower);
  void order_canary(Nanoseconds now);
  void log_hits(Nanoseconds now);
  void log_rates(Nanoseconds now);

  Context context_;
  Gate gate_;
  Reads reads_;
  Writes writes_;
  Sightings sightings_;
  Packs packs_;
  Shadows shadows_;
  LookUps look_ups_;
  Steps steps_;
  HitWindow hits_;
  Nanoseconds hits_logged_at_;
  std::uint64_t hits_logged_ended_ = 0;
  RateLine rates_;
  CopyBudget copy_budget_;
  LedgerRing& ledgers_;
  std::unordered_map<RequestId, std::unique_ptr<Request>> requests_;
  // Requests that ended before the reports of their loads came: an engine ends a request that asked
  // for one token within the step that loads its prompt.
  struct Unreported {
    Ledger ledger;
    std::uint64_t number = 0;  // In `ledgers_`.
  };
  std::unordered_map<RequestId, Unreported> unreported_;
  // Requests that ended before their last blocks were sealed.
  struct Ended {
    std::vector<SequenceHash> chain;
    policy::Use use;
  };
  std::unordered_map<RequestId, Ended> ended_;
  std::uint64_t last_check_ = 0;
  std::unordered_map<std::uint64_t, Check> checks_;
  std::unordered_map<std::uint64_t, Comparison> comparisons_;
  std::vector<SlotRef> to_remove_;  // Found bad while somebody else still holds them.
  Nanoseconds canary_ordered_{0};
  int canary_waits_ = 0;
  Nanoseconds learned_at_;              // The last time that the disk was given it,
  std::uint32_t learned_requests_ = 0;  // and the requests that had ended by then.
  bool has_learned_last_ = false;
  std::uint64_t wrong_hints_ = 0;      // Since the log heard of them,
  std::optional<Nanoseconds> warned_;  // which was then.
  bool has_more_to_touch_ = false;     // Or sightings to tell.
  bool is_lower_settled_ = false;
  std::string lower_problem_;
  bool has_no_objects_ = false;  // Or they came so late that nobody waits for them.
  std::string objects_problem_;
  bool has_lower_remains_ = true;  // Until it is known.
  bool was_reset_ = false;
  bool is_closing_ = false;
  bool has_signal_ = false;
  bool is_poisoned_ = false;
  std::string poison_reason_;
};

}  // namespace terrace::manager
