// Cells as Prometheus text (exposition format 0.0.4): samples of one metric stand together under
// their HELP and TYPE, in the order of the metric table; names that the table lacks come last,
// untyped. Threading: thread-compatible; one writer per scrape.  Owns: the samples seen.  Waits:
// never. Source: Prometheus, "Exposition formats".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "terrace/base/metric.h"
#include "terrace/config/settings.h"
#include "terrace/serve/metric_table.h"

namespace terrace::serve {

class MetricsText final : public MetricVisitor {
 public:
  explicit MetricsText(config::KvbmNames kvbm_names = config::KvbmNames::kOff)
      : kvbm_names_(kvbm_names) {}

  void counter(std::string_view name, std::string_view labels, std::uint64_t value) override;
  void gauge(std::string_view name, std::string_view labels, double value) override;

  // All that was visited so far. A sample visited twice is printed once, with its last value.
  [[nodiscard]] std::string text() const;
  // Names visited that the table does not know: for tests, must be empty.
  [[nodiscard]] std::vector<std::string> undocumented() const;

 private:
  struct Sample {
    const MetricRow* row;  // Nothing: not in the table.
    std::string name;
    std::string labels;
    std::string value;
  };
  void put(std::string_view name, std::string_view labels, std::string value);
  [[nodiscard]] std::string_view value_of(std::string_view name, std::string_view labels) const;
  void write_kvbm(std::string_view prefix, std::string& out) const;

  const config::KvbmNames kvbm_names_;
  std::vector<Sample> samples_;
};

// As Prometheus writes numbers: NaN, +Inf, -Inf, or the shortest decimal.
[[nodiscard]] std::string metric_number(double value);
// HELP texts: backslash and newline escaped.
[[nodiscard]] std::string escape_help(std::string_view text);

}  // namespace terrace::serve
