// Time to first token over a throttled disk: the planner beside an engine alone and beside each
// fixed choice, in virtual time.
//   throttle_bench [--requests=N] [--seeds=N] [--seed=N] [--throttle=X] [--choice=NAME]
// Throttle 0 is one that changes.
// One JSON line per throttle, choice and quantile; `ratio` is that to the engine alone.
#include <cmath>
#include <string>
#include <vector>

#include "terrace/sim/plan_rig.h"
#include "terrace/testing/bench_json.h"

namespace terrace::sim {
namespace {

double seconds_in(Nanoseconds time) { return static_cast<double>(time.value()) / 1e9; }

void report(const PlanLoad& given, const std::string& choice, unsigned seeds,
            const testing::Machine& machine) {
  std::vector<PlanTimes> times;
  std::uint64_t loads = 0;
  std::uint64_t slow = 0;
  std::uint64_t abandoned = 0;
  for (unsigned i = 0; i < seeds; ++i) {
    PlanLoad load = given;
    load.seed += i;
    times.push_back(measure_plan(load));
    loads += times.back().loads;
    slow += times.back().slow_loads;
    abandoned += times.back().abandoned;
  }
  for (const double share : {0.5, 0.99}) {
    testing::BenchResult result{.name = "sim.plan",
                                .unit = "s",
                                .higher_is_better = false,
                                .samples = {},
                                .limit_name = "engine alone",
                                .limit_samples = {},
                                .params = {}};
    for (const PlanTimes& run : times) {
      result.samples.push_back(seconds_in(quantile(run.first_token, share)));
      result.limit_samples.push_back(seconds_in(quantile(run.off, share)));
    }
    result.param("choice", choice)
        .param("quantile", share == 0.5 ? "p50" : "p99")
        .param("throttle_per_mille", static_cast<std::int64_t>(std::lround(given.throttle * 1000)))
        .param("changes_every", static_cast<std::int64_t>(given.changes_every))
        .param("requests", static_cast<std::int64_t>(given.requests))
        .param("loads", static_cast<std::int64_t>(loads))
        .param("slow_loads", static_cast<std::int64_t>(slow))
        .param("abandoned", static_cast<std::int64_t>(abandoned));
    testing::print(result, machine);
  }
}

int run(const std::vector<std::string>& arguments) {
  PlanLoad load;
  unsigned seeds = 5;
  std::vector<double> throttles{1, 0.3, 0.1, 0.05, 0.03, 0.01, 0.001, 0};
  std::string only;  // Of the choices; empty = all.
  for (const std::string& argument : arguments) {
    const auto value = [&](const std::string& name) { return argument.substr(name.size()); };
    if (argument.starts_with("--requests=")) {
      load.requests = static_cast<unsigned>(std::stoul(value("--requests=")));
    }
    if (argument.starts_with("--seeds=")) {
      seeds = static_cast<unsigned>(std::stoul(value("--seeds=")));
    }
    if (argument.starts_with("--seed=")) load.seed = std::stoull(value("--seed="));
    if (argument.starts_with("--throttle=")) throttles = {std::stod(value("--throttle="))};
    if (argument.starts_with("--choice=")) only = value("--choice=");
  }
  const testing::Machine machine = testing::machine_facts();
  for (const double throttle : throttles) {
    load.throttle = throttle == 0 ? 1 : throttle;
    load.changes_every = throttle == 0 ? 100 : 0;
    const std::vector<std::pair<PlanChoice, std::string>> choices{{PlanChoice::kPlanner, "planner"},
                                                                  {PlanChoice::kAlways, "always"},
                                                                  {PlanChoice::kNever, "never"},
                                                                  {PlanChoice::kHalf, "half"}};
    for (const auto& [choice, name] : choices) {
      if (!only.empty() && name != only) continue;
      load.choice = choice;
      report(load, name, seeds, machine);
    }
  }
  return 0;
}

}  // namespace
}  // namespace terrace::sim

int main(int count, char** values) {
  return terrace::sim::run(std::vector<std::string>(values + 1, values + count));
}
