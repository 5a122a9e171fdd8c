#include "terrace/serve/http/history.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

namespace terrace::serve {
namespace {

constexpr double kUnseen = std::numeric_limits<double>::quiet_NaN();

// clang-format off: a table reads by line.
// What the page draws over time.
constexpr std::string_view kSeries[] = {
    "terrace_requests_total",
    "terrace_prompt_tokens_total",
    "terrace_engine_hit_tokens_total",
    R"(terrace_hit_tokens_total{tier="host"})",
    R"(terrace_hit_tokens_total{tier="disk"})",
    R"(terrace_hit_tokens_total{tier="object"})",
    "terrace_failed_tokens_total",
    R"(terrace_miss_blocks_total{reason="never_stored"})",
    R"(terrace_miss_blocks_total{reason="evicted"})",
    R"(terrace_miss_blocks_total{reason="other_namespace"})",
    R"(terrace_miss_blocks_total{reason="corrupt"})",
    R"(terrace_miss_blocks_total{reason="late"})",
    R"(terrace_miss_blocks_total{reason="dropped"})",
    R"(terrace_miss_blocks_total{reason="not_worth_it"})",
    R"(terrace_miss_blocks_total{reason="unkeyable"})",
    R"(terrace_miss_blocks_total{reason="paused"})",
    R"(terrace_miss_blocks_total{reason="shadow"})",
    R"(terrace_miss_blocks_total{reason="quarantined"})",
    R"(terrace_pool_slots{tier="host",state="sealed"})",
    R"(terrace_pool_slots{tier="host",state="pinned"})",
    R"(terrace_pool_slots{tier="disk",state="sealed"})",
    "terrace_object_store_bytes",
    R"(terrace_transfer_bytes_total{op="onboard",source="host",target="device"})",
    R"(terrace_transfer_bytes_total{op="offload",source="device",target="host"})",
    R"(terrace_transfer_bytes_total{op="offload",source="host",target="disk"})",
    R"(terrace_transfer_bytes_total{op="offload",source="host",target="object"})",
    R"(terrace_transfer_bytes_total{op="prefetch",source="disk",target="host"})",
    R"(terrace_transfer_bytes_total{op="prefetch",source="object",target="host"})",
    R"(terrace_loads_total{result="loaded"})",
    R"(terrace_loads_total{result="failed"})",
    "terrace_lookup_seconds_sum",
    "terrace_lookup_seconds_count",
    "terrace_onboard_seconds_sum",
    "terrace_onboard_seconds_count",
    "terrace_active_requests",
};
// clang-format on
constexpr std::string_view kHistograms[] = {"terrace_lookup_seconds", "terrace_onboard_seconds"};
constexpr std::string_view kBounds[] = {"0.0001", "0.0002", "0.0005", "0.001", "0.002", "0.005",
                                        "0.01",   "0.02",   "0.05",   "0.1",   "0.2",   "0.5",
                                        "1",      "2",      "5",      "10",    "+Inf"};

// Puts cells into their columns.
class Sampler final : public MetricVisitor {
 public:
  Sampler(const std::unordered_map<std::string, std::size_t>& columns, std::vector<double>& sample)
      : columns_(columns), sample_(sample) {}
  void counter(std::string_view name, std::string_view labels, std::uint64_t value) override {
    gauge(name, labels, static_cast<double>(value));
  }
  void gauge(std::string_view name, std::string_view labels, double value) override {
    key_.assign(name);
    if (!labels.empty()) {
      key_ += '{';
      key_ += labels;
      key_ += '}';
    }
    if (const auto found = columns_.find(key_); found != columns_.end()) {
      sample_[found->second] = value;
    }
  }

