// Figures of the core for metrics, which are asked for without the core's lock: what scrapes holds
// up no engine. Each change of the core and each turn of the I/O thread ends by telling them anew.
// Threading: tell…() under the manager's lock; the rest by any thread, without one.
// Waits: never.  Invariant: nobody has the lock and the I/O thread has had its turn: they are the
// core's.
#pragma once

#include <array>
#include <atomic>

#include "terrace/base/metric.h"
#include "terrace/manager/core_internal.h"
#include "terrace/manager/status_report.h"

namespace terrace::manager {

class Figures {
 public:
  // Some thirty loads and stores.
  void tell(const Core& core) noexcept;
  // What changes with loads alone and takes longer to tell.
  void tell_plans(const Core& core) noexcept;
  // What changes as tiers open.
  void tell_memory(const Core& core) noexcept;
  // How many things make health red.
  void tell_problems(std::size_t problems) noexcept;

  void visit(MetricVisitor& visitor) const;

 private:
  void visit_queues(MetricVisitor& visitor) const;
  void visit_memory(MetricVisitor& visitor) const;

  std::array<Gauge, catalog::kSlotStateCount> host_slots_;
  Gauge host_pinned_;
  Gauge asked_;  // Blocks of the window of hit rates; by tier below.
  Gauge host_hits_;
  Gauge disk_hits_;
  Gauge object_hits_;
  Gauge active_requests_;
  Gauge steps_in_flight_;
  Gauge waiting_pins_;
  struct QueueFigures {
    Gauge waiting;
    Gauge limit;
  };
  QueueFigures disk_reads_;  // Blocks.
  QueueFigures disk_writes_;
  QueueFigures packs_;
  Gauge problems_;
  Gauge host_memory_;  // Bytes.
  Gauge host_catalog_memory_;
  Gauge returns_memory_;
  Gauge admission_memory_;
  struct Plan {
    std::atomic<double> p50{0};
    std::atomic<double> p90{0};
  };
  std::array<Plan, kTierCount> plans_;
};

}  // namespace terrace::manager
