// What the owner tells about itself.
// Threading: thread-safe.  Waits: never but for the manager's lock, which visit_all() does not
// take.
#pragma once

#include "terrace/manager/opening_internal.h"
#include "terrace/manager/size_forecast_internal.h"
#include "terrace/manager/status_report.h"

namespace terrace::manager {

[[nodiscard]] StatusReport make_status(const Options& options, const Shared& shared,
                                       const Opened& opened, const Counters& counters,
                                       const SizeForecast& forecast, Nanoseconds now,
                                       Nanoseconds opened_at);
void visit_all(const Shared& shared, const Opened& opened, const Counters& counters,
               const SizeForecast& forecast, MetricVisitor& visitor);

}  // namespace terrace::manager
