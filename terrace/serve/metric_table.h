// The one table of metrics: what each name means, and KVBM's names for the same things.
// Threading: immutable.  Waits: never.  Source: for its names, KVBM 1.6.1's exporter.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace terrace::serve {

// kSummary: `_sum`, `_count`; kHistogram: these and `_bucket`, by `le`.
enum class MetricKind : std::uint8_t { kCounter, kGauge, kSummary, kHistogram };
[[nodiscard]] std::string_view to_string(MetricKind kind);

struct MetricRow {
  std::string_view name;
  MetricKind kind;
  std::string_view labels;  // "tier, state"; empty = none.
  std::string_view help;
};

// One of Terrace's samples: its name and its exact label text.
struct MetricSample {
  std::string_view name{};
  std::string_view labels{};
};

// KVBM's counters have no labels and no `_total`; all are exported from the start.
struct KvbmMetricRow {
  std::string_view name;  // Without the prefix `kvbm_` or `dynamo_kvbm_`.
  MetricKind kind;
  MetricSample source;  // Empty = always 0: the tier is not built.
  std::string_view help;
  std::string_view panel;  // Of KVBM's dashboard; empty = none.
};

[[nodiscard]] std::span<const MetricRow> metric_rows();
[[nodiscard]] std::span<const KvbmMetricRow> kvbm_metric_rows();
// The row of a sample's name, `_sum` and `_count` of summaries and the like included.
[[nodiscard]] const MetricRow* find_metric(std::string_view sample_name);
// docs/metrics.md, whole.
[[nodiscard]] std::string metrics_markdown();
[[nodiscard]] std::string metrics_json();
// For people: one line per metric.
[[nodiscard]] std::string metrics_list();

}  // namespace terrace::serve
