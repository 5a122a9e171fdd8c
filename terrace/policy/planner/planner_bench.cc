// One decision of the planner, all tiers measured, for prompts of 8k to 1M tokens whose blocks lie
// in runs of host, disk and shared store. The goal: at most 20 us.
//   planner_bench [runs]
#include <cstdlib>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/policy/planner/planner.h"
#include "terrace/testing/bench_json.h"

namespace terrace::policy {
namespace {

constexpr std::uint64_t kBlockTokens = 32;
constexpr std::size_t kRuns = 64;  // As many as a survey reports.
constexpr int kCalls = 1'000;

void run(std::uint64_t tokens, int times, const testing::Machine& machine) {
  Planner planner({.block_bytes = 1_MiB, .block_tokens = Tokens(kBlockTokens)});
  Rng rng(tokens);
  for (int i = 0; i < 100; ++i) {
    planner.observe_prefill({.tokens = Tokens(256 + rng.below(4096)),
                             .pairs = static_cast<double>(rng.below(1U << 30U)),
                             .beside = static_cast<double>(rng.below(32))},
                            milliseconds(20 + static_cast<std::int64_t>(rng.below(50))));
    for (const Tier tier : {Tier::kHost, Tier::kDisk, Tier::kObject}) {
      planner.observe_load(tier, 1_MiB * (1 + rng.below(64)),
                           milliseconds(1 + static_cast<std::int64_t>(rng.below(9))));
    }
  }
  std::vector<SourceRun> runs;
  for (std::size_t i = 0; i < kRuns; ++i) {
    runs.push_back({static_cast<Tier>(1 + i % 3), tokens / kBlockTokens / kRuns});
  }
  const SystemClock clock;
  testing::BenchResult result{.name = "planner.decision",
                              .unit = "s",
                              .higher_is_better = false,
                              .samples = {},
                              .limit_name = "goal",
                              .limit_samples = {},
                              .params = {}};
  for (int i = 0; i < times; ++i) {
    const double spent = testing::seconds_of(clock, [&] {
      for (int call = 0; call < kCalls; ++call) {
        testing::keep(planner.plan(runs, {}, {.most_wait = seconds(2)}).blocks);
      }
    });
    result.samples.push_back(spent / kCalls);
  }
  result.limit_samples.assign(result.samples.size(), 20e-6);
  result.param("tokens", static_cast<std::int64_t>(tokens))
      .param("runs", static_cast<std::int64_t>(kRuns));
  testing::print(result, machine);
}

}  // namespace
}  // namespace terrace::policy

int main(int count, char** arguments) {
  const int times = count > 1 ? std::atoi(arguments[1]) : 41;
  const auto machine = terrace::testing::machine_facts();
  for (const std::uint64_t tokens : {8UL << 10U, 128UL << 10U, 1UL << 20U}) {
    terrace::policy::run(tokens, times, machine);
  }
}
