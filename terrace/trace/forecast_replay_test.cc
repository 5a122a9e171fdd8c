// What the miss-ratio curve says of a host and a disk, beside what pools of those sizes then give.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>

#include "terrace/base/rng.h"
#include "terrace/policy/curve/miss_curve.h"
#include "terrace/policy/curve/two_pools.h"
#include "terrace/testing/keys.h"
#include "terrace/testing/prefix_trace.h"
#include "terrace/trace/replay.h"
#include "terrace/trace/scenario.h"

namespace terrace::trace {
namespace {

// As a request is told to it: asked for when it comes, stored when it ends, its answer too. All of
// them count alike, as they do in the replay.
policy::MissCurve curve_of(const Workload& workload) {
  auto curve = policy::MissCurve::create(
                   {.most_blocks = workload.unique_blocks(), .aging_blocks = workload.references()})
                   .value();
  std::vector<std::uint32_t> blocks;
  const auto hashes_of = [&] {
    std::vector<SequenceHash> hashes;
    for (const std::uint32_t block : blocks) hashes.push_back(testing::hash(block));
    return hashes;
  };
  for (Request request : workload.requests()) {
    workload.chain(request, blocks);
    curve.request(hashes_of());
    if (request.answer_tip == 0) continue;
    request.tip = request.answer_tip;
    workload.chain(request, blocks);
    curve.use(hashes_of());
  }
  return curve;
}

struct Way {
  const char* eviction;
  const char* admission;
  bool is_demote;
  bool has_copies;
};

struct Error {
  double points = 0;
  std::string of;
};

// Of hosts and disks of so many percent of the distinct blocks.
Error worst_error(const Workload& workload, const Way& way) {
  const policy::MissCurve curve = curve_of(workload);
  const auto ratio = [&](std::uint64_t size) { return curve.hit_ratio(size); };
  Error error;
  for (const auto& [host, disk] : {std::pair(1U, 10U), {5U, 10U}, {2U, 30U}}) {
    const auto slots = [&](std::uint32_t percent) {
      return static_cast<std::uint32_t>(workload.unique_blocks() * percent / 100);
    };
    auto replay = Replay::create({.host_slots = slots(host),
                                  .disk_slots = slots(disk),
                                  .eviction = way.eviction,
                                  .admission = way.admission,
                                  .is_demote = way.is_demote})
                      .value();
    const Counts counts = replay.run(workload);
    const double real = counts.percent(counts.host_hits + counts.disk_hits);
    const std::uint64_t size = policy::size_of_two(ratio, slots(host), slots(disk), way.has_copies);
    const double off = std::abs(100 * ratio(size) - real);
    if (off > error.points) error = {off, std::to_string(host) + " + " + std::to_string(disk)};
  }
  return error;
}

constexpr Way kWays[] = {{"lru", "all", false, true},
                         {"hazard", "all", false, true},
                         {"hazard", "all", true, false},
                         {"hazard", "expected", false, false}};

void check(const Workload& workload) {
  for (const Way& way : kWays) {
    const Error error = worst_error(workload, way);
    EXPECT_LT(error.points, 3) << way.eviction << ", " << way.admission
                               << (way.is_demote ? ", demote, " : ", through, ") << error.of
                               << " %";
  }
}

// Users whose next prompt is the one before, its answer and more.
Workload talk() {
  Rng rng(1);
  Workload workload;
  const auto grown = [&](std::uint32_t tip, std::uint64_t blocks) {
    for (std::uint64_t i = 0; i < blocks; ++i) tip = workload.add_block(tip);
    return tip;
  };
  for (int user = 0; user < 800; ++user) {
    auto at = seconds(static_cast<std::int64_t>(rng.below(3600)));
    std::uint32_t tip = 0;
    std::uint32_t depth = 0;
    do {
      const auto more = static_cast<std::uint32_t>(2 + rng.below(12));
      const auto answer = static_cast<std::uint32_t>(4 + rng.below(12));
      tip = grown(tip, more);
      workload.add_request({.at = at,
                            .tip = tip,
                            .depth = depth + more,
                            .answer_tokens = 16 * answer,
                            .answer_tip = grown(tip, answer)});
      tip = workload.requests().back().answer_tip;
      depth += more + answer;
      at += seconds(static_cast<std::int64_t>((8 + rng.below(8)) << rng.below(6)));
    } while (rng.chance(75));
  }
  workload.sort();
  return workload;
}

TEST(ForecastReplayTest, OfRecordedConversationsItIsWithinThreePoints) {
  const auto trace =
      testing::PrefixTrace::read(TERRACE_SOURCE_DIR "/tests/data/mooncake/conversation.tree");
  ASSERT_TRUE(trace.has_value());
  check(trace->workload(seconds(59 * 60)));
}

TEST(ForecastReplayTest, OfAChatWithAnswersItIsWithinThreePoints) { check(talk()); }
TEST(ForecastReplayTest, OfQuestionsItIsWithinThreePoints) {
  check(make_rag({.questions = 2'000}));
}

}  // namespace
}  // namespace terrace::trace
