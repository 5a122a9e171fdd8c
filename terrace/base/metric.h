// Metric cells: one relaxed atomic each, owned by the part that counts. Counters move when the
// thing happened, not when it was queued. `serve/` visits all cells to write text. Threading:
// thread-safe.  Waits: never.
#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

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

}  // namespace terrace
