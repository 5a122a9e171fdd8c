// p99 of an onboard read while the tier writes as much as it can, beside that on an idle device:
// the production disk tier on a simulated device of fixed service times, in virtual time.
//   onboard_bench [--payload=BYTES] [--blocks=N] [--reads=N] [--seed=N]
// One JSON line per size of a read; `ratio` is loaded p99 / idle p99 (goal: at most 2).
#include <string>
#include <vector>

#include "terrace/sim/onboard_rig.h"
#include "terrace/testing/bench_json.h"

namespace terrace::sim {
namespace {

double seconds_in(Nanoseconds time) { return static_cast<double>(time.value()) / 1e9; }

void report(const OnboardLoad& given, int runs, const testing::Machine& machine) {
  testing::BenchResult result{.name = "sim.onboard",
                              .unit = "s",
                              .higher_is_better = false,
                              .samples = {},
                              .limit_name = "idle p99",
                              .limit_samples = {},
                              .params = {}};
  double share = 0;
  for (int run = 0; run < runs; ++run) {
    OnboardLoad load = given;
    load.seed += static_cast<std::uint64_t>(run);
    const OnboardTimes times = measure_onboard(load);
    result.samples.push_back(seconds_in(times.loaded_p99));
    result.limit_samples.push_back(seconds_in(times.idle_p99));
    share += times.written_share / runs;
  }
  result.param("payload_bytes", static_cast<std::int64_t>(given.payload_bytes))
      .param("blocks_per_read", given.blocks_per_read)
      .param("depth", given.depth)
      .param("channels", given.device.channels)
      .param("written_percent", static_cast<std::int64_t>(share * 100));
  testing::print(result, machine);
}

int run(const std::vector<std::string>& arguments) {
  OnboardLoad load;
  std::vector<unsigned> sizes{1, 16};
  for (const std::string& argument : arguments) {
    const auto value = [&](const std::string& name) {
      return std::stoull(argument.substr(name.size()));
    };
    if (argument.starts_with("--payload=")) load.payload_bytes = value("--payload=");
    if (argument.starts_with("--blocks=")) sizes = {static_cast<unsigned>(value("--blocks="))};
    if (argument.starts_with("--reads=")) load.reads = static_cast<unsigned>(value("--reads="));
    if (argument.starts_with("--seed=")) load.seed = value("--seed=");
  }
  const testing::Machine machine = testing::machine_facts();
  for (const unsigned blocks : sizes) {
    load.blocks_per_read = blocks;
    load.between_reads = milliseconds(4) * blocks;
    report(load, 5, machine);
  }
  return 0;
}

}  // namespace
}  // namespace terrace::sim

int main(int count, char** values) {
  return terrace::sim::run(std::vector<std::string>(values + 1, values + count));
}
