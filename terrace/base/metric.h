// Metric cells: one relaxed atomic each, owned by the part that counts. Counters move when the
// thing happened, not when it was queued. `serve/` visits all cells to write text. Threading:
// thread-safe.  Waits: never.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "terrace/base/strong.h"

namespace terrace {

class Counter {
 public:
  void add(std::uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

class Gauge {
 public:
  void set(std::int64_t n) { value_.store(n, std::memory_order_relaxed); }
  void add(std::int64_t n) { value_.fetch_add(n, std::memory_order_relaxed); }
  [[nodiscard]] std::int64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::int64_t> value_{0};
};

// Receives every cell of a part. `labels` is Prometheus text such as `tier="host",state="free"`,
// or empty. Names are documented in docs/metrics.md.
class MetricVisitor {
 public:
  virtual ~MetricVisitor() = default;
  virtual void counter(std::string_view name, std::string_view labels, std::uint64_t value) = 0;
  virtual void gauge(std::string_view name, std::string_view labels, double value) = 0;
};

// How many times took how long: buckets whose bounds go 1, 2, 5 a decade, from 0.1 ms to 10 s.
class TimeHistogram {
 public:
  void add(Nanoseconds time) {
    std::size_t bucket = 0;
    while (bucket < kBounds.size() && time.value() > kBounds.at(bucket).ns) ++bucket;
    buckets_.at(bucket).fetch_add(1, std::memory_order_relaxed);
    sum_ns_.fetch_add(time.value(), std::memory_order_relaxed);
  }
  // `name`_bucket, which add up and end in +Inf, `name`_sum in seconds, `name`_count.
  void visit(std::string_view name, MetricVisitor& visitor) const {
    const std::string bucket_name = std::string(name) + "_bucket";
    std::uint64_t count = 0;
    for (std::size_t i = 0; i < kBounds.size(); ++i) {
      count += buckets_.at(i).load(std::memory_order_relaxed);
      visitor.counter(bucket_name, kBounds.at(i).label, count);
    }
    count += buckets_.back().load(std::memory_order_relaxed);
    visitor.counter(bucket_name, R"(le="+Inf")", count);
    const auto sum_ns = static_cast<double>(sum_ns_.load(std::memory_order_relaxed));
    visitor.gauge(std::string(name) + "_sum", {}, sum_ns * 1e-9);
    visitor.counter(std::string(name) + "_count", {}, count);
  }

 private:
  struct Bound {
    std::int64_t ns;
    std::string_view label;
  };
  static constexpr std::array<Bound, 16> kBounds = {{{100'000, R"(le="0.0001")"},
                                                     {200'000, R"(le="0.0002")"},
                                                     {500'000, R"(le="0.0005")"},
                                                     {1'000'000, R"(le="0.001")"},
                                                     {2'000'000, R"(le="0.002")"},
                                                     {5'000'000, R"(le="0.005")"},
                                                     {10'000'000, R"(le="0.01")"},
                                                     {20'000'000, R"(le="0.02")"},
                                                     {50'000'000, R"(le="0.05")"},
                                                     {100'000'000, R"(le="0.1")"},
                                                     {200'000'000, R"(le="0.2")"},
                                                     {500'000'000, R"(le="0.5")"},
                                                     {1'000'000'000, R"(le="1")"},
                                                     {2'000'000'000, R"(le="2")"},
                                                     {5'000'000'000, R"(le="5")"},
                                                     {10'000'000'000, R"(le="10")"}}};
  std::array<std::atomic<std::uint64_t>, kBounds.size() + 1> buckets_{};
  std::atomic<std::int64_t> sum_ns_{0};
};

}  // namespace terrace
