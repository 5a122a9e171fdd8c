// The manager's metric cells. They move when the thing happened, not when it was queued.
// Threading: thread-safe.  Waits: never.  Names: docs/metrics.md.
#pragma once

#include <array>

#include "terrace/base/metric.h"
#include "terrace/block/location.h"
#include "terrace/manager/ledger.h"

namespace terrace::manager {

struct Counters {
  std::array<Counter, kTierCount> hit_blocks;  // The same in blocks.
  std::array<Counter, kTierCount> hit_tokens;  // Verified in the device, by the tier it came from.
  std::array<Counter, kMissReasonCount> miss_blocks;  // By the reason of the request's first miss.
  Counter match_tokens;                               // The same in tokens.
  Counter match_blocks;   // Promised by look-ups that the engine accepted.
  Counter failed_tokens;  // Promised, then not delivered.
  Counter requests;
  Counter unkeyable_requests;
  Counter prompt_tokens;  // Of requests that ended,
  Counter engine_tokens;  // and what the engine's own cache had of them.
  Counter late_look_ups;
  std::array<Counter, kHintKinds> hints;              // Taken, by hint_name().
  Counter ignored_hints;                              // That were none.
  std::array<Counter, policy::kEndingCount> endings;  // Of requests that ended, by Ending.

  Counter onboard_bytes;                           // host -> device
  Counter offload_blocks;                          // Sealed in host.
  Counter offload_bytes;                           // device -> host
  std::array<Counter, kTierCount> prefetch_bytes;  // To host, by the tier they came from.
  std::array<Counter, kTierCount> cancel_blocks;   // Not read, as who asked for them had ended.
  Counter write_blocks;                            // Sealed on disk.
  Counter write_bytes;                             // host -> disk
  Counter pack_blocks;                             // Put into the shared store by us.
  Counter pack_bytes;                              // host -> object

  Counter drop_no_slot;      // Everything in host pinned or in use.
  Counter drop_step_bytes;   // Over offload.step_bytes until the request ended.
  Counter drop_copy_budget;  // The same, over offload.time_share.
  Counter drop_steps;        // Too many engine steps without a report.
  Counter drop_tainted;      // Computed beside a failed load; offered again.
  Counter drop_unfilled;     // A rank did not fill its shard.
  Counter drop_disk_write;   // Disk queue full, or the disk refused.
  Counter drop_admission;
  Counter drop_write_budget;    // Over disk.write_budget or disk.dwpd.
  Counter drop_pack_admission;  // Blocks of packs that object.admission refused.
  Counter drop_pack;            // Not put into the shared store: its queue was full, or it refused.
  Counter drop_demote;  // Evicted from host while disk had no copy: the driver was too slow.
  Counter drop_mode;    // Not copied out because somebody switched storing off meanwhile.
  Counter drop_pins;    // Look-up shortened: waiting requests hold their share of the host already.

  Counter abandoned_loads;  // Given up for taking too long; what was missing was computed.
  Counter slow_loads;       // Took longer than computing the same was predicted to take.
  Counter loads;
  Counter failed_loads;
  Counter load_ns;
  Counter save_ns, save_steps;  // Copies out, of the slowest rank.
  TimeHistogram look_up_times;  // From a request's first poll to the ready answer.
  TimeHistogram event_lag;      // From the event descriptor's being readable to take_events().
  TimeHistogram onboard_times;  // From the decision to the last block in the device, or giving up.
  Counter verified_blocks;
  std::array<Counter, kTierCount> corrupt_blocks;
  // Blocks computed to be compared with stored ones, in each KV group.
  Counter shadow_equal;
  Counter shadow_within;   // Other bytes, and within the noise floor.
  Counter shadow_beyond;   // Not.
  Counter shadow_skipped;  // Computed, or to be computed, and not compared after all.
  Counter shadow_requests;
  Counter shadow_tokens;  // Computed although a tier had them.
  Counter shadow_bytes;   // Compared, of one version.
  Counter reports;
  Counter reports_refused;
  Counter steps_lost;
  Counter canaries_passed;
  Counter canaries_failed;
  Counter read_failures;
  Counter write_failures;
  Gauge poisoned;
  Gauge mode;  // As in Mode.
  Gauge shadow_quarantined;
  // The largest difference that was within the noise floor, over the floor, in parts of a million.
  Gauge shadow_element;
  Gauge shadow_rms;

  // Of all queues, for whatever reason.
  [[nodiscard]] std::uint64_t dropped_blocks() const;
  void visit(MetricVisitor& visitor) const;

 private:
  void visit_drops(MetricVisitor& visitor) const;
  void visit_shadow(MetricVisitor& visitor) const;
};

}  // namespace terrace::manager
