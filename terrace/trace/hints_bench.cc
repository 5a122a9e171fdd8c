// What hints are worth to eviction, and what wrong ones cost, on traces of real prompts: hits of
// one pool by `hazard` without hints, with those that what came after proves right, and with a
// share of wrong ones; beside `lru`. Exact counts, no times.
//   hints_bench [--trace=FILE]... [--seed=N] [--rate=R] [--block-tokens=N] [--wrong=PERCENT]
//               [--host=PERCENT]... [--said=NAME]...
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "terrace/testing/bench_json.h"
#include "terrace/testing/prefix_trace.h"
#include "terrace/trace/foresight.h"
#include "terrace/trace/reader.h"
#include "terrace/trace/replay.h"

namespace terrace::trace {
namespace {

struct Setup {
  std::vector<std::string> traces;
  ReadOptions reading;
  int wrong_percent = 20;
  std::vector<unsigned> shares;   // Of the distinct blocks; none = 1, 2, 5, 10, 20 percent.
  std::vector<std::string> said;  // None = all cases.
};

struct Case {
  std::string said;
  Saying saying;
};

std::vector<Case> cases(const Setup& setup) {
  const double wrong = setup.wrong_percent / 100.0;
  return {{"nothing", {}},
          {"session_over", {.over = true}},
          {"session_over", {.over = true, .wrong = wrong}},
          {"return", {.returns = true}},
          {"return", {.returns = true, .wrong = wrong}},
          {"session", {.session = true}},
          {"all", {.over = true, .returns = true, .session = true}},
          {"all", {.over = true, .returns = true, .session = true, .wrong = wrong}}};
}

double hit_percent(const Workload& workload, std::uint32_t slots, const std::string& eviction) {
  auto replay = Replay::create({.host_slots = slots, .eviction = eviction});
  const Counts counts = replay.value().run(workload);
  return counts.percent(counts.host_hits);
}

void bench(const Setup& setup, const std::string& trace, const Workload& workload) {
  const std::string name = trace.substr(trace.rfind('/') + 1);
  const std::vector<unsigned> shares =
      setup.shares.empty() ? std::vector<unsigned>{1, 2, 5, 10, 20} : setup.shares;
  std::vector<double> lru;
  const auto slots = [&](unsigned share) {
    return static_cast<std::uint32_t>(workload.unique_blocks() * share / 100);
  };
  for (const unsigned share : shares) lru.push_back(hit_percent(workload, slots(share), "lru"));
  for (const Case& one : cases(setup)) {
    const auto& wanted = setup.said;
    if (!wanted.empty() && std::ranges::find(wanted, one.said) == wanted.end()) continue;
    Saying saying = one.saying;
    saying.seed = setup.reading.seed;
    const Workload hinted = with_hints(workload, saying);
    for (std::size_t i = 0; i < shares.size(); ++i) {
      testing::BenchResult result{"hints.hits", "percent", true, {}, "lru", {}, {}};
      result.samples = {hit_percent(hinted, slots(shares[i]), "hazard")};
      result.limit_samples = {lru[i]};
      result.param("trace", name)
          .param("said", one.said)
          .param("wrong_percent", std::int64_t{saying.wrong > 0 ? setup.wrong_percent : 0})
          .param("host_percent", std::int64_t{shares[i]})
          .param("seed", static_cast<std::int64_t>(setup.reading.seed))
          .param("rate", static_cast<std::int64_t>(setup.reading.rate))
          .param("block_tokens", std::int64_t{setup.reading.block_tokens});
      testing::print(result, testing::machine_facts());
    }
  }
}

int run(const Setup& setup) {
  if (setup.traces.empty()) {
    const auto trace =
        testing::PrefixTrace::read(TERRACE_SOURCE_DIR "/tests/data/mooncake/conversation.tree");
    if (!trace) {
      std::fprintf(stderr, "hints_bench: tests/data/mooncake/conversation.tree is missing\n");
      return 1;
    }
    bench(setup, "conversation.tree", trace->workload(seconds(59 * 60)));
  }
  for (const std::string& path : setup.traces) {
    const auto workload = read_workload(path, setup.reading);
    if (!workload) {
      std::fprintf(stderr, "hints_bench: %s\n", workload.error().message().c_str());
      return 1;
    }
    bench(setup, path, *workload);
  }
  return 0;
}

}  // namespace
}  // namespace terrace::trace

int main(int argc, char** argv) {
  terrace::trace::Setup setup;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const std::string value = argument.substr(std::min(argument.size(), argument.find('=') + 1));
    if (argument.starts_with("--trace=")) {
      setup.traces.push_back(value);
    } else if (argument.starts_with("--seed=")) {
      setup.reading.seed = std::strtoull(value.c_str(), nullptr, 10);
    } else if (argument.starts_with("--rate=")) {
      setup.reading.rate = std::strtod(value.c_str(), nullptr);
    } else if (argument.starts_with("--block-tokens=")) {
      setup.reading.block_tokens =
          static_cast<std::uint32_t>(std::strtoul(value.c_str(), nullptr, 10));
    } else if (argument.starts_with("--host=")) {
      setup.shares.push_back(static_cast<unsigned>(std::strtoul(value.c_str(), nullptr, 10)));
    } else if (argument.starts_with("--said=")) {
      setup.said.push_back(value);
    } else if (argument.starts_with("--wrong=")) {
      setup.wrong_percent = static_cast<int>(std::strtol(value.c_str(), nullptr, 10));
    }
  }
  return terrace::trace::run(setup);
}
