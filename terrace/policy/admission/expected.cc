// Waits until a block leaves the tier above: until then nothing is lost, and more is known of it.
// What is admitted then is what is likely to be asked for again while the tier would hold it. All
// blocks of one request are judged together, when the first of them leaves: a chain without its
// beginning is worth nothing. How likely a return is was seen of others of its class in the model
// of returns, and of its age (ReturnChances), and of its distance from the chain's end
// (TailChances); what the tier would hold, of what came back and was there or not (Survival); how
// likely it has to be follows from what was refused before and came back, and from how much longer
// the tier now holds the rest (LossBudget). Where nothing tells requests apart, that is a share of
// them, drawn at random. A block that has been used for an hour without ever leaving is admitted
// too: a restart would lose it.
//
// All blocks of the tier above are known by name. Of those that have left it there may be too many:
// then one in 2^n of them is followed, by its hash, and counts are of those.
//
// Blocks that nobody has told a use of are judged by their sightings: admitted at the second one
// that comes in time.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <utility>

#include "terrace/index/zeroed_array.h"
#include "terrace/policy/admission/admission.h"
#include "terrace/policy/admission/loss_budget_internal.h"
#include "terrace/policy/admission/return_chances_internal.h"
#include "terrace/policy/admission/survival_internal.h"
#include "terrace/policy/admission/tail_chances_internal.h"
#include "terrace/policy/admission/use_log_internal.h"

