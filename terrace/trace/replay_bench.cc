// How fast prompts are replayed through the production catalog, policies and planner: prompt blocks
// a second, on recorded conversations and on a chat that is made up. The goal: at least a million.
//   replay_bench [runs]
#include <cstdlib>
#include <string>

#include "terrace/testing/bench_json.h"
#include "terrace/testing/prefix_trace.h"
#include "terrace/trace/replay.h"
#include "terrace/trace/scenario.h"

namespace terrace::trace {
namespace {

constexpr double kGoal = 1e6;

struct Sizes {
  unsigned host_percent;
  unsigned disk_percent;  // 0 = no disk.
};

void bench(const std::string& trace, const Workload& workload, const std::string& policy,
           const Sizes& sizes, int runs) {
  const SystemClock clock;
  const auto slots = [&](unsigned percent) {
    return static_cast<std::uint32_t>(workload.unique_blocks() * percent / 100);
  };
  testing::BenchResult result{.name = "simulate.rate",
                              .unit = "blocks/s",
                              .samples = {},
                              .limit_name = "goal",
                              .limit_samples = {},
                              .params = {}};
  result.param("trace", trace).param("policy", policy);
  result.param("host_blocks", slots(sizes.host_percent));
  result.param("disk_blocks", slots(sizes.disk_percent));
  for (int i = 0; i < runs; ++i) {
    auto replay = Replay::create({.host_slots = slots(sizes.host_percent),
                                  .disk_slots = slots(sizes.disk_percent),
                                  .eviction = policy});
    std::uint64_t blocks = 0;
    const double spent =
        testing::seconds_of(clock, [&] { blocks = replay.value().run(workload).blocks; });
    result.samples.push_back(static_cast<double>(blocks) / spent);
    result.limit_samples.push_back(kGoal);
  }
  testing::print(result, testing::machine_facts());
}

int bench_all(int runs) {
  const auto recorded =
      testing::PrefixTrace::read(TERRACE_SOURCE_DIR "/tests/data/mooncake/conversation.tree");
  if (!recorded) return 1;
  const Workload conversations = recorded->workload(seconds(std::int64_t{59} * 60));
  const Workload chat = make_chat({});
  for (const std::string policy : {"lru", "hazard"}) {
    for (const Sizes sizes : {Sizes{2, 0}, Sizes{2, 10}}) {
      bench("conversation", conversations, policy, sizes, runs);
      bench("chat", chat, policy, sizes, runs);
    }
  }
  return 0;
}

}  // namespace
}  // namespace terrace::trace

int main(int argc, char** argv) {
  return terrace::trace::bench_all(argc > 1 ? std::atoi(argv[1]) : 5);
}
