// What the miss-ratio curve says of a host and a disk, beside what pools of those sizes then give.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "terrace/base/rng.h"
#include "terrace/policy/curve/eviction_gain.h"
#include "terrace/policy/curve/miss_curve.h"
#include "terrace/policy/curve/two_pools.h"
#include "terrace/policy/returns/return_model.h"
#include "terrace/testing/keys.h"
#include "terrace/testing/prefix_trace.h"
#include "terrace/trace/replay.h"
#include "terrace/trace/scenario.h"

namespace terrace::trace {
namespace {

// As a request is told to it: asked for when it comes, stored when it ends, its answer too. All of
// them count alike, as they do in the replay.
class Forecast {
 public:
  explicit Forecast(const Workload& workload)
      : curve_(policy::MissCurve::create(
                   {.most_blocks = workload.unique_blocks(), .aging_blocks = workload.references()})
                   .value()),
        gain_(policy::EvictionGain::create({.least_blocks = std::clamp<std::uint64_t>(
                                                workload.unique_blocks() / 200, 64, 1024),
                                            .most_blocks = workload.unique_blocks(),
                                            .returns = returns_})
                  .value()) {
    for (const Request& request : workload.requests()) serve(workload, request);
  }
  [[nodiscard]] double hit_ratio(std::string_view eviction, std::uint64_t size) const {
    return policy::HitRatio(curve_, eviction == "lru" ? nullptr : &gain_)(size);
  }

 private:
  void serve(const Workload& workload, Request request) {
    const policy::Hints& hints = request.hints;
    const auto prompt = hashes_of(workload, request);
    const policy::Visit visit = returns_->arrive(prompt, request.at, hints);
    curve_.request(prompt);
    follow(prompt, true, {request.at, visit.of, hints.priority});
    if (request.answer_tip != 0) {
      for (std::uint32_t tip = request.answer_tip; tip != request.tip;
           tip = workload.parent(tip - 1)) {
        ++request.depth;
      }
      request.tip = request.answer_tip;
    }
    const auto stored = hashes_of(workload, request);
    if (request.answer_tip != 0) curve_.use(stored);
    follow(stored, false,
           {request.at,
            returns_->leave(visit, stored, prompt.size(), request.answer_tokens, request.ending,
                            request.at, hints),
            hints.priority});
  }
  void follow(std::span<const SequenceHash> chain, bool is_asked, const policy::Use& use) {
    gain_.begin({.at = use.at, .is_asked = is_asked});
    gain_.add(chain);
    gain_.end(use);
  }
  [[nodiscard]] static std::vector<SequenceHash> hashes_of(const Workload& workload,
                                                           const Request& request) {
    std::vector<std::uint32_t> blocks;
    workload.chain(request, blocks);
    std::vector<SequenceHash> hashes;
    hashes.reserve(blocks.size());
    for (const std::uint32_t block : blocks) hashes.push_back(testing::hash(block));
    return hashes;
  }

  std::shared_ptr<policy::ReturnModel> returns_ = policy::ReturnModel::create().value();
  policy::MissCurve curve_;
  policy::EvictionGain gain_;
};

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

std::uint32_t percent_of(const Workload& workload, std::uint32_t percent) {
  return static_cast<std::uint32_t>(workload.unique_blocks() * percent / 100);
}

double replayed(const Workload& workload, const Replay::Options& options) {
  const Counts counts = Replay::create(options).value().run(workload);
  return counts.percent(counts.host_hits + counts.disk_hits);
}

// Of hosts and disks of so many percent of the distinct blocks.
Error worst_error(const Workload& workload, const Forecast& forecast, const Way& way) {
  const auto ratio = [&](std::uint64_t size) { return forecast.hit_ratio(way.eviction, size); };
  Error error;
  for (const auto& [host, disk] : {std::pair(1U, 10U), {5U, 10U}, {2U, 30U}}) {
    const std::uint32_t upper = percent_of(workload, host);
    const std::uint32_t lower = percent_of(workload, disk);
    const double real = replayed(workload, {.host_slots = upper,
                                            .disk_slots = lower,
                                            .eviction = way.eviction,
                                            .admission = way.admission,
                                            .is_demote = way.is_demote});
    const std::uint64_t size = policy::size_of_two(ratio, upper, lower, way.has_copies);
    const double off = std::abs(100 * ratio(size) - real);
    if (off > error.points) error = {off, std::to_string(host) + " + " + std::to_string(disk)};
  }
  return error;
}

constexpr Way kWays[] = {{"lru", "all", false, true},
                         {"hazard", "all", false, true},
                         {"hazard", "all", true, false},
                         {"hazard", "expected", false, false}};

void check_two(const Workload& workload, const Forecast& forecast) {
  for (const Way& way : kWays) {
    const Error error = worst_error(workload, forecast, way);
    EXPECT_LT(error.points, 3) << way.eviction << ", " << way.admission
                               << (way.is_demote ? ", demote, " : ", through, ") << error.of
                               << " %";
  }
}

void check_host(const Workload& workload, const Forecast& forecast) {
  for (const std::uint32_t percent : {1U, 2U, 5U, 10U}) {
    const std::uint32_t slots = percent_of(workload, percent);
    const auto real = [&](const char* eviction) {
      return replayed(workload, {.host_slots = slots, .eviction = eviction});
    };
    EXPECT_NEAR(100 * forecast.hit_ratio("lru", slots), real("lru"), 1) << percent << " %";
    EXPECT_NEAR(100 * forecast.hit_ratio("hazard", slots), real("hazard"), 3) << percent << " %";
  }
}

void check(const Workload& workload) {
  const Forecast forecast(workload);
  check_two(workload, forecast);
  check_host(workload, forecast);
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
  const Workload workload = trace->workload(seconds(59 * 60));
  const Forecast forecast(workload);
  check_two(workload, forecast);
  check_host(workload, forecast);
  // What is told of `lru` says little of small hosts here.
  const std::uint32_t slots = percent_of(workload, 2);
  EXPECT_GT(replayed(workload, {.host_slots = slots, .eviction = "hazard"}),
            100 * forecast.hit_ratio("lru", slots) + 4);
}

TEST(ForecastReplayTest, OfAChatWithAnswersItIsWithinThreePoints) { check(talk()); }
TEST(ForecastReplayTest, OfAChatWithOneSystemPromptItIsWithinThreePoints) {
  const Workload workload = make_chat({.conversations = 1'200});
  check_host(workload, Forecast(workload));
}
TEST(ForecastReplayTest, OfQuestionsItIsWithinThreePoints) {
  check(make_rag({.questions = 2'000}));
}

}  // namespace
}  // namespace terrace::trace
