// What each admission filter of the disk tier costs in hits and spares in writes, on a trace of
// real prompts: exact counts, no times.
//   admission_bench [--tree=FILE] [--minutes=N] [--name=TEXT] [--eviction=lru|hazard]
#include <cstdio>
#include <cstdlib>
#include <string>

#include "terrace/testing/bench_json.h"
#include "terrace/testing/prefix_trace.h"
#include "terrace/trace/replay.h"

namespace terrace::trace {
namespace {

struct Setup {
  std::string tree = TERRACE_SOURCE_DIR "/tests/data/mooncake/conversation.tree";
  std::string name = "mooncake-conversation";
  std::int64_t minutes = 59;
  std::string eviction = "hazard";
};

void print(const Setup& setup, const std::string& filter, unsigned host, unsigned disk,
           const Counts& counts, const Counts& all) {
  testing::BenchResult hits{"admission.hits", "percent", true, {}, "all", {}, {}};
  hits.samples = {counts.percent(counts.host_hits + counts.disk_hits)};
  hits.limit_samples = {all.percent(all.host_hits + all.disk_hits)};
  testing::BenchResult writes{"admission.writes", "blocks", false, {}, "all", {}, {}};
  writes.samples = {static_cast<double>(counts.disk_writes)};
  writes.limit_samples = {static_cast<double>(all.disk_writes)};
  testing::BenchResult per_hit{"admission.writes_per_hit", "blocks", false, {}, "all", {}, {}};
  const auto ratio = [](const Counts& of) {
    return static_cast<double>(of.disk_writes) /
           static_cast<double>(std::max<std::uint64_t>(1, of.disk_hits));
  };
  per_hit.samples = {ratio(counts)};
  per_hit.limit_samples = {ratio(all)};
  for (testing::BenchResult* result : {&hits, &writes, &per_hit}) {
    result->param("filter", filter)
        .param("trace", setup.name)
        .param("eviction", setup.eviction)
        .param("host_percent", std::int64_t{host})
        .param("disk_percent", std::int64_t{disk});
    testing::print(*result, testing::machine_facts());
  }
}

int bench(const Setup& setup) {
  const auto trace = testing::PrefixTrace::read(setup.tree);
  if (!trace) {
    std::fprintf(stderr, "admission_bench: %s is missing or malformed\n", setup.tree.c_str());
    return 1;
  }
  const auto share = [&](unsigned percent) {
    return static_cast<std::uint32_t>(trace->unique_blocks() * percent / 100);
  };
  const Workload workload = trace->workload(seconds(60 * setup.minutes));
  for (const auto& [host, disk] :
       {std::pair(1U, 5U), {1U, 10U}, {2U, 10U}, {1U, 30U}, {5U, 10U}, {5U, 30U}}) {
    Counts all;
    for (const std::string filter : {"all", "expected", "frequency", "reuse"}) {
      auto replay = Replay::create({.host_slots = share(host),
                                    .disk_slots = share(disk),
                                    .eviction = setup.eviction,
                                    .admission = filter});
      if (!replay) {
        std::fprintf(stderr, "admission_bench: %s\n", replay.error().message().c_str());
        return 1;
      }
      const Counts counts = replay.value().run(workload);
      if (filter == "all") all = counts;
      print(setup, filter, host, disk, counts, all);
    }
  }
  return 0;
}

}  // namespace
}  // namespace terrace::trace

int main(int argc, char** argv) {
  terrace::trace::Setup setup;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.starts_with("--tree=")) {
      setup.tree = argument.substr(7);
    } else if (argument.starts_with("--minutes=")) {
      setup.minutes = std::strtoll(argument.c_str() + 10, nullptr, 10);
    } else if (argument.starts_with("--name=")) {
      setup.name = argument.substr(7);
    } else if (argument.starts_with("--eviction=")) {
      setup.eviction = argument.substr(11);
    }
  }
  return terrace::trace::bench(setup);
}
