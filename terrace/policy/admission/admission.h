// May a block enter a tier. `all` admits always; `frequency` is KVBM's filter: a count starts at 1,
// doubles each time the block is asked for or hit, loses 1 per decay interval, admitted at >=
// threshold. Threading: thread-compatible.  Waits: never. Memory: `frequency` holds at most
// `entries` counts of 54 bytes, from creation, and 64 bytes for each distinct count among them.
#pragma once

#include <memory>
#include <string_view>

#include "terrace/base/clock.h"
#include "terrace/base/status.h"
#include "terrace/block/key.h"

namespace terrace::policy {

// Must pass tests/contract/admission_contract.h.
class AdmissionFilter {
 public:
  virtual ~AdmissionFilter() = default;
  // Asked once per candidate; counts as a sighting.
  [[nodiscard]] virtual bool admit(const BlockKey& key, Nanoseconds now) = 0;
  // A look-up hit the block.
  virtual void on_hit(const BlockKey& key, Nanoseconds now) = 0;
  [[nodiscard]] virtual Bytes memory() const = 0;
};

struct FrequencyOptions {
  std::uint32_t threshold = 2;
  Nanoseconds decay_interval = seconds(600);
  std::uint64_t entries = 1'000'000;
};

[[nodiscard]] std::unique_ptr<AdmissionFilter> make_admit_all();
// Null if an option is 0 or the memory is refused; make_admission() says which.
[[nodiscard]] std::unique_ptr<AdmissionFilter> make_frequency(const FrequencyOptions& options);
// By the name used in settings: "all", "frequency". Errors: kInvalid names the known ones or the
// option that is out of range; kExhausted if the memory is refused.
[[nodiscard]] Result<std::unique_ptr<AdmissionFilter>> make_admission(
    std::string_view name, const FrequencyOptions& options);

}  // namespace terrace::policy