 private:
  const std::unordered_map<std::string, std::size_t>& columns_;
  std::vector<double>& sample_;
  std::string key_;
};

void write_value(double value, std::string& out) {
  if (std::isfinite(value)) {
    fmt::format_to(std::back_inserter(out), "{}", value);
  } else {
    out += "null";
  }
}

// Names hold quotes and nothing else that JSON would have escaped.
void write_name(std::string_view name, std::string& out) {
  out += '"';
  for (const char c : name) {
    if (c == '"') out += '\\';
    out += c;
  }
  out += "\":";
}

double seconds_of(Nanoseconds time) { return static_cast<double>(time.value()) * 1e-9; }

}  // namespace

History::History() {
  for (const std::string_view name : kSeries) names_.emplace_back(name);
  series_ = names_.size();
  for (const std::string_view name : kHistograms) {
    for (const std::string_view bound : kBounds) {
      names_.push_back(fmt::format("{}_bucket{{le=\"{}\"}}", name, bound));
    }
  }
  for (std::size_t i = 0; i < names_.size(); ++i) columns_.emplace(names_[i], i);
  sample_.resize(names_.size(), kUnseen);
  fine_ = Ring(kFineSamples, names_.size());
  coarse_ = Ring(kCoarseSamples, names_.size());
}

void History::put(Ring& ring, Nanoseconds now) const {
  const std::size_t at = ring.taken % ring.times.size();
  ring.times[at] = now;
  std::ranges::copy(sample_,
                    ring.values.begin() + static_cast<std::ptrdiff_t>(at * sample_.size()));
  ++ring.taken;
}

void History::take(const std::function<void(MetricVisitor&)>& visit, Nanoseconds now) {
  std::ranges::fill(sample_, kUnseen);
  Sampler sampler(columns_, sample_);
  visit(sampler);
  put(fine_, now);
  const bool is_first = coarse_.taken == 0;
  if (is_first || now - coarse_.times[(coarse_.taken - 1) % kCoarseSamples] >= kCoarseStep) {
    put(coarse_, now);
  }
}

const History::Ring& History::ring_for(Nanoseconds span) const {
  return span <= kFineStep * static_cast<std::int64_t>(kFineSamples) ? fine_ : coarse_;
}

std::string History::json(Nanoseconds span, Nanoseconds now, std::int64_t wall_seconds) const {
  const Ring& ring = ring_for(span);
  std::vector<std::size_t> places;  // Oldest first.
  for (std::size_t back = 0; back < std::min(ring.taken, ring.times.size()); ++back) {
    const std::size_t at = (ring.taken - 1 - back) % ring.times.size();
    if (now - ring.times[at] > span) break;
    places.push_back(at);
  }
  const std::size_t step =
      std::max<std::size_t>(1, (places.size() + kMostPoints - 1) / kMostPoints);
  std::size_t kept = 0;
  for (std::size_t i = 0; i < places.size(); i += step) places[kept++] = places[i];
  places.resize(kept);
  std::ranges::reverse(places);

  std::string out;
  const Nanoseconds own_step = &ring == &fine_ ? kFineStep : kCoarseStep;
  fmt::format_to(std::back_inserter(out), R"({{"now":{},"step_seconds":{},"ages":[)", wall_seconds,
                 seconds_of(own_step * static_cast<std::int64_t>(step)));
  for (std::size_t i = 0; i < places.size(); ++i) {
    fmt::format_to(std::back_inserter(out), "{}{:.1f}", i == 0 ? "" : ",",
                   seconds_of(now - ring.times[places[i]]));
  }
  out += R"(],"columns":{)";
  for (std::size_t column = 0; column < series_; ++column) {
    if (column > 0) out += ',';
    write_name(names_[column], out);
    out += '[';
    for (std::size_t i = 0; i < places.size(); ++i) {
      if (i > 0) out += ',';
      write_value(ring.values[places[i] * names_.size() + column], out);
    }
    out += ']';
  }
  out += R"(},"first":{)";
  for (std::size_t column = series_; column < names_.size(); ++column) {
    if (column > series_) out += ',';
    write_name(names_[column], out);
    write_value(places.empty() ? kUnseen : ring.values[places[0] * names_.size() + column], out);
  }
  return out + "}}\n";
}

Bytes History::bytes() const {
  std::uint64_t sum = 0;
  for (const Ring* ring : {&fine_, &coarse_}) {
    sum += ring->times.size() * sizeof(Nanoseconds) + ring->values.size() * sizeof(double);
  }
  return Bytes(sum);
}

}  // namespace terrace::serve
