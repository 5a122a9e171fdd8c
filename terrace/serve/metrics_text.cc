#include "terrace/serve/metrics_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

namespace terrace::serve {
namespace {

void write_head(std::string_view name, std::string_view kind, std::string_view help,
                std::string& out) {
  fmt::format_to(std::back_inserter(out), "# HELP {} {}\n# TYPE {} {}\n", name, escape_help(help),
                 name, kind);
}

void write_sample(std::string_view name, std::string_view labels, std::string_view value,
                  std::string& out) {
  if (labels.empty()) {
    fmt::format_to(std::back_inserter(out), "{} {}\n", name, value);
  } else {
    fmt::format_to(std::back_inserter(out), "{}{{{}}} {}\n", name, labels, value);
  }
}

}  // namespace

std::string metric_number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  return fmt::format("{}", value);
}

std::string escape_help(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

void MetricsText::put(std::string_view name, std::string_view labels, std::string value) {
  for (Sample& sample : samples_) {
    if (sample.name == name && sample.labels == labels) {
      sample.value = std::move(value);
      return;
    }
  }
  samples_.push_back({find_metric(name), std::string(name), std::string(labels), std::move(value)});
}

void MetricsText::counter(std::string_view name, std::string_view labels, std::uint64_t value) {
  put(name, labels, fmt::format("{}", value));
}

void MetricsText::gauge(std::string_view name, std::string_view labels, double value) {
  put(name, labels, metric_number(value));
}

std::string_view MetricsText::value_of(std::string_view name, std::string_view labels) const {
  for (const Sample& sample : samples_) {
    if (sample.name == name && sample.labels == labels) return sample.value;
  }
  return "0";
}

std::vector<std::string> MetricsText::undocumented() const {
  std::vector<std::string> names;
  for (const Sample& sample : samples_) {
    if (sample.row == nullptr && std::ranges::count(names, sample.name) == 0) {
      names.push_back(sample.name);
    }
  }
  return names;
}

void MetricsText::write_kvbm(std::string_view prefix, std::string& out) const {
  for (const KvbmMetricRow& row : kvbm_metric_rows()) {
    const std::string name = fmt::format("{}{}", prefix, row.name);
    write_head(name, to_string(row.kind), row.help, out);
    write_sample(name, "", value_of(row.source.name, row.source.labels), out);
  }
}

std::string MetricsText::text() const {
  std::string out;
  for (const MetricRow& row : metric_rows()) {
    bool has_head = false;
    for (const Sample& sample : samples_) {
      if (sample.row != &row) continue;
      if (!has_head) write_head(row.name, to_string(row.kind), row.help, out);
      has_head = true;
      write_sample(sample.name, sample.labels, sample.value, out);
    }
  }
  for (const std::string& name : undocumented()) {
    write_head(name, "untyped", "Not documented.", out);
    for (const Sample& sample : samples_) {
      if (sample.name == name) write_sample(name, sample.labels, sample.value, out);
    }
  }
  using enum config::KvbmNames;
  if (kvbm_names_ == kKvbm || kvbm_names_ == kBoth) write_kvbm("kvbm_", out);
  if (kvbm_names_ == kDynamoKvbm || kvbm_names_ == kBoth) write_kvbm("dynamo_kvbm_", out);
  return out;
}

}  // namespace terrace::serve
