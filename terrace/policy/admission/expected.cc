// Waits until a block leaves the tier above: until then nothing is lost, and more is known of it.
// What is admitted then is what is likely to be asked for again while the tier would hold it. All
// blocks of one request are judged together, when the first of them leaves: a chain without its
// beginning is worth nothing. How likely a return is was seen of others of its class in the model
// of returns, and of its age (ReturnChances); how likely it has to be follows from what was refused
// before and came back, and from how much longer the tier now holds the rest (LossBudget). Where
// nothing tells requests apart, that is a share of them, drawn at random. A block that has been
// used for an hour without ever leaving is admitted too: a restart would lose it.
//
// Blocks that nobody has told a use of are judged by their sightings: admitted at the second one
// that comes in time.
#include <algorithm>
#include <array>
#include <utility>

#include "terrace/index/zeroed_array.h"
#include "terrace/policy/admission/admission.h"
#include "terrace/policy/admission/loss_budget_internal.h"
#include "terrace/policy/admission/return_chances_internal.h"
#include "terrace/policy/admission/use_log_internal.h"

namespace terrace::policy {

namespace {

constexpr std::uint32_t kHour = 3600;
constexpr std::uint32_t kJudgeEvery = 32;            // Uses.
constexpr std::uint64_t kLeastHalfLife = 1U << 16U;  // Of what was learned, in blocks asked for.

enum Flag : std::uint8_t {
  kIsAgain = 1,    // Its last sighting came in time after the one before.
  kIsRefused = 2,  // When it left last.
  kIsGained = 4,   // A tier that admits everything would not have it, unlike this one.
  kIsShared = 32,  // By prompts that go on in different ways: all of them need it.
  kHasLeft = 16,   // The tier above, and nothing is known yet of a return.
  kIsDue = 8,      // That one would, and so should this one, which did not refuse it.
};

void set(UseLog::Entry& entry, unsigned flags, bool is_set) {
  const unsigned others = entry.flags & ~flags;
  entry.flags = static_cast<std::uint8_t>(is_set ? others | flags : others);
}

// Blocks of one use.
struct Run {
  std::uint32_t number;  // 0 = none.
  std::uint32_t at;      // Seconds.
  std::uint32_t blocks;  // That no other run has used since.
  ReturnChances::Cell cell;
  ReturnClass of;
  std::uint8_t step;
  std::uint8_t is_judged : 1;
  std::uint8_t is_refused : 1;
};
static_assert(sizeof(Run) == 20);

std::uint32_t seconds_of(Nanoseconds time) {
  return static_cast<std::uint32_t>(std::max<std::int64_t>(time.value(), 0) / 1'000'000'000);
}

class Expected final : public AdmissionFilter {
 public:
  static constexpr std::uint64_t kRuns = 1U << 15U;

  Expected(const ExpectedOptions& options, UseLog log, index::ZeroedArray<Run> runs)
      : log_(std::move(log)),
        runs_(std::move(runs)),
        budget_(std::max(kLeastHalfLife,
                         4 * (options.tier_blocks == 0 ? options.entries : options.tier_blocks))) {}

  bool admit(const BlockKey& key, Nanoseconds now) override {
    const auto found = log_.find(key);
    if (found) {
      UseLog::Entry& entry = log_[*found];
      // It was not there after all.
      if ((entry.flags & (kIsGained | kIsDue)) != 0) budget_.note_gained(-1);
      set(entry, kIsGained | kIsDue, false);
      if (entry.run != 0) return false;  // Asked about again when it leaves.
    }
    return sight(key, found, seconds_of(now));
  }

  void on_hit(const BlockKey& key, Nanoseconds now) override {
    const auto found = log_.find(key);
    if (!found || log_[*found].run == 0) sight(key, found, seconds_of(now));
  }

  bool is_wanted(const BlockKey& key, Nanoseconds now) override {
    const auto found = log_.find(key);
    if (!found) return false;
    const UseLog::Entry& entry = log_[*found];
    if (entry.run == 0) return (entry.flags & kIsAgain) != 0 && entry.is_near != 0;
    return entry.is_near != 0 && seconds_of(now) - entry.since >= kHour;
  }

  bool admit_leaving(const BlockKey& key, Nanoseconds now) override {
    const auto found = log_.find(key);
    if (!found) return false;
    UseLog::Entry& entry = log_[*found];
    if (entry.run == 0) return is_wanted(key, now);
    Run& run = runs_[entry.run % kRuns];
    if (run.number != entry.run) {  // Forgotten: long ago, beside the others.
      run = {.number = entry.run,
             .at = entry.at,
             .blocks = 0,
             .cell = 0,
             .of = {},
             .step = 0,
             .is_judged = 0,
             .is_refused = 0};
    }
    if ((entry.flags & kIsShared) != 0) return true;
    if (run.is_judged == 0) judge(run, seconds_of(now));
    budget_.note_leaving(run.step);
    set(entry, kIsRefused, run.is_refused != 0);
    if (entry.is_near != 0) {
      set(entry, kHasLeft, true);
      entry.cell = run.cell;
      entry.step = run.step;
    }
    return run.is_refused == 0;
  }

  void note_use(NamespaceId name_space, GroupId group, std::span<const SequenceHash> chain,
                const Use& use, bool has_root) override {
    if (chain.empty()) return;
    const std::uint32_t now = seconds_of(use.at);
    if (!is_of_last_run(use)) begin_run(use, now);
    // Those of one run before follow each other.
    std::uint32_t before = 0;
    std::uint32_t taken = 0;
    for (std::size_t i = chain.size(); i-- > 0;) {
      const BlockKey key{name_space, group, chain[i]};
      const auto found = log_.find(key);
      const std::uint32_t number = found ? *found : log_.add(key);
      UseLog::Entry& entry = log_[number];
      if (found) note_return(entry);
      put_first(number, now);
      if (entry.run != before) {
        take_from(before, taken);
        before = entry.run;
        taken = 0;
      }
      ++taken;
      entry.run = last_run_;
    }
    // What hangs below the beginning of this prompt is not all of it: others have it in common.
    if (take_from(before, taken) && has_root) {
      for (std::size_t i = 0; i < taken; ++i) {
        const auto found = log_.find({name_space, group, chain[i]});
        if (found) set(log_[*found], kIsShared, true);
      }
    }
    runs_[last_run_ % kRuns].blocks += static_cast<std::uint32_t>(chain.size());
    if (budget_.note_uses(chain.size())) chances_.halve();
  }
  [[nodiscard]] bool wants_uses() const override { return true; }

  Bytes memory() const override { return log_.memory() + runs_.memory(); }

 private:
  bool sight(const BlockKey& key, std::optional<std::uint32_t> found, std::uint32_t now) {
    const std::uint32_t number = found ? *found : log_.add(key);
    const bool is_again = found && log_[number].is_near != 0;
    put_first(number, now);
    set(log_[number], kIsAgain, is_again);
    return is_again;
  }

  void put_first(std::uint32_t number, std::uint32_t now) {
    const auto left = log_.use(number, now);
    if (!left) return;
    UseLog::Entry& gone = log_[*left];
    note_outcome(gone, false);
    gone.flags = 0;
  }

  void note_return(UseLog::Entry& entry) {
    if (entry.is_near == 0) {
      set(entry, kIsGained, true);  // Unless it is offered next.
      budget_.note_gained(1);
      return;
    }
    note_outcome(entry, true);
    set(entry, kIsDue, (entry.flags & kIsRefused) == 0);
    set(entry, kIsRefused, false);
  }

  void note_outcome(UseLog::Entry& entry, bool has_returned) {
    if ((entry.flags & kHasLeft) == 0) return;
    set(entry, kHasLeft, false);
    budget_.note_outcome(entry.step, has_returned);
    chances_.note(entry.cell, has_returned);
  }

  // Slices of one chain, and groups, come one after the other.
  [[nodiscard]] bool is_of_last_run(const Use& use) const {
    return last_run_ != 0 && use.at == last_use_.at && use.of == last_use_.of;
  }

  // So many blocks of the run are another's now. True if more of it are left than its last one,
  // which another turn may have filled with other tokens.
  bool take_from(std::uint32_t number, std::uint32_t taken) {
    Run& run = runs_[number % kRuns];
    if (number == 0 || number == last_run_ || run.number != number) return false;
    run.blocks -= std::min(run.blocks, taken);
    return run.blocks > 1;
  }

  void begin_run(const Use& use, std::uint32_t now) {
    if (++last_run_ == 0) ++last_run_;
    last_use_ = use;
    chances_.begin(use.of);
    runs_[last_run_ % kRuns] = {.number = last_run_,
                                .at = now,
                                .blocks = 0,
                                .cell = 0,
                                .of = use.of,
                                .step = 0,
                                .is_judged = 0,
                                .is_refused = 0};
    if (last_run_ % kJudgeEvery == 0) budget_.judge();
  }

  void judge(Run& run, std::uint32_t now) {
    run.cell = ReturnChances::cell_of(run.of, now - std::min(now, run.at));
    run.step = LossBudget::step_of(chances_.chance(run.cell));
    run.is_judged = 1;
    const double draw = static_cast<double>(run.number * 0x9E3779B9U) * 0x1.0p-32;
    run.is_refused = budget_.refuses(run.step, draw) ? 1 : 0;
  }

  UseLog log_;
  index::ZeroedArray<Run> runs_;  // By number.
  LossBudget budget_;
  ReturnChances chances_;
  std::uint32_t last_run_ = 0;
  Use last_use_{};
};

}  // namespace

std::unique_ptr<AdmissionFilter> make_expected(const ExpectedOptions& options) {
  if (options.entries == 0 || options.entries > 2'000'000'000) return nullptr;
  auto log = UseLog::create(options.entries, options.tier_blocks);
  auto runs = index::ZeroedArray<Run>::create(Expected::kRuns);
  if (!log || !runs) return nullptr;
  return std::make_unique<Expected>(options, std::move(*log), std::move(*runs));
}

}  // namespace terrace::policy
