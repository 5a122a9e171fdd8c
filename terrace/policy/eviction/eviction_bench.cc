// What a choice of a victim costs in a pool of ten million blocks that conversations of 32 blocks
// fill, beside `lru` in the same run; and what the model of returns costs for each request.
//   eviction_bench [--runs=N] [--slots=N]
#include <cstdio>
#include <cstdlib>
#include <string>

#include "terrace/base/clock.h"
#include "terrace/policy/eviction/eviction.h"
#include "terrace/testing/bench_json.h"
#include "terrace/testing/keys.h"

namespace terrace::policy {
namespace {

constexpr std::size_t kChain = 32;
constexpr std::uint32_t kChoices = 200'000;

struct Load {
  EvictionPolicy& policy;
  ReturnModel& returns;
  std::uint32_t slots;
  std::int64_t second = 0;

  // One request's blocks, in these slots.
  void serve(std::span<const std::optional<SlotIndex>> chain, std::uint64_t conversation) {
    std::vector<SequenceHash> hashes;
    hashes.reserve(chain.size());
    for (std::size_t i = 0; i < chain.size(); ++i) {
      hashes.push_back(testing::hash(conversation << 8U | i));
    }
    ++second;
    const Visit visit = returns.arrive(hashes, seconds(second));
    const ReturnClass of = returns.leave(visit, hashes, hashes.size(), conversation % 1000,
                                         static_cast<Ending>(conversation % 3), seconds(second));
    policy.note_use(chain, {.at = seconds(second), .of = of});
    for (auto slot = chain.rbegin(); slot != chain.rend(); ++slot) policy.touch(**slot);
  }
};

// Seconds for each choice, its eviction and the use of what comes in its place.
double choose(EvictionPolicy& policy, ReturnModel& returns, std::uint32_t slots,
              const Clock& clock) {
  Load load{policy, returns, slots};
  std::vector<std::optional<SlotIndex>> chain;
  std::uint64_t conversation = 0;
  for (std::uint32_t slot = 0; slot < slots; ++slot) {
    chain.emplace_back(SlotIndex(slot));
    if (chain.size() < kChain && slot + 1 < slots) continue;
    load.serve(chain, ++conversation);
    chain.clear();
  }
  std::uint32_t chosen = 0;
  const double time = testing::seconds_of(clock, [&] {
    for (; chosen < kChoices; ++chosen) {
      const SlotIndex slot = *policy.victim();
      policy.forget(slot);
      const std::optional<SlotIndex> alone[] = {slot};
      policy.note_use(alone, {.at = seconds(load.second)});
      policy.touch(slot);
    }
  });
  return time / chosen;
}

double follow(ReturnModel& returns, const Clock& clock) {
  constexpr std::uint64_t kRequests = 20'000;
  std::vector<std::vector<SequenceHash>> chains(kRequests);
  for (std::uint64_t i = 0; i < kRequests; ++i) {
    for (std::uint64_t block = 0; block < 128; ++block) {
      chains[i].push_back(testing::hash((i / 4) << 20U | block));
    }
  }
  const double time = testing::seconds_of(clock, [&] {
    for (std::uint64_t i = 0; i < kRequests; ++i) {
      const Nanoseconds now = seconds(static_cast<std::int64_t>(i));
      const Visit visit = returns.arrive(chains[i], now);
      returns.leave(visit, chains[i], 128, i % 999, static_cast<Ending>(i % 3), now);
    }
  });
  return time / kRequests;
}

int bench(int runs, std::uint32_t slots) {
  const SystemClock clock;
  testing::BenchResult choice{"eviction.hazard", "s", false, {}, "eviction.lru", {}, {}};
  testing::BenchResult request{"eviction.returns", "s", false, {}, "", {}, {}};
  choice.param("slots", static_cast<std::int64_t>(slots));
  request.param("blocks", 128);
  for (int run = 0; run < runs; ++run) {
    const auto returns = ReturnModel::create().value();
    const auto hazard = make_hazard(slots, returns);
    const auto lru = make_lru(slots);
    choice.samples.push_back(choose(*hazard, *returns, slots, clock));
    choice.limit_samples.push_back(choose(*lru, *returns, slots, clock));
    request.samples.push_back(follow(*ReturnModel::create().value(), clock));
  }
  for (const testing::BenchResult* result : {&choice, &request}) {
    testing::print(*result, testing::machine_facts());
  }
  return 0;
}

}  // namespace
}  // namespace terrace::policy

int main(int argc, char** argv) {
  int runs = 5;
  std::uint32_t slots = 10'000'000;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.starts_with("--runs=")) runs = std::atoi(argument.c_str() + 7);
    if (argument.starts_with("--slots=")) {
      slots = static_cast<std::uint32_t>(std::atoi(argument.c_str() + 8));
    }
  }
  return terrace::policy::bench(runs, slots);
}
