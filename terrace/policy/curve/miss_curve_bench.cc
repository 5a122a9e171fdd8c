// What following the requests costs: blocks of Mooncake's conversation trace a second, by the curve
// alone and by what follows the gain of an eviction policy beside it; and how far the curve is from
// the exact one.
//   miss_curve_bench [--runs=N]
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "terrace/base/clock.h"
#include "terrace/policy/curve/eviction_gain.h"
#include "terrace/policy/curve/miss_curve.h"
#include "terrace/policy/returns/return_model.h"
#include "terrace/testing/bench_json.h"
#include "terrace/testing/keys.h"
#include "terrace/testing/prefix_trace.h"

namespace terrace::policy {
namespace {

using Chains = std::vector<std::vector<SequenceHash>>;

Chains chains_of(const testing::PrefixTrace& trace, std::uint64_t keys) {
  Chains chains(trace.requests());
  for (std::size_t request = 0; request < chains.size(); ++request) {
    for (const std::uint32_t block : trace.blocks(request)) {
      chains[request].push_back(testing::hash((keys << 32U) + block));
    }
  }
  return chains;
}

MissCurve learn(const Chains& chains, const MissCurve::Options& options) {
  MissCurve curve = MissCurve::create(options).value();
  for (const auto& chain : chains) curve.request(chain);
  return curve;
}

// As they are told: each asks for its chain, and ends. With the model of returns.
void follow(const Chains& chains, EvictionGain::Options options) {
  const auto returns = ReturnModel::create().value();
  options.returns = returns;
  EvictionGain gain = EvictionGain::create(options).value();
  const std::int64_t each = seconds(3540).value() / static_cast<std::int64_t>(chains.size());
  Nanoseconds now{0};
  const auto tell = [&](const std::vector<SequenceHash>& chain, bool is_asked, ReturnClass of) {
    gain.begin({.at = now, .is_asked = is_asked});
    gain.add(chain);
    gain.end({.at = now, .of = of});
  };
  for (const auto& chain : chains) {
    const Visit visit = returns->arrive(chain, now);
    tell(chain, true, visit.of);
    tell(chain, false, returns->leave(visit, chain, chain.size(), 0, Ending::kUnknown, now));
    now = now + Nanoseconds(each);
  }
}

void bench_gain(const testing::PrefixTrace& trace, int runs) {
  const SystemClock clock;
  for (const std::uint64_t least : {64U, 256U, 1024U}) {
    const EvictionGain::Options options{.least_blocks = least,
                                        .most_blocks = std::uint64_t{1} << 25U};
    testing::BenchResult speed{"curve.gain", "blocks/s", true, {}, "", {}, {}};
    speed.param("least_blocks", static_cast<std::int64_t>(least));
    speed.param("memory_bytes",
                static_cast<std::int64_t>(EvictionGain::create(options).value().memory().value()));
    for (int run = 0; run < runs; ++run) {
      const Chains chains = chains_of(trace, static_cast<std::uint64_t>(run));
      std::size_t asked = 0;
      for (const auto& chain : chains) asked += chain.size();
      const double time = testing::seconds_of(clock, [&] { follow(chains, options); });
      speed.samples.push_back(static_cast<double>(asked) / time);
    }
    testing::print(speed, testing::machine_facts());
  }
}

int bench(int runs) {
  const auto trace =
      testing::PrefixTrace::read(TERRACE_SOURCE_DIR "/tests/data/mooncake/conversation.tree");
  if (!trace) {
    std::fprintf(stderr, "miss_curve_bench: tests/data/mooncake/conversation.tree is missing\n");
    return 1;
  }
  const std::uint64_t most = trace->unique_blocks();
  const SystemClock clock;
  testing::BenchResult speed{"curve.request", "blocks/s", true, {}, "", {}, {}};
  testing::BenchResult error{"curve.error", "points", false, {}, "", {}, {}};
  for (int run = 0; run < runs; ++run) {
    const Chains chains = chains_of(*trace, static_cast<std::uint64_t>(run));
    std::size_t asked = 0;
    for (const auto& chain : chains) asked += chain.size();
    std::optional<MissCurve> curve;
    const double time =
        testing::seconds_of(clock, [&] { curve.emplace(learn(chains, {.most_blocks = most})); });
    speed.samples.push_back(static_cast<double>(asked) / time);
    const MissCurve exact = learn(chains, {most, static_cast<std::uint32_t>(most)});
    double worst = 0;
    for (std::uint64_t blocks = 1; blocks <= most; blocks += 1 + blocks / 10) {
      worst = std::max(worst, std::abs(curve->hit_ratio(blocks) - exact.hit_ratio(blocks)));
    }
    error.samples.push_back(100 * worst);
    if (run == 0) error.param("memory_bytes", static_cast<std::int64_t>(curve->memory().value()));
  }
  for (const testing::BenchResult* result : {&speed, &error}) {
    testing::print(*result, testing::machine_facts());
  }
  bench_gain(*trace, runs);
  return 0;
}

}  // namespace
}  // namespace terrace::policy

int main(int argc, char** argv) {
  int runs = 11;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.starts_with("--runs=")) runs = std::atoi(argument.c_str() + 7);
  }
  return terrace::policy::bench(runs);
}
