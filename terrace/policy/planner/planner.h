// Load or compute: from moving estimates of each tier's speed and of the engine's prefill speed,
// how many leading blocks to load so that the first token is predicted to come soonest.
//
// A load waits for the slowest tier below host that has part of it, each as long as seven of ten
// of its loads did; then everything is copied to the device. What is not loaded is computed.
// Nothing is loaded that would be slower than computing it if it were one of the slower of ten.
// Until the prefill is measured, what is found is loaded: nothing says that it does not pay. Until
// a tier is measured, it is taken for a slow one of its kind. A tier that is refused would never be
// measured again. So after some refusals in a row a few blocks of it are to be read that nobody
// waits for: at once while it is not measured, else after so many that reading them takes a tenth
// of the time in which what was refused is computed, 4 at least and 32 at most. Nobody's first
// token waits for a probe, but for one of the host tier, which is a load. A load that takes much
// longer than planned is to be given up (`patience`); each time the tier counts as so many times as
// slow as it turned out to be, four at most for one load and 16 for several, until loads and probes
// keep their time again, and with each time these probes are twice as far apart, until loads come
// as planned: so what pays only now and then is not tried each time. Where a
// look-up has to end at some time, so much is planned as comes by then on average: what comes is
// used, and that the rest does not breaks no promise.
// Threading: thread-compatible.  Waits: never. Source: weighted least squares; ski rental.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "terrace/base/strong.h"
#include "terrace/block/location.h"
#include "terrace/policy/planner/prefill_speed_internal.h"
#include "terrace/policy/planner/tier_speed_internal.h"

namespace terrace::policy {

// A candidate run: `blocks` leading blocks that lie in `source`, in chain order.
struct SourceRun {
  Tier source;
  std::uint64_t blocks = 0;
};

// Where in its prompt a request stands.
struct PromptPart {
  Tokens before{0};  // The engine has these itself.
  Tokens behind{0};  // To be computed in any case, after all that was found.
  Nanoseconds most_wait{INT64_MAX};
};

struct LoadPlan {
  std::uint64_t blocks = 0;            // Load this many leading blocks; compute the rest.
  Nanoseconds predicted_load{0};       // 0 where not measured yet.
  Nanoseconds predicted_recompute{0};  // Of the same blocks; 0 where not measured yet.
  // From then on, computing what is still missing is the better bet.
  Nanoseconds patience{INT64_MAX};
  Bytes awaited{0};                // Of these blocks, what tiers below host have.
  Tier slowest = Tier::kHost;      // Of those loaded from.
  std::uint64_t probe_blocks = 0;  // Behind `blocks`: to be read, and not to be waited for.
};

// A planned load that was given up.
struct AbandonedLoad {
  Tier slowest = Tier::kHost;
  Bytes awaited{0};
  Bytes missing{0};          // Of the awaited.
  Nanoseconds predicted{0};  // 0 where not measured then.
  Nanoseconds elapsed{0};
};

class Planner {
 public:
  struct Options {
    Bytes block_bytes;  // All ranks and groups.
    Tokens block_tokens;
    bool is_enabled = true;  // false: everything that is found is loaded.
    std::uint64_t probe_blocks = 4;
  };
  using Queued = std::array<Bytes, kTierCount>;
  explicit Planner(const Options& options) : options_(options) {}

