// Engine steps between the orders and the reports of all ranks. A step holds the pins of its loads
// and the slots of its saves; it is over when no rank can touch them any more: each has reported
// it, has reported a later one (its report is lost, then), or is dead. Threading:
// thread-compatible; the manager's lock guards it.  Waits: never. Bounds: at most `max_in_flight`
// steps; beyond it loads are void, saves dropped, and a step is over as it is built. Source:
// docs/adr/0012-a-step-is-over-when-no-rank-can-touch-it.md.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "terrace/catalog/pool.h"
#include "terrace/manager/events.h"
#include "terrace/manager/packs_internal.h"
#include "terrace/manager/tally_internal.h"
#include "terrace/policy/planner/planner.h"
#include "terrace/tier/host/host_tier.h"
#include "terrace/wire/orders.h"

namespace terrace::manager {

// One KV group's part of a load, from block `from` on: host slot pins[i] into device_blocks[i];
// without a pin the order is void.
struct GroupLoad {
  GroupId group{};
  std::uint64_t from = 0;
  catalog::PinRun pins{};
  std::vector<std::uint32_t> device_blocks{};
  std::vector<bool> failed{};  // [i], filled by reports.
};

// One request's accepted load of blocks [first, first + blocks).
struct LoadBatch {
  RequestId request{};
  std::uint64_t first = 0;
  std::uint64_t blocks = 0;
  std::vector<Tier> sources{};  // [i]: where some group's part of block first + i was read from.
  std::vector<GroupLoad> groups{};

  // Leading blocks of which nothing failed.
  [[nodiscard]] std::uint64_t good() const;
  [[nodiscard]] bool has_failed() const;
  void void_all();
};

struct Save {
  RequestId request{};
  std::uint64_t block = 0;
  BlockKey key{};
  catalog::FillingSlot slot{};
  SlotRef place{};  // Of `slot`, also while quarantined.
  std::uint32_t device_block = 0;
  std::uint64_t alias = 0;
  std::optional<Event> event{};
  PackHashes pack{};                  // Null: of none that could be put as yet.
  std::uint64_t filled = 0;           // Bit per rank.
  std::vector<Checksum> checksums{};  // [rank]
  // Given: the slot is filled only to be compared with this block, which has the same key.
  catalog::Pin stored{};
  Tally tally{};

  [[nodiscard]] bool is_to_compare() const { return stored.holds(); }
};

// What a step computes of one request's prompt.
struct PrefillPart {
  RequestId request{};
  Tokens tokens{0};
};

struct Step {
  StepId id;
  Nanoseconds issued{0};
  std::vector<Epoch> epochs;      // [rank] that the orders went to.
  std::uint64_t outstanding = 0;  // Bit per rank.
  bool is_tainted = false;        // A load failed in it, or in one whose blocks it may have used.
  bool has_failures = false;      // A rank named a failed load.
  bool has_lost_reports = false;  // What some rank did is not known: its saves are not used.
  bool is_quarantined = false;
  std::vector<LoadBatch> loads;
  std::vector<Save> saves;
  std::optional<catalog::FillingSlot> canary;
  std::vector<wire::CanaryResult> canary_results;  // [rank]
  policy::PrefillStep prefilled{};
  std::vector<PrefillPart> prefills{};
  Nanoseconds load_time{0};  // Of the slowest rank.
  Bytes load_bytes{0};       // Of all ranks.
  Bytes save_bytes{0};
  Nanoseconds save_time{0};     // Of the slowest rank,
  Nanoseconds save_charged{0};  // and what CopyBudget was charged for it.

  [[nodiscard]] bool has_failed_load() const;
};

class Steps {
 public:
  struct Options {
    std::uint16_t ranks = 1;
    std::uint64_t owner = 0;
    std::size_t max_in_flight = 256;
    Nanoseconds timeout = seconds(60);
    bool times_prefill =
        false;  // A step that only computes is ordered, too, to learn how long it takes.
  };
  explicit Steps(const Options& options);

  // Into the step being put together.
  void add_load(LoadBatch batch) { next_.loads.push_back(std::move(batch)); }
  void add_save(Save save) { next_.saves.push_back(std::move(save)); }
  void add_canary(catalog::FillingSlot slot) { next_.canary = std::move(slot); }
  // Tokens [from, to) of a request are computed in it.
  void add_prefilled(RequestId request, Tokens from, Tokens to);
  // So many sequences decode in it.
  void set_beside(std::size_t sequences) {
    next_.prefilled.beside = static_cast<double>(sequences);
  }
  [[nodiscard]] bool has_load(RequestId request, std::uint64_t first) const;
  // Blocks of the request's loads in steps that are ordered and not over.
  [[nodiscard]] std::uint64_t blocks_under_way(RequestId request) const;
  // It has saves in steps that are ordered and not over.
  [[nodiscard]] bool has_saves_under_way(RequestId request) const;
  [[nodiscard]] std::size_t pending_saves() const { return next_.saves.size(); }
  [[nodiscard]] bool has_room() const { return in_flight_.size() < options_.max_in_flight; }
  // The request is gone: its saves are not ordered any more. Its loads are, as void ones: others
  // may share the blocks that nobody fills, and hear of it by the step's failures.
  void forget_pending(RequestId request);
  // Everything not ordered yet: loads become void, saves are handed back.
  [[nodiscard]] std::vector<Save> drop_pending_saves();
  void void_pending_loads();
  [[nodiscard]] bool is_due() const;
  // This engine step needs no orders.
  void skip() {
    next_.prefilled = {};
    next_.prefills.clear();
  }

  struct Built {
    wire::Orders orders{};
    std::optional<Step> over{};  // Nobody is there who could report it, or no room to wait for it.
  };
  // Closes the step being put together; `epochs` per rank, 0 = not attached. `host` may be null as
  // long as nothing was pinned or reserved.
  [[nodiscard]] Built build(std::span<const Epoch> epochs, const tier::HostTier* host,
                            Nanoseconds save_charged, Nanoseconds now);
  // Steps that are over by this report, oldest first.
  // Errors: kRefused = another owner, rank or epoch; kNotFound = no such step, or reported already.
  [[nodiscard]] Result<std::vector<Step>> take(const wire::Report& report);
  [[nodiscard]] std::vector<Step> on_death(RankId rank, Epoch epoch);
  // Steps without all reports for too long: their slots are quarantined until the ranks are known
  // to be through. Returns how many are new.
  std::size_t quarantine_overdue(Nanoseconds now);
  // All steps ordered and not over: computed beside bad blocks.
  void taint_in_flight();

  [[nodiscard]] std::size_t in_flight() const { return in_flight_.size(); }

 private:
  using InFlight = std::map<std::uint64_t, Step>;
  void clear_rank(InFlight::iterator step, RankId rank, std::vector<Step>& over);
  // Those ordered before the one reported. False if the rank had reported them all.
  bool lose_before(const wire::Report& report, std::vector<Step>& over);
  static void quarantine(Step& step);
  void add_orders(LoadBatch& batch, const tier::HostTier* host, wire::Orders& orders) const;
  static void note_failures(Step& step, const std::vector<wire::LoadFailure>& failures);
  static void note_save(Step& step, RankId rank, const wire::SaveReport& report, std::size_t hint);

  const Options options_;
  std::uint64_t last_id_ = 0;
  Step next_;
  InFlight in_flight_;
};

}  // namespace terrace::manager