namespace terrace::policy {

namespace {

constexpr std::uint32_t kHour = 3600;
constexpr std::uint32_t kJudgeEvery = 32;            // Uses.
constexpr unsigned kMostBits = 16;                   // Of all that left one in 65,536 is followed.
constexpr std::uint64_t kLeastHalfLife = 1U << 16U;  // Of what was learned, in blocks asked for.

enum Flag : std::uint8_t {
  kIsAgain = 1,    // Its last sighting came in time after the one before.
  kIsRefused = 2,  // When it left last.
  kIsSeen = 4,     // As one that left, and had not come back in the time of an lru tier.
  kIsDue = 8,      // It came back, and was not refused: this tier should have it.
  kIsOpen = 16,    // It was judged when it left, and may still come back.
  kIsShared = 32,  // By prompts that go on in different ways: all of them need it.
  kHasLeft = 64,   // The tier above, since its last use.
};

void set(UseLog::Entry& entry, unsigned flags, bool is_set) {
  const unsigned others = entry.flags & ~flags;
  entry.flags = static_cast<std::uint8_t>(is_set ? others | flags : others);
}

// Blocks of one use.
struct Run {
  std::uint32_t number;   // 0 = none.
  std::uint32_t at;       // Seconds.
  std::uint32_t blocks;   // That no other run has used since.
  std::uint32_t offered;  // Of all blocks, when it began.
  std::uint32_t written;
  ReturnChances::Cell cell;
  float chance;  // Of its blocks, to be asked for again.
  ReturnClass of;
  std::uint8_t is_judged;
};
static_assert(sizeof(Run) == 32);

std::uint32_t seconds_of(Nanoseconds time) {
  return static_cast<std::uint32_t>(std::max<std::int64_t>(time.value(), 0) / 1'000'000'000);
}

class Expected final : public AdmissionFilter {
 public:
  static constexpr std::uint64_t kRuns = 1U << 15U;

  Expected(std::uint64_t tier_blocks, double most_lost, unsigned followed_bits, UseLog log,
           index::ZeroedArray<Run> runs)
      : followed_bits_(followed_bits),
        log_(std::move(log)),
        runs_(std::move(runs)),
        budget_(std::max(kLeastHalfLife, 4 * tier_blocks >> followed_bits), most_lost),
        survival_(tier_blocks) {}

  bool admit(const BlockKey& key, Nanoseconds now) override {
    const auto found = log_.find(key);
    if (found) {
      UseLog::Entry& entry = log_[*found];
      // It was not there after all.
      if ((entry.flags & kIsDue) != 0) survival_.note_gone(entry.step);
      set(entry, kIsDue, false);
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
    if (!found) return admit_unknown(key, now);
    UseLog::Entry& entry = log_[*found];
    if (entry.run == 0) return is_wanted(key, now);
    Run& run = run_of(entry);
    if (run.is_judged == 0) judge(run, seconds_of(now));
    const bool is_shared = (entry.flags & kIsShared) != 0;
    const bool is_followed = follows(key);
    const bool is_refused = !is_shared && refuses(entry, run, is_followed);
    note_offered(is_shared ? Survival::kOne : push_of(entry.step), is_refused);
    set(entry, kHasLeft, true);
    set(entry, kIsRefused, is_refused);
    set(entry, kIsDue, false);
    if (!is_followed) forget(*found);
    return !is_refused;
  }

  void note_leaving(const BlockKey& key) override {
    const auto found = log_.find(key);
    if (!found) return;
    set(log_[*found], kHasLeft, true);
    set(log_[*found], kIsRefused | kIsDue, false);
    if (!follows(key)) forget(*found);
  }

  void note_use(NamespaceId name_space, GroupId group, std::span<const SequenceHash> chain,
                const Use& use, bool has_root) override {
    if (chain.empty()) return;
    const std::uint32_t now = seconds_of(use.at);
    if (!is_of_last_run(use)) begin_run(use, now);
    // Slices of one chain come deepest first, those of other groups between them.
    if (last_run_ != tail_run_ || is_at_root_) {
      tail_run_ = last_run_;
      tail_group_ = group;
      after_ = told_ = 0;
    }
    if (group == tail_group_) {
      after_ = told_;
      told_ += chain.size();
      is_at_root_ = has_root;
    }
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
      entry.mark = TailChances::mark_of(after_ + chain.size() - 1 - i);
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
    if (budget_.note_uses(std::ldexp(static_cast<double>(chain.size()), -shift()))) {
      chances_.halve();
      survival_.halve();
      tails_.halve();
    }
  }
  [[nodiscard]] bool wants_uses() const override { return true; }

  Bytes memory() const override { return log_.memory() + runs_.memory(); }

 private:
  [[nodiscard]] int shift() const { return static_cast<int>(followed_bits_); }
  [[nodiscard]] bool follows(const BlockKey& key) const {
    return static_cast<unsigned>(std::countl_zero(key.hash.low)) >= followed_bits_;
  }

  // It left, and nobody will miss it here: nor does its run.
  void forget(std::uint32_t number) {
    const UseLog::Entry& entry = log_[number];
    Run& run = runs_[entry.run % kRuns];
    if (run.number == entry.run && run.blocks > 0) --run.blocks;
    log_.remove(number);
  }

  // Nobody told of a use, or that is longer ago than the log reaches. Those that leave together are
  // likely of one chain: they have one lot.
  bool admit_unknown(const BlockKey& key, Nanoseconds now) {
    constexpr std::uint32_t kTogether = 8;  // Seconds.
    const auto step = LossBudget::step_of(chances_.chance());
    if (follows(key)) budget_.note_leaving(step);
    const bool is_refused = budget_.refuses(step, draw_of(seconds_of(now) / kTogether));
    note_offered(push_of(step), is_refused);
    return !is_refused;
  }

  void note_offered(std::uint32_t pushes, bool is_refused) {
    offered_ += pushes;
    if (!is_refused) written_ += pushes;
  }

  [[nodiscard]] static double draw_of(std::uint32_t number) {
    return static_cast<double>(number * 0x9E3779B9U) * 0x1.0p-32;
  }

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
    if ((gone.flags & kIsOpen) != 0) note_seen(gone);
    set(gone, kIsAgain | kIsShared, false);
  }

  // Of the run that used it last. Forgotten: long ago, beside the others.
  [[nodiscard]] Run& run_of(const UseLog::Entry& entry) {
    Run& run = runs_[entry.run % kRuns];
    if (run.number != entry.run) run = new_run(entry.run, entry.at, {});
    return run;
  }

  void note_return(UseLog::Entry& entry) {
    if ((entry.flags & kHasLeft) == 0) return;
    const Run& run = runs_[entry.run % kRuns];
    const bool is_known = run.number == entry.run;
    // What a tier that admits everything would have of it.
    const double held = is_known ? survival_.chance(offered_ - run.offered) : 0;
    if ((entry.flags & kIsOpen) != 0) {
      note_seen(entry);
      budget_.note_returned(entry.step, held);
      chances_.note_returned(entry.cell, held);
      tails_.note_returned(entry.mark, held);
    }
    if ((entry.flags & kIsRefused) != 0) budget_.note_lost(held);
    const bool is_due = is_known && (entry.flags & kIsRefused) == 0;
    if (is_due) {
      const std::uint32_t written = written_ - run.written;
      budget_.note_gained(survival_.chance(written) - held);
      entry.step = survival_.step_of(written);
      survival_.note_held(entry.step);
    }
    set(entry, kIsDue, is_due);
    set(entry, kHasLeft | kIsOpen | kIsSeen | kIsRefused, false);
  }

  // Nothing came of it in time, or something did.
  void note_seen(UseLog::Entry& entry) {
    if ((entry.flags & kIsSeen) != 0) return;
    set(entry, kIsSeen, true);
    budget_.note_seen(entry.step);
    tails_.note_seen(entry.mark, chances_.chance(entry.cell));
    chances_.note_seen(entry.cell);
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

  [[nodiscard]] Run new_run(std::uint32_t number, std::uint32_t at, ReturnClass of) const {
    return {.number = number,
            .at = at,
            .blocks = 0,
            .offered = offered_,
            .written = written_,
            .cell = 0,
            .chance = 0,
            .of = of,
            .is_judged = 0};
  }

  void begin_run(const Use& use, std::uint32_t now) {
    if (++last_run_ == 0) ++last_run_;
    last_use_ = use;
    chances_.begin(use.of);
    runs_[last_run_ % kRuns] = new_run(last_run_, now, use.of);
    if (last_run_ % kJudgeEvery != 0) return;
    budget_.judge();
    tails_.judge();
  }

  void judge(Run& run, std::uint32_t now) {
    run.cell = ReturnChances::cell_of(run.of, now - std::min(now, run.at));
    run.chance = static_cast<float>(chances_.chance(run.cell));
    run.written = written_;  // Now, unlike in a tier that was written when it was used.
    run.is_judged = 1;
  }

  // How much it pushes others out of a tier that admits it, in parts of what the usual block does
  // that is written: whatever evicts there lets the unlikely go first, as far as it can tell.
  [[nodiscard]] std::uint32_t push_of(std::uint8_t step) const {
    const double part = std::sqrt(LossBudget::expectation(step) / std::max(usual_, 1e-6));
    return static_cast<std::uint32_t>(Survival::kOne * std::min(1.0, part));
  }

  // One lot for the blocks of a run: where its end is refused, its beginning may be admitted.
  bool refuses(UseLog::Entry& entry, const Run& run, bool is_followed) {
    const auto step = LossBudget::step_of(run.chance * tails_.factor(entry.mark));
    if (is_followed) budget_.note_leaving(step);
    entry.cell = run.cell;
    entry.step = step;
    set(entry, kIsOpen, true);
    set(entry, kIsSeen, false);
    const bool is_refused = budget_.refuses(step, draw_of(run.number));
    constexpr double kSome = 1.0 / 4096;
    if (!is_refused) usual_ += kSome * (LossBudget::expectation(step) - usual_);
    return is_refused;
  }

  const unsigned followed_bits_;  // n of those that have left; see above.
  UseLog log_;
  index::ZeroedArray<Run> runs_;  // By number.
  LossBudget budget_;
  ReturnChances chances_;
  Survival survival_;
  TailChances tails_;
  // By what left the tier above; both wrap around.
  std::uint32_t offered_ = 0;  // How much it pushes.
  std::uint32_t written_ = 0;  // Of that, what was admitted.
  double usual_ = 0;           // Chance of what is admitted.
  std::uint32_t last_run_ = 0;
  Use last_use_{};
  // The chain that is told of: where its slice begins, from the end.
  std::uint32_t tail_run_ = 0;
  GroupId tail_group_{0};
  bool is_at_root_ = false;
  std::size_t after_ = 0;
  std::size_t told_ = 0;
};

}  // namespace

std::unique_ptr<AdmissionFilter> make_expected(const ExpectedOptions& options) {
  const std::uint64_t entries = options.entries > 0 ? options.entries : options.usual_entries();
  if (entries > ExpectedOptions::kMost) return nullptr;
  const std::uint64_t tier = options.tier_blocks == 0 ? entries : options.tier_blocks;
  const std::uint64_t upper = options.upper_blocks;
  // Twice the tier: what comes back from beyond it tells how long it holds what it has.
  const std::uint64_t room = entries - std::min(entries, options.least_entries());
  unsigned bits = 0;
  while (upper > 0 && bits < kMostBits && (2 * tier >> bits) > std::max(room, entries / 8)) ++bits;
  const std::uint64_t near = tier <= upper ? tier : upper + ((tier - upper) >> bits);
  auto log = UseLog::create(entries, near);
  auto runs = index::ZeroedArray<Run>::create(Expected::kRuns);
  if (!log || !runs) return nullptr;
  return std::make_unique<Expected>(tier, options.most_lost, bits, std::move(*log),
                                    std::move(*runs));
}

}  // namespace terrace::policy
