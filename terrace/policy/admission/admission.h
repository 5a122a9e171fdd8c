// May a block enter a tier. `all` admits always; `frequency` is KVBM's filter: a count starts at 1,
// doubles each time the block is asked for or hit, loses 1 per decay interval, admitted at >= threshold.
// Threading: thread-compatible.  Waits: never.  Memory: `frequency` holds at most `entries` counts.
#pragma once

#include <memory>
#include <string_view>

#include "terrace/base/clock.h"
#include "terrace/base/status.h"
#include "terrace/block/key.h"

namespace terrace::policy {

class AdmissionFilter {
 public:
  virtual ~AdmissionFilter() = default;
  // Asked once per candidate; counts as a sighting.
  [[nodiscard]] virtual bool admit(const BlockKey& key, Nanoseconds now) = 0;
  // A look-up hit the block.
  virtual void on_hit(const BlockKey& key, Nanoseconds now) = 0;
};

struct FrequencyOptions {
  std::uint32_t threshold = 2;
  Nanoseconds decay_interval = seconds(600);
  std::uint64_t entries = 1'000'000;
};

[[nodiscard]] std::unique_ptr<AdmissionFilter> make_admit_all();
[[nodiscard]] std::unique_ptr<AdmissionFilter> make_frequency(const FrequencyOptions& options);
// By the name used in settings: "all", "frequency".
[[nodiscard]] Result<std::unique_ptr<AdmissionFilter>> make_admission(
    std::string_view name, const FrequencyOptions& options);

}  // namespace terrace::policy
