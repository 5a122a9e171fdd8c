// Benchmark results as JSON lines (bench/README.md): machine facts, medians, alternating runs.
// Threading: thread-compatible.  Waits: only for the functions it is given.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terrace/base/clock.h"

namespace terrace::testing {

struct Machine {
  std::string cpu;
  unsigned cores = 0;
  std::uint64_t memory_bytes = 0;
  std::string disk;  // "ext4 /dev/vda1" of the path asked for; empty = no disk in this benchmark.
  std::string kernel;
  std::string gpu = {};  // Its name; empty = no GPU in this benchmark.
};
[[nodiscard]] Machine machine_facts(std::string_view disk_path = {});
// Short hash of the source tree's HEAD, or "unknown".
[[nodiscard]] std::string source_revision();

struct Spread {
  double p25 = 0;
  double median = 0;
  double p75 = 0;
};
// Linear interpolation between the closest ranks; all zero without samples.
[[nodiscard]] Spread spread_of(std::vector<double> samples);

struct BenchResult {
  std::string name;              // "disk.read"
  std::string unit = "bytes/s";  // Of samples and limit_samples alike.
  bool higher_is_better = true;
  std::vector<double> samples;
  std::string limit_name;             // Empty = there is no limit to compare with.
  std::vector<double> limit_samples;  // Measured in the same run, alternating with `samples`.
  std::vector<std::pair<std::string, std::string>> params;  // Name and JSON value.

  BenchResult& param(std::string_view key, std::int64_t value);
  BenchResult& param(std::string_view key, std::string_view value);
};

[[nodiscard]] std::string json_line(const BenchResult& result, const Machine& machine);
// json_line to standard output, flushed.
void print(const BenchResult& result, const Machine& machine);

// Calls every function once to warm up, then `runs` times all of them in turn, and hands back each
// one's values. The order rotates from run to run, so that no function always follows the same one.
[[nodiscard]] std::vector<std::vector<double>> alternate(
    int runs, const std::vector<std::function<double()>>& functions);

// Seconds that `body` took by `clock`.
[[nodiscard]] double seconds_of(const Clock& clock, const std::function<void()>& body);

// A value the optimiser has to assume is used.
template <typename T>
void keep(const T& value) {
  asm volatile("" : : "r,m"(value) : "memory");
}

}  // namespace terrace::testing