  // `elapsed`: from when the tier took the load up (the wait behind other loads left out, plan()
  // adds it) to its bytes verified. Observations without bytes or time are ignored.
  void observe_load(Tier source, Bytes bytes, Nanoseconds elapsed);
  void observe_abandoned(const AbandonedLoad& load);
  void observe_prefill(const PrefillStep& step, Nanoseconds elapsed);
  void observe_prefill(Tokens tokens, Nanoseconds elapsed) {
    observe_prefill(PrefillStep{.tokens = tokens, .pairs = 0, .beside = 0}, elapsed);
  }
  // A planned load is over.
  void settle(Tier slowest, Nanoseconds predicted, Nanoseconds actual);
  // Runs in chain order; `queued` = bytes already waiting per tier. O(runs). Counts refusals.
  [[nodiscard]] LoadPlan plan(std::span<const SourceRun> runs, const Queued& queued,
                              const PromptPart& part = {});
  // The same for somebody who is only curious.
  [[nodiscard]] LoadPlan peek(std::span<const SourceRun> runs, const Queued& queued,
                              const PromptPart& part = {}) const {
    return choose(runs, queued, prompt_of(runs, part), part.most_wait).plan;
  }
  [[nodiscard]] std::uint64_t probe_blocks() const { return options_.probe_blocks; }
  // Bytes per second, without latency; 0 = not measured yet.
  [[nodiscard]] double load_rate(Tier source) const;
  [[nodiscard]] Nanoseconds load_latency(Tier source) const;
  [[nodiscard]] double prefill_rate() const;  // Tokens per second; 0 = not measured yet.
  // That share of planned loads took at most this many times what was predicted; 0 = none yet.
  [[nodiscard]] double calibration(Tier slowest, double share) const;

 private:
  static constexpr std::uint32_t kProbeSoon = 4;  // Refusals.
  static constexpr std::uint32_t kProbeLate = 32;
  static constexpr std::uint32_t kLeastCaution = 1;
  static constexpr std::uint32_t kLargestProbe = 8;  // Times probe_blocks.
  static constexpr std::uint32_t kMostCaution = 64;
  struct Source {
    TierSpeed speed;
    std::uint32_t refusals = 0;
    // It is probed each so many refusals, if that is more than usual. Doubled by each promise that
    // was broken, one less with each load that came.
    std::uint32_t caution = kLeastCaution;
    Ratios calibration{0.98};  // Some fifty loads.
  };
  struct Choice {
    LoadPlan plan{};
    std::size_t runs = 0;  // Of which something is loaded, all but the last wholly.
    double gain_s = 0;     // Beside computing it all.
  };
  // What a load of so many bytes per tier, host's included in the last, costs.
  struct Cost {
    double wait_s = 0;       // Until it is in host.
    double most_wait_s = 0;  // Nine of ten.
    double copy_s = 0;
    Tier slowest = Tier::kHost;
  };
  struct Prompt {
    double before = 0;  // Tokens.
    double found = 0;
    double behind = 0;
    bool takes_all = false;
  };
  using Demand = std::array<double, kTierCount>;
  static Source source_of(Tier tier);
  [[nodiscard]] Source& at(Tier tier) { return sources_[static_cast<std::size_t>(tier)]; }
  [[nodiscard]] const Source& at(Tier tier) const {
    return sources_[static_cast<std::size_t>(tier)];
  }
  [[nodiscard]] Cost cost_of(const Demand& demand, const Queued& queued) const;
  [[nodiscard]] Prompt prompt_of(std::span<const SourceRun> runs, const PromptPart& part) const;
  [[nodiscard]] Choice choose(std::span<const SourceRun> runs, const Queued& queued,
                              const Prompt& prompt, Nanoseconds most_wait) const;
  // How many of the run's blocks there are in what its tier gives in the time there is.
  [[nodiscard]] std::uint64_t in_time(const SourceRun& run, const Demand& before,
                                      const Queued& queued, double bytes) const;
  // Becomes `best` if it is predicted to be sooner.
  void consider(const Demand& demand, std::uint64_t blocks, std::size_t runs, const Prompt& prompt,
                const Queued& queued, Choice& best) const;
  // `computing_s`: of all that was refused with it.
  [[nodiscard]] std::uint32_t refusals_to_probe(Tier source, double computing_s) const;
  void add_probe(const SourceRun& refused, double computing_s, LoadPlan& plan);

  Options options_;
  std::array<Source, kTierCount> sources_{source_of(Tier::kDevice), source_of(Tier::kHost),
                                          source_of(Tier::kDisk), source_of(Tier::kObject),
                                          source_of(Tier::kPeer)};
  PrefillSpeed prefill_;
};

}  // namespace terrace::policy
