// What an owner was like of late: a fixed set of its metrics, every 5 s for an hour and every
// minute for a day. Threading: thread-compatible; the thread of the HTTP port has it.  Owns: the
// samples. Waits: never.  Memory: bytes(), all of it from the start; some 1.6 MB.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/metric.h"

namespace terrace::serve {

class History {
 public:
  static constexpr Nanoseconds kFineStep = seconds(5);
  static constexpr std::size_t kFineSamples = 720;
  static constexpr Nanoseconds kCoarseStep = seconds(60);
  static constexpr std::size_t kCoarseSamples = 1440;
  static constexpr std::size_t kMostPoints = 360;  // Of an answer; newest first, then each k-th.

  History();
  // One sample. `visit` shows all cells; those that are not kept are left out.
  void take(const std::function<void(MetricVisitor&)>& visit, Nanoseconds now);
  // One JSON object: `now` (since 1970), `step_seconds`, `ages` (seconds before now, oldest first),
  // `columns` (sample name -> one value an age, null = was not there yet) and `first` (sample name
  // -> value at the oldest age, for buckets). Of the last `span`, at most a day.
  [[nodiscard]] std::string json(Nanoseconds span, Nanoseconds now,
                                 std::int64_t wall_seconds) const;
  [[nodiscard]] Bytes bytes() const;

 private:
  struct Ring {
    Ring(std::size_t samples, std::size_t columns) : times(samples), values(samples * columns) {}
    std::vector<Nanoseconds> times;
    std::vector<double> values;  // [sample, column]
    std::size_t taken = 0;       // Since the start; the next one goes to taken % times.size().
  };
  void put(Ring& ring, Nanoseconds now) const;
  [[nodiscard]] const Ring& ring_for(Nanoseconds span) const;

  std::vector<std::string> names_;                        // As in Prometheus text.
  std::unordered_map<std::string, std::size_t> columns_;  // Of a name.
  std::size_t series_ = 0;                                // The columns after these are buckets.
  std::vector<double> sample_;                            // [column], NaN = not seen.
  Ring fine_{0, 0};
  Ring coarse_{0, 0};
};

}  // namespace terrace::serve
