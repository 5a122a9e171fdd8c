// May a block enter a tier. `all` admits always; `frequency` is KVBM's filter: a count starts at 1,
// doubles each time the block is asked for or hit, loses 1 per decay interval, admitted at >=
// threshold; `reuse` admits what is sighted again while the tier would still have held it;
// `expected` what leaves the tier above and is likely enough to be asked for again while it would.
// Threading: thread-compatible.  Waits: never. Memory: `frequency` holds at most `entries` counts
// of 54 bytes, from creation, and 64 bytes for each distinct count among them; `reuse` as many
// sightings of 62 bytes, `expected` of 70, and 1.1 MiB.
#pragma once

#include <algorithm>
#include <memory>
#include <span>
#include <string_view>

#include "terrace/base/clock.h"
#include "terrace/base/status.h"
#include "terrace/block/key.h"
#include "terrace/policy/returns/use.h"

namespace terrace::policy {

// Must pass tests/contract/admission_contract.h.
class AdmissionFilter {
 public:
  virtual ~AdmissionFilter() = default;
  // Asked once per candidate; counts as a sighting.
  [[nodiscard]] virtual bool admit(const BlockKey& key, Nanoseconds now) = 0;
  // A look-up hit the block.
  virtual void on_hit(const BlockKey& key, Nanoseconds now) = 0;
  // What admit() would say of a block that was sighted before, without this being a sighting: for
  // one that is asked about again for no other reason than that it has to leave the tier above.
  [[nodiscard]] virtual bool is_wanted(const BlockKey& key, Nanoseconds now) = 0;
  // The tier above gives the block up, and this one lacks it: the last time to ask. No sighting.
  [[nodiscard]] virtual bool admit_leaving(const BlockKey& key, Nanoseconds now) {
    return is_wanted(key, now);
  }
  // The tier above gives the block up, and this one has it. No sighting.
  virtual void note_leaving(const BlockKey& /*key*/) {}
  // A request used these blocks, which follow each other in its chain: told before what it lacks is
  // offered, and when it has ended; a long chain slice by slice, the deepest first, the one that
  // begins the prompt (`has_root`) last.
  virtual void note_use(NamespaceId /*name_space*/, GroupId /*group*/,
                        std::span<const SequenceHash> /*chain*/, const Use& /*use*/,
                        bool /*has_root*/) {}
  // Whether it learns from note_use(), which costs a look-up for each block.
  [[nodiscard]] virtual bool wants_uses() const { return false; }
  // False = every answer is yes, whatever was sighted: nobody need call on_hit().
  [[nodiscard]] virtual bool counts() const { return true; }
  [[nodiscard]] virtual Bytes memory() const = 0;
};

struct FrequencyOptions {
  std::uint32_t threshold = 2;
  Nanoseconds decay_interval = seconds(600);
  std::uint64_t entries = 1'000'000;
};

struct ReuseOptions {
  std::uint64_t entries = 1'000'000;
  // Of the tier that is guarded, all groups: after so many admissions the first of them is gone. 0
  // = not known: a second sighting counts as long as the first is remembered.
  std::uint64_t tier_blocks = 0;
};

struct ExpectedOptions {
  // 0 = usual_entries().
  std::uint64_t entries = 0;
  // Of the tier that is guarded, all groups; 0 = as many as entries.
  std::uint64_t tier_blocks = 0;
  // Of the tier above, likewise. All of it has to be known, or it is judged as any block; of what
  // has left it a share is followed where `entries` are less than it and twice `tier_blocks`.
  std::uint64_t upper_blocks = 0;
  // Hits that it may cost the tier beside admitting everything: a share of all blocks asked for.
  double most_lost = 0.0045;

  static constexpr std::uint64_t kLeast = 1'000'000;
  static constexpr std::uint64_t kMost = 2'000'000'000;
  static constexpr std::uint64_t kMostBelow = 4'000'000;  // Beside those of the tier above.
  [[nodiscard]] std::uint64_t usual_entries() const {
    const std::uint64_t below = tier_blocks < kMostBelow / 2 ? 2 * tier_blocks : kMostBelow;
    return std::clamp(least_entries() + below, kLeast, kMost);
  }
  // With some room for what was told of and is not there yet.
  [[nodiscard]] std::uint64_t least_entries() const {
    return std::min(upper_blocks, kMost) / 4 * 5;
  }
};

struct AdmissionOptions {
  FrequencyOptions frequency{};
  ReuseOptions reuse{};
  ExpectedOptions expected{};
};

[[nodiscard]] std::unique_ptr<AdmissionFilter> make_admit_all();
// Null if an option is 0 or the memory is refused; make_admission() says which.
[[nodiscard]] std::unique_ptr<AdmissionFilter> make_frequency(const FrequencyOptions& options);
// Null if there are no entries or the memory is refused.
[[nodiscard]] std::unique_ptr<AdmissionFilter> make_reuse(const ReuseOptions& options);
// Null if there are no entries or the memory is refused.
[[nodiscard]] std::unique_ptr<AdmissionFilter> make_expected(const ExpectedOptions& options);
// By the name used in settings: "all", "expected", "frequency", "reuse". Errors: kInvalid names the
// known ones or the option that is out of range; kExhausted if the memory is refused.
[[nodiscard]] Result<std::unique_ptr<AdmissionFilter>> make_admission(
    std::string_view name, const AdmissionOptions& options);

}  // namespace terrace::policy
