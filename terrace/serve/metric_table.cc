#include "terrace/serve/metric_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

namespace terrace::serve {
namespace {

using enum MetricKind;

// clang-format off: a table reads by line.
constexpr MetricRow kRows[] = {
    {"terrace_requests_total", kCounter, "", "Requests that asked for a look-up."},
    {"terrace_prompt_tokens_total", kCounter, "", "Prompt tokens of requests that ended."},
    {"terrace_engine_hit_tokens_total", kCounter, "",
     "Of these, the tokens that the engine's own cache had."},
    {"terrace_unkeyable_requests_total", kCounter, "",
     "Requests that carry something that cannot be keyed; neither loaded nor stored."},
    {"terrace_late_lookups_total", kCounter, "",
     "Look-ups that ended at lookup.deadline with less than what was found."},
    {"terrace_answers_total", kCounter, "ending", "Requests that ended, by how, as the engine says."},
    {"terrace_hints_total", kCounter, "hint", "What clients said of their requests (docs/hints.md)."},
    {"terrace_ignored_hints_total", kCounter, "",
     "Hints that were none, or at odds with each other: the request is served as without them."},
    {"terrace_match_blocks_total", kCounter, "", "Blocks of loads that the engine accepted."},
    {"terrace_match_tokens_total", kCounter, "", "Tokens of loads that the engine accepted."},
    {"terrace_hit_tokens_total", kCounter, "tier",
     "Tokens verified in the device, by the tier they came from."},
    {"terrace_hit_blocks_total", kCounter, "tier",
     "Blocks verified in the device, by the tier they came from."},
    {"terrace_hit_rate", kGauge, "tier",
     "Of the blocks asked for beyond the engine's own hit, the share this tier delivered; over the "
     "last metrics.window requests that ended."},
    {"terrace_miss_blocks_total", kCounter, "reason",
     "Blocks not found, by the reason of the request's first miss."},
    {"terrace_failed_tokens_total", kCounter, "", "Tokens promised to the engine, then not delivered."},
    {"terrace_corrupt_blocks_total", kCounter, "tier",
     "Blocks whose bytes or header did not verify, by the tier they lay in."},
    {"terrace_verified_blocks_total", kCounter, "", "Blocks whose checksum was verified in the device."},
    {"terrace_loads_total", kCounter, "result", "Accepted loads that ended, as loaded or failed."},
    {"terrace_slow_loads_total", kCounter, "",
     "Loads that took longer than computing the same was predicted to take, or were given up."},
    {"terrace_abandoned_loads_total", kCounter, "",
     "Loads given up because they took much longer than planned, or too long; what was missing was computed."},
    {"terrace_plan_ratio", kGauge, "tier, fraction",
     "Time of planned loads / predicted time, by the slowest tier they came from; over the last "
     "fifty or so. 0 = none yet."},
    {"terrace_offload_seconds", kSummary, "", "Time the ranks copied out, the slowest of each step; count = steps that copied."},
    {"terrace_load_seconds", kSummary, "", "Time the ranks copied and verified, the slowest of each step; count = loads that came."},
    {"terrace_lookup_seconds", kHistogram, "", "Time from a request's first poll to the ready answer."},
    {"terrace_onboard_seconds", kHistogram, "",
     "Time of loads that ended, from the decision to the last block in the device, or until they were given up."},
    {"terrace_event_lag_seconds", kHistogram, "",
     "Time from the event descriptor's being readable to the engine's coming for the events."},
    {"terrace_transfer_bytes_total", kCounter, "op, source, target", "Payload bytes that arrived."},
    {"terrace_cancel_blocks_total", kCounter, "tier",
     "Blocks not read from a tier after all, as the requests that asked for them had ended."},
    {"terrace_transfer_blocks_total", kCounter, "op, source, target",
     "Blocks that arrived: sealed in the target."},
    {"terrace_drop_blocks_total", kCounter, "queue",
     "Blocks not stored, or look-ups shortened, because something was full or in doubt: see *What was dropped*."},
    {"terrace_queue_blocks", kGauge, "queue",
     "Blocks that wait: to be read from disk or the shared store, to be written to disk, to be put."},
    {"terrace_queue_limit_blocks", kGauge, "queue",
     "How many may: beyond it blocks are dropped, or answers get shorter. 0 = there is no such tier."},
    {"terrace_memory_bytes", kGauge, "of",
     "Memory of the owner: blocks in host, and what is kept about them. Of the second only what has been touched is resident."},
    {"terrace_pool_slots", kGauge, "tier, state", "Slots of a tier's pool by state."},
    {"terrace_disk_failures_total", kCounter, "op", "Disk requests that failed."},
    {"terrace_disk_foreign_slots", kGauge, "", "Disk slots that hold other namespaces' blocks."},
    {"terrace_disk_adopted_blocks_total", kCounter, "", "Blocks found on disk at the start."},
    {"terrace_disk_damaged_records_total", kCounter, "",
     "Records of slots.meta found damaged at the start; their blocks are misses."},
    {"terrace_disk_damaged_fingerprints_total", kCounter, "",
     "Namespaces found at the start whose fingerprint.txt cannot be believed; the log says which."},
    {"terrace_disk_blocks_total", kCounter, "op",
     "Blocks read from and written to disk, those of the canary included."},
    {"terrace_disk_scrub_blocks_total", kCounter, "result",
     "Blocks that scrubbing found good, found bad and dropped, or skipped as their directory is left alone."},
    {"terrace_disk_scrub_bytes_total", kCounter, "", "Bytes that scrubbing read."},
    {"terrace_disk_scrub_passes_total", kCounter, "", "Passes of scrubbing that ended."},
    {"terrace_disk_corrupt_blocks_total", kCounter, "", "Reads from disk that did not verify."},
    {"terrace_disk_forged_frames_total", kCounter, "",
     "Frames on disk that were whole and that no key opened as what they should be."},
    {"terrace_disk_locked_blocks_total", kCounter, "",
     "Reads that found a block encrypted with a key that this engine does not have, or a plain one while a key is set."},
    {"terrace_disk_locked_slots", kGauge, "",
     "Disk slots that hold blocks of keys that are not here, or plain ones beside a key."},
    {"terrace_disk_late_reads_total", kCounter, "", "Reads from disk that missed their deadline."},
    {"terrace_disk_batches_total", kCounter, "", "Groups of writes made durable together."},
    {"terrace_disk_drop_blocks_total", kCounter, "reason",
     "Blocks not written to disk: queue, slots, medium full, tier unavailable, or over the write budget."},
    {"terrace_disk_io_total", kCounter, "op", "Requests to the disk that ended."},
    {"terrace_disk_io_bytes_total", kCounter, "op", "Bytes of them."},
    {"terrace_disk_io_errors_total", kCounter, "op", "Of them, failed."},
    {"terrace_disk_stray_completions_total", kCounter, "",
     "Ends that the disk told of nothing under way, or twice: left out."},
    {"terrace_disk_served_bytes_total", kCounter, "", "Bytes of blocks read from disk and verified."},
    {"terrace_disk_written_per_served", kGauge, "",
     "All bytes written to disk over those served from it, since the start; 0 = none served yet."},
    {"terrace_disk_write_budget_bytes", kGauge, "",
     "Bytes that disk.write_budget and disk.dwpd let be written now; below 0 = debt."},
    {"terrace_disk_write_budget_day_bytes", kGauge, "", "Bytes of 24 hours; 0 = no bound."},
    {"terrace_disk_device_bytes_per_second", kGauge, "volume",
     "What each directory's device moved while it was busy, of late: its share of new blocks. "
     "`volume` counts the directories in use from 0."},
    {"terrace_disk_look_seconds", kGauge, "volume",
     "How long a look at each directory's path has been under way, made each second; 0 = none is. Over 10: it is "
     "left alone, and `terrace status` names the call."},
    {"terrace_disk_hangs_total", kCounter, "volume, operation",
     "How often a directory was left alone as something did not come back for 10 s: reads or writes of one kind "
     "(transfer), `fdatasync`, `fallocate` (60 s), or the call of a look at its path."},
    {"terrace_disk_write_window", kGauge, "",
     "Block writes that may be at the disk at a time; few while blocks are read."},
    {"terrace_disk_waiting_transfers", kGauge, "class",
     "Reads and writes that wait for a place at the disk, by their class, the most urgent first."},
    {"terrace_disk_transfer_seconds", kSummary, "class",
     "Time of a read or write, from its entry into the disk's queue to its end."},
    {"terrace_object_probes_total", kCounter, "", "Chains looked up in the shared store."},
    {"terrace_object_packs_total", kCounter, "op",
     "Packs asked for, put, there already when they were to be put, not put for an error, and gone "
     "when they were read."},
    {"terrace_object_blocks_total", kCounter, "op",
     "Blocks of a KV group read from packs and verified."},
    {"terrace_object_corrupt_blocks_total", kCounter, "",
     "Blocks of a KV group in packs that did not verify."},
    {"terrace_object_forged_frames_total", kCounter, "",
     "Frames in packs that were whole and that no key opened as what they should be."},
    {"terrace_object_bytes_total", kCounter, "op", "Verified payloads read; bytes of packs put."},
    {"terrace_object_touches_total", kCounter, "result",
     "Packs in use that were made to count as new again, or could not be."},
    {"terrace_object_gc_packs_total", kCounter, "", "Packs removed by this owner: too old, or too many."},
    {"terrace_object_gc_rounds_total", kCounter, "result",
     "Times that this owner looked through the store for them, to the end or not."},
    {"terrace_object_store_packs", kGauge, "", "Packs in the store, as this owner last counted them."},
    {"terrace_object_store_bytes", kGauge, "", "Bytes of them."},
    {"terrace_object_retries_total", kCounter, "", "Requests tried again as the store was busy."},
    {"terrace_object_rests_total", kCounter, "", "Times that a failing store was left alone."},
    {"terrace_object_requests_total", kCounter, "op", "Requests to the store that ended."},
    {"terrace_object_request_errors_total", kCounter, "op", "Of them, failed."},
    {"terrace_object_stray_answers_total", kCounter, "",
     "Answers of the store to nothing under way, or twice: left out."},
    {"terrace_forecast_hit_ratio", kGauge, "tier, factor",
     "Of all blocks that prompts asked for, the share that a tier of `factor` times its present size "
     "would have held with its eviction (`disk`: host as it is, together with a disk of that size)."},
    {"terrace_forecast_dropped_requests_total", kCounter, "",
     "Times that the forecast was not told of a request, or of its end, as too many waited."},
    {"terrace_active_requests", kGauge, "", "Requests the engine has begun and not ended."},
    {"terrace_steps_in_flight", kGauge, "", "Engine steps whose reports have not all come."},
    {"terrace_waiting_pins", kGauge, "", "Host slots pinned for requests that wait."},
    {"terrace_shadow_requests_total", kCounter, "",
     "Hits that were computed all the same, to compare what is computed with what is stored."},
    {"terrace_shadow_tokens_total", kCounter, "", "Tokens of these: computed although a tier had them."},
    {"terrace_shadow_blocks_total", kCounter, "result",
     "Their blocks in each KV group: `equal` bytes; `within` the noise floor, which is what "
     "computing in other pieces makes; `beyond` it; `skipped`, not compared."},
    {"terrace_shadow_bytes_total", kCounter, "", "Bytes compared, of one version."},
    {"terrace_shadow_floor_ratio", kGauge, "of",
     "The largest difference seen within the noise floor, over the floor: of an `element`, and of "
     "the root of the mean square (`rms`) of half a layer."},
    {"terrace_shadow_quarantined", kGauge, "",
     "1 after a difference beyond the noise floor: every look-up misses."},
    {"terrace_reports_total", kCounter, "result", "Reports of workers, taken or refused."},
    {"terrace_lost_steps_total", kCounter, "", "Engine steps whose report never came."},
    {"terrace_canaries_total", kCounter, "result", "Canary runs, passed or failed."},
    {"terrace_mode", kGauge, "", "0 on, 1 read-only, 2 paused: what somebody has switched to; 3 observes."},
    {"terrace_poisoned", kGauge, "", "1 after a broken invariant: every look-up misses."},
    {"terrace_problems", kGauge, "",
     "Lines of `problems` in `terrace status`, once a second: 0 is health green. The page's port is "
     "not among them."},
};

constexpr KvbmMetricRow kKvbmRows[] = {
    {"matched_tokens", kCounter, {"terrace_match_tokens_total", ""},
     "Tokens of accepted loads, once per request.", "Matched Tokens"},
    {"offload_blocks_d2h", kCounter,
     {"terrace_transfer_blocks_total", R"(op="offload",source="device",target="host")"},
     "Blocks sealed in host.", "Offload Blocks - Device to Host"},
    {"offload_blocks_h2d", kCounter,
     {"terrace_transfer_blocks_total", R"(op="offload",source="host",target="disk")"},
     "Blocks sealed on disk.", "Offload Blocks - Host to Disk"},
    {"offload_blocks_d2d", kCounter,
     {"terrace_transfer_blocks_total", R"(op="offload",source="device",target="disk")"},
     "Blocks sealed on disk without a host slot.", "Offload Blocks - Device to Disk (Bypass Host)"},
    {"onboard_blocks_h2d", kCounter, {"terrace_hit_blocks_total", R"(tier="host")"},
     "Blocks from host, verified in the device.", "Onboard Blocks - Host to Device"},
    {"onboard_blocks_d2d", kCounter, {"terrace_hit_blocks_total", R"(tier="disk")"},
     "Blocks from disk, verified in the device.", "Onboard Blocks - Disk to Device"},
    {"host_cache_hit_rate", kGauge, {"terrace_hit_rate", R"(tier="host")"},
     "Host blocks over blocks asked beyond the device hit.", "Host Cache Hit Rate"},
    {"disk_cache_hit_rate", kGauge, {"terrace_hit_rate", R"(tier="disk")"},
     "Disk blocks over blocks asked beyond the device hit.", "Disk Cache Hit Rate"},
    {"object_cache_hit_rate", kGauge, {"terrace_hit_rate", R"(tier="object")"},
     "Blocks of the shared store over blocks asked beyond the device hit.", ""},
    {"offload_blocks_d2o", kCounter,
     {"terrace_transfer_blocks_total", R"(op="offload",source="host",target="object")"},
     "Blocks put into the shared store, out of host.", ""},
    {"onboard_blocks_o2d", kCounter, {"terrace_hit_blocks_total", R"(tier="object")"},
     "Blocks from the shared store, verified in the device.", ""},
    {"object_read_failures", kCounter, {"terrace_object_request_errors_total", R"(op="get")"},
     "Reads from the shared store that failed.", ""},
    {"object_write_failures", kCounter, {"terrace_object_request_errors_total", R"(op="put")"},
     "Puts into the shared store that failed.", ""},
    {"offload_bytes_object", kCounter,
     {"terrace_transfer_bytes_total", R"(op="offload",source="host",target="object")"},
     "Bytes put into the shared store.", ""},
    {"onboard_bytes_object", kCounter,
     {"terrace_transfer_bytes_total", R"(op="prefetch",source="object",target="host")"},
     "Bytes read from the shared store.", ""},
};

struct DropRow {
  std::string_view queue;
  std::string_view help;
};
// What the label `queue` of terrace_drop_blocks_total says.
constexpr DropRow kDropRows[] = {
    {"host_slots", "Host was full of blocks in use: raise `host.size`."},
    {"step_bytes", "More than `offload.step_bytes` in each step that was left of the request."},
    {"copy_budget", "Copies out took their share of the engine's time (`offload.time_share`) until the request ended."},
    {"steps", "Too many steps without a report: the ranks hang, or are behind."},
    {"tainted", "Computed beside a load that failed; offered again once it is computed anew."},
    {"unfilled", "A rank did not fill its part: it died, or its report was lost."},
    {"disk_write", "The disk's queue was full, or the disk took nothing: `terrace status` says which."},
    {"demote", "Left host before it could be written (`disk.write` = `demote`)."},
    {"object_write", "The shared store's queue was full, or the store took nothing."},
    {"pins", "Waiting requests held their share of host (`lookup.pin_share`): an answer was shortened."},
    {"admission", "`disk.admission` refused it, as you set it."},
    {"object_admission", "`object.admission` refused it, as you set it."},
    {"write_budget", "Over `disk.write_budget` or `disk.dwpd`, as you set it."},
    {"mode", "Somebody switched to read-only or paused."},
};
// clang-format on

std::string code_or_dash(std::string_view text) {
  return text.empty() ? "–" : fmt::format("`{}`", text);
}

std::string sample_text(const MetricSample& sample) {
  if (sample.name.empty()) return "–";
  if (sample.labels.empty()) return fmt::format("`{}`", sample.name);
  return fmt::format("`{}{{{}}}`", sample.name, sample.labels);
}

}  // namespace

std::string_view to_string(MetricKind kind) {
  switch (kind) {
    case kCounter:
      return "counter";
    case kGauge:
      return "gauge";
    case kSummary:
      return "summary";
    case kHistogram:
      return "histogram";
  }
  return "untyped";
}

std::span<const MetricRow> metric_rows() { return kRows; }
std::span<const KvbmMetricRow> kvbm_metric_rows() { return kKvbmRows; }

const MetricRow* find_metric(std::string_view sample_name) {
  for (const MetricRow& row : kRows) {
    const bool has_parts = row.kind == kSummary || row.kind == kHistogram;
    if (!has_parts && row.name == sample_name) return &row;
    if (!has_parts || !sample_name.starts_with(row.name)) continue;
    const std::string_view rest = sample_name.substr(row.name.size());
    if (rest == "_sum" || rest == "_count") return &row;
    if (row.kind == kHistogram && rest == "_bucket") return &row;
  }
  return nullptr;
}

std::string metrics_markdown() {
  std::string out =
      "# Metrics\n\n"
      "Made by `terrace metrics --list --markdown` from `terrace/serve/metric_table.cc`; a test "
      "fails when this\npage is stale. Text in Prometheus' format comes over HTTP from a Unix "
      "socket, with `metrics.enabled` from a\nTCP port, too ([operations.md](operations.md), "
      "*Health*), and from `terrace_read_metrics()`. Counters move when\nthe thing happened, "
      "not when it was queued. Labels never hold hashes, paths or request ids.\n\n"
      "| metric | type | labels | meaning |\n|---|---|---|---|\n";
  for (const MetricRow& row : kRows) {
    fmt::format_to(std::back_inserter(out), "| `{}` | {} | {} | {} |\n", row.name,
                   to_string(row.kind), code_or_dash(row.labels), row.help);
  }
  out +=
      "\n## What was dropped\n\nOf `terrace_drop_blocks_total`:\n\n"
      "| `queue` | why |\n|---|---|\n";
  for (const DropRow& row : kDropRows) {
    fmt::format_to(std::back_inserter(out), "| `{}` | {} |\n", row.queue, row.help);
  }
  out +=
      "\n## KVBM's names\n\n"
      "With `metrics.kvbm_names` = kvbm, dynamo_kvbm or both, the same moments are also exported "
      "under "
      "the names\nthat KVBM's exporter (`kvbm_…`) and its dashboard (`dynamo_kvbm_…`) use. 0 is "
      "exported from the start. As in\nKVBM, its counters do not end in `_total`, which `promtool "
      "check metrics` remarks on. The panels are those of\nKVBM's dashboard; "
      "`deploy/grafana/kvbm.json` has them for either prefix.\n\n"
      "| `kvbm_` + | type | taken from | moves when | panel |\n|---|---|---|---|---|\n";
  for (const KvbmMetricRow& row : kKvbmRows) {
    fmt::format_to(std::back_inserter(out), "| `{}` | {} | {} | {} | {} |\n", row.name,
                   to_string(row.kind), sample_text(row.source), row.help,
                   row.panel.empty() ? "–" : row.panel);
  }
  return out;
}

std::string metrics_json() {
  nlohmann::ordered_json out;
  out["metrics"] = nlohmann::ordered_json::array();
  for (const MetricRow& row : kRows) {
    out["metrics"].push_back({{"name", row.name},
                              {"type", to_string(row.kind)},
                              {"labels", row.labels},
                              {"help", row.help}});
  }
  out["kvbm"] = nlohmann::ordered_json::array();
  for (const KvbmMetricRow& row : kKvbmRows) {
    out["kvbm"].push_back({{"name", row.name},
                           {"type", to_string(row.kind)},
                           {"metric", row.source.name},
                           {"labels", row.source.labels},
                           {"help", row.help}});
  }
  return out.dump(2) + "\n";
}

std::string metrics_list() {
  std::string out;
  for (const MetricRow& row : kRows) {
    const std::string name =
        row.labels.empty() ? std::string(row.name) : fmt::format("{}{{{}}}", row.name, row.labels);
    fmt::format_to(std::back_inserter(out), "{}  ({})\n    {}\n", name, to_string(row.kind),
                   row.help);
  }
  return out;
}

}  // namespace terrace::serve
