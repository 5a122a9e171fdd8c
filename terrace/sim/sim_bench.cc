// The simulation campaign: world after world, each from the next seed, for a time or a number of
// them. Ends with one JSON line; a seed that failed is printed with the command that replays it.
//   sim_bench [--minutes=N | --worlds=N] [--seed=N] [--steps=N] [--stop=1]   (also as "--minutes
//   N")
// With --stop=1 the first seed that fails is the last.
#include <fmt/format.h>

#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "terrace/base/clock.h"
#include "terrace/base/rng.h"
#include "terrace/sim/world_rig.h"
#include "terrace/testing/bench_json.h"

namespace terrace::sim {
namespace {

constexpr std::uint64_t kDefaultSteps = 20'000;
constexpr std::uint64_t kTold = 256;  // Worlds between two lines of progress.

struct Asked {
  double minutes = 1;
  std::uint64_t worlds = 0;  // Beats minutes when not 0.
  std::uint64_t seed = 0;    // 0 = drawn.
  std::uint64_t steps = kDefaultSteps;
  bool stops = false;  // At the first failure.
};

Asked asked_for(const std::vector<std::string>& arguments) {
  std::map<std::string, std::string> given;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::size_t equals = arguments[i].find('=');
    if (equals != std::string::npos) {
      given[arguments[i].substr(0, equals)] = arguments[i].substr(equals + 1);
    } else if (i + 1 < arguments.size()) {
      given[arguments[i]] = arguments[i + 1];
      ++i;
    }
  }
  Asked asked;
  if (given.contains("--minutes")) asked.minutes = std::stod(given["--minutes"]);
  if (given.contains("--worlds")) asked.worlds = std::stoull(given["--worlds"]);
  if (given.contains("--seed")) asked.seed = std::stoull(given["--seed"]);
  if (given.contains("--steps")) asked.steps = std::stoull(given["--steps"]);
  asked.stops = given.contains("--stop");
  if (asked.seed == 0) asked.seed = 1 + random_u64() % 1'000'000'000;
  return asked;
}

std::string json(const Tally& tally, std::uint64_t first_seed, double cpu_seconds,
                 const std::string& failed_seeds) {
  const Verdict& verdict = tally.verdict;
  std::string seen;
  for (const auto& [what, count] : tally.seen) {
    seen += fmt::format("{}\"{}\":{}", seen.empty() ? "" : ",", what, count);
  }
  return fmt::format(
      R"({{"name":"sim","steps":{},"seeds":{},"first_seed":{},"injected":{},"crash_points":{},)"
      R"("lives":{},"wrong_bytes":{},"hangs":{},"leaks":{},"lost_sealed":{},"breaches":{},)"
      R"("failed_seeds":[{}],"steps_per_second_per_core":{:.0f},"seen":{{{}}},"commit":"{}"}})",
      tally.steps, tally.seeds, first_seed, tally.injected, tally.crash_points, tally.lives,
      verdict.of(Wrong::kBytes), verdict.of(Wrong::kHang), verdict.of(Wrong::kLeak),
      verdict.of(Wrong::kLostSealed), verdict.of(Wrong::kBreach), failed_seeds,
      cpu_seconds > 0 ? static_cast<double>(tally.steps) / cpu_seconds : 0.0, seen,
      testing::source_revision());
}

int run(const std::vector<std::string>& arguments) {
  const Asked asked = asked_for(arguments);
  const SystemClock clock;
  const ThreadCpuClock cpu;
  const Nanoseconds cpu_start = cpu.now();
  const Nanoseconds end =
      clock.now() + Nanoseconds(static_cast<std::int64_t>(asked.minutes * 60e9));
  Tally sum;
  std::string failed;
  const auto goes_on = [&](std::uint64_t done) {
    return asked.worlds > 0 ? done < asked.worlds : clock.now() < end;
  };
  for (std::uint64_t done = 0; goes_on(done); ++done) {
    const std::uint64_t seed = asked.seed + done;
    if (done % kTold == 0) {
      std::fprintf(stderr, "seeds from %llu\n", static_cast<unsigned long long>(seed));
    }
    const Tally tally = run_world(seed, asked.steps);
    sum.add(tally);
    if (tally.verdict.is_clean()) continue;
    failed += fmt::format("{}{}", failed.empty() ? "" : ",", seed);
    fmt::print("seed {}: {}\n  replay: ./dev campaign sim --worlds 1 --seed {} --steps {}\n", seed,
               tally.verdict.first, seed, asked.steps);
    std::fflush(stdout);
    if (asked.stops) break;
  }
  const double seconds = static_cast<double>((cpu.now() - cpu_start).value()) / 1e9;
  fmt::print("{}\n", json(sum, asked.seed, seconds, failed));
  return failed.empty() ? 0 : 1;
}

}  // namespace
}  // namespace terrace::sim

int main(int count, char** values) {
  return terrace::sim::run(std::vector<std::string>(values + 1, values + count));
}
