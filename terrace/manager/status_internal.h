// What the owner tells about itself.
// Threading: thread-safe; problems_of() under the manager's lock.  Waits: never but for that lock,
// which visit_all() does not take.
#pragma once

#include "terrace/manager/opening_internal.h"
#include "terrace/manager/size_forecast_internal.h"
#include "terrace/manager/status_report.h"

namespace terrace::manager {

// What makes health red, each with the way out.
[[nodiscard]] std::vector<std::string> problems_of(const Core& core, Nanoseconds now);
[[nodiscard]] StatusReport make_status(const Options& options, const Shared& shared,
                                       const Opened& opened, const Counters& counters,
                                       const SizeForecast& forecast, Nanoseconds now,
                                       Nanoseconds opened_at);
void visit_all(const Shared& shared, const Opened& opened, const Counters& counters,
               const SizeForecast& forecast, MetricVisitor& visitor);

}  // namespace terrace::manager
